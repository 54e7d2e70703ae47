"""A GGUF file as a checkpoint folder that transformers opens: made once, in the user's cache.

llama.cpp's format holds weights in four or eight bits, with the tokenizer and the chat template in the same file.
transformers reads it, and three things are then amiss, which are put right here:

weights     ``save_pretrained`` refuses a model that "was quantised with gguf": the numbers are saved by a model without
            that mark. Of a quantised file they are kept in bfloat16, which has more digits than they had.
tokenizer   what splits a text before the merges is a name in the file (``tokenizer.ggml.pre``), which transformers does
            not read: with ``smollm`` each digit is a token's worth of its own, and "\\n\\n5" is other ids without that.
end         the ids at which sampling stops are in no generation_config.json

``package:NAME`` names the file that an installed Python package of that name brings along.
"""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from mathse.config.backbones import GGUF, PACKAGE
from mathse.config.extras import explain_missing
from mathse.errors import CheckpointError
from mathse.models.packaged.package_files import digest_of, made_once, packaged_file
from mathse.models.user_cache import user_cache

WHOLE_NUMBERS = {"F32", "F16", "F64"}  # kinds of tensors that bfloat16 would round
DIGITS_APART = ("smollm",)  # values of tokenizer.ggml.pre: pre-tokenizers that part all digits, then split as GPT-2's
# What gguf and transformers raise for a file that is cut, broken or of a model that they do not know.
UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    RuntimeError,
    AssertionError,
)
FORMAT = 1  # of what is made here; with another one it is made anew


def file_of(path: str | Path) -> Path:
    """The file that ``path`` names. Raises CheckpointError where there is none."""
    if not str(path).startswith(PACKAGE):
        if not Path(path).is_file():
            raise CheckpointError(f"{path}: no such file; name a GGUF file, or a checkpoint's folder")
        return Path(path)
    return packaged_file(str(path), str(path).removeprefix(PACKAGE), GGUF)


def folder_of(path: str | Path) -> Path:
    """The checkpoint folder of the GGUF file that ``path`` names; made where the cache does not have it yet."""
    file = file_of(path)

    def make(folder: Path) -> None:
        if (sentence := explain_missing("smollm2")) is not None:
            raise CheckpointError(f"{path}: a GGUF file {sentence}")
        _convert(file, folder)

    return made_once(user_cache("gguf") / f"{file.stem}-{digest_of(file)}-{FORMAT}", make)


def _convert(file: Path, folder: Path) -> None:
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    options: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        reader = GGUFReader(file)
        with redirect_stderr(StringIO()):  # a bar of its own, which no setting of transformers' turns off
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
            read = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
    except UNREADABLE as e:
        reason = " ".join(f"{type(e).__name__}: {e}".split())[:400]
        raise CheckpointError(
            f"{file} cannot be opened ({reason}); where it is a causal language model's, fetch it again"
        ) from None
    kinds = {tensor.tensor_type.name for tensor in reader.tensors}
    splitting = reader.fields.get("tokenizer.ggml.pre")
    if splitting is not None and splitting.contents() in DIGITS_APART:
        from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        )
    config = read.config
    for name in ("quantization_config", "_name_or_path"):
        vars(config).pop(name, None)
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    with torch.device("meta"):
        model = type(read)(config)
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    if not kinds <= WHOLE_NUMBERS:
        for weight in model.parameters():
            weight.data = weight.data.to(torch.bfloat16)
        model.config.dtype = torch.bfloat16
    model.generation_config = GenerationConfig(eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id)
    tokenizer.pad_token_id = config.pad_token_id
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
