"""A real browser for tests: Chromium without a window, spoken to through a pipe as its DevTools protocol has it.

No package is needed, only a browser on the PATH; a test without one is skipped with the reason. Keys and clicks are the
browser's own input events, and ``spoken`` is the tree that a screen reader gets.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = ("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
           "--no-first-run", "--disable-extensions", "--disable-background-networking",
           "--host-resolver-rules=MAP * ~NOTFOUND", "--force-prefers-reduced-motion",
           "--window-size=1280,900")  # fmt: skip
PATIENCE = 60.0  # seconds; a loaded machine is slow to begin
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}


class Page:
    """The browser's one page. ``errors``: what its console said was wrong."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._pending, self._number, self._session = b"", 0, ""
        self.errors: list[str] = []
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """A command's answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._read(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])
            self._note(answer)

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a page from the disk and wait until its script has drawn it."""
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=page.resolve().as_uri() + fragment)
        self.wait("document.readyState === 'complete'")
        self.wait("!document.getElementById('explorer') || document.getElementById('explorer').dataset.ready === 'yes'")

    def size(self, width: int, height: int = 900) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)  # fmt: skip

    def run(self, script: str) -> Any:
        """An expression's value."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"{condition} did not come true; {self.errors}"
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """A click of the mouse into the middle of the first element that is seen."""
        x, y = self.run(
            f"""(() => {{
              const all = [...document.querySelectorAll({json.dumps(selector)})];
              const seen = all.find((one) => one.getClientRects().length);
              seen.scrollIntoView({{ block: "center", behavior: "instant" }});
              const box = seen.getBoundingClientRect();
              return [box.left + box.width / 2, box.top + box.height / 2];
            }})()"""
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        text = {"Enter": "\r", " ": " "}.get(key)
        down = {"text": text} if text else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=KEYS[key], **down)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def spoken(self) -> list[tuple[str, str]]:
        """(role, name) of all that a screen reader meets, in order."""
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
        ]

    def picture(self, file: Path, *, whole: bool = True) -> None:
        """Write a PNG of the page: to look at while one works on it."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            read = os.read(self._from, 1 << 20)
            assert read, "the browser has ended"
            self._pending += read
        message, self._pending = self._pending.split(b"\0", 1)
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(str(params["entry"].get("text")) + " " + str(params["entry"].get("url", "")))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with a fresh profile in the folder ``profile``; skips the test where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser on the PATH: none of {', '.join(NAMES)}")
    their_in, to_browser = os.pipe()
    from_browser, their_out = os.pipe()

    def at_three_and_four() -> None:  # the browser reads commands from 3 and writes answers to 4
        low = os.dup(their_in), os.dup(their_out)
        os.dup2(low[0], 3)
        os.dup2(low[1], 4)

    command = [program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, close_fds=False, preexec_fn=at_three_and_four, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    os.close(their_in)
    os.close(their_out)
    try:
        try:
            opened = Page(to_browser, from_browser)
        except (AssertionError, BrokenPipeError):
            if process.wait(timeout=PATIENCE):
                pytest.skip(f"{program} does not start here: exit code {process.returncode}")
            raise
        yield opened
    finally:
        os.close(to_browser)
        os.close(from_browser)
        process.terminate()
        process.wait(timeout=PATIENCE)
