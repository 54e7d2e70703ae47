"""One vLLM per node for a whole run. Weights are swapped in place, for the student and the ORM of a stage.

The run starts it with one replica per GPU, or uses running servers at one or several addresses. Before each stage it
asks which weights are loaded. The engine frees its memory during training where it can, and is started again if it has
died.
"""

from __future__ import annotations

import hashlib
import shlex
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mathse.config.generators import VLLMGeneratorConfig
from mathse.errors import TeacherError
from mathse.inference.llm.client import ChatClient
from mathse.inference.serving import in_vllm
from mathse.inference.serving.address import Address
from mathse.inference.serving.control import DEV_MODE, VLLMControl
from mathse.inference.serving.engines import Engine
from mathse.inference.serving.held_model import ClientLock, HeldModelLock
from mathse.inference.serving.names import make_served_folder
from mathse.inference.serving.probe import Probe
from mathse.inference.serving.process import POLL_SECONDS, EngineProcess, quote_end
from mathse.runs.store import read_json, to_json

MODEL = "mathse-model"  # the name in requests, whatever the loaded weights
# An engine that ends three times within 120 seconds of its start is not started again.
QUICK_END_SECONDS, MAX_QUICK_ENDS = 120.0, 3
UNHEALTHY_SECONDS = 30.0  # of failed health checks, after which an engine counts as ended

# Files with settings that an engine reads only at its start, and keys of them that may differ between two checkpoints
# of the same form: between a model that was just made and the same model read and saved again.
CONFIG_FILES = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
IGNORED_KEYS = (
    "dtype",
    "torch_dtype",
    "transformers_version",
    "_name_or_path",
    "name_or_path",
    "is_local",
    "local_files_only",
    "model_specific_special_tokens",
)
# Ends of the names of files that an engine either reads anew with each swap or never.
IGNORED_FILES = (".safetensors", ".bin", ".index.json", "generation_config.json", "orm.json", ".md")


class VLLMEngine(Engine):
    """One or several servers that hold one model at a time.

    Args:
        settings: the section ``generator``.
        run: the run folder; the engine may read its files.
        dtype: "float32" or "bfloat16", in which the engine computes.
        gpus: number of GPUs of this machine that it may use.
        say: shows a line of progress.
    """

    takes_token_ids = True

    def __init__(
        self, settings: VLLMGeneratorConfig, run: Path, dtype: str, gpus: int, say: Callable[[str], None]
    ) -> None:
        self._process: EngineProcess | None = None  # None: the servers run elsewhere
        if settings.base_urls:
            addresses = [Address(url.rstrip("/"), settings.api_key_env) for url in settings.base_urls]
        else:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            addresses = [Address(f"http://127.0.0.1:{port}/v1")]
            self._process = EngineProcess(addresses[0], "generator=vllm", settings.start_timeout)
        super().__init__(settings, addresses, run)
        self.run, self.dtype, self.gpus, self.say = run, dtype, gpus, say
        self.reads_files = self._process is not None
        self.probes = settings.probe
        self.loads = 0  # number of times that weights were loaded
        self.lock = HeldModelLock()
        self._all_addresses = addresses  # ``addresses`` has only the servers that answer
        self._answered = set[Address]()  # servers that have answered in this run
        self._log = self.folder / "vllm.log"
        self._is_asleep = False
        self._probed: str | None = None  # the name of the weights that were compared since they were loaded
        self._form: str | None = None  # of the folder with which the engine was started
        self._ready_at = 0.0  # time.monotonic()
        self._quick_ends = 0

    @property
    def controls(self) -> list[VLLMControl]:
        return [VLLMControl(address) for address in self.addresses]

    @property
    def sleeps(self) -> bool:
        if self.settings.sleep is not None:
            return self.settings.sleep
        return self._process is not None and self.gpus > 0

    # --- the held weights ---

    def admit(self, client: ChatClient, load: Callable[[], None]) -> None:
        lock = client.model_lock = ClientLock(self.lock, client.model, load)
        client.revive = lock.reload
        lock.reload()

    def serve(self, checkpoint: Path, name: str, probe: Probe | None = None) -> str:
        """Return the model's name in requests, once all servers hold these weights and answer as the checkpoint
        does."""
        folder = make_served_folder(checkpoint, name, self.folder)
        expected = []
        if probe is not None and self.probes:
            file = self.folder / f"{name}.probe.json"
            if not file.exists():
                self._sleep()  # the checkpoint needs the memory for a moment
            expected = probe.read_or_compute(self.probes, file)

        def load_and_probe() -> None:
            if any(self._load_everywhere(folder, name)):
                self.loads, self._probed = self.loads + 1, None
                self.say(f"vllm: holds {checkpoint} ({name})")
            if probe is not None and self._probed != name:
                for address in self.addresses if expected else ():
                    probe.compare(expected, address, MODEL, self.dtype, checkpoint)
                    self.compared.add(name)
                self._probed = name

        try:
            load_and_probe()
        except TeacherError:
            # Try once more if an engine has ended. Its processes end one after another: a server may still answer
            # although its engine is gone.
            if self._process is not None:
                has_lost_engine = self._has_ended(self._process)
            else:
                has_lost_engine = any(address.models() is None for address in self.addresses)
            if not has_lost_engine:
                raise
            load_and_probe()
        return MODEL

    def remedy(self, section: str) -> str:
        return f"start the server with --served-model-name {MODEL}"

    def _load_everywhere(self, folder: Path, name: str) -> list[bool]:
        """Have each server hold these weights, and return for each whether it held others."""
        if self._process is not None:
            self._start_if_needed(self._process, folder, name)
        else:
            self._use_answering()
        if self._is_asleep or (self.settings.sleep and any(control.is_asleep() for control in self.controls)):
            for control in self.controls:
                control.wake()
            self._is_asleep = False

        def load(control: VLLMControl) -> bool:
            # Ask the server for its weights each time, since another run may have swapped them.
            if control.read_held() == name:
                return False
            control.load(folder)
            return True

        controls = self.controls
        with ThreadPoolExecutor(len(controls)) as pool:
            return list(pool.map(load, controls))

    def _use_answering(self) -> None:
        """Continue with the servers elsewhere that answer.

        A server that is away, for example while its job restarts, holds other weights when it returns. Its return makes
        the next request call ``serve``, which uses it again.

        A server that has not answered in this run yet is awaited, since its address may be wrong. If no server answers,
        the first that does is awaited. Raises TeacherError.
        """
        for address in self._all_addresses:
            if address not in self._answered:
                self._await_any([address])
                self._answered.add(address)
        answering = [address for address in self._all_addresses if address.models() is not None]
        answering = answering or self._await_any(self._all_addresses)
        for address in self._all_addresses:
            if address in self.addresses and address not in answering:
                self.say(f"vllm: no answer from {address.base_url}; the other servers go on")
                threading.Thread(target=self._await_return, args=(address,), daemon=True).start()
            elif address in answering and address not in self.addresses:
                self.say(f"vllm: {address.base_url} answers again")
        self.addresses = answering
        self.urls[:] = [address.base_url for address in answering]

    def _await_any(self, addresses: Sequence[Address]) -> list[Address]:
        """Return the servers that answer, once one does. Raises TeacherError after ``start_timeout``."""
        end, has_waited = time.monotonic() + self.settings.start_timeout, False
        urls = ", ".join(address.base_url for address in addresses)
        while not (answering := [address for address in addresses if address.models() is not None]):
            if time.monotonic() > end:
                raise TeacherError(
                    f"generator.base_urls: no server has answered at {urls} for {self.settings.start_timeout:g} "
                    "seconds; start it, or leave it out: the same command goes on"
                )
            if not has_waited:
                has_waited = True
                self.say(f"vllm: no answer from {urls}, which is waited for")
            time.sleep(POLL_SECONDS)
        if has_waited:
            self.say(f"vllm: {', '.join(address.base_url for address in answering)} answers again")
        return answering

    def _await_return(self, address: Address) -> None:
        """Wait until the server answers, then have the next request load the weights, which uses the server again."""
        while address.models() is None:
            time.sleep(POLL_SECONDS)
        self.lock.expire()

    def free(self) -> None:
        """Free the memory; the next ``serve`` wakes the engine and loads the weights again."""
        self.lock.drain()
        self._sleep()

    def _sleep(self) -> None:
        """Have all servers sleep, if the settings allow it."""
        is_running = self._process is None or (self._process.child is not None and not self._has_ended(self._process))
        if self.sleeps and is_running and not self._is_asleep:
            self.say("vllm: sleeps")
            for control in self.controls:
                try:
                    control.sleep()
                except TeacherError:
                    # A server elsewhere that is gone has no memory to free.
                    if self._process is not None or control.address.models() is not None:
                        raise
            self._is_asleep = True

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    # --- the process ---

    def _start_if_needed(self, process: EngineProcess, folder: Path, name: str) -> None:
        """Start the engine if none runs, or if the running engine has a model of another form."""
        form, child = form_of(folder), process.child
        has_ended = child is not None and self._has_ended(process)
        if child is not None and not has_ended and form == self._form:
            return
        if has_ended:
            is_quick = time.monotonic() - self._ready_at < QUICK_END_SECONDS
            self._quick_ends = self._quick_ends + 1 if is_quick else 0
            if self._quick_ends >= MAX_QUICK_ENDS:
                raise TeacherError(
                    f"generator=vllm: the engine ended {MAX_QUICK_ENDS} times within {QUICK_END_SECONDS:g} seconds of "
                    f"its start{quote_end(self._log)}"
                )
            self.say(f"vllm: ended by itself, and is started again (log: {self._log})")
        elif child is not None:
            self.say("vllm: is started anew, for a model of another form")
        else:
            self.say(f"vllm: starts, for the whole run (log: {self._log})")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        env = {**DEV_MODE, "PYTHONPATH": str(Path(in_vllm.__file__).parent)}
        process.start(self.arguments(folder), MODEL, self._log, lambda names: MODEL in names, env)
        self._form, self._is_asleep, self._ready_at = form, False, time.monotonic()
        self.loads, self._probed = self.loads + 1, None

    def _has_ended(self, process: EngineProcess) -> bool:
        """Whether the started engine has ended, or fails its health checks for a while, as it does before it ends."""
        end = time.monotonic() + UNHEALTHY_SECONDS
        while process.child is not None and process.child.is_alive and time.monotonic() < end:
            # The health check also covers the engine behind the server.
            if process.address.request_root("health", None).error is None:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def arguments(self, folder: Path) -> list[str]:
        """Return the command that starts the engine."""
        arguments = [*shlex.split(self.settings.program), "serve", str(folder), "--served-model-name", MODEL]
        # Control requests need no password, so the engine listens only to this machine.
        arguments += ["--host", "127.0.0.1", "--port", str(self.addresses[0].port), "--dtype", self.dtype]
        arguments += ["--worker-extension-cls", "mathse_weights.NamedWeights"]
        arguments += ["--allowed-local-media-path", str(self.run.absolute())]
        replicas = self.settings.replicas or max(1, self.gpus)
        if replicas > 1:
            arguments += ["--data-parallel-size", str(replicas)]
        if self.sleeps:
            arguments += ["--enable-sleep-mode"]
        # InternVL's published code resizes pictures with Pillow, and so does this package. vLLM's default, torchvision,
        # differs by 1 or 2 of 255 levels, at single pixels of enlarged pictures by 20.
        if read_json(folder / "config.json").get("model_type") == "internvl":
            arguments += ["--mm-processor-kwargs", '{"use_fast": false}']
        return arguments + shlex.split(self.settings.options)


def form_of(folder: Path) -> str:
    """Return a hash of a checkpoint without its weights. A running engine can swap checkpoints of the same form.

    An engine reads sizes, tokenizer, chat template and pixel bounds only at its start.
    """
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.name.endswith(IGNORED_FILES):
            continue
        if file.name in CONFIG_FILES:
            digest.update(f"{file.name} {to_json(_without_ignored(read_json(file)))}\n".encode())
        else:
            digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _without_ignored(config: object) -> object:
    if isinstance(config, dict):
        return {key: _without_ignored(value) for key, value in sorted(config.items()) if key not in IGNORED_KEYS}
    return config
