"""FormalGeo7K: 6,981 geometry problems with formal annotations; pictures of Geometry3K, GeoQA and GeoQA+, new texts.

Source    Zhang et al. 2023, "FormalGeo", github.com/FormalGeo/FormalGeo, formalgeo7k_v1
Licence   MIT; the pictures come from other sets
Files     problems/<number>.json, pictures in diagrams/; the set has no splits of its own in these files
A record  {"problem_id": 1, "problem_text_en": "As shown in the diagram, ...", "problem_text_cn": "如图所示,...",
           "problem_img": "1.png", "problem_answer": "15", "source": "Geometry3k-0", "problem_level": 1}
The English text is read; the Chinese one asks the same. The benchmarks made of the same pictures (MathVista, MathVerse)
share problems with it: train on it with decontaminate.against=[...].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mathse.data.readers.base import PublishedSet, RecordOrigin, Values, found_image, tagged, text_of


def rows(values: Values, origin: RecordOrigin) -> Iterator[dict[str, Any]]:
    beside = f"{origin.folder.removesuffix('problems')}diagrams"
    yield tagged(
        "formalgeo",
        text_of(values, "problem_id"),
        text_of(values, "problem_text_en"),
        text_of(values, "problem_answer"),
        images=[found_image(values.get("problem_img"), origin, (beside, "diagrams"))],
        taken_from=values.get("source"),
        level=values.get("problem_level"),
    )


READER = PublishedSet(
    name="formalgeo",
    title="FormalGeo7K",
    home="https://github.com/FormalGeo/FormalGeo",
    licence="MIT",
    patterns=("**/problems/*.json",),
    rows=rows,
)
