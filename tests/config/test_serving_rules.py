"""What must hold of served models, in the sentences that say so."""

from __future__ import annotations

import pytest

from mathse.config.compose import compose_train
from mathse.errors import ConfigError

COMMAND = "generator.command='vllm serve {checkpoint} --served-model-name {name} --port {port}'"
SERVED = ("generator=server",)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ([*SERVED, "backbone=cogvlm2"],
         "backbone = cogvlm2: its own code runs here, and no server has it; pass generator=hf"),
        (["backbone=cogvlm2", "judge.server=http://localhost:8001/v1"],
         "orm.backbone = cogvlm2: its own code runs here, and no server has it; pass judge.server=null"),
        ([*SERVED, "generator.model=qwen"],
         "generator.model = 'qwen': one name cannot stand for the checkpoints of all rounds; pass generator.model="),
        ([*SERVED, "generator.command='vllm serve'"],
         "generator.command = 'vllm serve': must say where {checkpoint} goes"),
        ([*SERVED, "generator.command='serve {checkpoint} {gpu}'"],
         "generator.command: has no {gpu} to fill in; there are {checkpoint}, {name} and {port}"),
        ([*SERVED, "generator.command='serve {checkpoint} --api-key sk-0123456789'"],
         "generator.command: holds a key, which run.json would show; leave it out and export it before starting"),
        ([*SERVED, "generator.command='serve {checkpoint} \"x'"], "cannot be split into words"),
        (["judge.model=orm"], "judge.model is set: only judge.server=URL reads it; pass that too"),
        (["judge.server=http://localhost:8001/v1", "judge.model=orm"],
         "judge.model = 'orm': no server can have the ORM that this run will train; pass judge.checkpoint=DIR"),
        (["judge.server=localhost:8001"], "judge.server = 'localhost:8001': must be http://HOST:PORT/v1 or https://HOST/v1"),
        (["judge.server=http://h:1/v1", "judge.api_key_env=sk-0123456789abcdef"],
         "judge.api_key_env: must be the name of an environment variable, such as OPENAI_API_KEY"),
        ([*SERVED, COMMAND, "judge.server=http://localhost:8000/v1", "judge.command='serve {checkpoint}'"],
         "judge.server = 'http://localhost:8000/v1': the students' engine is started there too; pass another port"),
        (["judge.engine=vllm"],
         "judge.engine = 'vllm': the ORM takes turns with the students in one engine; pass generator=vllm"),
        (["generator=vllm", "judge.engine=vllm", "judge.server=http://h:1/v1"], "two places for one ORM; pass one"),
        (["generator=vllm", "backbone=cogvlm2"],
         "backbone = cogvlm2: its own code runs here, and no server has it; pass generator=hf"),
        (["generator=vllm", "backbone=qwen2vl", "backbone@orm.backbone=cogvlm2", "judge.engine=vllm"],
         "orm.backbone = cogvlm2: its own code runs here, and no server has it; pass judge.engine=hf"),
        (["generator=vllm", "generator.base_urls=[h:1]"], "generator.base_urls[0] = 'h:1': must be http://HOST:PORT/v1"),
        (["generator=vllm", "generator.base_urls=[http://h:1/v1]", "generator.replicas=2"],
         "generator.replicas is set: a server that runs at generator.base_urls has its own"),
        (["generator=vllm", "generator.options='--api-key sk-0123456789'"], "generator.options: holds a key"),
        (["generator=vllm", "generator.program='\"vllm'"], "cannot be split into words"),
        ([*SERVED, "generator.temperature=0", "evolution.samples_per_problem=4"],
         "evolution.samples_per_problem = 4: generator.temperature = 0 is greedy, and greedy paths are all alike"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_told_of_before_anything_starts(read, overrides, sentence):
    with pytest.raises(Exception) as refused:
        read(*overrides)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("command", "secret"),
    [
        ("env VLLM_API_KEY=sk-test1234567890abcdef HF_TOKEN=hf_abcdefgh123 false {checkpoint}", "1234567890"),
        ("HF_TOKEN=letters serve {checkpoint}", "letters"),
        ("serve {checkpoint} --hf-token hunter2", "hunter2"),
        ("serve {checkpoint} --header \\'Authorization: Bearer hunter2\\'", "hunter2"),
        ("serve {checkpoint} --proxy http://me:hunter2@host", "hunter2"),
        ("serve sk-proj-0123456789abcdef", "0123456789"),
        ('env MY_KEY=hunter2 serve "{gpu}', "hunter2"),
    ],
)
@pytest.mark.parametrize("section", ["generator", "judge"])
def test_a_key_in_a_command_is_refused_unrepeated(refusal, section, command, secret):
    served = ["generator=server"] if section == "generator" else ["judge.server=http://h:8001/v1"]
    (said,) = refusal(*served, f"{section}.command='{command}'")
    assert said.startswith(f"{section}.command: holds a key, which run.json would show; leave it out and export it")
    assert secret not in said


@pytest.mark.parametrize(
    "command",
    [
        "vllm serve {checkpoint} --max-num-batched-tokens 8192 --ssl-keyfile key.pem",
        'serve {checkpoint} --hf-overrides \\\'{"eos_token": "</s>", "pad_token": 2}\\\'',
        'sh -c "VLLM_API_KEY=$STUDENT_KEY vllm serve {checkpoint}"',
        "serve {checkpoint} --served-model-name task-0123456789abcdef --download-dir models/sk-0123456789abcdef",
    ],
)
def test_a_command_without_a_key_is_no_mistake(read, command):
    assert "{checkpoint}" in read("generator=server", f"generator.command='{command}'").generator.command


@pytest.mark.parametrize(
    "overrides",
    [
        SERVED,
        (*SERVED, COMMAND),
        (*SERVED, "backbone=qwen2vl", "judge.server=http://localhost:8001/v1"),
        (*SERVED, "backbone=internvl2_5", "judge.server=http://h:8001/v1", "judge.command='serve {checkpoint}'"),
    ],
)
def test_what_can_be_served_is_no_mistake(read, overrides):
    assert type(read(*overrides).generator).__name__ == "ServerGeneratorConfig"


def test_evaluate_py_starts_no_engine(read):
    with pytest.raises(Exception, match="generator.command is set: train.py reads it"):
        read("generator=server", "generator.model=m", "generator.command='serve {checkpoint}'", program="evaluate")


@pytest.mark.parametrize("value", ["true", "false"])  # as a command line had it, or a recorded config
def test_a_setting_that_is_gone_is_told_with_what_takes_its_place(value):
    with pytest.raises(ConfigError, match="generator.adapters: is gone: leave it out, and pass generator=vllm, in who"):
        compose_train(["generator=server", f"generator.adapters={value}"])
