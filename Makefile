# Nothing is needed first but Python >= 3.11 and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: run test check sim planted bench clean

run: $(STAMP)
	@$(BIN)/fluxd --dags etc/dags

test: $(STAMP)
	$(BIN)/pytest tests --ignore=tests/bench

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest tests/test_tidy.py

sim: $(STAMP)
	$(BIN)/python -m tests.sim --seeds $(or $(N),20000) $(if $(SEED),--start $(SEED))

# Forty bugs put in on purpose, one after the other: who catches each?
planted: $(STAMP)
	$(BIN)/python -m tests.planted

bench: $(STAMP)
	$(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Flux needs Python 3.11 or newer; this is {v[0]}.{v[1]}: run make PYTHON=/path/to/python3.11")'
	@echo "Making the virtual environment in $(VENV) (once; about half a minute) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,test]'
	@touch $@
