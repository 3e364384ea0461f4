"""One model family: built small, compiled, compared with eager; then generation, and counts."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by transformers when it is imported

import torch
import transformers
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from transformers.utils import logging as transformers_logging

import dynamo_onnx
from dynamo_onnx.backend.report import records_of
from dynamo_onnx.backend.state import GraphRecord
from dynamo_onnx.runtime.errors import ReasonKind

from .families import Family
from .shrink import shrunk

transformers_logging.set_verbosity_error()

TOLERANCE = 1e-4  # of the tensor's scale
NEW_TOKENS = 16
CACHES = {"dynamic": None, "static": "static"}


def build(family: Family) -> tuple[nn.Module, dict[str, Any]]:
    """The module in eval mode and the keyword arguments of one call."""
    cls = getattr(transformers, family.cls)
    torch.manual_seed(0)
    model = cls(shrunk(cls.config_class, family.config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            _unsettle(parameter)
    return model, family.inputs(model)


def _unsettle(parameter: Tensor) -> None:
    """Scales of one and biases of zero hide what is done with them: make them differ.

    Matrices drawn as small as trained models start (0.02) leave of a layer of 64 units next to
    nothing beside the residual: make them larger.
    """
    if not parameter.is_floating_point() or parameter.numel() < 2:
        return
    flat = parameter.flatten()
    if bool((flat == flat[0]).all()):
        parameter.add_(torch.randn_like(parameter), alpha=0.05)
    elif parameter.dim() > 1 and float(flat.std()) < 0.05:
        parameter.mul_(0.1 / float(flat.std()))


def run(family: Family) -> dict[str, Any]:
    """What came of it: `outcome` and counts; `generate` per cache for those that generate."""
    try:
        model, inputs = build(family)
        expected = forward(model, inputs)
    except Exception as error:  # noqa: BLE001 - whatever eager does not do is no case
        return {"outcome": "eager fails", "detail": line(error)}
    result: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    if not any(t.numel() for _, t in tensors(expected)):
        return result | {"outcome": "eager fails", "detail": "no tensor in the output"}
    model.compile(backend="onnx")
    try:
        got = forward(model, inputs)
    except Exception as error:  # noqa: BLE001 - any exception where eager has an answer
        outcome = "crashed" if _without_us(model, inputs) is not None else "Dynamo fails"
        return result | {"outcome": outcome, "detail": line(error)}
    found = difference(got, expected)
    result |= counts() | {"outcome": "wrong" if found else "equal", "detail": found}
    if found:
        theirs = _without_us(model, inputs)
        if theirs is not None and difference(theirs, expected) and not difference(got, theirs):
            result["outcome"] = "Dynamo differs"
        elif not difference(got, expected, rounding_noise(model, inputs, expected)):
            result["outcome"] = "equal within rounding"
        return result
    if not result["graphs"]:
        return result | {"outcome": "Dynamo fails", "detail": "no graph captured"}
    if family.generates:
        result["generate"] = {name: _generate(model, inputs, name) for name in CACHES}
    return result


def forward(model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    """Eager's answer, or that of whatever the module is compiled with."""
    torch.manual_seed(1)
    copies = {k: v.clone() if isinstance(v, Tensor) else v for k, v in inputs.items()}
    with torch.no_grad():
        return model(**copies)


def rounding_noise(model: nn.Module, inputs: Mapping[str, Any], expected: Any) -> dict[str, float]:
    """How far each tensor of eager's answer moves when each weight moves by one unit in its last
    place: the most of three draws. What rounding alone can do to this model.
    """
    model._compiled_call_impl = None
    exact = {name: p.detach().clone() for name, p in model.named_parameters()}
    noise: dict[str, float] = {}
    for seed in range(3):
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if p.is_floating_point():
                    towards = torch.where(torch.rand_like(p) < 0.5, -torch.inf, torch.inf)
                    p.copy_(torch.nextafter(exact[name], towards.to(p.dtype)))
        for (path, a), (_, b) in zip(
            tensors(forward(model, inputs)), tensors(expected), strict=False
        ):
            if a.shape == b.shape and a.is_floating_point() and a.numel():
                moved = (a - b).nan_to_num().abs().max()
                noise[path] = max(noise.get(path, 0.0), float(moved))
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(exact[name])
    return noise


def _without_us(model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    """What Dynamo makes of the model with its own backend; None if that fails as well."""
    torch._dynamo.reset()
    model.compile(backend="aot_eager")
    try:
        return forward(model, inputs)
    except Exception:  # noqa: BLE001 - that it fails is the answer
        return None


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of an output with its path: tuples, mappings, caches and their layers."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors(item, f"{path}.{key}")
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from tensors(item, f"{path}[{index}]")
    elif type(value).__module__.startswith("transformers."):
        yield from tensors(getattr(value, "__dict__", {}), path)


def difference(ours: Any, eager: Any, noise: Mapping[str, float] | None = None) -> str:
    """What differs, in a line; "" for nothing. By four times its noise a tensor may be off."""
    if type(ours) is not type(eager):
        return f"{type(ours).__name__} for {type(eager).__name__}"
    absent = (("", None),)
    pairs = itertools.zip_longest(tensors(ours), tensors(eager), fillvalue=absent[0])
    for (our_path, a), (path, b) in pairs:
        if a is None or b is None or our_path != path:
            return f"{our_path or 'nothing'} for {path or 'nothing'}"
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return f"{path}: {a.dtype} {list(a.shape)} for {b.dtype} {list(b.shape)}"
        found = _values(a, b, 4 * (noise or {}).get(path, 0.0))
        if found:
            return f"{path}: {found}"
    return ""


def _values(a: Tensor, b: Tensor, allowed: float) -> str:
    if not b.dtype.is_floating_point and not b.dtype.is_complex:
        count = int((a != b).sum())
        return f"{count} of {b.numel()} differ" if count else ""
    finite = b.isfinite()
    if not torch.equal(finite, a.isfinite()):
        return "other values are finite"
    if not torch.equal(b[~finite].nan_to_num(7.0), a[~finite].nan_to_num(7.0)):
        return "other values are NaN or infinite"
    if not finite.any():
        return ""
    error, scale = float((a - b)[finite].abs().max()), float(b[finite].abs().max())
    off = error > max(TOLERANCE * scale, allowed)
    return f"off by {error:.1e} at a scale of {scale:.1e}" if off else ""


def counts() -> dict[str, Any]:
    """Graphs captured so far, those that are one region, operators native and in eager."""
    graphs = [g for g in records_of(None) if g.native or g.eager]
    whole = [g for g in graphs if len(g.regions) == 1 and not g.eager and _ran(g)]
    reasons = Counter(
        f"{e.op}: {e.reason}"
        for g in graphs
        for e in g.eager
        if e.reason.kind is not ReasonKind.REGION_SIZE  # it follows from the others
    )
    report = dynamo_onnx.report()
    reasons.update(
        {f"{f.op}: {f.reason}": f.count for f in report.fallbacks if f.op.startswith("a region")}
    )
    return {
        "graphs": len(graphs),
        "whole": len(whole),
        "regions": sum(len(g.regions) for g in graphs),
        "native": sum(sum(g.native.values()) for g in graphs),
        "eager": sum(len(g.eager) for g in graphs),
        "reasons": dict(reasons),
    }


def _ran(graph: GraphRecord) -> bool:
    """Did its sessions open and run?"""
    executables = [region.executable() for region in graph.regions]
    return not any(e.counters.fallbacks for e in executables if e is not None)


def _generate(model: nn.Module, inputs: Mapping[str, Any], cache: str) -> dict[str, Any]:
    """Greedy generation, twice: the first call warms up, the second must not compile."""
    model._compiled_call_impl = None
    try:
        expected = _tokens(model, inputs, cache)
    except Exception as error:  # noqa: BLE001 - not every family has every cache
        return {"outcome": "eager fails", "detail": line(error)}
    result: dict[str, Any] = {}
    for backend in ("aot_eager", "onnx"):
        torch._dynamo.reset()
        dynamo_onnx.reset()
        counter = CompileCounterWithBackend(backend)
        model.compile(backend=counter)
        compilations = result[backend] = []
        for _ in range(3):
            try:
                tokens = _tokens(model, inputs, cache)
            except Exception as error:  # noqa: BLE001 - any exception where eager has an answer
                outcome = "crashed" if backend == "onnx" else "Dynamo fails"
                return result | {"outcome": outcome, "detail": line(error)}
            compilations.append(counter.frame_count)
            if not torch.equal(tokens, expected):
                outcome = "wrong" if backend == "onnx" else "Dynamo fails"
                return result | {"outcome": outcome, "detail": f"{tokens} for {expected}"}
    again = result["onnx"][-1] != result["onnx"][0] and result["onnx"] != result["aot_eager"]
    return result | counts() | {"outcome": "recompiles" if again else "equal"}


def _tokens(model: Any, inputs: Mapping[str, Any], cache: str) -> Tensor:
    torch.manual_seed(1)
    return model.generate(
        **inputs,
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
        cache_implementation=CACHES[cache],
    )


def line(error: Exception) -> str:
    """An error in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]
