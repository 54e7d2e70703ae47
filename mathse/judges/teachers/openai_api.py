"""A teacher behind an OpenAI-compatible API: GPT-4o in the paper; vLLM, SGLang, llama.cpp or any other server works.

Three jobs, each a prompt of mathse/inference/prompts: solve, annotate, reflect. A request is sent once; later its
answer comes from the disk (mathse/inference/llm). An empty, refused or cut-off answer is an outcome of its row: it is
stored and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mathse.config.teachers import OpenAITeacher as Settings
from mathse.inference import prompts
from mathse.inference.llm.client import ChatClient, ChatReply, ChatRequest
from mathse.inference.llm.images import content_of
from mathse.models.marks import defuse_usual
from mathse.types import Problem, ReasoningPath, Verdict

WAVES = 32  # rows a call, times max_concurrency: long enough that its last rows matter little
ALL = 10**9  # rows a call of the Batch API, which takes a day however few they are


class OpenAITeacher:
    """See ``ChatClient`` for how the server is reached.

    Annotations are greedy, whatever ``settings.temperature``; without one the server decides about all.
    """

    def __init__(self, settings: Settings) -> None:
        self.client = ChatClient.of(settings, settings.model, "teacher")
        self.name = settings.model
        self.rows_at_once = ALL if settings.mode == "batch" else WAVES * settings.max_concurrency
        self.short = settings.reflect_prompt == "short"
        self.image_side, self.seed = settings.image_side, settings.seed
        greedy = None if settings.temperature is None else 0.0
        self.writing: dict[str, Any] = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
        self.judging: dict[str, Any] = {"temperature": greedy, "max_tokens": settings.max_tokens}

    def account_in(self, folder: Path) -> None:
        self.client.account_in(folder)

    def prompt_version(self, job: str, problem: Problem) -> str:
        return prompts.version("reflect_short" if job == "reflect" and self.short else job, "full", problem)

    def usage(self) -> dict[str, Any]:
        return self.client.account.totals()

    # --- the three jobs ---

    def solve(self, problems: Sequence[Problem]) -> list[str | None]:
        def request(problem: Problem) -> ChatRequest:
            version = self.prompt_version("generate", problem)
            return self._request(problem, prompts.generation_prompt(problem, "full"), version, **self.writing)

        return [_usable(reply) for reply in self.client.complete(map(request, problems))]

    def annotate(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        """An answer without the JSON that was asked for gets a second request; after that the verdict is unparsed. An
        empty path is unparsed without a request."""
        pairs = list(zip(problems, paths, strict=True))
        written = [k for k, (_, path) in enumerate(pairs) if path.text.strip()]
        first = (self._annotation(*pairs[k]) for k in written)
        replies = dict(zip(written, self.client.complete(first), strict=True))
        unread = [
            k
            for k, reply in replies.items()
            if reply.outcome == "answered" and prompts.parse_annotation(reply.text).status == "unparsed"
        ]
        repairs = (self._repair(*pairs[k], replies[k].text) for k in unread)
        replies |= dict(zip(unread, self.client.complete(repairs), strict=True))
        verdicts = []
        for k, path in enumerate(paths):
            reply = replies.get(k)
            if reply is None or reply.outcome != "answered":
                verdicts.append(Verdict(path.id, "unparsed", judge=self.name))
            else:
                parsed = prompts.parse_annotation(reply.text)
                verdicts.append(Verdict(path.id, *parsed, judge=self.name, raw=reply.text))
        return verdicts

    def reflect(
        self,
        problems: Sequence[Problem],
        drafts: Sequence[ReasoningPath],
        feedback: Sequence[Verdict | None],
        attempt: int = 0,
    ) -> list[str | None]:
        def request(problem: Problem, draft: ReasoningPath, verdict: Verdict | None) -> ChatRequest:
            text = prompts.reflection_prompt(problem, draft.text, verdict, "full", short=self.short)
            version, shown = self.prompt_version("reflect", problem), not self.short
            return self._request(problem, text, version, again=attempt, with_images=shown, **self.writing)

        requests = (request(*row) for row in zip(problems, drafts, feedback, strict=True))
        return [_usable(reply) for reply in self.client.complete(requests)]

    # --- their requests ---

    def _annotation(self, problem: Problem, path: ReasoningPath) -> ChatRequest:
        version = prompts.version("annotate", "full", problem)
        text = prompts.annotation_prompt(problem, path.text)
        return self._request(problem, text, version, schema=prompts.ANNOTATION_SCHEMA, **self.judging)

    def _repair(self, problem: Problem, path: ReasoningPath, answer: str) -> ChatRequest:
        first = self._annotation(problem, path)
        turns = [
            {"role": "assistant", "content": defuse_usual(answer)},
            {"role": "user", "content": prompts.repair_prompt(problem)},
        ]
        version = prompts.version("repair", "full", problem)
        return replace(first, messages=[*first.messages, *turns], prompt_version=version)

    def _request(
        self, problem: Problem, text: str, version: str, *, again: int = 0, with_images: bool = True, **options: Any
    ) -> ChatRequest:
        content: Any = defuse_usual(text)  # a path that ends its turn could write its own verdict
        if with_images and problem.images:
            content = [
                {**part, "text": defuse_usual(part["text"])} if part["type"] == "text" else part
                for part in content_of(problem, text, self.image_side)
            ]
        seed = None if self.seed is None else self.seed + again
        return ChatRequest(
            [{"role": "user", "content": content}], seed=seed, prompt_version=version, again=again, **options
        )


def _usable(reply: ChatReply) -> str | None:
    """A text that may become a path, or None. A cut-off solution is none: its last number might pass for its answer."""
    return reply.text if reply.outcome == "answered" else None
