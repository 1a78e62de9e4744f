.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full coverage check format clean
PYTHON ?= python3.11
BIN := .venv/bin
# Hydra and Weights & Biases must not ask or wait when a terminal is absent.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
FAST = $(BIN)/python -m pytest -m "not slow" -n 3 --dist worksteal

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.demo ## Install what is needed to run, into .venv

# A stamp for each set of packages: nothing is installed twice.
.venv/.demo: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing packages into .venv (a few minutes, about 6 GB)..."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

.venv/.dev: .venv/.demo
	$(PIP) -e ".[dev]"
	@touch $@

# The detector of the demo, and one of a planted cue to compare it with.
demo: .venv/.demo ## Train a small detector on embedded images and find what it goes by, in minutes
	$(BIN)/python train.py experiment=planted trainer.max_epochs=3 trainer.check_val_every_n_epoch=3 hydra.run.dir=outputs/planted-color
	$(BIN)/python analyze.py ckpt=outputs/planted-color/checkpoints/best.ckpt hydra.run.dir=outputs/planted-color $(PLANTED)
	$(BIN)/python train.py experiment=demo
	$(BIN)/python analyze.py ckpt=outputs/demo/checkpoints/best.ckpt hydra.run.dir=outputs/demo $(DEMO)

CURVES = 'analysis.k_sweep.rankings=[omega,omega_real,contrast,greedy]' 'analysis.k_sweep.ks=[5,21]' analysis.k_sweep.random_orders=5
PLANTED = 'analysis=[k_sweep,detection]' $(CURVES) data=planted 'data.generators=[chroma]' subject.confidence=0.5 images=40
DEMO = 'analysis=[sensitivity,k_sweep,ranking,patches,mediation,ablation,median_test,detection,examples]' $(CURVES) \
	analysis.k_sweep.beside=outputs/planted-color subject.ranking.by=auto subject.confidence=0.5 images=60 \
	analysis.patches.channels=6 analysis.mediation.channels=3 analysis.mediation.random_draws=2 analysis.sensitivity.random_draws=5

test: .venv/.dev ## The fast tests (minutes on 2 cores)
	$(FAST)

test-full: .venv/.dev ## All tests, the slow ones too, with many random examples each
	$(BIN)/python -m pytest --hypothesis-profile=full

coverage: .venv/.dev ## Line coverage of src by the fast tests (their subprocesses not counted)
	$(FAST) --cov=tff --cov-report=term

check: .venv/.dev ## Lint, format, types, import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev ## Put the code into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove caches and build files; runs under outputs/ stay
	rm -rf build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -exec rm -rf {} +
