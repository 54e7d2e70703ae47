"""A real engine on localhost: tiny checkpoints behind the OpenAI API, through transformers' own classes.

    with Engine() as engine:
        ... engine.url; a request names a checkpoint folder as its model ...

It knows nothing of this package: prompts go through the folder's own chat template and processor, one request at a
time. Its switches are what real engines differ in. As a program it serves one folder under one name:

    python tests/engine.py FOLDER --name NAME --port PORT
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self

import torch
from local_server import Listening, LocalServer
from PIL import Image
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration
from transformers.utils import logging

Body = dict[str, Any]
# One thread at a time: while it reads a model, transformers replaces a function of all models, and of two that overlap
# the second leaves the replacement behind (weights are tied in no later model).
READS = threading.Lock()


@dataclass
class Model:
    """An opened checkpoint folder."""

    net: Any
    processor: Any

    @classmethod
    def open(cls, folder: str) -> Self:
        with READS:
            net = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        return cls(net.eval(), AutoProcessor.from_pretrained(folder, local_files_only=True))


@dataclass
class Engine(LocalServer):
    """``named``: models by a name of their own; any other name is a folder.

    ``ignores_n``, ``ignores_logprobs``: as ``transformers serve``. ``miscounts``: prompt tokens added to each count.
    ``counts``: whether it reports any. ``vllm``: the folder whose weights it begins with; it has then one model, and
    takes the control requests of vLLM. ``key``: the one that is let in. ``echoes``: the status that every request is
    refused with, its Authorization repeated. ``takes_bias``: else a request with ``logit_bias`` is refused.
    """

    below = "/v1"

    port: int = 0
    named: dict[str, Model] = field(default_factory=dict)
    ignores_n: bool = False
    ignores_logprobs: bool = False
    miscounts: int = 0
    counts: bool = True
    vllm: Path | None = None
    key: str | None = None
    echoes: int | None = None
    takes_bias: bool = True

    def __post_init__(self) -> None:
        self.asked: list[Body] = []
        self.posted: list[tuple[str, Body]] = []  # all else
        self.answered: Counter[str] = Counter()  # by the whole request
        self.freeze_at, self.frozen, self._thawed = 0, threading.Event(), threading.Event()
        self._opened: dict[str, Model] = {}
        self.held, self.asleep, self.half_loads = "", False, False
        if self.vllm is not None:
            self.named["mathse-model"], self.held = Model.open(str(self.vllm)), self.vllm.name
        self._lock = threading.Lock()
        super().__init__(_Handler, self.port)

    def freeze(self, at: int) -> None:
        """Stand still at the ``at``-th request from now and those behind it, so that a client can be killed there; what
        stands is never answered."""
        self.frozen.clear()
        self._thawed.clear()
        self.freeze_at = len(self.asked) + at

    def thaw(self) -> None:
        self.freeze_at = 0
        self._thawed.set()

    # --- what it is asked ---

    def completion(self, body: Body) -> Body:
        with self._lock:
            self.asked.append(body)
            stands = 0 < self.freeze_at <= len(self.asked)
        if stands:
            self.frozen.set()
            self._thawed.wait(60)
            raise ConnectionAbortedError
        with self._lock, torch.inference_mode():
            done = self._completion(body, self._model(body["model"]))
            self.answered[json.dumps(body, sort_keys=True)] += 1
        return done

    def post(self, path: str, body: Body) -> None:
        """Raises KeyError for a path that it does not know."""
        self.posted.append((path, body))
        if self.vllm is None or not self._control(path, body):
            raise KeyError(path)

    def _control(self, path: str, body: Body) -> bool:
        if path == "/collective_rpc" and body["method"] == "mathse_load":
            folder = Path(body["kwargs"]["folder"])
            if not self.half_loads:
                self.named["mathse-model"] = Model.open(str(folder))
            self.held = folder.name
        elif path == "/collective_rpc" and body["method"] == "mathse_forget":
            self.held = ""
        elif path.startswith(("/sleep", "/wake_up")):
            self.asleep = path.startswith("/sleep")
        else:
            return path.startswith("/reset_") or path == "/collective_rpc" and body["method"] == "mathse_held"
        return True

    def _model(self, name: str) -> Model:
        assert not self.asleep
        if name in self.named:
            return self.named[name]
        if not os.path.isabs(name):
            raise KeyError(name)
        if name not in self._opened:
            self._opened = {name: Model.open(name)}
        return self._opened[name]

    def _completion(self, body: Body, model: Model) -> Body:
        inputs = inputs_of(body["messages"], model.processor)
        length = inputs["input_ids"].shape[1]
        n = 1 if self.ignores_n else body.get("n", 1)
        sampling: Body = {"do_sample": False}
        if body.get("temperature", 1.0) > 0:
            sampling = {"do_sample": True, "temperature": body.get("temperature", 1.0), "top_p": body.get("top_p", 1.0),
                        "top_k": 0}  # fmt: skip
        if body.get("logit_bias"):
            sampling["sequence_bias"] = {(int(token),): float(bias) for token, bias in body["logit_bias"].items()}
        torch.manual_seed(body.get("seed", 0))
        out = model.net.generate(
            **inputs,
            **sampling,
            num_return_sequences=n,
            max_new_tokens=body.get("max_tokens", 16),
            return_dict_in_generate=True,
            output_logits=True,
        )
        wants = bool(body.get("logprobs")) and not self.ignores_logprobs
        named, by_id = body.get("logprob_token_ids"), bool(body.get("return_tokens_as_token_ids"))
        sampled = out.sequences[:, length:]
        choices = [
            _choice(model.processor.tokenizer, k, ids.tolist(), [step[k] for step in out.logits], wants, named, by_id)
            for k, ids in enumerate(sampled)
        ]
        written = sum(choice.pop("tokens") for choice in choices)
        usage = {"prompt_tokens": length + self.miscounts, "completion_tokens": written}
        return {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "choices": choices,
                **({"usage": usage} if self.counts else {})}  # fmt: skip


def inputs_of(messages: Sequence[Body], processor: Any) -> Any:
    """As servers do it: the folder's chat template over the messages, the pictures in their order."""
    pictures, said = [], []
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            said.append(message)
            continue
        parts = []
        for part in content:
            if part["type"] == "image_url":
                data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
                pictures.append(Image.open(io.BytesIO(data)).convert("RGB"))
                parts.append({"type": "image"})
            else:
                parts.append(part)
        said.append({"role": message["role"], "content": parts})
    text = processor.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    return processor(text=[text], images=pictures or None, return_tensors="pt")


def _choice(
    tokenizer: Any,
    index: int,
    ids: list[int],
    logits: Sequence[torch.Tensor],
    logprobs: bool,
    named: Sequence[int] | None = None,
    by_id: bool = False,
) -> Body:
    end = tokenizer.eos_token_id
    length = ids.index(end) + 1 if end in ids else len(ids)
    text = tokenizer.decode(ids[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    steps = zip(ids[:length], logits, strict=False)
    content = [_token(tokenizer, i, step, named) for i, step in steps] if logprobs else None
    if content is not None and by_id:
        content = [{**token, "token": f"token_id:{i}"} for token, i in zip(content, ids, strict=False)]
    return {
        "index": index,
        "finish_reason": "stop" if end in ids else "length",
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": content} if content is not None else None,
        "tokens": length,
    }


def _token(tokenizer: Any, chosen: int, logits: torch.Tensor, named: Sequence[int] | None = None) -> Body:
    odds = torch.log_softmax(logits.float(), -1)
    best = odds.topk(20)
    alternatives = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    if named is not None:
        alternatives = [(token, float(odds[token])) for token in named]
    top = [{"token": tokenizer.decode([i]), "logprob": p} for i, p in alternatives]
    return {"token": tokenizer.decode([chosen]), "logprob": float(odds[chosen]), "top_logprobs": top}


class _Handler(BaseHTTPRequestHandler):
    server: Listening
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/is_sleeping":
            self._send(200, {"is_sleeping": self.server.owner.asleep})
        elif self._let_in() and self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": name} for name in self.server.owner.named]})
        else:
            self._send(404, {"error": {"message": "not found"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._let_in():
            self._send(401, {"error": {"message": "wrong key"}})
            return
        if (status := self.server.owner.echoes) is not None:
            self._send(status, {"error": {"message": f"no good: {self.headers.get('Authorization')}"}})
            return
        try:
            if "logit_bias" in body and not self.server.owner.takes_bias:
                self._send(422, {"detail": "Unexpected fields in the request: {'logit_bias'}"})
            elif self.path == "/v1/chat/completions":
                self._send(200, self.server.owner.completion(body))
            else:
                self.server.owner.post(self.path, body)
                self._send(200, {"results": [self.server.owner.held]})
        except ConnectionAbortedError:
            self.close_connection = True
        except (KeyError, OSError) as e:
            self._send(404, {"error": {"message": f"no such model: {e}", "code": "model_not_found"}})

    def _let_in(self) -> bool:
        key = self.server.owner.key
        return key is None or self.headers.get("Authorization") == f"Bearer {key}"

    def _send(self, status: int, body: Body) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(data)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--fail", default="", help="say this, and end with code 3")
    asked = parser.parse_args(argv)
    if asked.fail:
        print(asked.fail, flush=True)
        sys.exit(3)
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    with Engine(asked.port, {asked.name: Model.open(str(asked.folder))}):
        print(f"serves {asked.folder} as {asked.name}", flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1:])
