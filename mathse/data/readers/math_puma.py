"""Math-PUMA: the training data of three stages, each from several sources, one picture a record or none.

Source    Zhuang et al. 2024, "Math-PUMA", github.com/wwzhuang01/Math-PUMA; hub Math-PUMA/Math-PUMA_Data_Stage{1,2,3}
Licence   GPL-3.0 on the hub pages; stage 3 holds other sets (MathV360K), whose own terms go on
Files     <source>/train.json(l), pictures of images.tar.gz unpacked beside it; "image_url" is the picture's path
A record  {"instruction": "Find the area of ...", "output": "... The answer is 12.", "image_url": "images/17.png",
           "image_url_2": "...", "instruction_2": "...", "output_2": "..."}
The "_2" half of a stage-2 record asks the same with less text and more picture, to align the two; the first half is
read. We hold no sample of it: tested against records written by us in this shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mathse.data.readers.base import PublishedSet, RecordOrigin, Values, found_image, text_of
from mathse.data.readers.llava import exchange


def rows(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    image = values.get("image_url") or values.get("image")
    folders = ("", *([origin.folder, f"{origin.folder}/images"] if origin.folder else []), "images")
    images = [found_image(image, origin, folders)] if image else []
    yield exchange("math_puma", text_of(values, "instruction"), text_of(values, "output"), images)


READER = PublishedSet(
    name="math_puma",
    title="Math-PUMA",
    home="https://github.com/wwzhuang01/Math-PUMA",
    licence="GPL-3.0",
    patterns=("**/{split}.jsonl", "**/{split}.json", "**/{split}.json*", "*.jsonl", "*.json"),
    rows=rows,
)
