"""Pictures of real digits: every split has its own handwriting, and a reference always draws the same picture."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mathse.data.images import load_image
from mathse.data.synthetic import digits
from mathse.errors import DataError


def test_every_digit_image_belongs_to_exactly_one_split() -> None:
    splits = digits.split_indices()
    for one, other in itertools.combinations(splits, 2):
        assert not set(splits[one]) & set(splits[other]), (one, other)
    assert sorted(np.concatenate(list(splits.values()))) == list(range(1797))
    assert {name: len(part) for name, part in splits.items()} == digits.SPLITS


def test_the_digits_are_scikit_learns_number_by_number() -> None:
    theirs = load_digits()
    with np.load(digits.FILE) as ours:
        assert np.array_equal(ours["images"], theirs.images) and np.array_equal(ours["labels"], theirs.target)


def test_no_picture_of_one_split_stands_in_another_under_another_number() -> None:
    images = [digits.render(digits.reference((i, i, i))).tobytes() for i in range(1797)]
    owner: dict[bytes, str] = {}
    for split, indices in digits.split_indices().items():
        for index in indices:
            assert owner.setdefault(images[index], split) == split


def test_each_split_holds_all_ten_digits() -> None:
    for split, indices in digits.split_indices().items():
        assert {digits.label(int(i)) for i in indices} == set(range(10)), split


def test_a_reference_round_trips() -> None:
    for indices in [(0, 0, 0), (12, 345, 1796), (1796, 0, 7)]:
        assert digits.parse_reference(digits.reference(indices)) == indices


@pytest.mark.parametrize(
    "ref",
    ["digits:0012-0345", "digits:0012-0345-0678-0001", "digits:0012-0345-1797", "digits:12-345-678", "digits:",
     "digits:-001-0345-0678", "digits:٠٠١٢-0345-0678", "digits:0012-0345-067a", "digits:../../secret",
     "digits:0012-0345-0678+", "digits:0012-0345-0678+12", "digits:0012-0345-0678+12x4"],
)  # fmt: skip
def test_what_is_no_reference_is_refused_with_an_example_of_one(ref: str) -> None:
    with pytest.raises(DataError, match="0012-0345-0678"):
        digits.render(ref)


def test_rendering_is_deterministic_and_one_glyph_a_visual_token() -> None:
    ref = digits.reference((3, 700, 1500))
    image = digits.render(ref)
    assert (image.mode, image.size) == ("RGB", (3 * digits.GLYPH, digits.GLYPH))
    assert image.tobytes() == digits.render(ref).tobytes() == load_image(ref).tobytes()


def test_a_jittered_reference_draws_the_same_digits_in_another_way_and_always_the_same() -> None:
    ref = digits.reference((12, 345, 678))
    other = digits.jittered(ref, random.Random(1))
    assert other == digits.jittered(ref, random.Random(1)) != digits.jittered(ref, random.Random(2))
    assert (
        digits.parse_reference(other)
        == (12, 345, 678)
        == digits.parse_reference(digits.jittered(other, random.Random(3)))
    )
    plain, moved = (np.asarray(digits.render(r), dtype=float) for r in (ref, other))
    assert plain.shape == moved.shape and np.array_equal(moved, np.asarray(digits.render(other)))
    assert 0.5 < np.corrcoef(plain.ravel(), moved.ravel())[0, 1] < 0.99
    assert load_image(other).size == load_image(ref).size


def test_the_order_of_digits_shows_in_the_picture() -> None:
    ink = np.asarray(digits.render(digits.reference((3, 700, 1500))))
    assert (ink.reshape(28, 3, 28, 3).max(axis=(0, 2, 3)) > 150).all(), "each cell has bright ink"
    assert not np.array_equal(ink, np.asarray(digits.render(digits.reference((1500, 700, 3)))))
