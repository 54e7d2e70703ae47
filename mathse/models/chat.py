"""Families with a chat template: a prompt is the rendered conversation with each image placeholder expanded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from PIL.Image import Image

from mathse.data.images import image_size
from mathse.models.base import Backbone, Features
from mathse.models.row import Row, TurnPart, iterate_turns

# A pattern for ``lora_scopes``: the linear layers of a decoder with transformers' module names for Llama.
DECODER_SCOPE = r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"


class ChatBackbone(Backbone):
    """A family with a processor that has a chat template with an image placeholder."""

    image_marks: ClassVar[int] = 0  # number of tokens that ``expand`` adds around the tokens of an image

    @abstractmethod
    def expand(self, features: Features) -> str:
        """Return the text that replaces the placeholder of one image: the text of its tokens."""

    def render(self, row: Row) -> str:
        """Return the prompt text of a row by the chat template. Special tokens in the user's text are defused."""
        messages: list[dict[str, Any]] = []
        for question, answer in iterate_turns(self.as_read(row)):
            messages.append({"role": "user", "content": self.content(question)})
            if answer is not None:
                messages.append({"role": "assistant", "content": self.defuse(answer)})
        return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def findings(self) -> list[str]:
        # A tokenizer that adds a beginning-of-text token, with a template that does not write it: prompts lack it,
        # because they are encoded without the tokens that the tokenizer adds.
        tokenizer = self.tokenizer
        begins = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        if not begins or tokenizer("")["input_ids"][:1] != begins:
            return []
        row = Row(question="?", images=())
        if self.tokenizer(self.render(row), add_special_tokens=False)["input_ids"][:1] == begins:
            return []
        return [
            f"backbone={self.family}: the tokenizer begins a text with {tokenizer.bos_token!r} and the chat template "
            "does not, so no prompt begins with it; if the model was trained with it, pass "
            "backbone.chat_template=FILE, a template that begins with {{ bos_token }}"
        ]

    def content(self, parts: Sequence[TurnPart]) -> Any:
        """Return a user's turn in the form that the chat template takes."""
        items = []
        for part in parts:
            is_image = part.image is not None
            items.append({"type": "image"} if is_image else {"type": "text", "text": self.defuse(part.text)})
        return items

    def prompt_ids(self, rows: Sequence[Row], images: Sequence[Sequence[Features]]) -> list[list[int]]:
        texts = []
        for row, row_images in zip(rows, images, strict=True):
            # One placeholder for each image: ``defuse`` removes placeholders from the user's text.
            pieces = self.render(row).split(self.processor.image_token)
            expanded = [*map(self.expand, row_images), ""]
            texts.append("".join(piece + image for piece, image in zip(pieces, expanded, strict=True)))
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    def prompt_lengths(self, rows: Sequence[Row]) -> list[int]:
        # Each placeholder is one token, and the header of an image file has its size: no pixels are read.
        texts = [self.render(row) for row in rows]
        lengths = []
        for row, ids in zip(rows, self.tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True):
            sizes = (i.size if isinstance(i, Image) else image_size(str(i)) for i in row["images"])
            lengths.append(len(ids) + sum(self.tokens_in_row(row, *size) + self.image_marks - 1 for size in sizes))
        return lengths

    def tokens_in_row(self, row: Row, width: int, height: int) -> int:
        """Return ``image_tokens`` for an image of this row."""
        return self.image_tokens(width, height)
