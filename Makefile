# Everything a contributor runs. With uv: prefix with `uv run`; without: inside the virtual environment of the README.
.PHONY: check test bench docs demo build requirements

check:
	ruff check .
	ruff format --check .
	mypy

test:
	pytest

bench:
	python -m benchmarks.matmul
	edgert bench --json

docs:
	python -m tests.golden.page

demo:
	edgert convert models/demo/checkpoint edgert/demo/model.gguf --type q4_k_m --name edgert-demo

build:
	python -m hatchling build

requirements:
	uv lock
	uv export --quiet --no-header --no-emit-project --no-default-groups --output-file requirements/run.txt
	uv export --quiet --no-header --no-emit-project --output-file requirements/dev.txt
	rm uv.lock
