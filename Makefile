# make demo   set up, then reconstruct an embedded scene and say where the results are
# make test   set up, then tests, ruff, mypy and import-linter
# make setup  only the virtual environment and the system libraries
# make clean  remove what the above made

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up-done
DEMO := demo-output
JOBS := 2

.PHONY: demo test setup lint clean

demo: $(STAMP)
	$(BIN)/recon demo --out $(DEMO)

test: $(STAMP) lint
	$(BIN)/python -m pytest -m "not browser" -n $(JOBS) --dist loadgroup --durations=25
	$(BIN)/python -m pytest -m browser

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/set-up
	bash scripts/set-up $(VENV)
	touch $(STAMP)

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
