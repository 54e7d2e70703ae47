"""Marks: tokens with a special meaning, such as the beginning of a turn, the end of a response, the place of a picture.

A tokenizer reads a mark wherever its text occurs, also in a question or in a student's path. ``defuse`` changes such a
text so that it stays text. Otherwise a problem could end its own turn and continue as the system.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from mathse.errors import DataError

# Added tokens that are not special are marks if they are in brackets ("<tool_call>", "[INST]", "<｜User｜>"). The
# others are words and symbols of texts, such as the line breaks that Gemma's tokenizer adds.
_BRACKETS = re.compile(r"<.+>|\[.+\]", re.DOTALL)
# Common marks of tokenizers and tools, for texts that go to a model with an unknown tokenizer.
_COMMON = re.compile(
    r"<(?=(?:image|video|audio|bbox|ref-object|start-image|cot-process|IMG_CONTEXT|/?img|/?s|(?:start|end)_of_turn"
    r"|\|[^<>|\s]{1,40}\||｜[^<>｜\s]{1,40}｜)>)|\[(?=/?INST\])"
)
_MAX_PASSES = 100  # over a text that reads as marks through the tokenizer's normalizer


class TokenizerMarks:
    """The marks of a tokenizer.

    Args:
        tokenizer: reads the marks.
        special: text -> id of marks that sampled text never has.
        others: text -> id of marks that a response may have, such as a reasoning model's "<think>".
        written: texts that the processor, not the tokenizer, reads as marks.
    """

    def __init__(
        self, tokenizer: Any, special: Mapping[str, int], others: Mapping[str, int], written: Iterable[str] = ()
    ) -> None:
        self._tokenizer, self._special, self.others, self._written = tokenizer, special, others, tuple(written)
        self.ids = frozenset({*special.values(), *others.values()})
        texts = {text.strip() for text in (*special, *others, *self._written)}
        # A regular expression for the first character of each mark, with the rest as a lookahead. A text of one
        # character cannot be split, so it is left out.
        rests: dict[str, list[str]] = {}
        for text in sorted(text for text in texts if len(text) > 1):
            rests.setdefault(text[0], []).append(re.escape(text[1:]))
        begins = "|".join(f"{re.escape(first)}(?={'|'.join(rest)})" for first, rest in rests.items())
        self._begin = re.compile(begins or r"(?!)")
        normalizes = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None) is not None
        self._normalized = normalizes and any(
            token.normalized for index, token in tokenizer.added_tokens_decoder.items() if index in self.ids
        )

    @classmethod
    def of(cls, tokenizer: Any, written: Iterable[str] = ()) -> TokenizerMarks:
        """Return all marks of a tokenizer. Its ``all_special_tokens`` lack the special tokens without a role."""
        named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        added = tokenizer.added_tokens_decoder.items()
        special = {token.content: index for index, token in added if token.special} | named
        others = {token.content: index for index, token in added if _BRACKETS.fullmatch(token.content.strip())}
        special = {text: index for text, index in special.items() if len(text.strip()) > 1}
        return cls(tokenizer, special, {text: i for text, i in others.items() if text not in special}, written)

    def without_others(self, but: Collection[int]) -> TokenizerMarks:
        """Return the special marks, with only those other marks that have an id in ``but``."""
        others = {text: index for text, index in self.others.items() if index in but}
        return TokenizerMarks(self._tokenizer, self._special, others, self._written)

    def defuse(self, text: str) -> str:
        """Return the text with a space after the first character of each mark: "<|im_end|>" becomes "< |im_end|>".

        Raises DataError if the text still has marks after many passes.
        """
        original = text
        for _ in range(_MAX_PASSES):
            before = None
            while text != before:  # a space may form another mark, if marks have spaces
                before, text = text, self._begin.sub(r"\g<0> ", text)
            text = self._split_normalized_marks(text)
            if text == before:
                return text
        raise DataError(
            f"a text of {len(original):,} characters reads as marks of the tokenizer even with spaces between their "
            f"characters: {original[:80]!r}; remove the marks from it"
        )

    def _split_normalized_marks(self, text: str) -> str:
        """Return the text with a space inside each mark that appears only through the tokenizer's normalizer."""
        if not self._normalized:
            return text
        encoding = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
        # From the last mark to the first, so that earlier offsets stay valid.
        for begin, end in reversed([span for index, span in spans if index in self.ids]):
            place = end - len(text[begin:end].lstrip()) + 1  # a mark may include the spaces around it
            if place < end:
                text = f"{text[:place]} {text[place:]}"
        return text


def defuse_common(text: str) -> str:
    """Return the text with a space after the first character of every common mark of models and tools."""
    return _COMMON.sub(r"\g<0> ", text)
