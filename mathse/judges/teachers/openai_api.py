"""``teacher=openai``: a model behind an OpenAI-compatible API, GPT-4o in the paper; vLLM, SGLang or llama.cpp as well.

A teacher has three jobs, each with a prompt of mathse/inference/prompts: solve, annotate, reflect. A request is sent
once, and later its answer is read from the disk (mathse/inference/llm). An empty, refused or cut-off answer is an
outcome of its row: it is stored and counted.
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
from mathse.models.marks import defuse_common
from mathse.types import Draft, Problem, ReasoningPath, Verdict


class OpenAITeacher:
    """A teacher behind a ``ChatClient``, whose arguments say how the server is reached.

    Annotations are greedy whatever ``settings.temperature`` is. ``temperature=null`` sends none, so that the server
    decides for all three jobs.
    """

    def __init__(self, settings: Settings) -> None:
        self.client = ChatClient.of(settings, settings.model, "teacher")
        self.name = settings.model
        # Online, a call has 32 rows a connection, so that the wait for its last rows matters little. A batch takes up
        # to a day whatever its size, so all rows go into one call.
        self.rows_at_once = 10**9 if settings.mode == "batch" else 32 * settings.max_concurrency
        self.short = settings.reflect_prompt == "short"
        self.image_side, self.seed = settings.image_side, settings.seed
        judging_temperature = None if settings.temperature is None else 0.0
        self.writing: dict[str, Any] = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
        self.judging: dict[str, Any] = {"temperature": judging_temperature, "max_tokens": settings.max_tokens}

    def account_in(self, folder: Path) -> None:
        self.client.account_in(folder)

    def prompt_version(self, job: str, problem: Problem) -> str:
        return prompts.version("reflect_short" if job == "reflect" and self.short else job, "full", problem)

    def usage(self) -> dict[str, Any]:
        return self.client.account.totals()

    def solve(self, problems: Sequence[Problem]) -> list[str | None]:
        def make_request(problem: Problem) -> ChatRequest:
            version = self.prompt_version("generate", problem)
            return self._make_request(problem, prompts.generation_prompt(problem, "full"), version, **self.writing)

        return [_usable_text(reply) for reply in self.client.complete(map(make_request, problems))]

    def annotate(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        """Return a verdict per path. An answer that is not the requested JSON gets a second request; if that fails too,
        the verdict is unparsed. An empty path is unparsed without a request."""
        pairs = list(zip(problems, paths, strict=True))

        # 1) Annotate every path that has a text.
        nonempty = [k for k, (_, path) in enumerate(pairs) if path.text.strip()]
        requests = (self._annotation_request(*pairs[k]) for k in nonempty)
        replies = dict(zip(nonempty, self.client.complete(requests), strict=True))

        # 2) Ask once more for the JSON where the answer has none.
        unparsed = []
        for k, reply in replies.items():
            if reply.outcome == "answered" and prompts.parse_annotation(reply.text).status == "unparsed":
                unparsed.append(k)
        repairs = (self._repair_request(*pairs[k], replies[k].text) for k in unparsed)
        replies |= dict(zip(unparsed, self.client.complete(repairs), strict=True))

        # 3) Parse.
        verdicts = []
        for k, path in enumerate(paths):
            if k in replies and replies[k].outcome == "answered":
                text = replies[k].text
                verdicts.append(replace(prompts.parse_annotation(text, path.id, self.name), raw=text))
            else:
                verdicts.append(Verdict(path.id, "unparsed", judge=self.name))
        return verdicts

    def reflect(self, drafts: Sequence[Draft], attempt: int = 0) -> list[str | None]:
        def make_request(draft: Draft) -> ChatRequest:
            problem, path, feedback = draft
            text = prompts.reflection_prompt(problem, path.text, feedback, "full", short=self.short)
            version, with_images = self.prompt_version("reflect", problem), not self.short
            return self._make_request(problem, text, version, again=attempt, with_images=with_images, **self.writing)

        return [_usable_text(reply) for reply in self.client.complete(map(make_request, drafts))]

    def _annotation_request(self, problem: Problem, path: ReasoningPath) -> ChatRequest:
        version = prompts.version("annotate", "full", problem)
        text = prompts.annotation_prompt(problem, path.text)
        return self._make_request(problem, text, version, schema=prompts.ANNOTATION_SCHEMA, **self.judging)

    def _repair_request(self, problem: Problem, path: ReasoningPath, answer: str) -> ChatRequest:
        annotation = self._annotation_request(problem, path)
        turns = [
            {"role": "assistant", "content": defuse_common(answer)},
            {"role": "user", "content": prompts.repair_prompt(problem)},
        ]
        version = prompts.version("repair", "full", problem)
        return replace(annotation, messages=[*annotation.messages, *turns], prompt_version=version)

    def _make_request(
        self, problem: Problem, text: str, version: str, *, again: int = 0, with_images: bool = True, **options: Any
    ) -> ChatRequest:
        """Make the request of one user turn. Marks of chat templates in its text are defused: a path that ends its own
        turn could otherwise write its own verdict."""
        content: Any = defuse_common(text)
        if with_images and problem.images:
            content = []
            for part in content_of(problem, text, self.image_side):
                if part["type"] == "text":
                    part = {**part, "text": defuse_common(part["text"])}
                content.append(part)
        seed = None if self.seed is None else self.seed + again
        return ChatRequest(
            [{"role": "user", "content": content}], seed=seed, prompt_version=version, again=again, **options
        )


def _usable_text(reply: ChatReply) -> str | None:
    """Return the text if it may become a path. A cut-off text may not: its last number could pass for its answer."""
    return reply.text if reply.outcome == "answered" else None
