"""How a server gets a checkpoint: by its folder, under a name it has already, or by a command that starts an engine.

A fourth way, one vLLM whose weights are swapped in place, is in vllm.py. What the ways differ in is said here, by
members of ``Engine``; whoever asks a served model does not look which way it is.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mathse.inference.llm.client import ChatClient
from mathse.inference.serving.address import Address
from mathse.inference.serving.names import SERVED, served_folder
from mathse.inference.serving.pictures import PICTURES, Pictures
from mathse.inference.serving.probe import Probe
from mathse.inference.serving.process import EngineProcess


class Engine:
    """One or several servers at ``addresses``, all with the same model.

    Args:
        settings: the section of the settings that says how its clients ask: concurrency, timeouts, ``image_side``, ...
        run: the run folder.
    """

    reads_files = False  # whether pictures may be named as files of this machine; else their bytes are sent
    takes_token_ids = False  # whether log-probabilities can be asked for by the ids of tokens (vLLM)

    def __init__(self, settings: Any, addresses: Sequence[Address], run: Path) -> None:
        self.settings, self.addresses = settings, addresses
        self.urls = [address.base_url for address in addresses]  # where requests may go now; clients share the list
        self.folder = run / SERVED
        self.probes = 0  # prompts that it is probed with
        self.compared: set[str] = set()  # names of models whose prompts are as long there as here
        self.pictures = Pictures(self.folder / PICTURES, settings.image_side)

    def client(self, name: str, section: str) -> ChatClient:
        """A client of the model ``name``; ``section``: of the settings, for messages."""
        client = ChatClient.of(self.settings, name, section, base_url=self.urls[0])
        client.base_urls = self.urls
        return client

    def admit(self, client: ChatClient, bring: Callable[[], None]) -> None:
        """Have the engine hold the client's model before a stage, by ``bring()``, which calls ``serve``; and again
        whenever its requests find that it does not."""
        bring()

    def serve(self, checkpoint: Path, name: str, probe: Probe | None = None) -> str:
        """The model's name in requests, once the servers can answer with this checkpoint. ``name``: its
        ``content_name``.

        Raises TeacherError where they cannot.
        """
        raise NotImplementedError

    def remedy(self, section: str) -> str:
        """What to do where a server does not know the model that it was asked for."""
        return f"check {section}.model and {section}.command"

    def free(self) -> None:
        """Free the memory that a fit needs, where this run started the engine; the next ``serve`` brings it back."""

    def stop(self) -> None:
        """End the engine, where this run started it."""


class FolderEngine(Engine):
    """A server that loads the folder that a request names, on this machine, such as ``transformers serve``."""

    def serve(self, checkpoint: Path, name: str, probe: Probe | None = None) -> str:
        return str(served_folder(checkpoint, name, self.folder))

    def remedy(self, section: str) -> str:
        return f"`transformers serve` loads the folder it is asked for; for other engines pass {section}.command"


class NamedEngine(Engine):
    """A server that has the checkpoint already, under the name ``settings.model``."""

    def serve(self, checkpoint: Path, name: str, probe: Probe | None = None) -> str:
        return str(self.settings.model)


class StartedEngine(Engine):
    """``settings.command`` with {checkpoint}, {name} and {port} in it starts an engine for each checkpoint, which is
    stopped before the next one. ``say`` shows a line of progress."""

    def __init__(self, settings: Any, address: Address, run: Path, say: Callable[[str], None]) -> None:
        super().__init__(settings, [address], run)
        self.address, self.say = address, say
        self.process = EngineProcess(address, f"{address.section}.command", settings.start_timeout)

    def admit(self, client: ChatClient, bring: Callable[[], None]) -> None:
        client.revive = bring
        bring()

    def serve(self, checkpoint: Path, name: str, probe: Probe | None = None) -> str:
        served = served_folder(checkpoint, name, self.folder)
        named = "{name}" in self.settings.command
        model = name if named else str(served)  # its name in requests
        child = self.process.child
        if child is None or child.name != name or not child.alive:
            log = self.folder / f"{name}.log"
            self.say(f"{self.address.section}: starts an engine for {checkpoint} (log: {log})")
            self.process.start(self.arguments(served, name), name, log, lambda names: model in names or not named)
        return model

    def free(self) -> None:
        self.process.stop()

    def stop(self) -> None:
        self.process.stop()

    def arguments(self, served: Path, name: str) -> list[str]:
        """The command, split as a shell splits it; a value with spaces in it stays one argument."""
        slots = {"{checkpoint}": str(served), "{name}": name, "{port}": str(self.address.port)}
        arguments = shlex.split(self.settings.command)
        for slot, value in slots.items():
            arguments = [argument.replace(slot, value) for argument in arguments]
        return arguments


def engine_at(address: Address, settings: Any, run: Path, say: Callable[[str], None]) -> Engine:
    """The engine behind ``generator=server`` or ``judge.server``, whose settings have ``command`` and ``model``."""
    if settings.command is not None:
        return StartedEngine(settings, address, run, say)
    kind = FolderEngine if settings.model is None else NamedEngine
    return kind(settings, [address], run)
