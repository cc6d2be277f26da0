# Two commands a fresh machine needs: `make demo` and `make test`. Both create .venv from requirements.lock when it
# is missing or stale, with any working Python >= 3.12 that is found by running candidates, not by name alone.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
STAMP := .venv/.lock-installed
export MUJOCO_GL ?= egl
export HF_HUB_OFFLINE ?= 1
export GRADIO_ANALYTICS_ENABLED ?= False

.PHONY: help demo test test-all check bench review docs nano-vlm clean lock venv

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml
	@bash .ci/venv

venv: $(STAMP) ## create or refresh .venv from requirements.lock

demo: $(STAMP) ## the whole path in ./workspace: simulate, convert, annotate, release, mix, train, roll out, report
	@$(PY) -m apps demo

test: $(STAMP) ## the suite, under 10 minutes on 2 cores
	@$(PY) -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder  # long files first: reordered, they come last and one core idles

test-all: $(STAMP) ## the suite plus long fault and load tests
	@$(PY) -m pytest

check: $(STAMP) ## style, types, architecture, and that every prompt has its golden score
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache
	@$(PY) -m annotators.golden

bench: $(STAMP) ## quick smoke of every benchmark (full runs: python -m benchmarks.NAME)
	@for name in startup suite reader vlm_step convert quality verifiers transcription memory annotate annotate_calls path review; do $(PY) -m benchmarks.$$name --quick --json || exit 1; done

review: $(STAMP) ## open the review page on the demo's episodes
	@$(PY) -m apps review sim@1

docs: $(STAMP) ## take the pictures of docs/review.md again (needs Chromium)
	@$(PY) docs/pictures.py

nano-vlm: $(STAMP) ## train the small VLM again and put it into annotators/nano (about ten hours on 2 cores; resumable)
	@$(PY) -m apps train nano_vlm --to nano-vlm@1
	@$(PY) -m apps train nano_vlm_places --weights nano-vlm@1 --to nano-vlm@2
	@$(PY) -m apps train nano_vlm_things --weights nano-vlm@2 --to nano-vlm@3
	@$(PY) -m apps train nano_vlm_more --weights nano-vlm@3 --to nano-vlm@4 --frames 1500
	@$(PY) -m apps train nano_vlm_reasons --weights nano-vlm@4 --to nano-vlm@5 --frames 1500
	@$(PY) -m apps train nano_vlm_looks --weights nano-vlm@5 --to nano-vlm@6 --frames 1500
	@$(PY) -m apps train nano_vlm_hands --weights nano-vlm@6 --to nano-vlm@7 --frames 2400
	@$(PY) -m apps train nano_vlm_counts --weights nano-vlm@7 --to nano-vlm@8 --frames 2400
	@$(PY) -m apps train nano_vlm_reads --weights nano-vlm@8 --to nano-vlm@9 --frames 2400
	@$(PY) -m apps.vlm_shipping nano-vlm@9 nano-vlm@8 nano-vlm@7 nano-vlm@6 nano-vlm@5 nano-vlm@4 nano-vlm@3 nano-vlm@2 nano-vlm@1

lock: ## resolve requirements.lock again from pyproject.toml (needs uv)
	@uv pip compile --generate-hashes --no-emit-index-url --no-header --group dev pyproject.toml -o requirements.lock

clean: ## remove the demo workspace and caches (keeps .venv)
	@rm -rf workspace .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .cache
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
