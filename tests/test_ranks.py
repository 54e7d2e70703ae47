"""Several processes, one run: how they are started and ended, what they do in common, and that it changes nothing."""

from __future__ import annotations

import ast
import gc
import os
import pickle
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import ceil, nan
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from connected import in_ranks
from safetensors.torch import load_file
from small import log_of, path, problems, solved_rows, tiny_backbone
from torch import Tensor
from transformers import PreTrainedModel

from mathse.config import build
from mathse.config.backbones import TinyBackboneConfig
from mathse.config.data import SyntheticDataConfig
from mathse.config.extras import is_installed
from mathse.config.fits import AdapterConfig, FitConfig, OptimizerConfig, ORMConfig
from mathse.config.generators import HFGeneratorConfig
from mathse.config.schema import TrainerConfig
from mathse.errors import ConfigError, FitDiverged, MathSEError, RankLost, TeacherError
from mathse.inference.generate import predict
from mathse.judges import judge_paths
from mathse.judges.orm import ORMJudge
from mathse.judges.orm_rows import MadeUpRows
from mathse.models.base import IGNORED, Backbone
from mathse.models.feature_store import FeatureStore
from mathse.models.model_spec import ModelSpec, close_shared, find_spec, open_shared
from mathse.models.row import Row
from mathse.training import launch, loss, ranks, strategies
from mathse.training.batches import EpochStream, MixedStream, OnceStream, derive_step_seed
from mathse.training.fit import FitJob, fit
from mathse.training.loader import StepData

SECTION = TinyBackboneConfig(hidden_size=32, layers=2, heads=2, mlp_size=64, vision_size=16)
SPEC = ModelSpec(SECTION, {"init_seed": 0})


# --- which rank a process is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, (3, 4, 1)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8"}, (5, 8, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}, None),  # sbatch's script itself
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
    ],
)
def test_a_process_finds_its_place_whoever_started_it(
    environment: dict[str, str], expected: tuple[int, ...] | None
) -> None:
    assert launch.read_own_rank(environment) == (None if expected is None else launch.RankInfo(*expected))


def test_a_machine_knows_how_many_of_the_ranks_are_its_own() -> None:
    assert launch.count_local_ranks({"LOCAL_WORLD_SIZE": "4"}) == 4
    assert launch.count_local_ranks({"SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_NUM_NODES": "2"}) == 8
    assert launch.count_local_ranks({}) is None


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "SLURM_STEP_NODELIST": "node[5-9]"}, ("10.0.0.1", 29500)),
        # srun -n 16, without --ntasks-per-node
        ({"SLURM_STEP_NODELIST": "node[05-09]", "SLURM_JOB_ID": "70012", "SLURM_NTASKS": "16"}, ("node05", 15012)),
        ({"SLURM_JOB_NODELIST": "a,b", "SLURM_JOB_ID": "70012", "SLURM_STEP_ID": "2"}, ("a", 15086)),
        ({"SLURM_STEP_NODELIST": "b", "SLURM_STEP_NUM_NODES": "1", "SLURM_JOB_ID": "70012"}, ("127.0.0.1", 15012)),
    ],
)
def test_ranks_meet_where_every_one_of_them_can_work_it_out(
    environment: dict[str, str], place: tuple[str, int]
) -> None:
    assert launch.find_meeting_point(environment) == place


@pytest.mark.skipif(is_installed("deepspeed"), reason="deepspeed is installed")
def test_deepspeed_is_asked_for_before_a_rank_is_started() -> None:
    with pytest.raises(ConfigError, match=r"pip install '\.\[deepspeed\]'"):
        launch.require_packages("deepspeed")
    launch.require_packages("fsdp2")


# --- real ranks, forked from this process ---------------------------------------------------------------------------


def _where(question: str) -> tuple[str, int, int]:
    return question, ranks.current().rank, ranks.current().world_size


def test_work_is_done_everywhere_and_the_results_come_by_rank() -> None:
    def lead() -> Any:
        return ranks.current().run_on_all(lambda: "here", _where, "there"), ranks.current().run_on_all(
            lambda: 0, _where, "again"
        )

    once, again = in_ranks(3, lead)
    assert once == ["here", ("there", 1, 3), ("there", 2, 3)] and again[2] == ("again", 2, 3)


def test_a_single_process_works_alone() -> None:
    assert ranks.current().run_on_all(lambda: "here", _where, "there") == ["here"]
    assert (ranks.current().rank, ranks.current().world_size, ranks.current().all_reduce(7)) == (0, 1, 7)
    with ranks.join("cpu", 1, 1) as rank:
        assert rank is ranks.current() and rank.is_main and rank.world_size == 1
        rank.barrier()
        weights = [torch.ones(2)]
        rank.broadcast_tensors(weights)
        assert (rank.broadcast("a"), rank.gather("b"), weights[0].tolist()) == ("a", ["b"], [1.0, 1.0])


def test_a_ranks_state_is_one_object_that_ends_with_the_run() -> None:
    module = ast.parse(Path(ranks.__file__).read_text())
    assert {name for node in ast.walk(module) if isinstance(node, ast.Global) for name in node.names} == {"_current"}
    before = ranks.current()
    assert in_ranks(2, lambda: (ranks.current().rank, ranks.current().world_size, ranks.current().is_main)) == (
        0,
        2,
        True,
    )
    assert ranks.current() is before


def _die() -> None:
    os._exit(9)


def test_rank_0_notices_that_a_rank_is_gone() -> None:
    lost = in_ranks(2, lambda: ranks.current().run_on_all(lambda: None, _die))
    assert isinstance(lost, RankLost) and "lost its connection" in str(lost)


def _get_stuck() -> None:
    if ranks.current().rank:
        time.sleep(3)
    ranks.current().all_reduce(1)


def test_a_rank_that_is_stuck_in_a_fit_is_noticed_after_the_minutes_that_are_set() -> None:
    begun = time.monotonic()
    lost = in_ranks(2, lambda: ranks.current().run_on_all(_get_stuck, _get_stuck), minutes=0.5 / 60)
    assert isinstance(lost, RankLost) and "trainer.timeout_minutes" in str(lost)
    assert time.monotonic() - begun < 60


def _come_late() -> str:
    if ranks.current().rank:
        time.sleep(1)
    ranks.current().barrier()
    return "here"


def test_what_may_take_long_is_waited_for() -> None:
    assert in_ranks(2, lambda: ranks.current().run_on_all(_come_late, _come_late), minutes=0.2 / 60) == ["here"] * 2


def _say_no() -> None:
    raise TeacherError("the teacher: Connection reset by peer (not gloo's)")


def test_a_teacher_that_is_lost_is_no_lost_rank() -> None:
    assert isinstance(in_ranks(2, _say_no), TeacherError)


def test_lightning_leaves_the_number_of_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert in_ranks(2, lambda: os.environ.get("OMP_NUM_THREADS")) == str(torch.get_num_threads())


@pytest.mark.parametrize(("devices", "started"), [(2, None), (3, 2), (1, 2)])
def test_as_many_processes_as_devices(monkeypatch: pytest.MonkeyPatch, devices: int, started: int | None) -> None:
    if started:
        for key, value in {"RANK": 0, "WORLD_SIZE": started, "LOCAL_RANK": started - 1}.items():
            monkeypatch.setenv(key, str(value))
    with pytest.raises(ConfigError, match=f"trainer.devices = {devices}, and"), ranks.join("cpu", devices, 1):
        pass


def test_a_missing_gpu_is_a_sentence() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert ranks.find_device("auto") == ranks.find_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="torch finds no GPU here"):
        ranks.find_device("gpu")


def _weights() -> list[torch.nn.Parameter]:
    """Three weights, of two dtypes; rank 1 has no gradient of the second, and nobody one of the last."""
    weights = [torch.nn.Parameter(torch.zeros(3, 2, dtype=d)) for d in (torch.float32, torch.float32, torch.bfloat16)]
    number = ranks.current().rank + 1
    weights[0].grad = torch.full((3, 2), float(number))
    if number == 1:
        weights[1].grad = torch.arange(6.0).view(3, 2)
    weights[2].grad = torch.full((3, 2), 8.0 * number, dtype=torch.bfloat16)
    return [*weights, torch.nn.Parameter(torch.zeros(5))]


def _summed() -> list[Tensor | None]:
    weights = _weights()
    ranks.current().all_reduce_gradients(weights)
    return [w.grad for w in weights]


def test_gradients_are_summed_and_a_missing_one_counts_as_zero() -> None:
    mine, theirs = in_ranks(2, lambda: ranks.current().run_on_all(_summed, _summed))
    assert mine[0].tolist() == [[3.0, 3.0]] * 3
    assert mine[1].tolist() == torch.arange(6.0).view(3, 2).tolist()
    assert mine[2].tolist() == [[24.0, 24.0]] * 3 and mine[2].dtype == torch.bfloat16
    assert mine[3] is None, "a weight that the whole batch leaves out is not stepped"
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def _given() -> list[list[float]]:
    tensors = [torch.full((2,), float(ranks.current().rank + k)) for k in range(2)]
    ranks.current().broadcast_tensors(tensors)
    return [t.tolist() for t in tensors]


def test_every_rank_begins_with_the_weights_of_the_first() -> None:
    assert in_ranks(2, lambda: ranks.current().run_on_all(_given, _given)) == [[[0.0, 0.0], [1.0, 1.0]]] * 2


def _pooled() -> Any:
    first = ranks.current().rank == 0
    means = {"a": (torch.tensor(1.0 if first else 4.0), 2 if first else 1), "b": (torch.tensor(float("nan")), 0)}
    return ranks.current().all_reduce_means(means), float(
        ranks.current().all_reduce(torch.tensor(2.0 + ranks.current().rank))
    )


def test_means_are_pooled_by_what_they_are_means_of() -> None:
    for means, total in in_ranks(2, lambda: ranks.current().run_on_all(_pooled, _pooled)):
        assert (float(means["a"][0]), means["a"][1], means["b"][1], total) == (2.0, 3, 0, 5.0)


# --- the same backbone on every rank --------------------------------------------------------------------------------


def test_a_model_spec_opens_the_same_backbone_after_a_journey() -> None:
    first, second = SPEC.open(), pickle.loads(pickle.dumps(SPEC)).open()  # noqa: S301 - of this very test
    assert find_spec(first) == find_spec(second) == SPEC and find_spec(tiny_backbone()) is None
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_rank_keeps_one_backbone_and_frees_it_before_it_opens_another() -> None:
    close_shared()
    cpu = torch.device("cpu")
    a, b = (ModelSpec(SECTION, {"init_seed": seed}) for seed in range(2))
    student = open_shared(a, cpu)
    assert open_shared(a, cpu) is student
    freed = weakref.ref(student.model)
    del student
    open_shared(b, cpu)
    assert freed() is None
    close_shared()


def test_predictions_paths_and_verdicts_are_those_of_one_process_to_the_byte(tmp_path: Path) -> None:
    asked = problems(11)
    drafts = [path(p.id, text="12 + 5 = 17. " * (i % 4)) for i, p in enumerate(asked)]

    def ask(folder: Path) -> list[int]:
        told: list[int] = []
        backbone = SPEC.open()
        predict(backbone, asked, folder / "predictions", batch_size=2, max_new_tokens=5, advance=told.append)
        generator = build(HFGeneratorConfig(batch_size=3, temperature=1.0, max_new_tokens=5))
        generator.sample(backbone, asked, folder / "paths", stage="round_01", model="m", seed=1, n=2)
        judge = ORMJudge(backbone, max_new_tokens=5)
        judge_paths(judge, {p.id: p for p in asked}, drafts, folder / "verdicts", batch_size=4)
        return told

    alone, both = tmp_path / "alone", tmp_path / "both"
    assert ask(alone) == in_ranks(3, lambda: ask(both)) == [0, 2, 2, 2, 2, 2, 1]
    for name in ("predictions", "paths", "verdicts"):
        assert (alone / name).read_bytes() == (both / name).read_bytes(), name
    (both / "predictions").write_bytes(b"".join((alone / "predictions").read_bytes().splitlines(keepends=True)[:7]))
    in_ranks(2, lambda: ask(both))  # after a kill in the fourth batch
    assert (alone / "predictions").read_bytes() == (both / "predictions").read_bytes()


# --- a rank's share of a batch --------------------------------------------------------------------------------------


def shares(rows: Sequence[Row], backbone: Backbone, size: int, batch: int, micro: int, step: int = 0) -> list[Any]:
    stream = EpochStream(rows, batch, 0)
    return [list(StepData(stream, backbone, micro, 9, rank, size)[step]) for rank in range(size)]


def learnt(micro: Sequence[dict[str, Tensor]]) -> list[tuple[int, ...]]:
    """The responses of these micro-batches that have a loss."""
    labels = [row[row != IGNORED].tolist() for batch in micro for row in batch["labels"]]
    return [tuple(ids) for ids in labels if ids]


@pytest.mark.parametrize(("size", "batch", "micro"), [(2, 8, 4), (2, 5, 1), (3, 7, 2), (4, 3, 2), (2, 1, 1)])
def test_ranks_share_a_batch_out_and_step_together(size: int, batch: int, micro: int) -> None:
    backbone = tiny_backbone()
    rows = solved_rows(backbone, 12)
    whole = learnt(list(StepData(EpochStream(rows, batch, 0), backbone, micro, 9)[3]))
    parts = shares(rows, backbone, size, batch, micro, step=3)
    assert sorted(ids for part in parts for ids in learnt(part)) == sorted(whole)
    assert len({len(part) for part in parts}) == 1, "a rank with fewer micro-batches would be waited for"
    assert len(parts[0]) == ceil(ceil(batch / size) / micro)
    counts = [len(learnt(part)) for part in parts]
    assert max(counts) - min(counts) <= 1


def test_every_micro_batch_shows_a_picture_where_another_rank_may_see_one() -> None:
    backbone = tiny_backbone()
    (shown,) = solved_rows(backbone, 1)
    text = [Row(question="2 + 3?" * k, images=(), response="5") for k in range(1, 6)]
    for rows, seen in (([*text, shown], True), (text, False)):  # where nobody has one, nobody needs one
        stream = OnceStream(rows, 6)
        parts = [list(StepData(stream, backbone, 1, 1, rank, 3)[0]) for rank in range(3)]
        assert all(("pixel_values" in micro) is seen for part in parts for micro in part)
        assert sum(len(learnt(part)) for part in parts) == len(rows)


def test_each_rank_draws_its_own_dropout_and_the_first_draws_what_one_process_does() -> None:
    assert derive_step_seed(0, 3) == derive_step_seed(0, 3, 0)
    assert len({derive_step_seed(0, step, rank) for step in range(20) for rank in range(8)}) == 160


def test_every_rank_makes_the_same_rows_up() -> None:
    data = build(SyntheticDataConfig(orm_train=20))
    backbone = tiny_backbone()
    make = MadeUpRows(backbone.prompt_style, data.splits()["orm_train"], ORMConfig(), data.corrupt, data.check)
    stream = MixedStream(EpochStream(solved_rows(backbone, 9), 4, 0), make, 0.3, 10)
    sent = pickle.dumps(stream)
    assert len(sent) < 200_000, "no model goes along"
    there = pickle.loads(sent)  # noqa: S301 - of this very test
    assert [there.keyed_rows(k) for k in range(10)] == [stream.keyed_rows(k) for k in range(10)]


# --- a fit ----------------------------------------------------------------------------------------------------------


def ragged(backbone: Backbone) -> list[Row]:
    """Rows of very different lengths, most without a picture."""
    text = [Row(question="q " * (1 + 5 * i), images=(), response="7 + 5 = 12. " * (1 + i * i)) for i in range(6)]
    return [*solved_rows(backbone, 3), *text]


# With a large eps and lr AdamW's step is the gradient itself, so weights are compared as gradients.
GRADIENT = OptimizerConfig(lr=1.0, eps=1.0, weight_decay=0.0, clip=1e9)
LEARNING = OptimizerConfig(lr=5e-3, clip=0.5)


def job(folder: Path, strategy: str, precision: Any = "32-true", **changes: Any) -> FitJob:
    settings = FitConfig(max_steps=2, batch_size=7, micro_batch_size=2, val_every=1, optimizer=LEARNING)
    settings = replace(settings, **changes)
    rows = ragged(tiny_backbone())
    store = str(folder / "store")
    trainer = TrainerConfig(
        precision=precision, log_every=1, checkpoint_every=1, strategy=strategy, tower_features_folder=store
    )
    if strategy != "auto":
        trainer = replace(trainer, devices=2)
    return FitJob(folder, rows, seed=0, settings=settings, trainer=trainer, val_rows=rows[:5])


def fitted(folder: Path, strategy: str, **changes: Any) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    store = FeatureStore(folder / "store", 2**20)
    spec = replace(SPEC, features=store, frozen=("tower",)) if "tower_features" in changes else SPEC

    def lead() -> None:
        fit(spec.open(), job(folder, strategy, **changes))

    if strategy == "auto":
        lead()
    elif (error := in_ranks(2, lead)) is not None:
        raise error
    return load_file(folder / "checkpoint" / "model.safetensors"), log_of(folder)


LORA: dict[str, Any] = {"method": "lora", "lora": AdapterConfig(rank=4, dropout=0.0)}
ONE_GRADIENT: dict[str, Any] = {"optimizer": GRADIENT, "max_steps": 1}
CASES = {
    "ddp gradient": ("ddp", ONE_GRADIENT),
    "ddp": ("ddp", {}),
    "ddp, a rank without a row": ("ddp", {"batch_size": 1, "micro_batch_size": 1}),
    "ddp lora": ("ddp", LORA),
    "fsdp2 gradient": ("fsdp2", ONE_GRADIENT),
    "fsdp2, frozen tower": ("fsdp2", {"freeze": ["tower"]}),
    "fsdp2 lora": ("fsdp2", LORA),
    "ddp, kept features": ("ddp", {"freeze": ["tower"], "tower_features": True, **ONE_GRADIENT}),
    "ddp, kept states": ("ddp", {"freeze": ["tower", "connector"], "freeze_layers": 1, **ONE_GRADIENT, "max_steps": 2}),
    "fsdp2, frozen layers": ("fsdp2", {"freeze": ["tower", "connector"], "freeze_layers": 1, **ONE_GRADIENT}),
    "fsdp2, kept features": ("fsdp2", {"freeze": ["tower"], "tower_features": True, **ONE_GRADIENT}),
}


@pytest.mark.parametrize(("strategy", "changes"), CASES.values(), ids=list(CASES))
def test_two_ranks_make_the_steps_of_one_process(tmp_path: Path, strategy: str, changes: dict[str, Any]) -> None:
    start = SPEC.open()
    start.save(tmp_path / "start")
    before = load_file(tmp_path / "start" / "model.safetensors")
    one, log_of_one = fitted(tmp_path / "one", "auto", **changes)
    both, log_of_both = fitted(tmp_path / "both", strategy, **changes)
    assert one.keys() == both.keys() and all(one[k].dtype == both[k].dtype for k in one)
    moved = max(float((one[k] - before[k]).abs().max()) for k in one)
    apart = max(float((one[k] - both[k]).abs().max()) for k in one)
    assert apart < 1e-3 * moved, f"{apart} apart, after moving by {moved}"
    for a, b in zip(log_of_one, log_of_both, strict=True):
        assert a.keys() == b.keys() and all(b[k] == pytest.approx(a[k], abs=2e-5) for k in a)


def test_in_half_precision_two_ddp_ranks_have_one_processs_bits_where_they_round_alike(tmp_path: Path) -> None:
    """The same micro-batches, and sums of two, which have no order."""
    alike: dict[str, Any] = {"precision": "bf16-mixed", "batch_size": 2, "micro_batch_size": 1, "max_steps": 3}
    one, log_of_one = fitted(tmp_path / "one", "auto", **alike)
    both, log_of_both = fitted(tmp_path / "both", "ddp", **alike)
    assert all(torch.equal(one[k], both[k]) for k in one)
    assert [line.get("loss") for line in log_of_one] == [line.get("loss") for line in log_of_both]


@pytest.mark.slow
def test_in_half_precision_two_ranks_differ_from_one_process_as_its_other_micro_batches_do(tmp_path: Path) -> None:
    """Measured as gradients: what rows round together with decides their last bits, and AdamW makes steps of them."""
    half: dict[str, Any] = {"precision": "bf16-mixed", **ONE_GRADIENT}
    one, _ = fitted(tmp_path / "one", "auto", **half)
    gradients = max(float((one[k] - w).abs().max()) for k, w in SPEC.open().model.state_dict().items() if k in one)
    others = {
        "one process, 7 rows a micro-batch": fitted(tmp_path / "seven", "auto", **half, micro_batch_size=7),
        "two ddp ranks": fitted(tmp_path / "ddp", "ddp", **half),
        "two fsdp ranks": fitted(tmp_path / "fsdp", "fsdp2", **half),  # whose norms and embeddings are bfloat16 too
    }
    apart = {name: max(float((one[k] - w[k]).abs().max()) for k in one) for name, (w, _) in others.items()}
    print(f"of gradients up to {gradients:.2g}: {', '.join(f'{name} {d:.1e}' for name, d in apart.items())}")
    by_rows, by_ranks, by_shards = apart.values()
    assert 0 < by_ranks < 2 * by_rows < 0.01 * gradients and by_shards < 0.02 * gradients


def test_sharded_gradients_are_reduced_once_a_step_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.fsdp._fully_shard import _fsdp_param_group as sharding

    reductions = []
    reduce = sharding.foreach_reduce

    def counted(*arguments: Any, **options: Any) -> Any:
        reductions.append(1)
        return reduce(*arguments, **options)

    def count() -> int:
        one_step = {"max_steps": 1, "batch_size": 6, "micro_batch_size": 1}
        three_passes = replace(job(tmp_path / str(once), "fsdp2", **one_step), val_rows=(), reduced_once=once)
        fit(SPEC.open(), three_passes)
        return len(reductions)

    monkeypatch.setattr(sharding, "foreach_reduce", counted)
    counts = {}
    for once in (True, False):
        counts[once] = in_ranks(2, count)
    assert counts[False] == 3 * counts[True] > 0


class StopAt(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            raise MathSEError("stopped")


@pytest.mark.parametrize(
    ("strategy", "when"),
    [
        ("ddp", {"checkpoint_every": 2}),
        ("fsdp2", {"checkpoint_every": 2}),
        pytest.param("fsdp2", {"checkpoint_every": None, "checkpoint_minutes": 1e-9}, marks=pytest.mark.slow),
    ],
    ids=["ddp", "fsdp2", "fsdp2 by time"],
)
def test_two_ranks_write_a_resume_point_in_shards_and_go_on_from_it(
    tmp_path: Path, strategy: str, when: dict[str, Any]
) -> None:
    def lead(folder: Path, callbacks: Sequence[pl.Callback]) -> None:
        this = job(folder, strategy, max_steps=4, val_every=3)
        fit(SPEC.open(), replace(this, trainer=replace(this.trainer, **when)), callbacks)

    assert in_ranks(2, partial(lead, tmp_path / "whole", [])) is None
    assert isinstance(in_ranks(2, partial(lead, tmp_path / "run", [StopAt()])), MathSEError)
    (point,) = (tmp_path / "run" / "fit").glob("point_*")
    shards = sorted(point.glob("*.safetensors"))
    sizes = [file.stat().st_size for file in shards]
    assert len(shards) == 2 and max(sizes) < 1.3 * min(sizes), "each rank wrote its share"
    assert in_ranks(2, partial(lead, tmp_path / "run", [])) is None
    one, other = (load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "run")


@pytest.mark.parametrize(
    ("begun_by", "strategy"),
    [
        pytest.param(2, "ddp", marks=pytest.mark.slow),
        (2, "fsdp2"),
        pytest.param(1, "ddp", marks=pytest.mark.slow),
        (1, "fsdp2"),
    ],
)
def test_a_fit_goes_on_from_the_resume_point_of_another_number_of_ranks(
    tmp_path: Path, begun_by: int, strategy: str
) -> None:
    def some(by: int, folder: Path, callbacks: Sequence[pl.Callback]) -> Any:
        this = job(folder, strategy if by > 1 else "auto", max_steps=4, val_every=3)
        trainer = replace(this.trainer, checkpoint_every=2)
        return fit(SPEC.open(), replace(this, trainer=trainer), callbacks)

    def made_by(by: int, folder: Path, callbacks: Sequence[pl.Callback] = ()) -> Any:
        return in_ranks(by, partial(some, by, folder, callbacks)) if by > 1 else some(by, folder, callbacks)

    made_by(1, tmp_path / "whole")
    with suppress(MathSEError):
        made_by(begun_by, tmp_path / "run", [StopAt()])
    assert [point.name for point in (tmp_path / "run" / "fit").glob("point_*")] == ["point_2"]
    made_by(3 - begun_by, tmp_path / "run")
    one, other = (load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.allclose(one[name], other[name], atol=2e-5) for name in one)
    steps = [row["step"] for row in log_of(tmp_path / "run")]
    assert steps == [row["step"] for row in log_of(tmp_path / "whole")]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_after_a_fit_no_rank_holds_its_model_or_its_optimiser(tmp_path: Path, strategy: str) -> None:
    gc.collect()
    before = in_memory()  # what other tests have left in this process, which the ranks begin as

    def lead() -> list[tuple[int, int]]:
        fit(SPEC.open(), job(tmp_path / "fit", strategy, max_steps=1))
        assert in_memory()[1] == before[1], "the optimiser, without a collection"
        gc.collect()  # sharded layers refer to each other, so whoever opens the next model collects them first
        return ranks.current().run_on_all(in_memory, in_memory)

    assert in_ranks(2, lead) == [before, before]


def in_memory() -> tuple[int, int]:
    """Models and optimisers in this process's memory."""
    alive = gc.get_objects()
    models = sum(isinstance(o, (pl.LightningModule, PreTrainedModel)) for o in alive)
    return models, sum(isinstance(o, torch.optim.Optimizer) for o in alive)


class SpoilHead(pl.Callback):
    """Of rank 0 alone, as a bad update might."""

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        with torch.no_grad():
            module.model.lm_head.weight.mul_(nan)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_fit_that_diverges_on_one_rank_ends_with_the_sentence_that_one_process_has(
    tmp_path: Path, strategy: str
) -> None:
    error = in_ranks(2, lambda: fit(SPEC.open(), job(tmp_path, strategy), [SpoilHead()]))
    assert isinstance(error, FitDiverged) and "after step 1: its loss is nan" in str(error)


def test_sharded_ranks_whose_loss_is_in_chunks_make_the_step_of_a_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(sentence: str) -> None:
        raise AssertionError(sentence)

    changes: dict[str, Any] = {"optimizer": GRADIENT, "max_steps": 1}
    one, [log_of_one, *_] = fitted(tmp_path / "one", "auto", **changes)
    monkeypatch.setattr(loss, "LOGITS_CHUNK_BYTES", 16_000)  # ten tokens at a time
    monkeypatch.setattr(loss, "_log_once", never)  # the head is whole in a forward pass
    both, [log_of_both, *_] = fitted(tmp_path / "both", "fsdp2", **changes)
    assert log_of_both["loss"] == pytest.approx(log_of_one["loss"], abs=2e-5)
    assert max(float((one[k] - both[k]).abs().max()) for k in one) < 1e-5


def test_decoder_layers_and_the_towers_are_sharded_one_by_one() -> None:
    names = [type(m).__name__ for m in strategies.find_layers(SPEC.open().model)]
    assert sorted(names) == ["Qwen2VLDecoderLayer"] * 2 + ["Qwen2VLVisionBlock"]
