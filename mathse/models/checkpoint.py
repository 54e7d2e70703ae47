"""Open a checkpoint from a folder or the hub, after every check that needs no weights.

A 7B checkpoint takes long to read, and transformers only warns about missing weights. So names and shapes are compared
first, from the headers of the weight files, and every mistake is a CheckpointError of one sentence.

Security: weights are read only from safetensors files, and no program code in a folder is run. Every call passes
``trust_remote_code=False``, because without it transformers asks at the terminal and runs the code after a "y".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from json import JSONDecodeError
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError, safe_open
from torch.nn.modules.module import register_module_module_registration_hook
from transformers import AutoProcessor, AutoTokenizer, GenerationConfig

from mathse.config.backbones import GGUF, PACKAGE, SMOLLM2_VISION, SmolLM2, SmolLM2Vision
from mathse.errors import CheckpointError, MathSEError
from mathse.models import import_beside_target
from mathse.models.placement import META, find_opening_device
from mathse.models.trial import try_template, try_tokenizer
from mathse.runs.reader import expect_as_recorded
from mathse.runs.store import read_json

PLAIN_DTYPES = ("F64", "F32", "F16", "BF16", "I64", "BOOL")  # safetensors' names; integers occur only in buffers
INDEX, WEIGHTS, GENERATION = "model.safetensors.index.json", "model.safetensors", "generation_config.json"
TEXT_SUFFIXES, MAX_TEXT_BYTES = (".json", ".jinja", ".txt"), 2**28  # the largest known tokenizer.json has 35 MB
LAYER_COUNTS = re.compile(r"layers|depth|blocks", re.IGNORECASE)  # settings that are a number of modules
MAX_LAYERS, MAX_INTEGER = 10_000, 2**63 - 1
# A model with N stored tensors has fewer than 20 N + 10,000 modules.
MODULES_PER_TENSOR, EXTRA_MODULES = 20, 10_000
MAX_MODULES_WITHOUT_WEIGHTS = 200_000  # twice the modules of the largest published models
# Errors that libraries raise for unexpected contents of a file. A MathSEError is never wrapped.
BROKEN = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    MemoryError,
    RuntimeError,
    StopIteration,
    SafetensorError,
    StrictDataclassError,
    TemplateError,
)
PROMPT_FILES = ("*.json", "*.jinja", "*.txt", "tokenizer.model")  # files that determine a prompt; no code
PUBLISHED_LAYOUTS = ("internvl_chat",)  # model types with weights that are converted to transformers' when opened
HUB_FILES = (*PROMPT_FILES, "*.safetensors")  # no pickles


Load = TypeVar("Load", bound=Callable[..., Any])


class Stored(NamedTuple):
    """A tensor in a weight file, described by the file's header."""

    file: Path
    shape: tuple[int, ...]
    dtype: str  # safetensors' name: "BF16"


def resolve(path: str | Path, revision: str | None = None, weights: bool = True) -> Path:
    """Return the local folder of a checkpoint.

    Args:
        path: a folder, a GGUF file, a package (``package:NAME``) or a hub id. A GGUF file and a package are converted
            by ``folder_of`` of the option that opens them; a hub id is downloaded if the cache does not have it.
        revision: of the hub id.
        weights: False: download the files without the weights.

    Raises CheckpointError if there is no such folder and no such hub id, and RunError if the files of a run's folder
    differ from the run's record.
    """
    folder = Path(path)
    try:
        exists = folder.is_dir()
    except (OSError, ValueError) as e:  # a name of 5,000 characters, or with a null byte
        raise CheckpointError(f"{str(path)[:200]}: no path of a folder ({str(e)[:200]}); name a checkpoint") from None
    if exists:
        expect_plain_files(folder)
        expect_as_recorded(folder)
        return folder
    if is_packaged(path):
        option = SmolLM2Vision() if path == SMOLLM2_VISION else SmolLM2()
        converted: Path = import_beside_target(option, "folder_of")(path)
        return converted
    from huggingface_hub import snapshot_download  # imported late: a folder needs no hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    files = list(HUB_FILES if weights else PROMPT_FILES)
    try:
        return Path(snapshot_download(str(path), revision=revision, allow_patterns=files))
    except HFValidationError:
        raise CheckpointError(f"{path}: neither a folder that exists nor a hub id of the form org/name") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as e:
        at = f" at revision {revision}" if revision else ""
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise CheckpointError(
            f"{path}{at}: no such folder, and the hub has no such checkpoint ({reason}); name a local folder, "
            "or download it first with `hf download`"
        ) from None


def is_packaged(path: str | Path) -> bool:
    """Return whether ``path`` names a GGUF file or Python packages with weights among their files."""
    return str(path).startswith(PACKAGE) or str(path).endswith(GGUF)


def expect_plain_files(folder: Path) -> None:
    """Raise CheckpointError for a file that could not be read to its end.

    These are pipes, sockets and devices, which block their reader, and text files larger than any of a checkpoint.
    """
    for file in folder.iterdir():
        if not file.is_file() and not file.is_dir() and file.exists():
            raise CheckpointError(f"{file} is a pipe, a socket or a device, not a file; remove it")
        if file.suffix in TEXT_SUFFIXES and file.is_file() and file.stat().st_size > MAX_TEXT_BYTES:
            raise CheckpointError(
                f"{file} has {file.stat().st_size:,} bytes, and no such file of a checkpoint has more than "
                f"{MAX_TEXT_BYTES:,}; fetch it again"
            )


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a checkpoint folder. Raises CheckpointError if it is missing or damaged."""
    try:
        config = read_json(folder / "config.json")
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no checkpoint: it has no config.json") from None
    except (JSONDecodeError, ValueError, OSError, RecursionError) as e:
        raise CheckpointError(f"{folder / 'config.json'} cannot be read ({summarize_error(e)})") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / 'config.json'} is not a JSON object")
    for name, number in _iterate_integers(config):
        largest = MAX_LAYERS if LAYER_COUNTS.search(name) else MAX_INTEGER
        if abs(number) > largest:
            raise CheckpointError(
                f"{folder / 'config.json'}: {name} = {str(number)[:40]} is larger than in any model (at most "
                f"{largest:,}); fetch it again"
            )
    return config


def _iterate_integers(section: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Yield all integers of nested JSON values, each with its key."""
    if isinstance(section, dict):
        for key, value in section.items():
            yield from _iterate_integers(value, str(key))
    elif isinstance(section, list):
        for value in section:
            yield from _iterate_integers(value, name)
    elif isinstance(section, int):
        yield name, section


def is_published_layout(folder: Path) -> bool:
    """Return whether a checkpoint folder has a layout that only this package opens, not transformers."""
    return read_config(folder).get("model_type") in PUBLISHED_LAYOUTS


def expect_family(folder: Path, family: str, model_types: Sequence[str]) -> dict[str, Any]:
    """Return config.json. Raises CheckpointError if its model_type is not one of ``model_types``."""
    config = read_config(folder)
    model_type = config.get("model_type")
    if model_type not in model_types:
        raise CheckpointError(
            f"{folder} is not a checkpoint of backbone={family}: its config.json has model_type = {model_type!r}, "
            f"and {family} needs {' or '.join(map(repr, model_types))}"
        )
    return config


def expect_files(folder: Path, names: Sequence[str], remedy: str) -> None:
    """Raise CheckpointError for the first of ``names`` that the folder does not have."""
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: {name} is missing; {remedy}")


def read_headers(folder: Path) -> dict[str, Stored]:
    """Return the tensors of a checkpoint by name, from the headers of its weight files.

    Raises CheckpointError for a file that is missing or damaged, and for a tensor that is quantised or in two files.
    """
    if (folder / INDEX).is_file():
        names = _read_index(folder)
    else:
        names = [WEIGHTS]
        if not (folder / WEIGHTS).is_file() and (pickles := sorted(folder.glob("*.bin"))):
            raise CheckpointError(
                f"{folder}: its weights are pickles ({pickles[0].name}), which can run code when they are read; name a "
                "revision with safetensors, or convert them to safetensors first"
            )
    stored: dict[str, Stored] = {}
    # The files themselves are read: after a broken download the index lists files and tensors that do not exist.
    for name in names:
        file = folder / name
        if not file.is_file():
            of = f" ({len(names)} shards are named in {INDEX})" if len(names) > 1 else ""
            raise CheckpointError(f"{folder}: the weight file {name} is missing{of}; download it again")
        try:
            with safe_open(file, framework="pt") as tensors:
                for tensor in tensors.keys():  # noqa: SIM118 - no mapping
                    if tensor in stored:
                        raise CheckpointError(
                            f"{tensor} is in {stored[tensor].file} and again in {name}; download the checkpoint again"
                        )
                    header = tensors.get_slice(tensor)
                    stored[tensor] = Stored(file, tuple(header.get_shape()), header.get_dtype())
        except (SafetensorError, OSError) as e:
            raise CheckpointError(f"{file} is no whole safetensors file ({e}); download it again") from None
    # ``from_pretrained`` would convert 8-bit integers to floats as if they were weights.
    for tensor, header in stored.items():
        if header.dtype not in PLAIN_DTYPES:
            raise CheckpointError(
                f"{header.file}: {tensor} has the dtype {header.dtype}, and only {', '.join(PLAIN_DTYPES)} can be "
                "opened; name the checkpoint that is not quantised"
            )
    return stored


def _read_index(folder: Path) -> list[str]:
    """Return the names of the weight files in the index, which must be files of this folder."""
    try:
        index = read_json(folder / INDEX)
    except (ValueError, OSError, RecursionError) as e:
        raise CheckpointError(f"{folder / INDEX} cannot be read ({summarize_error(e)}); download it again") from None
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{folder / INDEX} names no weight file; download it again")
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(
                f"{folder / INDEX} names {str(name)[:200]!r} as a weight file, and an index names only files of its "
                "own folder; download it again"
            )
    return sorted(set(weight_map.values()))


def find_stored_dtype(stored: Mapping[str, Stored]) -> torch.dtype:
    """Return bfloat16 if all weights of a checkpoint have this dtype, else float32, which represents all others."""
    dtypes = {header.dtype for header in stored.values()}
    return torch.bfloat16 if dtypes <= {"BF16", "I64", "BOOL"} else torch.float32


def open_model(
    model_class: Any,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    attention: Any = None,
    config: Any = None,
    weights: bool = True,
    **options: Any,
) -> Any:
    """Return ``model_class.from_pretrained(folder)`` after all checks of the weight files.

    Within ``placement.open_weights_on`` the weights are read straight to its device. On the meta device the model has
    the dtypes and ties of the checkpoint, and no weight is read.

    Args:
        config: None: the folder's config.json.
        weights: False: the model is on the meta device, and the folder needs no weight file.
        options: further arguments of ``from_pretrained``.

    Raises CheckpointError, before a weight is read, if the files do not have the model that the config describes.
    """
    stored = read_headers(folder) if weights else {}
    if attention is not None:
        options["attn_implementation"] = attention
    try:
        if config is None:
            config = model_class.config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not weights:
            with META, _limit_modules(MAX_MODULES_WITHOUT_WEIGHTS, folder):
                model = model_class(config)
            if attention == "eager":  # other implementations need libraries or a GPU, and this model never runs
                model.set_attn_implementation(attention)
            if (folder / GENERATION).is_file():  # it may have the token that ends a turn
                model.generation_config = GenerationConfig.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
            return model
        if (device := find_opening_device()) is not None:
            options = {"device_map": {"": device}, **options}
            if device == META:
                model = model_class.from_pretrained(
                    None,
                    config=config,
                    dtype=dtype,
                    state_dict=make_meta_tensors(stored),
                    trust_remote_code=False,
                    **options,
                )
                model.name_or_path = model.config.name_or_path = str(folder)
                return model
        expect_weights(model_class, config, stored, folder)
        return model_class.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    except MathSEError:
        raise
    except BROKEN as e:
        raise CheckpointError(f"{folder} cannot be opened ({summarize_error(e)})") from None


def expect_weights(model_class: Any, config: Any, stored: Mapping[str, Stored], folder: Path) -> None:
    """Raise CheckpointError unless the stored tensors are exactly the model's, by name and shape.

    transformers itself loads them, as tensors on the meta device, so its renaming, splitting and tying of weights
    apply. By itself it would continue with missing or additional weights.
    """
    try:
        with _limit_modules(EXTRA_MODULES + MODULES_PER_TENSOR * len(stored), folder):
            _, loaded = model_class.from_pretrained(
                None,
                config=config,
                state_dict=make_meta_tensors(stored),
                device_map={"": META},
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # then they are listed
                output_loading_info=True,
            )
    except MathSEError:
        raise
    except BROKEN as e:
        raise CheckpointError(f"{folder}: its config.json describes no model ({summarize_error(e)})") from None
    if missing := sorted(loaded["missing_keys"]):
        raise CheckpointError(
            f"{folder}: {len(missing)} missing weights, among them {missing[0]}: its config.json needs them and no "
            "weight file has them; download the checkpoint again"
        )
    if unexpected := sorted(loaded["unexpected_keys"]):
        file = f" (in {stored[unexpected[0]].file.name})" if unexpected[0] in stored else ""
        raise CheckpointError(
            f"{folder}: {len(unexpected)} unexpected weights, among them {unexpected[0]}{file}: a "
            f"{model_class.__name__} has no such tensor; name a checkpoint as it was published or saved"
        )
    if mismatched := sorted(loaded["mismatched_keys"]):
        name, shape, wanted = mismatched[0]
        raise CheckpointError(
            f"{folder}: {len(mismatched)} weights of a wrong shape, among them {name}: {list(shape)} in its file "
            f"and {list(wanted)} in config.json; these files do not belong together, download them again"
        )


@contextmanager
def _limit_modules(limit: int, folder: Path) -> Iterator[None]:
    """Stop the construction of a model with more than ``limit`` modules: 10,000,000 layers would take hours."""
    built = 0

    def count(*_: Any) -> None:
        nonlocal built
        built += 1
        if built > limit:
            raise CheckpointError(
                f"{folder}: the model in its config.json has more than {limit:,} modules, and its weight files are of "
                "a smaller model; fetch both again"
            )

    hook = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def make_meta_tensors(stored: Mapping[str, Stored]) -> dict[str, torch.Tensor]:
    """Return tensors of the stored shapes on the meta device, which have no values."""
    return {name: torch.empty(header.shape, device=META) for name, header in stored.items()}


def open_processor(folder: Path) -> Any:
    """Return the processor of a checkpoint folder, with its tokenizer and chat template."""
    try_tokenizer(folder)
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except BROKEN as e:
        raise CheckpointError(f"{folder}: its processor cannot be opened ({summarize_error(e)})") from None
    if not getattr(processor, "tokenizer", None):
        raise CheckpointError(f"{folder}: no processor with a tokenizer (preprocessor_config.json, tokenizer.json)")
    if processor.chat_template:
        _expect_readable_template(processor, folder)
    return processor


def _expect_readable_template(processor: Any, folder: Path) -> None:
    """Raise CheckpointError unless the chat template writes a question and one placeholder for its picture.

    A template is a program that came with the folder, so any error of Python can occur in it.
    """
    if isinstance(processor.chat_template, str):
        try_template(folder, processor.chat_template)
    question = "How many sides?"
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    remedy = "fetch chat_template.jinja (or tokenizer_config.json) of the checkpoint again"
    try:
        text = processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    except BROKEN as e:
        reason = " ".join(str(e).split())[:300] or type(e).__name__
        raise CheckpointError(f"{folder}: its chat template cannot be rendered ({reason}); {remedy}") from None
    images = text.count(processor.image_token)
    if question not in text or images != 1:
        lost = "the question is not in its prompts" if question not in text else f"one picture becomes {images}"
        raise CheckpointError(f"{folder}: its chat template loses a part of the question ({lost}); {remedy}")


def open_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a checkpoint folder, with its chat template."""
    try_tokenizer(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except BROKEN as e:
        raise CheckpointError(f"{folder}: its tokenizer cannot be opened ({summarize_error(e)})") from None
    if isinstance(tokenizer.chat_template, str):
        try_template(folder, tokenizer.chat_template)
    return tokenizer


def wrap_library_errors(load: Load) -> Load:
    """Decorate the ``load`` of a family: a library's error for unexpected files becomes a CheckpointError."""

    @wraps(load)
    def wrapped(settings: Any, weights: bool = True) -> Any:
        try:
            return load(settings, weights)
        except MathSEError:
            raise
        except BROKEN as e:
            raise CheckpointError(f"{settings.path} cannot be opened ({summarize_error(e)}); fetch it again") from e

    return wrapped  # type: ignore[return-value]


def summarize_error(error: BaseException) -> str:
    """Return a library's message about a file on one line."""
    text = " ".join(str(error).split())[:400] or type(error).__name__
    if "trust_remote_code" in text:  # transformers recommends to run the folder's code
        return "it needs its own program code, and the code of a checkpoint is never run"
    return text


def as_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """Return the torch.dtype of ``"bfloat16"`` or ``torch.bfloat16``; None is float32."""
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32
