"""Opening a checkpoint: from a folder or the hub, checked as far as possible before a weight is read.

A 7B checkpoint takes long to read, and transformers goes on with a warning where weights are missing. So names and
shapes are compared first, from the headers of the weight files, and every mistake is a CheckpointError of one sentence.
Only safetensors are read, and no code that a folder brings along is run: ``trust_remote_code=False`` in every call,
since transformers asks at the terminal where nothing is said, and runs the code after a "y".
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

from mathse.config.backbones import GGUF, PACKAGE, SMOLLM2_VISION, SmolLM2BackboneConfig, SmolLM2VisionBackboneConfig
from mathse.errors import CheckpointError, MathSEError
from mathse.models import beside_target
from mathse.models.placement import META, opening_device
from mathse.models.trial import try_template, try_tokenizer
from mathse.runs.reader import expect_as_recorded
from mathse.runs.store import read_json

PLAIN = ("F64", "F32", "F16", "BF16", "I64", "BOOL")  # numbers as safetensors names them; integers in buffers alone
INDEX, WEIGHTS, GENERATION = "model.safetensors.index.json", "model.safetensors", "generation_config.json"
TEXT_SUFFIXES, LARGEST_TEXT_BYTES = (".json", ".jinja", ".txt"), 2**28  # the largest tokenizer.json has 35 MB
LAYERS = re.compile(r"layers|depth|blocks", re.IGNORECASE)  # settings that say how often a module is made
MOST_LAYERS, LARGEST = 10_000, 2**63 - 1
MODULES_A_TENSOR, FEWEST_MODULES = 20, 10_000  # a model of so many tensors has fewer modules
MOST_MODULES = 200_000  # of a model without its weight files; the largest published ones have half of that
# whatever a library raises over the contents of a file that it did not expect; MathSE's own errors are told as they are
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
PROMPT_FILES = ("*.json", "*.jinja", "*.txt", "tokenizer.model")  # what writes a prompt; no code
PUBLISHED_LAYOUTS = ("internvl_chat",)  # model types whose weights are converted to transformers' when they are opened
HUB_FILES = (*PROMPT_FILES, "*.safetensors")  # no pickles


Load = TypeVar("Load", bound=Callable[..., Any])


class Stored(NamedTuple):
    """A tensor in a weight file, as the file's header describes it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str  # as safetensors names it, "BF16"


def resolve(path: str | Path, revision: str | None = None, weights: bool = True) -> Path:
    """The local folder of a checkpoint: ``path`` itself, the folder that was made of a GGUF file or of packages' files
    (by ``folder_of`` of the option that opens them), or the hub id's snapshot, which is downloaded where it is not
    cached (without its weight files, where they are not wanted).

    Raises CheckpointError if there is neither, RunError if a run's folder holds other files than the run made.
    """
    folder = Path(path)
    try:
        there = folder.is_dir()
    except (OSError, ValueError) as e:  # a name of 5,000 characters, or with a null byte
        raise CheckpointError(f"{str(path)[:200]}: no path of a folder ({str(e)[:200]}); name a checkpoint") from None
    if there:
        plain_folder(folder)
        expect_as_recorded(folder)
        return folder
    if is_packaged(path):
        option = SmolLM2VisionBackboneConfig() if path == SMOLLM2_VISION else SmolLM2BackboneConfig()
        made: Path = beside_target(option, "folder_of")(path)
        return made
    from huggingface_hub import snapshot_download  # here: folders need no hub
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
            f"{path}{at}: no such folder, and the hub does not give it ({reason}); name a local folder, "
            "or download it first with `hf download`"
        ) from None


def is_packaged(path: str | Path) -> bool:
    """Whether ``path`` names a GGUF file, or Python packages that have weights among their files."""
    return str(path).startswith(PACKAGE) or str(path).endswith(GGUF)


def plain_folder(folder: Path) -> Path:
    """The folder, whose files can be read to an end. Raises CheckpointError for a pipe, a socket or a device, which
    would block whoever opens it, and for a text file that is larger than any of a checkpoint."""
    for file in folder.iterdir():
        if not file.is_file() and not file.is_dir() and file.exists():
            raise CheckpointError(f"{file} is no file but a pipe, a socket or a device; remove it")
        if file.suffix in TEXT_SUFFIXES and file.is_file() and file.stat().st_size > LARGEST_TEXT_BYTES:
            raise CheckpointError(
                f"{file} has {file.stat().st_size:,} bytes, and no such file of a checkpoint has more than "
                f"{LARGEST_TEXT_BYTES:,}; fetch it again"
            )
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder. Raises CheckpointError where there is none that can be read."""
    try:
        config = read_json(folder / "config.json")
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no checkpoint: it has no config.json") from None
    except (JSONDecodeError, ValueError, OSError, RecursionError) as e:
        raise CheckpointError(f"{folder / 'config.json'} cannot be read ({reason_of(e)})") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / 'config.json'} holds no JSON object")
    for name, number in _whole_numbers(config):
        most = MOST_LAYERS if LAYERS.search(name) else LARGEST
        if abs(number) > most:
            raise CheckpointError(
                f"{folder / 'config.json'}: {name} = {str(number)[:40]} is larger than any model's (at most {most:,}); "
                "fetch it again"
            )
    return config


def _whole_numbers(section: Any, name: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(section, dict):
        for key, value in section.items():
            yield from _whole_numbers(value, str(key))
    elif isinstance(section, list):
        for value in section:
            yield from _whole_numbers(value, name)
    elif isinstance(section, int):
        yield name, section


def is_published_layout(folder: Path) -> bool:
    """Whether a checkpoint folder has another layout than transformers' own, which then cannot open it."""
    return read_config(folder).get("model_type") in PUBLISHED_LAYOUTS


def expect_family(folder: Path, family: str, model_types: Sequence[str]) -> dict[str, Any]:
    """config.json, if its model_type is one of ``model_types``; else a CheckpointError that says whose folder it is."""
    config = read_config(folder)
    model_type = config.get("model_type")
    if model_type not in model_types:
        raise CheckpointError(
            f"{folder} is not a checkpoint of backbone={family}: its config.json says model_type = {model_type!r}, "
            f"and {family} is {' or '.join(map(repr, model_types))}"
        )
    return config


def expect_files(folder: Path, names: Sequence[str], remedy: str) -> None:
    """Raise CheckpointError for the first of ``names`` that is not in the folder."""
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: {name} is missing there; {remedy}")


def headers(folder: Path) -> dict[str, Stored]:
    """The tensors of a checkpoint by name, from the headers of its weight files; every file there and whole.

    Raises CheckpointError for a file that is missing or damaged, and for a tensor that is in two files or quantised.
    """
    if (folder / INDEX).is_file():
        names = _files_of_index(folder)
    else:
        names = [WEIGHTS]
        if not (folder / WEIGHTS).is_file() and (pickles := sorted(folder.glob("*.bin"))):
            raise CheckpointError(
                f"{folder}: its weights are pickles ({pickles[0].name}), which can run code when they are read; name a "
                "revision with safetensors, or save them as such first"
            )
    stored: dict[str, Stored] = {}
    # All files, not the index alone: it may promise what a download that broke off does not hold.
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
    # from_pretrained would turn 8 bit integers into floats as if they were weights
    for tensor, header in stored.items():
        if header.dtype not in PLAIN:
            raise CheckpointError(
                f"{header.file}: {tensor} is stored as {header.dtype}, and only {', '.join(PLAIN)} can be opened; name "
                "the checkpoint that is not quantised"
            )
    return stored


def _files_of_index(folder: Path) -> list[str]:
    """The weight files that the index names, which are files of this folder alone."""
    try:
        index = read_json(folder / INDEX)
    except (ValueError, OSError, RecursionError) as e:
        raise CheckpointError(f"{folder / INDEX} cannot be read ({reason_of(e)}); download it again") from None
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{folder / INDEX} names no weight file; download it again")
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(
                f"{folder / INDEX} names {str(name)[:200]!r} as a weight file, and an index names files of its own "
                "folder; download it again"
            )
    return sorted(set(weight_map.values()))


def stored_dtype(stored: Mapping[str, Stored]) -> torch.dtype:
    """What a checkpoint's weights are kept in: bfloat16 where all of them are, else float32, which holds any."""
    return torch.bfloat16 if {header.dtype for header in stored.values()} <= {"BF16", "I64", "BOOL"} else torch.float32


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
    """``model_class.from_pretrained`` on a folder: every weight there, of the right shape, from safetensors.

    ``weights`` False gives the model without numbers (on the meta device), for whoever wants its prompts alone; the
    folder needs no weight file then. Within ``placement.opening_on`` weights go straight to its device; on meta they
    have the dtypes and ties of those that are read, and are not read.

    Raises CheckpointError, before a weight is read, where the files do not hold the model that ``config`` (None: the
    folder's config.json) describes.
    """
    stored = headers(folder) if weights else {}
    if attention is not None:
        options["attn_implementation"] = attention
    try:
        if config is None:
            config = model_class.config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not weights:
            with META, _modules_at_most(MOST_MODULES, folder):
                model = model_class(config)
            if attention == "eager":  # the others need libraries or a GPU, and nothing runs here
                model.set_attn_implementation(attention)
            if (folder / GENERATION).is_file():  # it may say where a turn ends
                model.generation_config = GenerationConfig.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
            return model
        if (device := opening_device()) is not None:
            options = {"device_map": {"": device}, **options}
            if device == META:
                model = model_class.from_pretrained(
                    None,
                    config=config,
                    dtype=dtype,
                    state_dict=without_numbers(stored),
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
        raise CheckpointError(f"{folder} cannot be opened ({reason_of(e)})") from None


def expect_weights(model_class: Any, config: Any, stored: Mapping[str, Stored], folder: Path) -> None:
    """Raise CheckpointError unless the stored tensors are those of the model, name by name and shape by shape.

    transformers itself is asked, with tensors that have a shape and no numbers, so its renaming, splitting and tying
    all count. It would go on without a word where weights are missing or too many.
    """
    try:
        with _modules_at_most(FEWEST_MODULES + MODULES_A_TENSOR * len(stored), folder):
            _, loaded = model_class.from_pretrained(
                None,
                config=config,
                state_dict=without_numbers(stored),
                device_map={"": META},
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # they are listed, then
                output_loading_info=True,
            )
    except MathSEError:
        raise
    except BROKEN as e:
        raise CheckpointError(f"{folder}: there is no model as its config.json describes it ({reason_of(e)})") from None
    if missing := sorted(loaded["missing_keys"]):
        raise CheckpointError(
            f"{folder}: {len(missing)} missing weights, among them {missing[0]}: its config.json asks for them and no "
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
            f"and {list(wanted)} by config.json; these files do not belong together, download them again"
        )


@contextmanager
def _modules_at_most(most: int, folder: Path) -> Iterator[None]:
    """Within, a model of more modules is refused while it is built: one of 10,000,000 layers takes hours."""
    built = 0

    def count(*_: Any) -> None:
        nonlocal built
        built += 1
        if built > most:
            raise CheckpointError(
                f"{folder}: the model that its config.json describes has more than {most:,} modules, and its weight "
                "files are of a smaller one; fetch both again"
            )

    hook = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def without_numbers(stored: Mapping[str, Stored]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(header.shape, device=META) for name, header in stored.items()}


def open_processor(folder: Path) -> Any:
    """The processor of a checkpoint folder, its tokenizer and chat template included."""
    try_tokenizer(folder)
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except BROKEN as e:
        raise CheckpointError(f"{folder}: its processor cannot be opened ({reason_of(e)})") from None
    if not getattr(processor, "tokenizer", None):
        raise CheckpointError(f"{folder}: no processor with a tokenizer (preprocessor_config.json, tokenizer.json)")
    if processor.chat_template:
        _expect_readable_template(processor, folder)
    return processor


def _expect_readable_template(processor: Any, folder: Path) -> None:
    """Raise CheckpointError unless the chat template writes a question and one placeholder for its picture.

    A template is a program that came with the folder: what may go wrong in it is whatever goes wrong in Python.
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
        raise CheckpointError(f"{folder}: its chat template does not write what it is given ({lost}); {remedy}")


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint folder, its chat template included."""
    try_tokenizer(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except BROKEN as e:
        raise CheckpointError(f"{folder}: its tokenizer cannot be opened ({reason_of(e)})") from None
    if isinstance(tokenizer.chat_template, str):
        try_template(folder, tokenizer.chat_template)
    return tokenizer


def told_in_a_sentence(load: Load) -> Load:
    """A family's ``load``, which raises CheckpointError where a folder's files are not as a library expects them."""

    @wraps(load)
    def loaded(settings: Any, weights: bool = True) -> Any:
        try:
            return load(settings, weights)
        except MathSEError:
            raise
        except BROKEN as e:
            raise CheckpointError(f"{settings.path} cannot be opened ({reason_of(e)}); fetch it again") from e

    return loaded  # type: ignore[return-value]


def reason_of(error: BaseException) -> str:
    """The message of a library on a file, on one line."""
    text = " ".join(str(error).split())[:400] or type(error).__name__
    if "trust_remote_code" in text:  # transformers advises to run it
        return "it asks for program code of its own, and no code of a checkpoint is run here"
    return text


def as_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """``"bfloat16"`` or ``torch.bfloat16``; None is float32."""
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32
