"""The modules of PyTorch's `module_db` as calls of the operator sweep, for their gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing._internal.common_modules import module_db
from torch.utils import _pytree as pytree

PREFIX = "module."


def module_names() -> list[str]:
    """The modules of module_db, each once."""
    return list(dict.fromkeys(PREFIX + info.name for info in module_db))


def module_functions(
    name: str, dtype: torch.dtype
) -> Iterator[tuple[Callable[..., Any], tuple[Tensor, ...]]]:
    """Each of a module's inputs as a function of tensors alone, and those.

    They are its parameters, its buffers and what it is given, in this order.
    """
    for info in module_db:
        if PREFIX + info.name != name or dtype not in info.supported_dtypes("cpu"):
            continue
        for training in (True, False) if info.train_and_eval_differ else (True,):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.manual_seed(0)
                every = list(
                    info.module_inputs_func(
                        info, device="cpu", dtype=dtype, requires_grad=True, training=training
                    )
                )
            for given in every:
                if given.forward_input is None:
                    continue
                args, kwargs = given.constructor_input.args, given.constructor_input.kwargs
                torch.manual_seed(0)
                module = info.module_cls(*args, **kwargs).to(dtype).train(training)
                yield _function(module, given.forward_input)


def _function(module: nn.Module, given: Any) -> tuple[Callable[..., Any], tuple[Tensor, ...]]:
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    leaves, spec = pytree.tree_flatten((tuple(given.args), dict(given.kwargs)))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    names = list(own)

    def fn(*tensors: Tensor) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, tensors[len(names) :], strict=True):
            filled[place] = tensor
        args, kwargs = pytree.tree_unflatten(filled, spec)
        state = dict(zip(names, tensors, strict=False))
        return functional_call(module, state, args, kwargs)

    return fn, (*own.values(), *(leaves[i] for i in places))
