"""Qwen2-VL through transformers' own classes: encoding, batching with M-RoPE positions, sampling.

Source of the facts: transformers' ``modeling_qwen2_vl`` (M-RoPE positions, merge of 2 x 2 patches).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessor, LogitsProcessorList

from mathse.backbones.base import IGNORED, Backbone, Completion, Encoded, Row
from mathse.backbones.cache import BoundedCache
from mathse.errors import DataError
from mathse.images import load_image

MAX_ASPECT = 200  # of an image's sides; Qwen2-VL's image processor takes no thinner one


def _join(images: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    if not images:
        return {}
    pixels = images[0][0] if len(images) == 1 else torch.cat([p for p, _ in images])  # a single image is not copied
    return {"pixel_values": pixels, "image_grid_thw": torch.stack([grid for _, grid in images])}


def _key(image: str | Path | Image) -> Hashable:
    return str(image) if isinstance(image, (str, Path)) else id(image)


def _picture(image: str | Path | Image) -> Image:
    picture = load_image(str(image)) if isinstance(image, (str, Path)) else image
    if max(picture.size) > MAX_ASPECT * min(picture.size):
        size = f"{picture.width} x {picture.height} pixels"
        raise DataError(f"image {image}: {size}, one side may be {MAX_ASPECT} times the other; crop or pad it")
    return picture


class Watch(LogitsProcessor):
    """Keeps the raw logits of a few tokens at each sampling step, and changes nothing."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = list(tokens)
        self.steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.steps.append(scores[:, self.tokens].float())
        return scores


class Qwen2VLBackbone(Backbone):
    """A ``Qwen2VLForConditionalGeneration`` with its ``Qwen2VLProcessor``."""

    family: ClassVar[str] = "qwen2vl"

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.tokenizer = processor.tokenizer
        self.image_id = model.config.image_token_id
        self.end_id = self.tokenizer.eos_token_id
        self.pad_id = self.tokenizer.pad_token_id
        vision_ids = [
            model.config.image_token_id,
            model.config.video_token_id,
            model.config.vision_start_token_id,
            model.config.vision_end_token_id,
        ]
        self._cache: BoundedCache[tuple[Tensor, Tensor]] = BoundedCache(32 * 2**20)
        self.never_sampled = [i for i in vision_ids if i is not None]  # an image token in a path would need an image

    # --- encoding ---

    def render(self, row: Row) -> str:
        """The prompt text of a row, with the chat template; special tokens in user text lose their meaning."""
        turns = [*row.get("history", ()), (row["question"], None)]
        messages: list[dict[str, Any]] = []
        for question, answer in turns:
            images = [] if messages else [{"type": "image"} for _ in row["images"]]
            messages.append({"role": "user", "content": [*images, {"type": "text", "text": self.defuse(question)}]})
            if answer is not None:
                messages.append({"role": "assistant", "content": self.defuse(answer)})
        return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def defuse(self, text: str) -> str:
        """User text in which no special token of the tokenizer stands any more."""
        for token in self.tokenizer.all_special_tokens:
            if token in text:
                text = text.replace(token, token[:1] + " " + token[1:])
        return text

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        images = self._image_features([image for row in rows for image in row["images"]])
        mine = [[next(images) for _ in row["images"]] for row in rows]
        texts = [self._expand(self.render(row), [grid for _, grid in m]) for row, m in zip(rows, mine, strict=True)]
        prompts = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        answers = [self.defuse(row["response"]) for row in rows if "response" in row]
        responses = iter(self.tokenizer(answers, add_special_tokens=False)["input_ids"] if answers else [])
        encoded = []
        for row, m, prompt in zip(rows, mine, prompts, strict=True):
            response = [*next(responses), self.end_id] if "response" in row else []
            features = _join(m)
            encoded.append(Encoded(prompt, response, features, self.positions(prompt + response, features)))
        return encoded

    def _image_features(self, images: Sequence[str | Path | Image]) -> Iterator[tuple[Tensor, Tensor]]:
        """(patches, 1176) pixels and (3,) grid of each image, in order; those of files are kept in a bounded cache."""
        missing = [i for i in dict.fromkeys(map(_key, images)) if i not in self._cache]
        if missing:
            opened = {_key(i): i for i in images}
            pictures = [_picture(opened[k]) for k in missing]
            done = self.processor.image_processor(pictures, return_tensors="pt")
            sizes = done["image_grid_thw"].prod(-1).tolist()
            new = dict(
                zip(missing, zip(done["pixel_values"].split(sizes), done["image_grid_thw"], strict=True), strict=True)
            )
        else:
            new = {}
        features = [new[k] if k in new else self._cache[k] for k in map(_key, images)]
        for key, value in new.items():
            if isinstance(key, str):
                self._cache.put(key, (value[0].clone(), value[1]), value[0].nbytes)
        return iter(features)

    def _expand(self, text: str, grids: Sequence[Tensor]) -> str:
        """Each image placeholder of a rendered prompt, repeated once a visual token (as Qwen2VLProcessor does)."""
        merged = self.processor.image_processor.merge_size**2
        pieces = text.split(self.processor.image_token)
        counts = [int(grid.prod()) // merged for grid in grids] + [0]
        return "".join(p + self.processor.image_token * c for p, c in zip(pieces, counts, strict=True))

    def positions(self, ids: list[int], features: dict[str, Tensor]) -> Tensor:
        """M-RoPE positions (3, len(ids)): text counts up, an image's tokens carry (time, row, column)."""
        grids = features["image_grid_thw"].tolist() if features else []
        merge = self.model.config.vision_config.spatial_merge_size
        parts, start, token = [], 0, 0
        for time, height, width in grids:
            rows, columns = height // merge, width // merge
            begin = ids.index(self.image_id, token)
            parts.append(torch.arange(start, start + begin - token).expand(3, -1))
            start += begin - token
            cells = torch.cartesian_prod(*(torch.arange(n) for n in (time, rows, columns))).view(-1, 3).T
            parts.append(cells + start)
            start, token = start + max(height, width) // merge, begin + time * rows * columns
        parts.append(torch.arange(start, start + len(ids) - token).expand(3, -1))
        return torch.cat(parts, dim=1)

    # --- batches ---

    def pad(self, encoded: Sequence[Encoded]) -> dict[str, Tensor]:
        ids = [torch.tensor(e.ids) for e in encoded]
        labels = [torch.tensor([IGNORED] * len(e.prompt) + e.response) for e in encoded]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_id),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            "position_ids": pad_sequence([e.positions.T for e in encoded], batch_first=True).permute(2, 0, 1),
            **self._features(encoded),
        }  # right-padded and causal: no position sees the padding, so no mask is needed

    def _features(self, encoded: Sequence[Encoded]) -> dict[str, Tensor]:
        with_images = [e.features for e in encoded if e.features]
        return {k: torch.cat([f[k] for f in with_images]) for k in (with_images[0] if with_images else ())}

    def _left_padded(self, encoded: Sequence[Encoded]) -> dict[str, Tensor]:
        width = max(len(e.prompt) for e in encoded)
        ids = torch.full((len(encoded), width), self.pad_id)
        for i, e in enumerate(encoded):
            ids[i, width - len(e.prompt) :] = torch.tensor(e.prompt)
        lengths = torch.tensor([len(e.prompt) for e in encoded])
        mask = torch.arange(width) >= width - lengths[:, None]
        return {
            "input_ids": ids,
            "attention_mask": mask.long(),
            "mm_token_type_ids": (ids == self.image_id).int(),
            **self._features(encoded),
        }

    # --- sampling ---

    @torch.inference_mode()
    def complete(
        self,
        rows: Sequence[Row],
        *,
        n: int = 1,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        watch: Sequence[int] = (),
    ) -> list[list[Completion]]:
        encoded = self.encode(rows)
        batch = {k: v.to(self.device) for k, v in self._left_padded(encoded).items()}
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature > 0:  # always explicit: a checkpoint's own defaults may make n samples identical
            sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k}
        watcher = Watch(watch)
        was_training = self.model.training
        self.model.eval()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            out = self.model.generate(
                **batch,
                **sampling,
                num_return_sequences=n,
                max_new_tokens=max_new_tokens,
                suppress_tokens=self.never_sampled,
                eos_token_id=self.end_id,
                pad_token_id=self.pad_id,
                logits_processor=LogitsProcessorList([watcher] if watch else []),
                use_cache=True,
            )
        self.model.train(was_training)
        return self._completions(out[:, batch["input_ids"].shape[1] :].cpu(), watcher, n)

    def _completions(self, sampled: Tensor, watcher: Watch, n: int) -> list[list[Completion]]:
        ended = (sampled == self.end_id).long()
        lengths = torch.where(ended.any(1), ended.argmax(1) + 1, sampled.shape[1]).tolist()
        ids = [row[:length].tolist() for row, length in zip(sampled, lengths, strict=True)]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        logits = torch.stack(watcher.steps, dim=1).cpu() if watcher.steps else None  # (B * n, T, W)
        flat = [
            Completion(text, i, logits[k, : len(i)] if logits is not None else None)
            for k, (text, i) in enumerate(zip(texts, ids, strict=True))
        ]
        return [flat[k : k + n] for k in range(0, len(flat), n)]

    # --- the rest of the contract ---

    def image_tokens(self, width: int, height: int) -> int:
        return self.processor._get_num_multimodal_tokens(image_sizes=[(height, width)])["num_image_tokens"][0]

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
