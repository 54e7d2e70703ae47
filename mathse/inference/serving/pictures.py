"""The pictures of requests as files. Each picture is brought into its final form once a run, and then read or named.

An engine on this machine gets the file's address (``file://``), any other its bytes. A request's key has the hash of
the file's contents in the picture's place. So a request is the same wherever its picture lies and however it is sent,
and no megabytes are hashed or held.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from mathse.data.images import load_image
from mathse.inference.llm.images import plain_mime_type
from mathse.runs.store import make_folder, sha256_file

PICTURES = "pictures"  # in RUN/served
MIME_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


class PictureFiles:
    """Pictures in ``folder``, whose sides have at most ``side`` pixels.

    A PNG or JPEG file that is upright, opaque and has 8 bits a channel shows exactly the pixels that the backbones see,
    and is copied. Any other picture is drawn or decoded, and stored as a PNG. Either way no pixel differs from the
    local prompt's picture.
    """

    def __init__(self, folder: Path, side: int) -> None:
        self.folder, self.side = folder.absolute(), side
        self._addresses: dict[str, str] = {}  # by a reference and the state of its file
        self._files: dict[str, Path] = {}  # by address

    def address(self, image: Any) -> str:
        """Return ``sha256:...`` of the picture, whose file is in the folder from now on.

        Args:
            image: a reference (see mathse/data/images.py), or a picture in memory.

        Raises:
            DataError: as ``load_image``.
        """
        # The source distinguishes pictures before they are opened: by their pixels in memory, or by the size and time
        # of their file.
        if isinstance(image, Image.Image):
            source = f"{image.mode} {image.size} {hashlib.sha256(image.tobytes()).hexdigest()}"
        elif (path := Path(str(image))).is_file():
            source = f"{image} {path.stat().st_size} {path.stat().st_mtime_ns}"
        else:
            source = str(image)
        if source not in self._addresses:
            name = hashlib.sha256(f"{self.side} {source}".encode()).hexdigest()[:24]
            file = self._find_or_make(image, name)
            address = f"sha256:{sha256_file(file)}"
            self._addresses[source], self._files[address] = address, file
        return self._addresses[source]

    def url(self, address: str, local: bool) -> str:
        """Return the URL that a server gets: ``file://`` if it is ``local``, otherwise a data URL."""
        file = self._files[address]
        if local:
            return file.as_uri()
        return f"data:{MIME_TYPES[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"

    def _find_or_make(self, image: Any, name: str) -> Path:
        """Return the picture's file; make it if no earlier start has made it."""
        for suffix in MIME_TYPES:
            if (file := self.folder / f"{name}{suffix}").exists():
                return file
        make_folder(self.folder)
        unfinished = self.folder / f".{name}.{os.getpid()}.partial"
        mime_type = None if isinstance(image, Image.Image) else plain_mime_type(str(image), self.side)
        if mime_type is not None:
            # A link or a copy, since an engine may read only files below the run folder.
            suffix = next(suffix for suffix, of_suffix in MIME_TYPES.items() if of_suffix == mime_type)
            file = self.folder / f"{name}{suffix}"
            try:
                os.link(Path(image).resolve(), unfinished)
            except OSError:
                shutil.copyfile(image, unfinished)
        else:
            file = self.folder / f"{name}.png"
            picture = image if isinstance(image, Image.Image) else load_image(str(image))
            if max(picture.size) > self.side:
                picture = picture.copy()
                picture.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
            picture.save(unfinished, format="PNG")
        unfinished.replace(file)
        return file
