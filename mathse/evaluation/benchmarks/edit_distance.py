"""Levenshtein's distance: insertions, deletions and substitutions cost 1."""

from __future__ import annotations


def distance(left: str, right: str) -> int:
    """Myers 1999, "A fast bit-vector algorithm", as Hyyro 2001 has it for the distance: O(len(right)) integer steps.

    Bit k of ``rises`` (``falls``) says that the distance grows (shrinks) by 1 from row k to row k + 1 of the table.
    """
    if not left or not right:
        return len(left) + len(right)
    where: dict[str, int] = {}
    for k, character in enumerate(left):
        where[character] = where.get(character, 0) | 1 << k
    full, last = (1 << len(left)) - 1, 1 << (len(left) - 1)
    rises, falls, total = full, 0, len(left)
    for character in right:
        match = where.get(character, 0)
        diagonal = (((match & rises) + rises) ^ rises) | match | falls
        across_up = falls | ~(diagonal | rises) & full
        across_down = rises & diagonal
        total += (across_up & last != 0) - (across_down & last != 0)
        across_up = (across_up << 1 | 1) & full
        rises = (across_down << 1 | ~(diagonal | across_up)) & full
        falls = across_up & diagonal
    return total


def nearest(text: str, options: list[str]) -> str:
    """The option at the smallest distance; the first of several."""
    return min(options, key=lambda option: distance(text, option))
