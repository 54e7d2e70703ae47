"""InternVL2.5's tokenizer as a fast one, from the published files, with no published code.

The published tokenizer is a sentencepiece BPE in which six unused pieces were renamed to chat tokens, plus tokens added
behind the pieces (``<img>`` and others), plus ``<s>`` before every text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from mathse.errors import CheckpointError
from mathse.models.internvl2_5.spm import SPACE, Kind, SentencePieceModel, read_model
from mathse.runs.store import read_json

START, END = "<|im_start|>", "<|im_end|>"  # of a turn
IMAGE_START, IMAGE_END, IMAGE = "<img>", "</img>", "<IMG_CONTEXT>"
NEEDED = (START, END, IMAGE_START, IMAGE_END, IMAGE)
# The processor wants a token for videos, which InternVL2.5 reads as images. It must be one there is, since the
# embedding has no row to spare, and one that no prompt holds.
_VIDEO = ("<video>", "<|plugin|>", "<|interpreter|>", "<|action_start|>", "<|action_end|>")
_FLAGS = ("lstrip", "rstrip", "normalized", "single_word", "special")
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")


def build_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a published folder: the ids are those of its sentencepiece model and added tokens.

    One thing differs on purpose: the published tokenizer also reads a piece's old name, ``[UNUSED_TOKEN_145]``, as the
    chat token it was renamed to; here such text is ordinary text, so that a problem cannot end its own turn.
    Raises CheckpointError for files that are missing, damaged or contradict each other.
    """
    model = read_model(folder / "tokenizer.model")
    settings = _settings(folder)
    added = _added_tokens(folder, settings)
    core = _core(model, added, settings.get("unk_token"), folder)
    _check_ids(core, added, folder)
    if bos := settings.get("add_bos_token", True) and settings.get("bos_token"):
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, core.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        **{name: settings[name] for name in _NAMED if settings.get(name)},
        extra_special_tokens=_extra(added, settings),
        start_image_token=IMAGE_START,
        end_image_token=IMAGE_END,
        context_image_token=IMAGE,
        video_token=_video_token(core, folder),
        model_max_length=settings.get("model_max_length", 8192),
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


# --- the published files ---------------------------------------------------------------------------------------------


def _settings(folder: Path) -> dict[str, Any]:
    """``tokenizer_config.json`` over ``special_tokens_map.json``, tokens as text."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            settings |= read_json(folder / name)
    return {key: _text(value) if key in _NAMED else value for key, value in settings.items()}


def _text(token: Any) -> Any:
    return token["content"] if isinstance(token, dict) else token


def _added_tokens(folder: Path, settings: dict[str, Any]) -> dict[int, AddedToken]:
    """Renamed and added tokens by id: from ``added_tokens_decoder``, else from ``added_tokens.json``."""
    found: dict[int, AddedToken] = {}
    for index, token in settings.get("added_tokens_decoder", {}).items():
        found[int(index)] = AddedToken(token["content"], **{flag: bool(token.get(flag)) for flag in _FLAGS})
    if (folder / "added_tokens.json").is_file():
        special = {_text(settings.get(name)) for name in _NAMED}
        special |= {_text(token) for token in settings.get("additional_special_tokens", ())}
        for content, index in read_json(folder / "added_tokens.json").items():
            found.setdefault(index, AddedToken(content, normalized=False, special=content in special))
    missing = [content for content in NEEDED if content not in map(str, found.values())]
    if missing:
        raise CheckpointError(
            f"{folder}: neither tokenizer_config.json nor added_tokens.json gives {missing[0]} an id; "
            "download both files again"
        )
    return dict(sorted(found.items()))


def _extra(added: dict[int, AddedToken], settings: dict[str, Any]) -> list[str]:
    """Special tokens that no setting names."""
    named = {settings.get(name) for name in _NAMED} | {IMAGE_START, IMAGE_END, IMAGE}
    return [str(token) for token in added.values() if token.special and str(token) not in named]


# --- the fast tokenizer ----------------------------------------------------------------------------------------------


def _core(model: SentencePieceModel, added: dict[int, AddedToken], unknown: str | None, folder: Path) -> Tokenizer:
    names = [str(added[i]) if i in added else piece.text for i, piece in enumerate(model.pieces)]
    vocabulary = {name: i for i, name in enumerate(names)}
    if len(vocabulary) < len(names):
        raise CheckpointError(f"{folder}: two pieces of tokenizer.model have one name; download the tokenizer again")
    core = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=list(_merges(model, folder)),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=any(piece.kind is Kind.BYTE for piece in model.pieces),
        )
    )
    core.normalizer = _normalizer(model)
    core.decoder = _decoder(model)
    core.add_tokens([AddedToken(piece, normalized=True) for piece in _always_whole(model, added, folder)])
    for token in added.values():  # one by one: their ids are given out in this order
        (core.add_special_tokens if token.special else core.add_tokens)([token])
    return core


def _always_whole(model: SentencePieceModel, added: dict[int, AddedToken], folder: Path) -> list[str]:
    """Pieces that are one token wherever they stand, those that were renamed left out."""
    kept = [p.text for i, p in enumerate(model.pieces) if p.kind is Kind.USER_DEFINED and i not in added]
    if kept and model.add_dummy_prefix:  # a fast tokenizer would put the prefix behind each of them again
        raise CheckpointError(
            f"{folder}: tokenizer.model has a prefix and the piece {kept[0]!r}, which is not supported"
        )
    return kept


def _merges(model: SentencePieceModel, folder: Path) -> Iterator[tuple[str, str]]:
    """The pairs of pieces that make a piece, best first.

    sentencepiece joins the neighbours whose union has the best score; a fast BPE wants that as ranked pairs. Pairs that
    make the same piece have the same score; the longer left part then goes first.
    """
    mergeable = {p.text: p.score for p in model.pieces if p.kind in (Kind.NORMAL, Kind.UNUSED)}
    unused = {p.text for p in model.pieces if p.kind is Kind.UNUSED}
    pairs = []
    for piece, score in mergeable.items():
        cuts = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        made_of = [(left, right) for left, right in cuts if left in mergeable and right in mergeable]
        if made_of and piece in unused:
            raise CheckpointError(f"{folder}: tokenizer.model bans the piece {piece!r}, which is not supported")
        pairs += [(-score, -len(left), left, right) for left, right in made_of]
    pairs.sort(key=lambda pair: pair[:2])
    return ((left, right) for _, _, left, right in pairs)


def _normalizer(model: SentencePieceModel) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if model.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _decoder(model: SentencePieceModel) -> decoders.Decoder:
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)


def _check_ids(core: Tokenizer, added: dict[int, AddedToken], folder: Path) -> None:
    for index, token in added.items():
        if core.token_to_id(str(token)) != index:
            raise CheckpointError(
                f"{folder}: {token} should have the id {index} and would get {core.token_to_id(str(token))}; "
                "tokenizer.model and the added tokens do not belong together"
            )


def _video_token(core: Tokenizer, folder: Path) -> str:
    for token in _VIDEO:
        if core.token_to_id(token) is not None:
            return token
    raise CheckpointError(f"{folder}: none of {', '.join(_VIDEO)} is a token, and one is needed to stand for videos")
