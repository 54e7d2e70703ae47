"""Reads a sentencepiece model file, without the sentencepiece package.

The file is a protocol buffer (sentencepiece's ``sentencepiece_model.proto``); what a BPE tokenizer needs of it is its
pieces and a few switches.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from mathse.errors import CheckpointError

SPACE = "▁"  # how a space is written in a piece
BPE = 2  # trainer_spec.model_type


class Kind(IntEnum):
    """What a piece is for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4  # always one token, wherever it stands in a text
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    kind: Kind


@dataclass(frozen=True)
class SentencePieceModel:
    """The pieces in order of their ids, and how a text is prepared before it is cut into pieces."""

    pieces: tuple[Piece, ...]
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    charsmap: bytes  # compiled Unicode normalisation, empty for none


def read_model(path: Path) -> SentencePieceModel:
    """Read ``tokenizer.model``. Raises CheckpointError where it is missing, damaged or no BPE model."""
    try:
        return _model(path.read_bytes(), path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; download it from the checkpoint's page") from None
    except (ValueError, IndexError, struct.error) as e:
        raise CheckpointError(f"{path} is no sentencepiece model ({e}); download it again") from None


def _model(data: bytes, path: Path) -> SentencePieceModel:
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    # ModelProto: 1 pieces, 2 trainer_spec, 3 normalizer_spec
    for number, value in _fields(data):
        if isinstance(value, bytes) and number == 1:
            pieces.append(_piece(value))
        elif isinstance(value, bytes) and number == 2:
            trainer = dict(_fields(value))
        elif isinstance(value, bytes) and number == 3:
            normalizer = dict(_fields(value))
    if not pieces:
        raise ValueError("it has no pieces")
    # the numbers are those of the fields in the .proto file, the defaults too
    if trainer.get(3, 1) != BPE:
        raise CheckpointError(f"{path} is no BPE model, and only those can become a fast tokenizer without loss")
    if trainer.get(24, 0) or not normalizer.get(5, 1):
        raise CheckpointError(f"{path} writes spaces at the end of words or not at all, which is not supported")
    charsmap = normalizer.get(2, b"")
    return SentencePieceModel(
        tuple(pieces),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
        charsmap=charsmap if isinstance(charsmap, bytes) else b"",
    )


def _piece(data: bytes) -> Piece:
    # SentencePiece: 1 piece, 2 score, 3 type; what is not in the file has the defaults of the .proto
    text, score, kind = b"", 0.0, Kind.NORMAL
    for number, value in _fields(data):
        if isinstance(value, bytes):
            if number == 1:
                text = value
            elif number == 2:
                (score,) = struct.unpack("<f", value)
        elif number == 3:
            kind = Kind(value)
    return Piece(text.decode("utf-8"), score, kind)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field: an integer where it is coded as one, else its bytes."""
    at = 0
    while at < len(data):
        # a tag is the field's number and, in three bits, how its value is coded
        tag, at = _varint(data, at)
        number, coding = tag >> 3, tag & 7
        if coding == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if coding == 2:
            length, at = _varint(data, at)
        elif coding in (1, 5):
            length = 8 if coding == 1 else 4
        else:
            raise ValueError(f"byte {at} has an unknown coding")
        if at + length > len(data):
            raise ValueError("it is cut short")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        # seven bits a byte, the lowest first; the eighth says that another byte follows
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")
