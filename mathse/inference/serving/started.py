"""An engine that a command of the user's starts for each checkpoint, and that is stopped before the next one."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from mathse.inference.serving.health_check import Address
from mathse.inference.serving.names import served_folder
from mathse.inference.serving.process import EngineProcess


class StartedEngine:
    """``command`` with {checkpoint}, {name} and {port} in it; one engine at a time. Logs go to ``folder``."""

    def __init__(
        self,
        command: str,
        address: Address,
        folder: Path,
        start_timeout: float,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.command, self.address, self.folder, self.say = command, address, folder, say
        self.process = EngineProcess(address, f"{address.section}.command", start_timeout)

    def serve(self, checkpoint: Path, name: str) -> str:
        served = served_folder(checkpoint, name, self.folder)
        named = "{name}" in self.command
        model = name if named else str(served)  # its name in requests
        child = self.process.child
        if child is None or child.name != name or not child.alive:
            self.say(f"{self.address.section}: starts an engine for {checkpoint} (log: {self.folder / name}.log)")
            log = self.folder / f"{name}.log"
            self.process.start(self.arguments(served, name), name, log, lambda names: model in names or not named)
        return model

    def free(self) -> None:
        self.process.stop()

    def stop(self) -> None:
        self.process.stop()

    def arguments(self, served: Path, name: str) -> list[str]:
        """The command, split as a shell splits it; a value with spaces in it stays one argument."""
        slots = {"{checkpoint}": str(served), "{name}": name, "{port}": str(self.address.port)}
        arguments = shlex.split(self.command)
        for slot, value in slots.items():
            arguments = [argument.replace(slot, value) for argument in arguments]
        return arguments
