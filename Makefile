.DEFAULT_GOAL := help
.PHONY: help quality style test test-slow test-common bench cards

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

test:  ## The default tests: fast, offline, deterministic; on all cores
	pytest -n logical

test-slow:  ## The tests that take minutes
	pytest -m slow

test-common:  ## transformers' own model tests (downloads its source distribution)
	python scripts/run_common_model_tests.py

bench:  ## Cost of symmetrization against the bare backbone, and how it grows with the graph
	mkdir -p outputs
	python scripts/bench_symmetrization.py --preset pattern pcqm peptides --num_samples 1 10 --mode eval train \
		--json outputs/bench_symmetrization.json --figure outputs/bench_symmetrization.png
	python scripts/bench_symmetrization.py --preset peptides --num_samples 10 100 --memory_only
	python scripts/bench_scaling.py --json outputs/bench_scaling.json --figure outputs/bench_scaling.png

cards:  ## The finished model cards, from the results of the recipes
	python scripts/make_model_cards.py
