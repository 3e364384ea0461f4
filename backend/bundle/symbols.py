"""Stand-ins for what a call brings, that write down what is done with them.

The code that Dynamo made of a frame takes apart the arguments, calls the compiled graphs, and puts
the results together. Run with symbols for arguments, it says how, in the expressions of a bundle.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import torch

from ...runtime.bundle.expressions import Expression
from ...runtime.errors import BundleError
from ..torch_private import as_scalar, break_graph


class Tracer(Protocol):
    """Who asks what a symbol leaves open, and notes what is written."""

    def decide(self, condition: Expression) -> bool:
        """Which way to go, where that depends on the call."""
        ...

    def write(self, target: Expression, attribute: str | None, value: object) -> None:
        """Note that an argument, or an attribute of one, gets a new value."""
        ...

    def call(self, called: object, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        """Follow a call of something that is known."""
        ...


class Symbol:
    """A value that only a call knows. What cannot be written down is a BundleError.

    Its own attributes end in an underscore: all others are those of the value.
    """

    __slots__ = ("tracer_", "tree_")
    tree_: Expression
    tracer_: Tracer

    def __init__(self, tree: Expression, tracer: Tracer) -> None:
        object.__setattr__(self, "tree_", tree)
        object.__setattr__(self, "tracer_", tracer)

    def made_(self, *tree: Any) -> Symbol:  # noqa: ANN401 - parts of an expression
        """One that is computed of this and others."""
        return Symbol([*tree], self.tracer_)

    def __repr__(self) -> str:
        return f"<{self.tree_}>"

    def __format__(self, spec: str) -> str:
        return "…"  # in the text of an error

    def __getitem__(self, key: object) -> Symbol:
        if isinstance(key, slice):
            raise BundleError("a slice of an argument is taken outside of the graphs")
        return self.made_("item", self.tree_, expression_of(key))

    def __getattr__(self, name: str) -> object:
        if name in _METHODS:
            return Method(self, name)
        if name == "shape":
            return Shape(self)
        if name.startswith("__"):
            raise AttributeError(name)
        return self.made_("attribute", self.tree_, name)

    def __setattr__(self, name: str, value: object) -> None:
        self.tracer_.write(self.tree_, name, value)

    def __setitem__(self, key: object, value: object) -> None:
        _refuse("writing an item into")

    def __bool__(self) -> bool:
        return self.tracer_.decide(["truth", self.tree_])

    def __contains__(self, key: object) -> bool:
        return self.tracer_.decide(["has key", self.tree_, expression_of(key)])

    def __neg__(self) -> Symbol:
        return self.made_("neg", self.tree_)

    def __call__(self, *_: object, **__: object) -> object:
        """Refused: a method that is none of `_METHODS`."""
        _refuse("calling a method of")

    def __len__(self) -> int:  # noqa: PLE0303 - it raises, as do the others
        _refuse("the length of")

    def __iter__(self) -> Iterator[object]:
        _refuse("going through")

    def __index__(self) -> int:  # noqa: PLE0305
        _refuse("a Python number of")

    def __int__(self) -> int:
        _refuse("int() of")

    def __float__(self) -> float:
        _refuse("float() of")

    def __hash__(self) -> int:  # noqa: PLE0309
        _refuse("a key in a dict or set from")


def _refuse(what: str) -> NoReturn:
    raise BundleError(f"{what} a value that only a call knows is no part of the graphs")


def _binary(name: str, *, swapped: bool = False) -> Callable[[Symbol, object], Symbol]:
    def operation(self: Symbol, other: object) -> Symbol:
        operands = [self.tree_, expression_of(other)]
        return self.made_(name, *(reversed(operands) if swapped else operands))

    return operation


for _name in ("add", "sub", "mul", "floordiv", "truediv", "mod"):
    setattr(Symbol, f"__{_name}__", _binary(_name))
    setattr(Symbol, f"__r{_name}__", _binary(_name, swapped=True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Symbol, f"__{_name}__", _binary(_name))


class Shape:
    """The sizes of a symbol."""

    def __init__(self, of: Symbol) -> None:
        self.of = of

    def __format__(self, spec: str) -> str:
        return "…"

    def __getitem__(self, axis: int) -> Symbol:
        return self.of.made_("size", self.of.tree_, axis)


class Ignored:
    """What a bundle does not ask for: how an array lies in memory, what lives in Python alone."""

    def __getitem__(self, key: object) -> Ignored:
        return self


IGNORED = Ignored()
_METHODS = frozenset(
    {"size", "stride", "storage_offset", "item", "keys", "update", "clear", "_is_all_true"}
)


class Method:
    """A method of a symbol."""

    def __init__(self, owner: Symbol, name: str) -> None:
        self.owner, self.name = owner, name

    def __call__(self, *args: Any) -> object:  # noqa: ANN401 - those of the method
        """Its result, or a BundleError for a method that is no part of an expression."""
        owner = self.owner
        match self.name, args:
            case "size", ():
                return Shape(owner)
            case "size", (int(axis),):
                return owner.made_("size", owner.tree_, axis)
            case "stride" | "storage_offset", _:
                return IGNORED
            case "_is_all_true", ():
                return AllTrue(owner)
            case "item", ():
                truth = isinstance(owner, Result) and owner.dtype is torch.bool
                return (Truth if truth else Symbol)(["number", owner.tree_], owner.tracer_)
            case "keys", ():
                return owner.made_("keys", owner.tree_)
            case "update" | "clear", _ if isinstance(owner, CallsOwn):
                return None
            case _:
                pass
        raise BundleError(f"{self.name}() of an argument is called outside of the graphs")


class Truth(Symbol):
    """A bool of Python's that only a call knows."""

    __slots__ = ()


class AllTrue:
    """Whether all elements of a symbol are true, as torch's checks ask it."""

    def __init__(self, of: Symbol) -> None:
        self.of = of

    def item(self) -> Truth:
        """The answer."""
        return Truth(["all true", self.of.tree_], self.of.tracer_)


class Result(Symbol):
    """An array that a graph returns, of a dtype that is known."""

    __slots__ = ("dtype",)
    dtype: torch.dtype

    def __init__(self, tree: Expression, tracer: Tracer, dtype: torch.dtype) -> None:
        super().__init__(tree, tracer)
        object.__setattr__(self, "dtype", dtype)


class CallsOwn(Symbol):
    """The tuple of *args or the dict of **kwargs: nobody sees what a call writes into it."""

    __slots__ = ()


class Static:
    """An object as it was when the bundle was saved: a module, a weight, a global. Only read.

    Python functions that are called are followed.
    """

    __slots__ = ("tracer", "value")
    tracer: Tracer
    value: Any

    def __init__(self, value: object, tracer: Tracer) -> None:
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "tracer", tracer)

    def __getattr__(self, name: str) -> object:
        return static(getattr(self.value, name), self.tracer)

    def __getitem__(self, key: Any) -> object:  # noqa: ANN401 - of its own type
        return static(self.value[real(key)], self.tracer)

    def __setattr__(self, name: str, value: object) -> None:
        assign(self.value, name, value)

    def __iter__(self) -> Iterator[object]:
        return (static(item, self.tracer) for item in self.value)

    def __len__(self) -> int:
        return len(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __contains__(self, item: object) -> bool:
        return real(item) in self.value

    def __eq__(self, other: object) -> bool:
        return bool(self.value == real(other))

    def __hash__(self) -> int:
        return hash(self.value)

    def __call__(self, *args: Any, **kwargs: object) -> object:  # noqa: ANN401 - the function's own
        """What it returns; BundleError for what an expression cannot say."""
        if self.value is break_graph:
            return None  # it is there for Dynamo alone
        if self.value is as_scalar and isinstance(args[0], Symbol):
            return args[0].made_("scalar", args[0].tree_)
        method, owner = getattr(self.value, "__name__", ""), getattr(self.value, "__self__", None)
        if isinstance(owner, dict) and method in ("clear", "update"):
            for key, value in args[0].items() if args else ():
                refuse_change(owner.get(key, _MISSING), value, f"{key!r} of a dict")
            return None
        if isinstance(owner, dict) and method in _READING and not kwargs:
            return static(self.value(*map(real, args)), self.tracer)
        return self.tracer.call(self.value, args, kwargs)


_MISSING = object()
_READING = frozenset({"get", "keys", "values", "items", "copy"})  # methods of a dict


def assign(owner: object, name: str, value: object) -> None:
    """Set an attribute of an object that the code itself has made; others keep what they have."""
    before = getattr(owner, "__dict__", {}).get(name, _MISSING)
    if before is _MISSING and not isinstance(owner, torch.nn.Module):
        object.__setattr__(owner, name, value)
    else:
        refuse_change(before, value, f"{name} of a {type(owner).__name__}")


def refuse_change(before: object, after: object, name: str) -> None:
    """BundleError, unless something that outlives the call is afterwards what it was before."""
    before, after = real(before), real(after)
    plain = isinstance(after, _PLAIN) and type(before) is type(after)
    if before is not after and not (plain and before == after):
        raise BundleError(f"{name} changes in each call, which a bundle does not keep")


_NUMBERS_AND_TEXTS = (bool, int, float, complex, str, bytes)
_PLAIN = (type(None), *_NUMBERS_AND_TEXTS, type, types.CodeType, torch.dtype, torch.device)


def static(value: object, tracer: Tracer) -> object:
    """An object as a `Static`; numbers, texts, classes and symbols are themselves."""
    if isinstance(value, (*_PLAIN, Symbol, Static)):
        return value
    return Static(value, tracer)


def real(value: object) -> object:
    """The object behind a `Static`."""
    return value.value if isinstance(value, Static) else value


def expression_of(value: object) -> Expression:
    """A number, text or symbol as an expression."""
    value = real(value)
    if isinstance(value, Symbol):
        return value.tree_
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise BundleError(f"a {type(value).__name__} is met outside of the graphs")
