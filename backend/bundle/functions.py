"""What code between the graphs may call of Python's and of Dynamo's own functions.

Each takes symbols where they can be told, and refuses the others; what is none of these is followed
if it is written in Python, or refused.
"""

from __future__ import annotations

import builtins
import inspect
import itertools
import types
from collections.abc import Callable
from typing import Any

import torch

from ...runtime.errors import BundleError
from .symbols import Result, Static, Symbol, Truth, assign, real, static


def is_utilities(value: object) -> bool:
    """Is it the module of Dynamo's whose functions Dynamo's code calls?"""
    return isinstance(value, types.ModuleType) and value.__name__ == "torch._dynamo.utils"


def _nothing(*_: object) -> None:
    """What profilers note at each call."""


def _set(owner: object, name: str, value: object) -> None:
    if isinstance(owner, Symbol):
        setattr(owner, name, value)
    elif isinstance(owner, Static):
        assign(owner.value, name, value)
    else:  # made by the code itself
        object.__setattr__(owner, name, value)


def _key(owner: Any, place: int) -> object:  # noqa: ANN401 - a dict
    if isinstance(owner, Symbol):
        return owner.made_("item", owner.made_("keys", owner.tree_).tree_, place)
    return next(itertools.islice(owner, place, None))


# What Dynamo's code calls of its own module.
UTILITIES = types.SimpleNamespace(
    record_pregraph_bytecode_enter=_nothing,
    record_pregraph_bytecode_exit=_nothing,
    call_size=lambda value, axis: value.size(axis),
    dict_getitem=lambda owner, key: owner[key],
    dict_keys_getitem=_key,
    object_setattr_ignore_descriptor=_set,
)


def _length(value: Any) -> object:  # noqa: ANN401 - a container
    return value.made_("length", value.tree_) if isinstance(value, Symbol) else len(value)


class _Converting(type):
    """The type of a number, which makes a symbol of a symbol."""

    of: type

    def __call__(cls, *args: Any) -> object:  # noqa: ANN401 - those of its own type
        if args and isinstance(value := args[0], Symbol):
            return bool(value) if cls.of is bool else value.made_(cls.of.__name__, value.tree_)
        return cls.of(*args)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.of)


_NUMBERS = {t.__name__: _Converting(t.__name__, (), {"of": t}) for t in (int, float, bool)}


def _type(value: object) -> object:
    """The class of a value, which is what the names of numbers stand for here."""
    if isinstance(value, Symbol) and not isinstance(value, Truth):
        raise BundleError("type() is called with a value that only a call knows")
    kind = bool if isinstance(value, Truth) else type(real(value))
    return _NUMBERS[kind.__name__] if kind in (int, float, bool) else kind


def _is_instance(value: object, kinds: Any) -> bool:  # noqa: ANN401 - as of `isinstance`
    if isinstance(value, Truth):
        value = True
    if isinstance(value, Symbol) and torch.Tensor in (kinds if type(kinds) is tuple else (kinds,)):
        return isinstance(value, Result) or value.tracer_.decide(["is array", value.tree_])
    return bool(_of_known("isinstance", isinstance)(value, kinds))


def _refusing(name: str) -> Callable[..., object]:
    def call(*_: object, **__: object) -> object:
        raise BundleError(f"{name}() is called between the graphs")

    return call


def _of_known(name: str, function: Callable[..., object]) -> Callable[..., object]:
    def call(*args: object, **kwargs: object) -> object:
        given = (*args, *kwargs.values())
        if any(isinstance(value, Symbol) for value in given):
            raise BundleError(f"{name}() is called with a value that only a call knows")
        found = function(*map(real, args), **{key: real(value) for key, value in kwargs.items()})
        tracer = next((value.tracer for value in given if isinstance(value, Static)), None)
        return found if tracer is None else static(found, tracer)

    return call


def our_super(*args: Any) -> object:  # noqa: ANN401 - a class and an object of it, or nothing
    """As the builtin. Without arguments it looks into its caller's frame, as that does."""
    if not args:
        caller = inspect.currentframe()
        caller = None if caller is None else caller.f_back
        assert caller is not None
        args = caller.f_locals["__class__"], caller.f_locals[caller.f_code.co_varnames[0]]
    owner, instance = args
    if isinstance(instance, Static):
        return Static(super(owner, instance.value), instance.tracer)
    return super(owner, instance)


_PURE = "abs callable getattr hasattr issubclass repr round".split()
_PLAIN = "all any iter max min next sum".split()
BUILTINS: dict[str, Any] = {
    name: value if isinstance(value, type) or not callable(value) else _refusing(name)
    for name, value in vars(builtins).items()
}
BUILTINS.update({name: _of_known(name, getattr(builtins, name)) for name in _PURE})
BUILTINS.update({name: getattr(builtins, name) for name in _PLAIN})
BUILTINS.update(_NUMBERS, len=_length, isinstance=_is_instance, super=our_super, type=_type)
