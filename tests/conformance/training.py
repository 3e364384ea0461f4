"""Each model family in training mode: one step compiled, its gradients compared with eager's."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .families import Family
from .family import build, counts, line, tensors

TOLERANCE = 1e-4  # of the scale of all gradients: some are nothing but rounding


def run(family: Family) -> dict[str, Any]:
    """What came of it: `outcome` and counts."""
    try:
        model, inputs = build(family)
        model.train()
        expected = gradients(copy.deepcopy(model), inputs)
        again = gradients(copy.deepcopy(model), inputs)
    except Exception as error:  # noqa: BLE001 - whatever eager does not do is no case
        return {"outcome": "eager fails", "detail": line(error)}
    if not any(name.startswith("gradient") for name in expected):
        return {"outcome": "eager fails", "detail": "nothing has a gradient"}
    if difference(again, expected):
        return {"outcome": "random", "detail": difference(again, expected)}
    try:
        ours = _compiled(model, inputs, "onnx")
    except Exception as error:  # noqa: BLE001 - any exception where eager has an answer
        outcome = "crashed" if _without_us(model, inputs) is not None else "Dynamo fails"
        return {"outcome": outcome, "detail": line(error)}
    found = difference(ours, expected)
    result = counts() | {"outcome": "wrong" if found else "equal", "detail": found}
    if found:
        theirs = _without_us(model, inputs)
        if theirs is not None and difference(theirs, expected):
            result["outcome"] = "Dynamo differs"
        elif _within_rounding(model, inputs, ours, expected):
            result["outcome"] = "equal within rounding"
    return result


def _within_rounding(
    model: nn.Module,
    inputs: Mapping[str, Any],
    ours: Mapping[str, Tensor],
    eager: Mapping[str, Tensor],
) -> bool:
    """Are ours no farther from what float64 gives than four times what eager's are?

    Norms of two examples in a batch make of a rounding what they like.
    """
    wide = {
        name: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v
        for name, v in inputs.items()
    }
    return as_near(ours, eager, gradients(copy.deepcopy(model).double(), wide))


def as_near(
    ours: Mapping[str, Tensor], eager: Mapping[str, Tensor], exact: Mapping[str, Tensor]
) -> bool:
    """Is what differs about as near to float64? Each result for itself, gradients all together."""
    if not ours.keys() == eager.keys() == exact.keys():
        return False
    differing = [name for name, _, _ in _differing(ours, eager)]
    groups = [[name] for name in differing if name.startswith("result")]
    if any(name.startswith("gradient") for name in differing):
        groups.append([n for n, t in exact.items() if n.startswith("gradient") and t.numel()])
    for names in groups:
        ours_off, eager_off = (
            max(float((found[n] - exact[n]).abs().max()) for n in names) for found in (ours, eager)
        )
        if not ours_off <= 4 * eager_off:
            return False
    return True


def _compiled(model: nn.Module, inputs: Mapping[str, Any], backend: str) -> dict[str, Tensor]:
    copied = copy.deepcopy(model)
    copied.compile(backend=backend)
    return gradients(copied, inputs)


def _without_us(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """What torch.compile gives with its own backend; None if it fails as well."""
    torch._dynamo.reset()
    try:
        return _compiled(model, inputs, "aot_eager")
    except Exception:  # noqa: BLE001 - that it fails is the answer
        return None


def gradients(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The float results and the gradients of parameters and inputs, by name."""
    torch.manual_seed(1)
    given = {
        name: value.clone().requires_grad_(value.is_floating_point())
        if isinstance(value, Tensor)
        else value
        for name, value in inputs.items()
    }
    outputs = list(_differentiable(model(**given)))
    weighed = [(o * torch.arange(o.numel()).cos().reshape(o.shape)).sum() for o in outputs]
    torch.stack([w.double() for w in weighed]).sum().backward()
    found = {f"result {i}": o.detach() for i, o in enumerate(outputs)}
    for name, value in (*model.named_parameters(), *given.items()):
        if isinstance(value, Tensor) and value.grad is not None:
            found[f"gradient of {name}"] = value.grad
    return found


def _differentiable(outputs: object) -> Iterator[Tensor]:
    for _, tensor in tensors(outputs):
        if tensor.requires_grad and tensor.dtype.is_floating_point and tensor.isfinite().all():
            yield tensor


def difference(ours: Mapping[str, Tensor], eager: Mapping[str, Tensor]) -> str:
    """What differs, in a line; "" for nothing."""
    if ours.keys() != eager.keys():
        return f"{sorted(ours.keys() ^ eager.keys())[:3]} on one side alone"
    for name, error, own in _differing(ours, eager):
        return f"{name}: off by {error:.1e} at a scale of {own:.1e}"
    return ""


def _differing(
    ours: Mapping[str, Tensor], eager: Mapping[str, Tensor]
) -> Iterator[tuple[str, float, float]]:
    """What differs by more than the tolerance: its name, by how much, and on what scale."""
    eager = {name: t for name, t in eager.items() if t.numel()}
    scale = max(float(t.abs().max()) for n, t in eager.items() if n.startswith("gradient"))
    for name, wanted in eager.items():
        own = float(wanted.abs().max()) if name.startswith("result") else scale
        error = float((ours[name] - wanted).abs().max())
        if not error <= TOLERANCE * max(own, 1e-30):
            yield name, error, own
