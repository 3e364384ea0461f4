"""Is this eager's answer? Structure, dtype, shape, values, and what happened to the inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

# Relative and absolute. Two ways of computing in one dtype differ by rounding, and reductions by
# their order: a few units in the last place of the largest intermediate.
TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 1e-2,
    torch.bfloat16: 4e-2,
    torch.complex64: 1e-4,
    torch.complex128: 1e-9,
}


# Which of several equal elements comes first is left open by torch (`stable=False`), and eager's
# choice changes with the number of elements and the processor. By operator, the position of the
# indices among the results. (argmax, argmin, max and min give the first, which torch documents.)
OPEN_AMONG_TIES = {
    "argsort": 0,
    **dict.fromkeys(("sort", "topk", "kthvalue", "median", "nanmedian", "mode"), 1),
}


# Vectors of singular values that are equal, or zero, can be any: rounding chooses them.
ILL_CONDITIONED = frozenset({"svd_lowrank", "pca_lowrank"})

# Rounding once at the end differs from eager, which on some processors rounds every sum.
ROUNDED_IN_EAGER = frozenset(f"nn.functional.conv_transpose{dims}d" for dims in (1, 2, 3))


def within_rounding(
    fn: Callable[..., Any], args: Sequence[torch.Tensor], ours: Any, eager: Any
) -> bool:
    """Is ours no farther from eager's answer than eager is, of inputs moved by a unit in the last
    place? Up to a factor of 4 on the most of three draws.
    """
    moves = []
    for seed in range(3):
        chance = torch.Generator().manual_seed(seed)
        moved = [_moved(a, chance) for a in args]
        torch.manual_seed(0)
        moves.append(_distances(fn(*moved), eager))
    most = [max(each) for each in zip(*moves, strict=True)]
    found = _distances(ours, eager)
    return all(d <= 4 * m for d, m in zip(found, most, strict=True))


def is_exact(fn: Callable[..., Any], args: Sequence[torch.Tensor], ours: Any, eager: Any) -> bool:
    """Is ours what eager gives in float64, to the tolerance of the dtype that it was computed in?

    Without AVX-512 torch adds up transposed convolutions in bfloat16 itself, a rounding each time.
    Where eager overflows, ours must too.
    """
    torch.manual_seed(0)
    exact = fn(*[a.double() if a.is_floating_point() else a for a in args])
    leaves = [pytree.tree_leaves(each) for each in (ours, eager, exact)]
    return all(
        torch.equal(our.isfinite(), their.isfinite()) and not _leaf(our, true.to(our.dtype))
        for our, their, true in zip(*leaves, strict=True)
    )


def _moved(tensor: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    if tensor.is_complex():
        return torch.view_as_complex(_moved(torch.view_as_real(tensor), chance))
    if not tensor.is_floating_point():
        return tensor
    up = torch.rand(tensor.shape, generator=chance) < 0.5
    return torch.nextafter(tensor, torch.where(up, torch.inf, -torch.inf).to(tensor.dtype))


def _distances(a: Any, b: Any) -> list[float]:
    """The largest distance of each tensor; infinite where shapes differ."""
    pairs = zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True)
    return [
        float((x - y).abs().max()) if x.numel() and x.shape == y.shape else float("inf")
        for x, y in pairs
    ]


def indices_resolved(result: Any, source: torch.Tensor, position: int) -> Any:
    """A result with its indices replaced by the elements that they point at, if they can be.

    Two such results are equal when they differ only in the choice among equal elements.
    """
    leaves, spec = pytree.tree_flatten(result)
    if position < len(leaves):
        leaves[position] = _pointed_at(leaves[position], source, leaves[0] if position else None)
    return pytree.tree_unflatten(leaves, spec)


def _pointed_at(
    indices: torch.Tensor, source: torch.Tensor, values: torch.Tensor | None
) -> torch.Tensor:
    for dim in range(source.dim()):
        shaped = indices
        if shaped.dim() == source.dim() - 1:
            shaped = shaped.unsqueeze(dim)
        others = [d for d in range(source.dim()) if d != dim]
        if shaped.dim() != source.dim() or any(shaped.shape[d] != source.shape[d] for d in others):
            continue
        if shaped.numel() and int(shaped.max()) >= source.shape[dim]:
            continue
        found = source.gather(dim, shaped).reshape(indices.shape)
        if values is None or torch.equal(found.nan_to_num(), values.nan_to_num()):
            return found
    return indices


def difference(ours: Any, eager: Any, *, values: bool = True) -> str:
    """What differs, in a line; "" for nothing."""
    our_leaves, our_spec = pytree.tree_flatten(ours)
    leaves, spec = pytree.tree_flatten(eager)
    if our_spec != spec:
        return f"structure {our_spec} for {spec}"
    for index, (a, b) in enumerate(zip(our_leaves, leaves, strict=True)):
        found = _leaf(a, b, values=values)
        if found:
            return f"item {index}: {found}" if len(leaves) > 1 else found
    return ""


def _leaf(ours: Any, eager: Any, *, values: bool = True) -> str:
    if not isinstance(eager, torch.Tensor):
        equal = ours == eager or (ours != ours and eager != eager)  # noqa: PLR0124 - NaN
        return "" if type(ours) is type(eager) and equal else f"{ours!r} for {eager!r}"
    if not isinstance(ours, torch.Tensor):
        return f"{type(ours).__name__} for a tensor"
    for what in ("dtype", "shape", "layout", "requires_grad"):
        a, b = getattr(ours, what), getattr(eager, what)
        if a != b:
            return f"{what} {a} for {b}"
    if not values or eager.layout is not torch.strided:
        return ""
    tolerance = TOLERANCE.get(eager.dtype, 0.0)
    try:
        torch.testing.assert_close(
            ours, eager, rtol=tolerance, atol=tolerance, equal_nan=True, check_stride=False
        )
    except AssertionError as error:
        return " ".join(str(error).split())[:300]
    return ""
