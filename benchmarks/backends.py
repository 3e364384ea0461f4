"""The contenders of the benchmarks: how each one makes a model ready to be called."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .models import Example


@dataclass(frozen=True, slots=True)
class Contender:
    """A model made ready by one backend."""

    call: Callable[[], object]  # one forward pass
    tensors: Callable[[object], list[Tensor]]  # what `call` returned, as a flat list of tensors
    report: Callable[[], dict[str, Any] | None]  # what the backend tells about its compilation
    first: Callable[[], object] | None = None  # a call that compiles, if not `call`

    def prime(self) -> object:
        """The first call, and the first after `torch.compiler.reset()`: the one that compiles."""
        return (self.first or self.call)()


def _leaves(outputs: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _nothing() -> None:
    return None


def eager(example: Example) -> Contender:
    module, kwargs = example
    return Contender(lambda: module(**kwargs), _leaves, _nothing)


def compiled(backend: str, mode: str | None = None) -> Callable[[Example], Contender]:
    """`torch.compile` with the given backend and mode; compiles at the first call."""

    def make(example: Example) -> Contender:
        module = torch.compile(example.module, backend=backend, mode=mode)
        kwargs = example.kwargs
        return Contender(lambda: module(**kwargs), _leaves, _nothing)

    return make


def inductor_freezing(example: Example) -> Contender:
    """Inductor with the weights as constants.

    Dynamo itself must know while it captures, so the option that torch.compile takes is not enough;
    only the call that compiles is made under the patched configuration.
    """
    import torch._inductor.config as inductor_config

    module = torch.compile(example.module, backend="inductor", options={"freezing": True})
    kwargs = example.kwargs

    def call() -> object:
        return module(**kwargs)

    def first() -> object:
        with inductor_config.patch(freezing=True):
            return call()

    return Contender(call, _leaves, _nothing, first)


def onnx(example: Example, options: Mapping[str, Any] | None = None) -> Contender:
    """This project's backend, from an empty program cache."""
    import dynamo_onnx

    dynamo_onnx.reset()
    module = torch.compile(example.module, backend="onnx", options=dict(options or {}))
    kwargs = example.kwargs
    return Contender(lambda: module(**kwargs), _leaves, lambda: onnx_report(module))


def onnx_report(compiled: object) -> dict[str, Any]:
    """What `dynamo_onnx.report` says of a compiled module, as JSON takes it."""
    import dynamo_onnx

    found = dynamo_onnx.report(compiled)
    return {
        "graphs": found.graphs,
        "regions": found.regions,
        "native_ops": found.native_ops,
        "eager_ops": found.eager_ops,
        "onnx_nodes": found.onnx_nodes,
        "input_copies": found.input_copies,
        "output_copies": found.output_copies,
        "fallbacks": [f"{f.count} × {f.op}: {f.reason}" for f in found.fallbacks],
        "timings": dataclasses.asdict(found.timings),
    }


def raw(example: Example) -> Contender:
    """A plain ONNX Runtime session on what `torch.onnx.export(dynamo=True)` writes.

    It runs on the tensors' own memory through one IO binding, with nothing of torch around it: what
    is left of this project's time beyond it is this project's cost.
    """
    module, kwargs = example
    program = torch.onnx.export(module, (), kwargs=kwargs, dynamo=True, verbose=False)
    assert program is not None  # dynamo=True returns one
    device = next(module.parameters()).device
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        program.save(path, external_data=True)
        session = ort.InferenceSession(path, _session_options(), providers=providers(device))
    binding = session.io_binding()
    for value, tensor in zip(session.get_inputs(), kwargs.values(), strict=True):
        binding.bind_ortvalue_input(value.name, ort.OrtValue.from_dlpack(tensor))
    for value in session.get_outputs():
        binding.bind_output(value.name, device.type, device.index or 0)

    def call() -> None:
        session.run_with_iobinding(binding)

    def tensors(_: object) -> list[Tensor]:
        return [torch.from_dlpack(value) for value in binding.get_outputs()]

    return Contender(call, tensors, _nothing)


def _session_options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    return options


def side_stream(device: torch.device) -> AbstractContextManager[object]:
    """On CUDA a stream with a handle of its own, which ONNX Runtime can be given."""
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()


def providers(device: torch.device) -> list[tuple[str, dict[str, Any]]]:
    """Of a plain session on tensors of a device, on torch's stream."""
    if device.type == "cpu":
        return [("CPUExecutionProvider", {})]
    stream = torch.cuda.current_stream(device).cuda_stream  # so that torch's events see its work
    options = {"device_id": str(device.index or 0), "user_compute_stream": str(stream)}
    return [("CUDAExecutionProvider", options), ("CPUExecutionProvider", {})]


BACKENDS: dict[str, Callable[[Example], Contender]] = {
    "eager": eager,
    "inductor": compiled("inductor"),
    "inductor-freezing": inductor_freezing,
    "onnx": onnx,
    "raw": raw,
    "inductor-reduce-overhead": compiled("inductor", "reduce-overhead"),
    "onnx-reduce-overhead": lambda example: onnx(example, {"mode": "reduce-overhead"}),
}
ON_CUDA = frozenset({"inductor-reduce-overhead", "onnx-reduce-overhead"})  # elsewhere as without
COMPILED = frozenset(
    {"inductor", "inductor-freezing", "onnx", *ON_CUDA}
)  # those that start with Dynamo's capture
capture_only = compiled("aot_eager")


def tiny(device: torch.device, dtype: torch.dtype) -> Example:
    """Something to compile once before the clock runs: it pays for imports and tool checks."""
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval().to(device, dtype)
    return Example(module, {"input": torch.ones(2, 8, device=device, dtype=dtype)})


def place(example: Example, device: torch.device, dtype: torch.dtype) -> Example:
    """The example on a device, its floating point weights and inputs in `dtype`."""
    kwargs = {
        name: tensor.to(device, dtype if tensor.is_floating_point() else None)
        for name, tensor in example.kwargs.items()
    }
    return Example(example.module.to(device, dtype), kwargs)


def hush() -> None:
    """Keep the libraries' notices off the terminal; they say nothing about a measurement."""
    warnings.simplefilter("ignore")
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
