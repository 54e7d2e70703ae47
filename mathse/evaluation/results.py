"""From answers to the files of a benchmark's folder: verdicts, the answer that counts for each problem, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse import __version__
from mathse.config.schema import EvaluateConfig
from mathse.evaluation import error_types, metrics
from mathse.evaluation.contamination import check
from mathse.evaluation.folder import CONTAMINATED, DISAGREEMENTS, SAMPLES, SCORED, UNASKED, fingerprint
from mathse.evaluation.grading import GradedAnswer, grade, item_of
from mathse.evaluation.opened import OpenedBenchmark
from mathse.evaluation.predictions import Answer
from mathse.evaluation.selectors import choose, selector_curves
from mathse.reporting.progress import Progress
from mathse.runs.layout import METRICS, PREDICTIONS
from mathse.runs.store import read_jsonl, sha256_file, write_json, write_jsonl
from mathse.scoring.metrics import accuracy

if TYPE_CHECKING:
    from mathse.evaluation.sampling import Decoding
    from mathse.evaluation.scoring_llm import ScoringLLM
    from mathse.inference.serving.student import ServedStudents
    from mathse.judges import Judge


@dataclass(frozen=True)
class BenchmarkResult:
    """The outcome of a benchmark. ``graded``: the answer that counts for each problem."""

    opened: OpenedBenchmark
    graded: Sequence[GradedAnswer]
    metrics: Mapping[str, Any]


@dataclass
class BenchmarkScorer:
    """Scores the benchmarks of an evaluation.

    Attributes:
        llm: None: no LLM extracts or judges.
        decoding: None: the answers come from a file.
        served: the engine of generator=vllm.
    """

    config: EvaluateConfig
    progress: Progress
    llm: ScoringLLM | None
    decoding: Decoding | None
    served: ServedStudents | None = None

    def score(self, opened: OpenedBenchmark, answers: Sequence[Answer]) -> BenchmarkResult:
        """Score the answers to a benchmark, and write verdicts and figures into its folder."""
        config, folder, say = self.config, opened.folder, self.progress.say
        map_marker = config.map_marker if config.map_marker is not None else config.predictions is None

        # 1. The official verdict on every answer, and with an ORM its P(correct).
        items = {item.problem.id: item for item in opened.items}
        say(f"{opened.name}: scoring {len(answers):,} answers")
        samples = grade(opened.bench, [item_of(items[a.id], a) for a in answers], answers, self.llm, map_marker)
        if config.judge.checkpoint is not None:
            from mathse.evaluation import rewards  # here: it imports torch, which scoring does not need

            orm = config.judge
            file = rewards.verdicts_file(folder, [fingerprint(orm.checkpoint), orm.batch_size, orm.max_new_tokens])
            with closing(self.progress.track(f"{opened.name}: ORM", len(samples))) as track:
                samples = rewards.add_rewards(samples, lambda: self._orm, file, orm.batch_size, track.advance)

        # 2. The selector chooses the answer that counts for each problem.
        problems = [list(graded) for _, graded in groupby(samples, key=lambda g: g.item.problem.id)]
        chosen = [graded[choose(graded, config.selector)] for graded in problems]
        figures = metrics.benchmark_metrics(opened, chosen, self._protocol(opened, answers, map_marker))
        if config.n_samples > 1:
            figures["selectors"] = selector_curves(problems)

        # 3. Optional figures: contamination, kinds of mistakes.
        if config.check_against is not None:
            training_file = Path(config.check_against)
            contamination = check(opened.name, [g.item for g in chosen], training_file, folder / CONTAMINATED, say)
            left_out = {"with": set(), "without": contamination["problems"], "without_sure": contamination["sure"]}
            for name, ids in left_out.items():
                marks = [g.scored.correct for g in chosen if g.item.problem.id not in set(ids)]
                contamination[name] = metrics.accuracy_figures(marks)
            figures["contamination"] = contamination
        if config.error_types and self.llm is not None:
            wrong = [g for g in chosen if g.scored.correct is False]
            figures["error_types"] = error_types.classify(wrong, self.llm, folder, vision=config.llm.vision)

        # 4. The files. metrics.json comes last: if it exists, all files exist.
        several = len(samples) > len(chosen)
        write_jsonl(folder / SCORED, (g.to_json(several) for g in chosen))
        if several:
            write_jsonl(folder / SAMPLES, (g.to_json(several) for g in samples))
        write_jsonl(folder / DISAGREEMENTS, (g.to_json(several) for g in metrics.disagreements(chosen)))
        write_json(folder / METRICS, figures)

        circumstances = metrics.circumstances(figures["protocol"])
        say(f"{opened.name} ({circumstances}): {metrics.result_line(figures)}: {folder / METRICS}")
        if "not_scored" in figures and self.llm is None:
            say(f"{opened.name}: {opened.bench.needs_llm}; pass llm.model=NAME, and llm.base_url=URL")
        return BenchmarkResult(opened, chosen, figures)

    @cached_property
    def _orm(self) -> Judge:
        """The ORM, opened once for all benchmarks."""
        from mathse.evaluation import models

        return models.reward_model(self.config, self.served)

    def _protocol(self, opened: OpenedBenchmark, answers: Sequence[Answer], map_marker: bool) -> dict[str, Any]:
        """Return the conditions of the measurement for metrics.json."""
        config = self.config
        protocol = dict(opened.bench.protocol())
        if self.decoding is None:
            protocol["prompt"] = "not known: the answers are a file's"
            source = {"file": config.predictions, "sha256": sha256_file(Path(str(config.predictions)))}
        else:
            backbone = config.backbone if isinstance(config.backbone, dict) else vars(config.backbone)
            source = {
                "backbone": backbone["_target_"],
                "checkpoint": config.checkpoint or backbone.get("path"),
                "revision": backbone.get("revision"),
                **self.decoding.to_json(),
            }
        unasked = opened.folder / UNASKED
        return {
            **protocol,
            "split": opened.split,
            "problems": len(opened.items),
            "limit": config.evaluation.limit,
            "answers": source,
            "rows_with_own_metadata": sum(answer.metadata is not None for answer in answers),
            "unasked": len(list(read_jsonl(unasked))) if unasked.exists() else 0,
            "selector": config.selector,
            "answer_marker": "mapped" if map_marker else "as it stands",
            "llm": self.llm.protocol() if self.llm is not None else None,
            "orm": config.judge.checkpoint,
            "mathse": __version__,
        }


def write_stage_files(result: BenchmarkResult, run: Path) -> None:
    """Write the two files of a training run's stages, in the order in which the answers were made."""
    scored = {g.answer.id: g.scored for g in result.graded}
    rows = []
    for problem_id in dict.fromkeys(row["id"] for row in read_jsonl(result.opened.folder / PREDICTIONS)):
        verdict = scored[problem_id].to_json()
        rows.append({key: verdict[key] for key in ("id", "response", "prediction", "answer", "correct")})
    write_jsonl(run / PREDICTIONS, rows)
    write_json(run / METRICS, accuracy(rows))
