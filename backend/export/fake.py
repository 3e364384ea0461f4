"""Models without memory for their weights."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...lowering.dims import dims_of, is_static
from ..torch_private import (
    FakeTensor,
    FakeTensorMode,
    OpOverload,
    ShapeEnv,
    TorchDispatchMode,
    pytree,
    real_tensors,
    storage_of,
    truncated_normal_unread,
)

SMALL_BYTES = 64 << 20  # causal masks and tables of positions; a weight of that size is no table
_KNOWN = "_dynamo_onnx_known"
_ITEM: OpOverload = getattr(torch.ops.aten, "_local_scalar_dense").default  # noqa: B009 - no private member


@contextlib.contextmanager
def enable_fake_mode() -> Generator[None]:
    """Models and tensors made inside have shapes and dtypes but no memory.

    `export` takes them, inside or outside; `program.apply_weights` gives the weights their values.
    What no state dict has (non-persistent buffers, such as tables of positions) is computed while
    the model is made, and is in the program, if it is at most 64 MiB and not random.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(tracked_fakes=[]))
    with fake, _KnownValues(), truncated_normal_unread():
        yield


def known_value(tensor: Tensor) -> Tensor | None:
    """The values of a fake tensor, where they were computed beside it."""
    known: _Known | None = getattr(tensor, _KNOWN, None)
    if known is None or known.lost or known.memory != storage_of(tensor):
        return None
    return known.value


@dataclass(frozen=True, slots=True)
class _Known:
    """The values of one fake tensor. Views share memory here as well, so writes are seen."""

    value: Tensor
    memory: object  # the fake one's, which `tensor.data = other` exchanges
    overwritten: dict[int, Tensor]  # by the memory that something unknown was written to

    @property
    def lost(self) -> bool:
        return self.value.untyped_storage().data_ptr() in self.overwritten


class _KnownValues(TorchDispatchMode):
    """Computes small tensors beside the fake ones, from what is known."""

    def __init__(self) -> None:
        super().__init__()
        self._overwritten: dict[int, Tensor] = {}

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what the operator returns
        kwargs = dict(kwargs or {})
        known = self._all_known(func, args, kwargs)
        if known is not None and func is _ITEM:
            with real_tensors():
                return known[0][0].item()
        result = func(*args, **kwargs)
        if known is not None and _is_small(result):
            with real_tensors():
                values = func(*known[0], **known[1])
            for fake, value in zip(_tensors(result), _tensors(values), strict=True):
                setattr(fake, _KNOWN, _Known(value, storage_of(fake), self._overwritten))
        elif func._schema.is_mutable:
            self._forget(func, args, kwargs)
        return result

    def _all_known(
        self,
        func: OpOverload,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The arguments with values in them; None if some have none, or the result is no one's."""
        if "empty" in func._schema.name or torch.Tag.nondeterministic_seeded in func.tags:
            return None
        tensors = _tensors((args, kwargs))
        values = [known_value(t) if isinstance(t, FakeTensor) else t for t in tensors]
        if any(v is None for v in values):
            return None
        by_id = {id(t): v for t, v in zip(tensors, values, strict=True)}
        return pytree.tree_map_only(Tensor, lambda t: by_id[id(t)], (args, kwargs))

    def _forget(self, func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """What is written to is unknown from now on, with all its views."""
        for index, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            given = args[index] if index < len(args) else kwargs.get(argument.name)
            for tensor in _tensors(given):
                known = getattr(tensor, _KNOWN, None)
                if known is not None:
                    self._overwritten[known.value.untyped_storage().data_ptr()] = known.value


def _tensors(value: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def _is_small(result: object) -> bool:
    """Could it be kept? Fake tensors of the CPU only: others may have no device here."""
    tensors = _tensors(result)
    return all(
        isinstance(t, FakeTensor)
        and t.device.type == "cpu"
        and is_static(dims_of(t.shape))
        and t.numel() * t.element_size() <= SMALL_BYTES
        for t in tensors
    )
