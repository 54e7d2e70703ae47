"""Engines: the ways in which a server gets a checkpoint.

It loads a folder, has the checkpoint under a name already, or is started by a command. The fourth way, a vLLM with
weights that are swapped in place, is in vllm.py. Members of ``Engine`` express the differences, so callers of a served
model need not know the way.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mathse.inference.llm.client import ChatClient
from mathse.inference.serving.address import Address
from mathse.inference.serving.names import SERVED, make_served_folder
from mathse.inference.serving.pictures import PICTURES, PictureFiles
from mathse.inference.serving.probe import Probe
from mathse.inference.serving.process import EngineProcess


class Engine:
    """One or several servers with the same model.

    Args:
        settings: the section of the settings for its clients: concurrency, timeouts, ``image_side``, ...
        addresses: of the servers.
        run: the run folder.
    """

    reads_files = False  # whether pictures are sent as file names of this machine, not as bytes
    takes_token_ids = False  # whether log-probabilities can be requested by token ids (vLLM)

    def __init__(self, settings: Any, addresses: Sequence[Address], run: Path) -> None:
        self.settings, self.addresses = settings, addresses
        self.urls = [address.base_url for address in addresses]  # of servers that answer now; clients share the list
        self.folder = run / SERVED
        self.probes = 0  # number of prompts in a probe
        self.compared: set[str] = set()  # names of models with equal prompt lengths at the server and in this process
        self.pictures = PictureFiles(self.folder / PICTURES, settings.image_side)

    def client(self, name: str, section: str) -> ChatClient:
        """Return a client of the model ``name``; ``section`` of the settings is for messages."""
        client = ChatClient.of(self.settings, name, section, base_url=self.urls[0])
        client.base_urls = self.urls
        return client

    def admit(self, client: ChatClient, load: Callable[[], None]) -> None:
        """Have the engine hold the client's model before a stage, and again whenever a request finds it missing.

        ``load`` calls ``serve``.
        """
        load()

    def serve(self, checkpoint: Path, name: str, probe: Probe | None = None) -> str:
        """Return the model's name in requests, once the servers can answer with this checkpoint.

        Args:
            checkpoint: the folder.
            name: its ``content_name``.
            probe: compares the engine's answers with the checkpoint's, where the engine does that.

        Raises:
            TeacherError: the servers cannot answer with it.
        """
        raise NotImplementedError

    def remedy(self, section: str) -> str:
        """Return the advice for a server that does not know the requested model."""
        return f"check {section}.model and {section}.command"

    def free(self) -> None:
        """Free the memory that training needs, if this run started the engine; the next ``serve`` takes it again."""

    def stop(self) -> None:
        """Stop the engine, if this run started it."""


class FolderEngine(Engine):
    """A server that loads the folder that a request names, on this machine, such as ``transformers serve``."""

    def serve(self, checkpoint: Path, name: str, probe: Probe | None = None) -> str:
        return str(make_served_folder(checkpoint, name, self.folder))

    def remedy(self, section: str) -> str:
        return f"`transformers serve` loads the folder it is asked for; for other engines pass {section}.command"


class NamedEngine(Engine):
    """A server that has the checkpoint already, under the name ``settings.model``."""

    def serve(self, checkpoint: Path, name: str, probe: Probe | None = None) -> str:
        return str(self.settings.model)


class StartedEngine(Engine):
    """Starts an engine for each checkpoint, and stops it before the next.

    The command is ``settings.command`` with {checkpoint}, {name} and {port} replaced. ``say`` shows a line of progress.
    """

    def __init__(self, settings: Any, address: Address, run: Path, say: Callable[[str], None]) -> None:
        super().__init__(settings, [address], run)
        self.address, self.say = address, say
        self.process = EngineProcess(address, f"{address.section}.command", settings.start_timeout)

    def admit(self, client: ChatClient, load: Callable[[], None]) -> None:
        client.revive = load
        load()

    def serve(self, checkpoint: Path, name: str, probe: Probe | None = None) -> str:
        folder = make_served_folder(checkpoint, name, self.folder)
        has_name = "{name}" in self.settings.command
        model = name if has_name else str(folder)  # its name in requests
        child = self.process.child
        if child is None or child.name != name or not child.is_alive:
            log = self.folder / f"{name}.log"
            self.say(f"{self.address.section}: starts an engine for {checkpoint} (log: {log})")
            self.process.start(self.arguments(folder, name), name, log, lambda models: model in models or not has_name)
        return model

    def free(self) -> None:
        self.process.stop()

    def stop(self) -> None:
        self.process.stop()

    def arguments(self, folder: Path, name: str) -> list[str]:
        """Return the command, split as a shell splits it; a replaced value with spaces stays one argument."""
        slots = {"{checkpoint}": str(folder), "{name}": name, "{port}": str(self.address.port)}
        arguments = shlex.split(self.settings.command)
        for slot, value in slots.items():
            arguments = [argument.replace(slot, value) for argument in arguments]
        return arguments


def engine_at(address: Address, settings: Any, run: Path, say: Callable[[str], None]) -> Engine:
    """Return the engine of ``generator=server`` or ``judge.server``, whose settings have ``command`` and ``model``."""
    if settings.command is not None:
        return StartedEngine(settings, address, run, say)
    if settings.model is not None:
        return NamedEngine(settings, [address], run)
    return FolderEngine(settings, [address], run)
