"""One vLLM a node that stays up for a whole run: weights are swapped in place, for the student and the ORM of a stage.

It is started here, with a replica a GPU, or runs already at one or several addresses. It is asked which weights it
holds before each stage, gives its memory back during fits where it can, and is started again where it has died.
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

from mathse.config.generators import VLLMGenerator as Settings
from mathse.errors import TeacherError
from mathse.inference.llm.client import ChatClient
from mathse.inference.serving import in_vllm
from mathse.inference.serving.address import Address
from mathse.inference.serving.control import DEV_MODE, Control
from mathse.inference.serving.engines import Engine
from mathse.inference.serving.names import served_folder
from mathse.inference.serving.probe import Probe
from mathse.inference.serving.process import POLL, EngineProcess, end_of
from mathse.inference.serving.turns import ModelTurns, Turns
from mathse.runs.store import read_json, to_json

MODEL = "mathse-model"  # the name of whatever weights it holds, in requests
EXTENSION = "mathse_weights.NamedWeights"
QUICK, QUICK_ENDS = 120.0, 3  # an engine that ends within these seconds of its start so many times is not started again
GRACE = 30.0  # seconds of bad health after which an engine counts as ended
CONFIGS = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
SAYS_NOTHING = (  # keys of these that differ between a model that was made and the same one read and saved again
    "dtype",
    "torch_dtype",
    "transformers_version",
    "_name_or_path",
    "name_or_path",
    "is_local",
    "local_files_only",
    "model_specific_special_tokens",
)
# Model types whose pictures Pillow resizes here, as their published code does. vLLM's default, torchvision, differs by
# 1 or 2 of 255 levels, at single pixels of enlarged pictures by 20.
ON_PILLOW = ("internvl",)
NO_FORM = (".safetensors", ".bin", ".index.json", "generation_config.json", "orm.json", ".md")


class VLLMEngine(Engine):
    """One or several servers that hold one model at a time.

    Args:
        run: the run folder; its files are what the engine may read.
        dtype: "float32" or "bfloat16", in which the engine computes.
        gpus: of this machine, that it may use.
    """

    takes_token_ids = True

    def __init__(self, settings: Settings, run: Path, dtype: str, gpus: int, say: Callable[[str], None]) -> None:
        self._process: EngineProcess | None = None
        if settings.base_urls:
            addresses = [Address(url.rstrip("/"), settings.api_key_env) for url in settings.base_urls]
        else:
            addresses = [Address(f"http://127.0.0.1:{_free_port()}/v1")]
            self._process = EngineProcess(addresses[0], "generator=vllm", settings.start_timeout)
        super().__init__(settings, addresses, run)
        self.run, self.dtype, self.gpus, self.say = run, dtype, gpus, say
        self.reads_files = self._process is not None
        self.probes = settings.probe
        self.loads = 0  # how often it was given weights
        self.turns = Turns()
        self._all = addresses  # ``addresses``: those of them that are not away
        self._met = set[Address]()  # those that have answered in this run
        self._log = self.folder / "vllm.log"
        self._asleep = False
        self._probed: str | None = None  # the name of the weights that were compared since they were loaded
        self._form: str | None = None  # of the folder that the engine was started with
        self._ready_at = 0.0
        self._quick_ends = 0

    @property
    def controls(self) -> list[Control]:
        return [Control(address) for address in self.addresses]

    @property
    def sleeps(self) -> bool:
        if self.settings.sleep is not None:
            return self.settings.sleep
        return self._process is not None and self.gpus > 0

    # --- what it holds ---

    def admit(self, client: ChatClient, bring: Callable[[], None]) -> None:
        turns = client.turns = ModelTurns(self.turns, client.model, bring)
        client.revive = turns.renew
        turns.renew()

    def serve(self, checkpoint: Path, name: str, probe: Probe | None = None) -> str:
        """The model's name in requests, once all servers hold these weights, and answer with them as the checkpoint
        does."""
        served = served_folder(checkpoint, name, self.folder)
        expected = []
        if probe is not None and self.probes:
            file = self.folder / f"{name}.probe.json"
            if not file.exists():
                self._rest()  # the checkpoint is opened here for a moment
            expected = probe.beginnings(self.probes, file)

        def bring() -> None:
            if any(self._given(served, name)):
                self.loads, self._probed = self.loads + 1, None
                self.say(f"vllm: holds {checkpoint} ({name})")
            if probe is not None and self._probed != name:
                for address in self.addresses if expected else ():
                    probe.compare(expected, address, MODEL, self.dtype, checkpoint)
                    self.compared.add(name)
                self._probed = name

        try:
            bring()
        except TeacherError:
            if not self._lost_one():
                raise
            bring()
        return MODEL

    def remedy(self, section: str) -> str:
        return f"start the server with --served-model-name {MODEL}"

    def _given(self, served: Path, name: str) -> list[bool]:
        """Let each server hold these weights; whether it had others."""
        if self._process is not None:
            self._run(self._process, served, name)
        else:
            self._leave_out_the_lost()
        self._wake()
        controls = self.controls
        with ThreadPoolExecutor(len(controls)) as pool:
            # Each is asked, and not believed to hold what it was last given: another run may have swapped it.
            return list(pool.map(lambda control: _hold(control, served, name), controls))

    def _lost_one(self) -> bool:
        """Whether an engine has ended. Its parts end one by one: a server may still answer whose engine is gone."""
        if self._process is not None:
            return self._ends(self._process)
        return any(address.models() is None for address in self.addresses)

    def _leave_out_the_lost(self) -> None:
        """Go on with those servers elsewhere that answer. One that is away, as when its job is started again, holds
        other weights when it comes back, so it is let in by the next ``serve``, which its return calls for.

        One that has not answered in this run yet is waited for, since its address may be wrong; and so is one of them
        where none answers. Raises TeacherError.
        """
        for address in self._all:
            if address not in self._met:
                self._wait_for([address])
                self._met.add(address)
        answering = [address for address in self._all if address.models() is not None] or self._wait_for(self._all)
        for address in self._all:
            if address in self.addresses and address not in answering:
                self.say(f"vllm: no answer from {address.base_url}; the other servers go on")
                threading.Thread(target=self._await_return, args=(address,), daemon=True).start()
            elif address in answering and address not in self.addresses:
                self.say(f"vllm: {address.base_url} answers again")
        self.addresses = answering
        self.urls[:] = [address.base_url for address in answering]

    def _wait_for(self, addresses: Sequence[Address]) -> list[Address]:
        """Those that answer, once one does. Raises TeacherError where none does for ``start_timeout``."""
        limit, waits = time.monotonic() + self.settings.start_timeout, False
        urls = ", ".join(address.base_url for address in addresses)
        while not (answering := [address for address in addresses if address.models() is not None]):
            if time.monotonic() > limit:
                raise TeacherError(
                    f"generator.base_urls: no server has answered at {urls} for {self.settings.start_timeout:g} "
                    "seconds; start it, or leave it out: the same command goes on"
                )
            if not waits:
                waits = True
                self.say(f"vllm: no answer from {urls}, which is waited for")
            time.sleep(POLL)
        if waits:
            self.say(f"vllm: {', '.join(address.base_url for address in answering)} answers again")
        return answering

    def _await_return(self, address: Address) -> None:
        """Once it answers, have the weights brought anew, which lets it in."""
        while address.models() is None:
            time.sleep(POLL)
        self.turns.expire()

    def free(self) -> None:
        """Give the memory back; the next ``serve`` wakes it and loads the weights anew."""
        self.turns.end()
        self._rest()

    def _rest(self) -> None:
        """Sleep, where it can."""
        running = self._process is None or (self._process.child is not None and not self._ends(self._process))
        if self.sleeps and running and not self._asleep:
            self.say("vllm: sleeps")
            for control in self.controls:
                try:
                    control.sleep()
                except TeacherError:
                    if self._process is not None or control.address.models() is not None:
                        raise  # else it is gone, and its memory with it
            self._asleep = True

    def stop(self) -> None:
        """End it, where it was started here."""
        if self._process is not None:
            self._process.stop()

    def _wake(self) -> None:
        if self._asleep or (self.settings.sleep and any(control.asleep() for control in self.controls)):
            for control in self.controls:
                control.wake()
            self._asleep = False

    # --- the process ---

    def _run(self, process: EngineProcess, served: Path, name: str) -> None:
        """Start the engine where none runs, or where the one that runs has a model of another form."""
        form, child = form_of(served), process.child
        ended = child is not None and self._ends(process)
        if child is not None and not ended and form == self._form:
            return
        if ended:
            self._quick_ends = self._quick_ends + 1 if time.monotonic() - self._ready_at < QUICK else 0
            if self._quick_ends >= QUICK_ENDS:
                raise TeacherError(
                    f"generator=vllm: the engine ended {QUICK_ENDS} times within {QUICK:g} seconds of its start"
                    f"{end_of(self._log)}"
                )
            self.say(f"vllm: ended by itself, and is started again (log: {self._log})")
        elif child is not None:
            self.say("vllm: is started anew, for a model of another form")
        else:
            self.say(f"vllm: starts, for the whole run (log: {self._log})")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        env = {**DEV_MODE, "PYTHONPATH": str(Path(in_vllm.__file__).parent)}
        process.start(self.arguments(served), MODEL, self._log, lambda names: MODEL in names, env)
        self._form, self._asleep, self._ready_at = form, False, time.monotonic()
        self.loads, self._probed = self.loads + 1, None

    def _ends(self, process: EngineProcess) -> bool:
        """Whether the engine that was started has ended, or is not well for a while, as it is before it ends."""
        limit = time.monotonic() + GRACE
        while process.child is not None and process.child.alive and time.monotonic() < limit:
            if process.address.at_root("health", None).error is None:  # it also knows whether its engine lives
                return False
            time.sleep(POLL)
        return True

    def arguments(self, served: Path) -> list[str]:
        """The command that starts it."""
        replicas = self.settings.replicas or max(1, self.gpus)
        on_pillow = read_json(served / "config.json").get("model_type") in ON_PILLOW
        return [
            *shlex.split(self.settings.program),
            "serve",
            str(served),
            *("--served-model-name", MODEL),
            # Its control requests know no password: this machine alone.
            *("--host", "127.0.0.1"),
            *("--port", str(self.addresses[0].port)),
            *("--dtype", self.dtype),
            *("--worker-extension-cls", EXTENSION),
            *("--allowed-local-media-path", str(self.run.absolute())),
            *(("--data-parallel-size", str(replicas)) if replicas > 1 else ()),
            *(("--enable-sleep-mode",) if self.sleeps else ()),
            *(("--mm-processor-kwargs", '{"use_fast": false}') if on_pillow else ()),
            *shlex.split(self.settings.options),
        ]


def _hold(control: Control, served: Path, name: str) -> bool:
    """Let a server hold these weights; whether it had others."""
    if control.held() == name:
        return False
    control.load(served)
    return True


def form_of(served: Path) -> str:
    """A hash of all of a checkpoint but its weights: two of one form can take each other's place in a running engine.

    Sizes, tokenizer, chat template and pixel bounds are read when an engine starts, and not again.
    """
    digest = hashlib.sha256()
    for file in sorted(served.iterdir()):
        if file.name.endswith(NO_FORM):
            continue
        if file.name in CONFIGS:
            digest.update(f"{file.name} {to_json(_without(read_json(file)))}\n".encode())
        else:
            digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _without(config: object) -> object:
    if isinstance(config, dict):
        return {key: _without(value) for key, value in sorted(config.items()) if key not in SAYS_NOTHING}
    return config


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
