from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from mathse.errors import ConfigError
from mathse.reporting.progress import Progress
from mathse.reporting.progress.wording import accuracy_text, clean, duration, stage_rows

SUMMARY = {
    "stages": [
        {"stage": "base", "accuracy": 0.01, "ci95": [0.005, 0.015], "train_rows": 0},
        {"stage": "round_01", "accuracy": 0.64, "ci95": [0.62, 0.66], "train_rows": 1400, "accepted": 1052,
         "rejected": 1340, "unparsed": 8, "acceptance_precision": 0.978},
    ],
    "orm": {"overall_accuracy": 0.97, "positive_accuracy": 0.98, "negative_accuracy": 0.95,
            "error_step_accuracy": None, "n": 2642},
}  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_file_gets_a_line_at_start_and_end_and_few_between() -> None:
    out, clock = io.StringIO(), Clock()
    progress = Progress("auto", stream=out, clock=clock)
    progress.stage("round_01", "the student samples")
    with progress.track("sampling paths", total=600, done=200) as track:
        for _ in range(40):  # 40 batches in 40 s
            clock.now += 1
            track.advance(10, loss=1.25)
    lines = out.getvalue().splitlines()
    assert lines[0] == "round_01: the student samples"
    assert lines[1] == "round_01 | sampling paths | 600 to do, 200 of them done before"
    assert lines[2] == "round_01 | sampling paths | 300 of 600 | 10.0/s | 30 s left | loss 1.25"
    assert lines[-1] == "round_01 | sampling paths | 600 of 600 | 10.0/s | took 40 s | loss 1.25"
    assert len(lines) == 6  # also at 20 and 30 s; the end says the rest


def test_a_log_file_never_gets_control_characters() -> None:
    out = io.StringIO()
    progress = Progress("plain", stream=out)
    progress.say("evil \x1b[31m\x07 model\r\ntext \u202e\u2028")
    progress.table(SUMMARY)
    assert all(c == "\n" or c.isprintable() for c in out.getvalue())
    assert "evil" in out.getvalue()


def test_a_terminal_gets_bars_that_share_one_display() -> None:
    out = Terminal()
    with Progress("auto", stream=out) as progress:
        assert progress.mode == "rich"
        progress.stage("round_01", "sampling [bold]")
        with progress.track("outer [red]paths", 2) as outer, progress.track("inner", 2) as inner:
            inner.advance(2, accuracy=0.5)
            outer.advance(1)
            progress.say("a note [link] in between")
        with progress.track("afterwards", 1) as track:
            track.advance()
        track.close()  # a second close does nothing
    written = out.getvalue()
    assert "outer [red]paths" in written and "a note [link] in between" in written and "afterwards" in written
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 2  # the cursor comes back after each display


def test_the_closing_table_is_the_same_on_a_terminal_and_in_a_file() -> None:
    plain, rich = io.StringIO(), Terminal()
    Progress("plain", stream=plain).table(SUMMARY)
    Progress("rich", stream=rich).table(SUMMARY)
    assert "round_01  64.0% ± 2.0       1,400     1,052     1,340         8      0.978" in plain.getvalue()
    assert "overall 97.0%" in plain.getvalue() and "first wrong step named -" in plain.getvalue()
    for line in plain.getvalue().splitlines()[1:3]:
        assert line in rich.getvalue()


def test_stages_that_judge_nothing_show_dashes() -> None:
    assert stage_rows(SUMMARY)[0] == ("base", "1.0% ± 0.5", "0", "-", "-", "-", "-")
    assert accuracy_text(None, None) == "-"


def test_off_says_nothing() -> None:
    out = io.StringIO()
    with Progress("off", stream=out) as progress:
        progress.stage("base", "x")
        with progress.track("y", 3) as track:
            track.advance(3)
        progress.say("z")
        progress.table(SUMMARY)
    assert out.getvalue() == ""


def test_an_unknown_mode_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(ConfigError, match="'loud'.*auto, rich, plain, off"):
        Progress("loud")


@pytest.mark.parametrize("mode", ["plain", "rich"])
def test_a_closed_output_does_not_end_the_run(mode: str) -> None:
    out = io.StringIO()
    progress = Progress(mode, stream=out)
    out.close()
    progress.stage("base", "x")
    with progress.track("y", 3) as track:
        track.advance(3)
    progress.table(SUMMARY)


@pytest.mark.parametrize("mode", ["plain", "rich"])
def test_a_broken_pipe_leaves_exit_code_0_and_no_noise(mode: str) -> None:
    code = f"""
import sys
from mathse.reporting.progress import Progress
with Progress({mode!r}) as progress:
    for k in range(3000):
        progress.say("line " * 20)
"""
    reading, writing = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    os.read(reading, 100)
    os.close(reading)
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (0, b"")


def test_a_poor_encoding_is_survived() -> None:
    raw = io.BytesIO()
    progress = Progress("plain", stream=io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    progress.say("答案 ± 4")
    assert raw.getvalue() == b"?? ? 4\n"


def test_durations_read_as_people_say_them() -> None:
    assert [duration(s) for s in (0.4, 59.6, 125, 12000)] == ["0 s", "1 min 00 s", "2 min 05 s", "3 h 20 min"]
    assert clean("a\tb\ud800") == "a b "
