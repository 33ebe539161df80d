# Short names for what Scripts/run.py does; on Windows call the script itself.
PYTHON ?= python3

.PHONY: demo test test-slow lint bench

demo:
	$(PYTHON) Scripts/run.py demo $(SCAN)

test:
	$(PYTHON) Scripts/run.py test

test-slow:
	$(PYTHON) Scripts/run.py test --slow

lint:
	$(PYTHON) Scripts/run.py setup --extras dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/codespell .
	.venv/bin/lint-imports

bench:
	$(PYTHON) Scripts/run.py setup --extras dev
	for script in Testing/Benchmarks/bench_*.py; do echo "== $$script"; .venv/bin/python $$script || exit 1; done
