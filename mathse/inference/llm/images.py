"""Pictures as data URLs within bounds, and their places in a message."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from mathse.data.images import load_image
from mathse.data.picture_marks import stand_in
from mathse.models.row import split_turn
from mathse.types import Problem

# Bytes of a picture; APIs take 20 MB. A picture that is larger as a PNG is a photograph, and is sent as JPEG.
MAX_PICTURE_BYTES = 4 * 2**20
MIME_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}  # of files that may be sent unchanged, by Pillow's format


def content_of(problem: Problem, text: str, max_side: int) -> list[dict[str, Any]]:
    """Return a message's content: ``text``, which has the problem's question, and the problem's pictures in order."""
    content = []
    for part in split_turn(text, problem.images, stand_in(text, problem)):
        if part.image is None:
            content.append({"type": "text", "text": part.text})
        else:
            content.append(image_url_part(data_url(part.image, max_side)))
    return content


def image_url_part(url: str) -> dict[str, Any]:
    """Return the part of a message that shows the picture at ``url``."""
    return {"type": "image_url", "image_url": {"url": url}}


def data_url(ref: str, max_side: int) -> str:
    """Return the picture ``ref`` as a data URL, at most ``max_side`` pixels long and ``MAX_PICTURE_BYTES`` large.

    A PNG or JPEG file that is upright, opaque, 8-bit and within bounds is sent unchanged. Any other picture is sent as
    a PNG of the pixels that the students see, scaled down if it is too long.

    Raises:
        DataError: as ``load_image``.
    """
    mime_type = plain_mime_type(ref, max_side)
    if mime_type is not None and Path(ref).stat().st_size <= MAX_PICTURE_BYTES:
        data = Path(ref).read_bytes()
    else:
        image = load_image(ref)
        if max(image.size) > max_side:
            image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        mime_type, data = "image/png", _encode(image, format="PNG")
        if len(data) > MAX_PICTURE_BYTES:
            mime_type, data = "image/jpeg", _encode(image, format="JPEG", quality=90)
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def picture_of(url: str) -> Image.Image:
    """Return the picture in a data URL. Its pixels are decoded when they are used."""
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def plain_mime_type(ref: str, max_side: int) -> str | None:
    """Return the MIME type of a PNG or JPEG file within bounds that shows exactly the pixels that the students see.

    None: the picture has to be encoded.
    """
    file = Path(ref)
    if not file.is_file():
        return None
    try:
        with Image.open(file, formats=tuple(MIME_TYPES)) as image:
            # The students see ``load_image``'s result: upright, opaque, 8 bits a channel, the first frame.
            is_upright = image.getexif().get(ImageOps.ExifTags.Base.Orientation, 1) == 1
            is_opaque = image.mode in ("RGB", "L") and "transparency" not in image.info
            is_single = getattr(image, "n_frames", 1) == 1
            if image.format is None or not (is_upright and is_opaque and is_single) or max(image.size) > max_side:
                return None
            return MIME_TYPES[image.format]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None  # another format, or a damaged file, which ``load_image`` reports


def _encode(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()
