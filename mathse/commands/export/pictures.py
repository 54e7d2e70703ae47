"""The pictures of exported rows: copied beside them, or referenced where they lie.

Other tools open a file as Pillow does. Where that is not what our fits see (turned by EXIF, transparent, 16 bit,
animated), or where there is no file at all (``digits:``, a table's ``hf:``), the picture is written as PNG.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

from mathse.data.image_decoding import FORMATS
from mathse.data.images import load_image

FOLDER = "images"
HELD = 256  # pictures remembered: rows of one problem often follow each other
USUAL = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp"}  # what every tool opens
Mode = Literal["copy", "reference"]


class ExportedPictures:
    """``count``: the pictures that rows show, a repeated one counted again."""

    def __init__(self, folder: Path, mode: Mode) -> None:
        self.folder, self.mode, self.count = folder, mode, 0
        self._path: Callable[[str], str] = lru_cache(HELD)(self._written)

    def path(self, ref: str) -> str:
        """What a row writes: a path below the export's folder, or (``reference``) the file's own, absolute."""
        self.count += 1
        return self._path(ref)

    def cell(self, ref: str) -> dict[str, str | bytes | None]:
        """What a table of the datasets library writes: the picture's bytes, or (``reference``) its file's path."""
        self.count += 1
        if self.mode == "reference" and _suffix(ref) is not None:
            return {"bytes": None, "path": str(Path(ref).absolute())}
        data, suffix = _content(ref)
        return {"bytes": data, "path": _name(data, suffix)}

    def _written(self, ref: str) -> str:
        if self.mode == "reference" and _suffix(ref) is not None:
            return str(Path(ref).absolute())
        data, suffix = _content(ref)
        name = _name(data, suffix)
        file = self.folder / FOLDER / name[:2] / name  # hubs take no folder of 100,000 files
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return file.relative_to(self.folder).as_posix()


def _name(data: bytes, suffix: str) -> str:
    """By content, so that equal pictures are one file, and names do not depend on where the data lies."""
    return hashlib.sha256(data).hexdigest()[:24] + suffix


def _content(ref: str) -> tuple[bytes, str]:
    """A picture's bytes and the ending that goes with them. Raises DataError where it cannot be read."""
    if (suffix := _suffix(ref)) is not None:
        return Path(ref).read_bytes(), suffix
    buffer = io.BytesIO()
    load_image(ref).save(buffer, format="PNG")
    return buffer.getvalue(), ".png"


def _suffix(ref: str) -> str | None:
    """The ending of a file that any tool opens as our fits do; None for one that is written anew."""
    if not Path(ref).is_file():
        return None
    try:
        with Image.open(ref, formats=FORMATS) as image:
            upright = image.getexif().get(ImageOps.ExifTags.Base.Orientation, 1) == 1
            usual = image.mode in ("RGB", "L") and "transparency" not in image.info
            single = getattr(image, "n_frames", 1) == 1
            return USUAL.get(str(image.format)) if upright and usual and single else None
    except (OSError, ValueError, SyntaxError):
        return None  # load_image says what is wrong with it
