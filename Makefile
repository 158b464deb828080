# SPDX-License-Identifier: Apache-2.0
.PHONY: help demo test lint hooks native docs wheel
help:   ## this list
	@grep -hE '^[a-z]+: *##' $(MAKEFILE_LIST) | sed 's/: *## */\t/' | expand -t 10
demo:   ## set up, trace the leaky program in examples/, show its report
	@bash tools/demo
test:   ## set up, run everything that must hold
	@bash tools/test
lint:   ## ruff and mypy
	.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy
hooks:  ## what each commit is checked for, on everything
	.venv/bin/pre-commit run --all-files
native: ## rebuild the agent after a change in native/
	.venv/bin/pip install -q --no-deps -e .
docs:   ## the documentation site, into site/
	.venv/bin/mkdocs build --strict
wheel:  ## into dist/
	.venv/bin/python -m build --wheel
