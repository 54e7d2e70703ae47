"""InternVL2.5's tokenizer as a fast tokenizer, built from the published files without published code.

The published tokenizer is a sentencepiece BPE in which six unused pieces were renamed to chat tokens, with tokens added
after the pieces (``<img>`` and others) and ``<s>`` before every text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # made when imported
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from mathse.errors import CheckpointError
from mathse.runs.store import read_json

SPACE = "▁"  # a space in a piece
Kind = ModelProto.SentencePiece  # NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE
START, END = "<|im_start|>", "<|im_end|>"  # of a turn
IMAGE_START, IMAGE_END, IMAGE = "<img>", "</img>", "<IMG_CONTEXT>"
NEEDED = (START, END, IMAGE_START, IMAGE_END, IMAGE)
# Candidates for the processor's video token. InternVL2.5 reads videos as images, so the token must be an existing token
# (the embedding has no free row) that no prompt has.
_VIDEO = ("<video>", "<|plugin|>", "<|interpreter|>", "<|action_start|>", "<|action_end|>")
_FLAGS = ("lstrip", "rstrip", "normalized", "single_word", "special")
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")


def build_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the fast tokenizer of a published folder, with the ids of its sentencepiece model and added tokens.

    It differs in a single point, on purpose: the published tokenizer also reads a piece's old name,
    ``[UNUSED_TOKEN_145]``, as the chat token to which it was renamed. Here it is ordinary text, so that a problem
    cannot end its own turn.

    Raises CheckpointError for files that are missing, damaged or contradict each other.
    """
    model = read_pieces(folder / "tokenizer.model")
    rules = model.normalizer_spec
    # Settings: tokenizer_config.json overrides special_tokens_map.json. Tokens become texts.
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            settings |= read_json(folder / name)
    settings = {key: _find_content(value) if key in _NAMED else value for key, value in settings.items()}
    added = _read_added_tokens(folder, settings)

    names = [str(added[i]) if i in added else piece.piece for i, piece in enumerate(model.pieces)]
    vocabulary = {name: i for i, name in enumerate(names)}
    if len(vocabulary) < len(names):
        raise CheckpointError(f"{folder}: two pieces of tokenizer.model have equal names; download the tokenizer again")
    core = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=list(_derive_merges(model, folder)),
            unk_token=settings.get("unk_token"),
            fuse_unk=True,
            byte_fallback=any(piece.type == Kind.BYTE for piece in model.pieces),
        )
    )

    # From text to pieces and back, in sentencepiece's order: its Unicode rules, its spaces, then a mark for each space.
    steps: list[normalizers.Normalizer] = []
    if rules.precompiled_charsmap:
        steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if rules.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    core.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*back, *([decoders.Strip(" ", 1, 0)] if rules.add_dummy_prefix else [])])

    # Pieces that are always single tokens, without the renamed pieces.
    whole = [p.piece for i, p in enumerate(model.pieces) if p.type == Kind.USER_DEFINED and i not in added]
    if whole and rules.add_dummy_prefix:  # a fast tokenizer would add the prefix after each of them again
        raise CheckpointError(
            f"{folder}: tokenizer.model has a prefix and the piece {whole[0]!r}, which is not supported"
        )
    core.add_tokens([AddedToken(piece, normalized=True) for piece in whole])
    for token in added.values():  # separately: the ids follow the order of the calls
        (core.add_special_tokens if token.special else core.add_tokens)([token])
    for index, token in added.items():
        if core.token_to_id(str(token)) != index:
            raise CheckpointError(
                f"{folder}: {token} should have the id {index} and would get {core.token_to_id(str(token))}; "
                "tokenizer.model and the added tokens do not belong together"
            )
    video = next((token for token in _VIDEO if core.token_to_id(token) is not None), None)
    if video is None:
        raise CheckpointError(
            f"{folder}: none of {', '.join(_VIDEO)} is a token, and the processor needs a token for videos"
        )

    if bos := settings.get("add_bos_token", True) and settings.get("bos_token"):
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, core.token_to_id(bos))]
        )
    named = {settings.get(name) for name in _NAMED} | {IMAGE_START, IMAGE_END, IMAGE}
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        **{name: settings[name] for name in _NAMED if settings.get(name)},
        extra_special_tokens=[str(t) for t in added.values() if t.special and str(t) not in named],
        start_image_token=IMAGE_START,
        end_image_token=IMAGE_END,
        context_image_token=IMAGE,
        video_token=video,
        model_max_length=settings.get("model_max_length", 8192),
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def read_pieces(path: Path) -> ModelProto:
    """Read ``tokenizer.model``. Raises CheckpointError if it is missing, damaged or no BPE model."""
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; download it from the checkpoint's page") from None
    except DecodeError as e:
        raise CheckpointError(f"{path} is no sentencepiece model ({e}); download it again") from None
    if not model.pieces:
        raise CheckpointError(f"{path} is no sentencepiece model (it has no pieces); download it again")
    if model.trainer_spec.model_type != model.trainer_spec.BPE:
        raise CheckpointError(f"{path} is no BPE model, and only a BPE can become a fast tokenizer without loss")
    if model.trainer_spec.treat_whitespace_as_suffix or not model.normalizer_spec.escape_whitespaces:
        raise CheckpointError(f"{path} writes spaces at the end of words or not at all, which is not supported")
    return model


def _read_added_tokens(folder: Path, settings: dict[str, Any]) -> dict[int, AddedToken]:
    """Return renamed and added tokens by id: from ``added_tokens_decoder``, else from ``added_tokens.json``."""
    tokens: dict[int, AddedToken] = {}
    for index, token in settings.get("added_tokens_decoder", {}).items():
        tokens[int(index)] = AddedToken(token["content"], **{flag: bool(token.get(flag)) for flag in _FLAGS})
    if (folder / "added_tokens.json").is_file():
        special = {_find_content(settings.get(name)) for name in _NAMED}
        special |= {_find_content(token) for token in settings.get("additional_special_tokens", ())}
        for content, index in read_json(folder / "added_tokens.json").items():
            tokens.setdefault(index, AddedToken(content, normalized=False, special=content in special))
    missing = [content for content in NEEDED if content not in map(str, tokens.values())]
    if missing:
        raise CheckpointError(
            f"{folder}: neither tokenizer_config.json nor added_tokens.json has an id for {missing[0]}; "
            "download both files again"
        )
    return dict(sorted(tokens.items()))


def _find_content(token: Any) -> Any:
    """Return the text of a token, which a settings file has as a text or as an object."""
    return token["content"] if isinstance(token, dict) else token


def _derive_merges(model: ModelProto, folder: Path) -> Iterator[tuple[str, str]]:
    """Return the pairs of pieces that form a piece, best first.

    sentencepiece joins the neighbours with the best score of their union; a fast BPE needs ranked pairs instead. Pairs
    that form the same piece have the same score; the pair with the longer left part goes first.
    """
    mergeable = {p.piece: p.score for p in model.pieces if p.type in (Kind.NORMAL, Kind.UNUSED)}
    unused = {p.piece for p in model.pieces if p.type == Kind.UNUSED}
    pairs = []
    for piece, score in mergeable.items():
        cuts = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        halves = [(left, right) for left, right in cuts if left in mergeable and right in mergeable]
        if halves and piece in unused:
            raise CheckpointError(f"{folder}: tokenizer.model bans the piece {piece!r}, which is not supported")
        pairs += [(-score, -len(left), left, right) for left, right in halves]
    pairs.sort(key=lambda pair: pair[:2])
    return ((left, right) for _, _, left, right in pairs)
