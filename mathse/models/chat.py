"""Families whose processor has a chat template: a prompt is the rendered conversation, its images written out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from PIL.Image import Image

from mathse.data.images import image_size
from mathse.models.base import Backbone, Features
from mathse.models.row import Part, Row, turns

# A pattern for ``lora_scopes``: the matrices of a decoder that transformers builds like Llama's.
DECODER_SCOPE = r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"


class ChatBackbone(Backbone):
    """Families whose processor has a chat template with an image placeholder in it."""

    image_marks: ClassVar[int] = 0  # tokens that ``expand`` writes around those of the image itself

    @abstractmethod
    def expand(self, features: Features) -> str:
        """What the placeholder of one image becomes: its tokens, written out."""

    def render(self, row: Row) -> str:
        """The prompt text of a row, with the chat template; special tokens in user text lose their meaning."""
        messages: list[dict[str, Any]] = []
        for question, answer in turns(self.as_read(row)):
            messages.append({"role": "user", "content": self.content(question)})
            if answer is not None:
                messages.append({"role": "assistant", "content": self.defuse(answer)})
        return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def findings(self) -> list[str]:
        tokenizer = self.tokenizer
        begins = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        if not begins or tokenizer("")["input_ids"][:1] != begins:
            return []
        row = Row(question="?", images=())
        if self.tokenizer(self.render(row), add_special_tokens=False)["input_ids"][:1] == begins:
            return []
        return [
            f"backbone={self.family}: the tokenizer begins a text with {tokenizer.bos_token!r} and the chat template "
            "does not, so no prompt begins with it; where the model was trained with it, pass "
            "backbone.chat_template=FILE, a template that begins with {{ bos_token }}"
        ]

    def content(self, parts: Sequence[Part]) -> Any:
        """What the user says in a turn, as the chat template takes it."""
        return [
            {"type": "text", "text": self.defuse(part.text)} if part.image is None else {"type": "image"}
            for part in parts
        ]

    def prompt_ids(self, rows: Sequence[Row], images: Sequence[Sequence[Features]]) -> list[list[int]]:
        texts = []
        for row, row_images in zip(rows, images, strict=True):
            # one placeholder an image; user text holds none, see ``defuse``
            pieces = self.render(row).split(self.processor.image_token)
            expanded = [*map(self.expand, row_images), ""]
            texts.append("".join(piece + image for piece, image in zip(pieces, expanded, strict=True)))
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    def prompt_lengths(self, rows: Sequence[Row]) -> list[int]:
        # A placeholder is one token, which no other text runs into, and a file's header has its size.
        texts = [self.render(row) for row in rows]
        lengths = []
        for row, ids in zip(rows, self.tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True):
            sizes = (i.size if isinstance(i, Image) else image_size(str(i)) for i in row["images"])
            lengths.append(len(ids) + sum(self.tokens_in_row(row, *size) + self.image_marks - 1 for size in sizes))
        return lengths

    def tokens_in_row(self, row: Row, width: int, height: int) -> int:
        """``image_tokens`` of an image in this row."""
        return self.image_tokens(width, height)
