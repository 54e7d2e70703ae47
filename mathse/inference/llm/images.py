"""Pictures as data URLs, within bounds, and their places in a message."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from mathse.data.images import load_image
from mathse.data.picture_marks import stand_in
from mathse.models.row import parts
from mathse.types import Problem

MAX_BYTES = 4 * 2**20  # of a picture; APIs take 20 MB; what is larger as a PNG is a photograph, sent as JPEG
UNCHANGED = {"PNG": "image/png", "JPEG": "image/jpeg"}
PHOTO_QUALITY = 90


def content_of(problem: Problem, text: str, max_side: int) -> list[dict[str, Any]]:
    """A message's content: ``text``, in which the problem's question stands, and the problem's pictures in order."""
    return [
        {"type": "text", "text": part.text} if part.image is None else image_part(part.image, max_side)
        for part in parts(text, problem.images, stand_in(text, problem))
    ]


def image_part(ref: str, max_side: int) -> dict[str, Any]:
    """The message part that shows the picture ``ref``, at most ``max_side`` pixels long and ``MAX_BYTES`` large."""
    return {"type": "image_url", "image_url": {"url": data_url(ref, max_side)}}


def data_url(ref: str, max_side: int) -> str:
    """A PNG or JPEG file that is upright, opaque, 8-bit and within bounds is sent unchanged; anything else as a PNG of
    what the students see, scaled down where it is too long. Raises DataError as ``load_image``."""
    kind = as_it_is(ref, max_side)
    if kind is not None and (file := Path(ref)).stat().st_size <= MAX_BYTES:
        data = file.read_bytes()
    else:
        kind, data = _encoded(load_image(ref), max_side)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture_of(url: str) -> Image.Image:
    """The picture in a data URL; its pixels are not decoded before they are asked for."""
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def as_it_is(ref: str, max_side: int) -> str | None:
    """The MIME type of a PNG or JPEG file that itself shows what the students see, within bounds; None for others."""
    file = Path(ref)
    if not file.is_file():
        return None
    try:
        with Image.open(file, formats=tuple(UNCHANGED)) as image:
            if image.format is None or not _is_plain(image) or max(image.size) > max_side:
                return None
            return UNCHANGED[image.format]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None  # of another format, or damaged: load_image says what is wrong


def _is_plain(image: Image.Image) -> bool:
    """Upright, opaque, 8 bits a channel, one frame: the file itself shows what ``load_image`` gives the students."""
    upright = image.getexif().get(ImageOps.ExifTags.Base.Orientation, 1) == 1
    opaque = image.mode in ("RGB", "L") and "transparency" not in image.info
    return upright and opaque and getattr(image, "n_frames", 1) == 1


def _encoded(image: Image.Image, max_side: int) -> tuple[str, bytes]:
    if max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    data = _saved(image, format="PNG")
    if len(data) > MAX_BYTES:
        return "image/jpeg", _saved(image, format="JPEG", quality=PHOTO_QUALITY)
    return "image/png", data


def _saved(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()
