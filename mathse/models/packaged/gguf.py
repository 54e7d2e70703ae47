"""Convert a GGUF file to a checkpoint folder for transformers, once, in the user's cache.

llama.cpp's format has weights in four or eight bits, and the tokenizer and the chat template in the same file.
transformers reads it with three defects, which are corrected here:

weights     ``save_pretrained`` refuses a model that was quantised with gguf, so the weights are moved to a model
            without this mark. Weights of a quantised file are saved in bfloat16, which has more digits than they had.
tokenizer   transformers does not read the name of the pre-tokenizer in the file (``tokenizer.ggml.pre``). With
            ``smollm`` each digit is a piece of its own; otherwise "\\n\\n5" has other ids.
end         generation_config.json lacks the ids at which sampling stops.

``package:NAME`` means the GGUF file in the installed Python package NAME.
"""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from mathse.config.backbones import GGUF, PACKAGE
from mathse.config.extras import missing
from mathse.errors import CheckpointError
from mathse.models.packaged.package_files import find_packaged_file, hash_file, make_once
from mathse.models.user_cache import user_cache

UNQUANTISED = {"F32", "F16", "F64"}  # kinds of tensors that bfloat16 would round
DIGIT_SPLITTERS = ("smollm",)  # values of tokenizer.ggml.pre that split all digits and then split like GPT-2
# Errors of gguf and transformers for a file that is truncated, damaged or of an unknown model.
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
FORMAT = 1  # version of the converted folder; a new version converts again


def find_file(path: str | Path) -> Path:
    """Return the GGUF file that ``path`` names. Raises CheckpointError if it does not exist."""
    if not str(path).startswith(PACKAGE):
        if not Path(path).is_file():
            raise CheckpointError(f"{path}: no such file; name a GGUF file or a checkpoint folder")
        return Path(path)
    return find_packaged_file(str(path), str(path).removeprefix(PACKAGE), GGUF)


def folder_of(path: str | Path) -> Path:
    """Return the checkpoint folder of the GGUF file that ``path`` names, converted if the cache does not have it."""
    file = find_file(path)

    def make(folder: Path) -> None:
        if (sentence := missing("smollm2")) is not None:
            raise CheckpointError(f"{path}: a GGUF file {sentence}")
        _convert(file, folder)

    return make_once(user_cache("gguf") / f"{file.stem}-{hash_file(file)}-{FORMAT}", make)


def _convert(file: Path, folder: Path) -> None:
    """Write the checkpoint folder of a GGUF file."""
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    options: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        reader = GGUFReader(file)
        with redirect_stderr(StringIO()):  # hides a progress bar that no setting of transformers turns off
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
            quantised = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
    except UNREADABLE as e:
        reason = " ".join(f"{type(e).__name__}: {e}".split())[:400]
        raise CheckpointError(
            f"{file} cannot be opened ({reason}); if it is a file of a causal language model, fetch it again"
        ) from None
    kinds = {tensor.tensor_type.name for tensor in reader.tensors}
    pre_tokenizer = reader.fields.get("tokenizer.ggml.pre")
    if pre_tokenizer is not None and pre_tokenizer.contents() in DIGIT_SPLITTERS:
        from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        )
    config = quantised.config
    for name in ("quantization_config", "_name_or_path"):
        vars(config).pop(name, None)
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    # A model without the mark of the quantisation, with the same weights.
    with torch.device("meta"):
        model = type(quantised)(config)
    model.load_state_dict(quantised.state_dict(), assign=True)
    model.tie_weights()
    if not kinds <= UNQUANTISED:
        for weight in model.parameters():
            weight.data = weight.data.to(torch.bfloat16)
        model.config.dtype = torch.bfloat16
    model.generation_config = GenerationConfig(eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id)
    tokenizer.pad_token_id = config.pad_token_id
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
