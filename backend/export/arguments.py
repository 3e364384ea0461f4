"""Arguments: as the user gives them to `export`, and as a program's inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind

from ...runtime.errors import OptionError
from ..torch_private import pytree


def arguments(
    model: torch.nn.Module | Callable[..., Any] | ExportedProgram,
    args: Any,  # noqa: ANN401 - the user's
    kwargs: Mapping[str, Any] | None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments; OptionError for `args` that are no sequence.

    As with `torch.onnx.export`, a tensor is the only argument, and a dict at the end of `args` has
    the keyword arguments, where there are no others and the model can be called like that.
    """
    if isinstance(args, torch.Tensor):
        args = (args,)
    if not isinstance(args, Sequence) or isinstance(args, str):
        raise OptionError(
            f"args is a {type(args).__name__}: give a tuple of the model's arguments, even for one"
        )
    positional = tuple(args)
    if not kwargs and positional and isinstance(positional[-1], dict):
        *before, last = positional
        if not isinstance(model, ExportedProgram) and _can_be_called(model, before, last):
            return tuple(before), dict(last)
    return positional, dict(kwargs or {})


def told_apart(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example inputs, with copies where one is given twice, or is a weight of the module.

    `torch.export` would take them for one input, and the program read only that.
    """
    seen = {id(t) for t in (*module.parameters(), *module.buffers())}

    def distinct(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) in seen:
            return tensor.detach().clone().requires_grad_(tensor.requires_grad)
        seen.add(id(tensor))
        return tensor

    args, kwargs = pytree.tree_map_only(torch.Tensor, distinct, (args, kwargs))
    return args, kwargs


def with_all_names(
    model: torch.nn.Module | Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    dynamic_shapes: Any,  # noqa: ANN401 - a tree of the user's
) -> Any:  # noqa: ANN401 - the same
    """Dynamic shapes by name with None for the arguments that are left out."""
    if not isinstance(dynamic_shapes, Mapping):
        return dynamic_shapes
    bound = inspect.signature(_called(model)).bind(*args, **kwargs)
    return {**dict.fromkeys(bound.arguments), **dynamic_shapes}


def _called(model: Callable[..., Any]) -> Callable[..., Any]:
    return model.forward if isinstance(model, torch.nn.Module) else model


def _can_be_called(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[Any, Any]
) -> bool:
    try:
        inspect.signature(_called(model)).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return False
    return True


def inputs(
    program: ExportedProgram, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Any, ...]:
    """What the arguments of a call are for a model's inputs, in their order.

    Keyword arguments may come in any order, and values that the export fixed may be left out.
    OptionError for other values of them, and for arguments that the program does not have.
    """
    specs = [s for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    fixed = {i: s.arg.value for i, s in enumerate(specs) if isinstance(s.arg, ConstantArgument)}
    given = pytree.tree_leaves((tuple(args), _in_order(program, kwargs)))
    if len(given) == len(specs):
        for index, value in fixed.items():
            if not _same(given[index], value):
                raise OptionError(
                    f"{specs[index].arg.name} is {given[index]!r}, and the model was exported with "
                    f"{value!r}: what is not a tensor is fixed by the export"
                )
        return tuple(value for index, value in enumerate(given) if index not in fixed)
    given = [value for value in given if value is not None]
    if len(given) != len(specs) - len(fixed):
        wanted = [s.arg.name for i, s in enumerate(specs) if i not in fixed]
        raise OptionError(
            f"the model has {len(wanted)} inputs ({', '.join(wanted)}), {len(given)} are given"
        )
    return tuple(given)


def _same(given: object, fixed: object) -> bool:
    return not isinstance(given, torch.Tensor) and type(given) is type(fixed) and given == fixed


def _in_order(program: ExportedProgram, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments in the order of the export."""
    _, known = program.call_spec.in_spec.children() if program.call_spec.in_spec else (None, None)
    names = list(known.context) if known is not None else []
    unknown = kwargs.keys() - set(names)
    if unknown and names:
        raise OptionError(
            f"{min(unknown)!r} is no argument of the exported model, which has {', '.join(names)}"
        )
    return {name: kwargs[name] for name in names if name in kwargs} if names else dict(kwargs)
