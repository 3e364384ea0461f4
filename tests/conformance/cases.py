"""The cases of the operator sweep: PyTorch's `op_db`, its dtypes, variants and sample inputs."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.testing._internal import common_methods_invocations
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

from .modules import PREFIX, module_functions

# op_db seeds random operators inside the call, in a context manager that Dynamo does not capture.
# The sweep seeds before each call itself.
vars(common_methods_invocations)["wrapper_set_seed"] = lambda op, *a, **k: op(*a, **k)

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "uint8": torch.uint8,
    "bool": torch.bool,
    "complex64": torch.complex64,
}
DEVICE = "cpu"  # of the sample inputs
VARIANTS = ("function", "dynamic", "inplace", "out")
GRADIENT = "gradient"  # a variant of its own: the result, and the gradients of all inputs

# What these return is whatever the memory held: only dtype, shape and strides are defined.
UNDEFINED_VALUES = frozenset(
    {
        "empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided",
        "resize_", "resize_as_",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One call: `name` is op_db's, `index` the number of the sample among those chosen."""

    name: str
    dtype: str
    variant: str
    index: int

    @property
    def key(self) -> str:
        """A name to select it by."""
        return f"{self.name}/{self.dtype}/{self.variant}/{self.index}"


@dataclass(frozen=True, slots=True)
class Call:
    """A case made ready: `fn(*args)`, all of whose tensors are in args.

    The last `outs` of them are for `out=`; the values are compared if `defined`. `sources` are the
    positions of those that have gradients.
    """

    case: Case
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    outs: int
    defined: bool
    sources: tuple[int, ...] = ()

    def made(self, fn: Callable[..., Any], args: Sequence[torch.Tensor]) -> Any:
        """What the case is about, by this form of `fn`."""
        if self.case.variant == GRADIENT:
            return gradients(fn, args, self.sources)
        return fn(*args)


def gradients(fn: Callable[..., Any], args: Sequence[torch.Tensor], sources: Sequence[int]) -> Any:
    """The result, and the gradients of the tensors at these positions.

    What comes from behind is no two times the same; a result without gradients is all there is.
    """
    with torch.enable_grad():
        given = [a.detach().requires_grad_(i in sources) for i, a in enumerate(args)]
        result = fn(*given)
        outs = [
            leaf
            for leaf in pytree.tree_leaves(result)
            if isinstance(leaf, torch.Tensor) and leaf.requires_grad
        ]
        behind = [torch.arange(out.numel()).cos().to(out.dtype).reshape(out.shape) for out in outs]
        reached = [given[i] for i in sources]
        found = torch.autograd.grad(outs, reached, behind, allow_unused=True) if outs else ()
    return result, found


def gradient_calls(name: str, dtype: str, samples: int) -> Iterator[Call]:
    """The differentiable calls of an operator of op_db, or of a module of module_db."""
    if name.startswith(PREFIX):
        every = list(module_functions(name, DTYPES[dtype]))
        for index, (fn, args) in enumerate(spread(every, 3 * samples)):
            yield _with_sources(Call(Case(name, dtype, GRADIENT, index), fn, args, 0, defined=True))
        return
    for op in op_db:
        if _full_name(op) != name or DTYPES[dtype] not in op.supported_backward_dtypes(DEVICE):
            continue
        for index, sample in enumerate(_samples(op, DTYPES[dtype], samples, gradients=True)):
            call = _call(Case(name, dtype, GRADIENT, index), op.op, sample, op)
            if call is not None:
                yield _with_sources(call)


def _with_sources(call: Call) -> Call:
    sources = tuple(i for i, a in enumerate(call.args) if a.requires_grad)
    return replace(call, args=tuple(a.detach() for a in call.args), sources=sources)


def spread(every: Sequence[Any], count: int) -> list[Any]:
    """The first, and others by chance, the same each time."""
    return [*every[:1], *random.Random(0).sample(every[1:], max(0, min(count, len(every)) - 1))]


def operator_names() -> list[str]:
    """The operators of op_db with their variant names, each once."""
    return list(dict.fromkeys(_full_name(op) for op in op_db))


def calls(name: str, dtype: str, samples: int) -> Iterator[Call]:
    """The calls of one operator in one dtype, `samples` inputs a variant."""
    for op in op_db:
        if _full_name(op) != name or DTYPES[dtype] not in op.supported_dtypes(DEVICE):
            continue
        for variant in VARIANTS:
            function = _function(op, variant)
            if function is None:
                continue
            count = samples if variant == "function" else max(1, samples // 2)
            for index, sample in enumerate(_samples(op, DTYPES[dtype], count)):
                case = Case(name, dtype, variant, index)
                call = _call(case, function, sample, op)
                if call is not None:
                    yield call


def _call(case: Case, function: Any, sample: Any, op: Any) -> Call | None:
    """Tensors become arguments; everything else stays in the closure.

    None for an `out=` variant of what returns something other than tensors.
    """
    fn, args = _flat(function, sample, "")
    given = len(args)
    if case.variant == "out":
        with torch.no_grad():
            expected = fn(*[a.clone() for a in args])
        outs = pytree.tree_leaves(expected)
        if not all(isinstance(o, torch.Tensor) for o in outs):
            return None
        fn, args = _flat(function, sample, "out" if len(outs) == 1 else "*out")
        args += tuple(torch.empty(o.shape, dtype=o.dtype) for o in outs)
    return Call(case, fn, args, len(args) - given, op.name not in UNDEFINED_VALUES)


def _flat(function: Any, sample: Any, out: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The call as a function of its tensors alone, and those.

    It is written out, as a user would: Dynamo takes longer over `tree_unflatten` than over the
    rest of a case. Numbers stay variables of a closure, which dynamic shapes make symbols of.
    `out` is "out" for one more tensor as `out=`, "*out" for several.
    """
    tensors: list[torch.Tensor] = []
    others: list[Any] = []

    def text(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            tensors.append(value)
            return f"t{len(tensors) - 1}"
        if type(value) is dict:
            return "{" + ", ".join(f"{k!r}: {text(v)}" for k, v in value.items()) + "}"
        if type(value) in (list, tuple):
            items = "".join(f"{text(v)}, " for v in value)
            return f"[{items}]" if type(value) is list else f"({items})"
        others.append(value)
        return f"c{len(others) - 1}"

    arguments = [text(a) for a in (sample.input, *sample.args)]
    arguments += [f"{name}={text(value)}" for name, value in sample.kwargs.items()]
    taken = [f"t{i}" for i in range(len(tensors))]
    if out:
        taken, arguments = [*taken, out], [*arguments, "out=out"]
    made: dict[str, Any] = {}
    exec(
        f"def make(function, {', '.join(f'c{i}' for i in range(len(others)))}):\n"
        f"    def fn({', '.join(taken)}):\n"
        f"        return function({', '.join(arguments)})\n"
        "    return fn\n",
        made,
    )
    return made["make"](function, *others), tuple(tensors)


def _function(op: Any, variant: str) -> Any:
    if variant == "inplace":
        return op.inplace_variant
    if variant == "out":
        return op.op if op.supports_out else None
    return op.op


def _samples(op: Any, dtype: torch.dtype, count: int, *, gradients: bool = False) -> list[Any]:
    """Samples spread over op_db's, with one non-contiguous and, where there is one, one empty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = list(op.sample_inputs(DEVICE, dtype, requires_grad=gradients))
    if not every:
        return []
    chosen = spread(every, count)
    empty = [s for s in every if _is_empty(s)]
    if count > 1 and empty and not any(_is_empty(s) for s in chosen):
        chosen[-1] = empty[0]
    if count > 1:
        chosen.append(every[0].noncontiguous())
    return chosen


def _is_empty(sample: Any) -> bool:
    leaves = pytree.tree_leaves((sample.input, sample.args, sample.kwargs))
    return any(isinstance(leaf, torch.Tensor) and leaf.numel() == 0 for leaf in leaves)


def _full_name(op: Any) -> str:
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name
