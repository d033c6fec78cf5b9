# The two that matter: `make serve` (read) and `make test` (check). Each makes the environment when it must.
BIN  := .venv/bin
PORT ?= 8000
NB   ?=
WORKERS ?= 2

.PHONY: help serve book lab test bench lint parity sync execute browser clean
help:            ## this list
	@sed -n 's/^\([a-z]*\):.*## */  make \1\t/p' Makefile | expand -t 18

.venv/.ready: requirements.txt pyproject.toml tools/environment.sh
	@sh tools/environment.sh

serve: .venv/.ready   ## build both editions and serve them (PORT=8000)
	@$(BIN)/python tools/website.py serve --port $(PORT)

book: .venv/.ready    ## build both editions into _build/site
	@$(BIN)/python tools/website.py build

lab: .venv/.ready     ## open JupyterLab on the notebooks
	@$(BIN)/jupyter lab notebooks

test: lint parity browser   ## every test, from bare, two files at a time (WORKERS=2)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

bench: .venv/.ready   ## how fast the package is beside torch's layers and Hugging Face's models
	@$(BIN)/python tools/bench.py

lint: .venv/.ready    ## style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

parity: .venv/.ready  ## fail where the two editions differ
	@$(BIN)/python tools/editions.py parity

sync: .venv/.ready    ## copy code cells and outputs to the Chinese edition
	@$(BIN)/python tools/editions.py sync

execute: .venv/.ready ## run notebooks, store their outputs, then sync (NB=notebooks/X.ipynb)
	@$(BIN)/python tools/editions.py execute $(NB)

browser: .venv/.ready ## the browser that the tests drive
	@$(BIN)/python tools/browser.py

clean:           ## remove what was built (the environment stays)
	rm -rf _build zh/_build
