# `make run` and `make test` are all one needs; both install first, and a second call starts at once.
#   PYTHON  which Python makes .venv (3.11 or newer)       make run PYTHON=python3.12
#   ARGS    words for the program that a target starts     make test ARGS="tests/unit -x"

PYTHON ?= python3
ARGS ?=
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)

.PHONY: run test soak check lint eject docs bench clean

run:  ## the whole walk on the built-in corpus, from text to a trained and evaluated model
	@$(PYTHON) bootstrap.py run $(ARGS)

test:  ## the default tests
	@$(PYTHON) bootstrap.py test $(ARGS)

soak:  ## what must never fail, as often as it takes to believe it: kills, signals, full counts; five minutes, more where there is real text
	@$(PYTHON) bootstrap.py env --extra dev
	$(BIN)/python -m pytest -m "slow or soak" tests/e2e/test_resume.py tests/unit/test_checkpoints.py tests/unit/test_memory_growth.py tests/parity/test_tokenizer_fuzz_parity.py $(ARGS)

check: lint  ## before each commit: format, style, types, import directions, fast tests
	$(BIN)/python -m pytest tests/test_layers.py tests/unit $(ARGS)

lint:
	@$(PYTHON) bootstrap.py env --extra dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

eject:  ## write every architecture as one self-contained page again
	@$(PYTHON) bootstrap.py env
	$(BIN)/python -m legollm eject $(ARGS)

docs:  ## the pages as a web site in site/
	@$(PYTHON) bootstrap.py env --extra docs
	$(BIN)/zensical build --clean --strict $(ARGS)

bench:  ## what a start of the program costs, in seconds
	@$(PYTHON) bootstrap.py env
	$(BIN)/python benchmarks/startup.py $(ARGS)

clean:  ## what the targets above leave behind, except .venv, data/ and runs/
	rm -rf build dist site .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
