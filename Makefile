.DEFAULT_GOAL := help
.PHONY: help quality style test test-slow test-common bench

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

quality:  ## Lint, formatting, types, layers
	ruff check .
	ruff format --check .
	mypy
	lint-imports

style:  ## Mend what lint and formatting can mend
	ruff check --fix .
	ruff format .

test:  ## The default tests: fast, offline, deterministic
	pytest

test-slow:  ## The tests that take minutes
	pytest -m slow

test-common:  ## transformers' own model tests (downloads its source distribution)
	python scripts/run_common_model_tests.py

bench:  ## Cost of symmetrization against the bare backbone
	python scripts/bench_symmetrization.py
