"""What a compiled function does around its graphs, found by running it with symbols.

Dynamo keeps, for each frame, versions of its code with their guards. The version of a call is
chosen by guards, and the code itself may branch on a tensor: where symbols leave that open, every
way is taken, one run after the other, and the choices become a tree of blocks.
"""

from __future__ import annotations

import dis
import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from ...runtime.bundle.expressions import ERRORS, Expression
from ...runtime.bundle.manifest import Block, Choice, Run, Write
from ...runtime.errors import BundleError
from ..torch_private import CodeVersion, code_versions, has_hooks, makes_resumed
from .functions import BUILTINS, UTILITIES, is_utilities, our_super
from .guards import condition, for_inference, outdated
from .results import Weights, result_expression
from .symbols import (
    CallsOwn,
    Result,
    Static,
    Symbol,
    Tracer,
    expression_of,
    refuse_change,
    static,
)

MOST_PATHS = 256


@dataclass(frozen=True, slots=True)
class Call:
    """A graph that is called: its program, what is fed, and what becomes of the results.

    `results` are positions among the program's outputs, or of arguments of the graph (negative, by
    `~position`), or None. `written` are the arguments that the first of them replace, and `kept`
    the names of those that the bundle holds itself, by position. `arrays` are the outputs that
    are no numbers.
    """

    program: int
    feeds: tuple[int, ...]
    results: tuple[int | None, ...]
    written: tuple[int, ...]
    kept: Mapping[int, str]
    arrays: Mapping[int, torch.dtype]


class Graphs(Protocol):
    """The captured graphs, as programs of a bundle."""

    weights: Weights

    def call(self, compile_id: str, args: Sequence[object]) -> Call:
        """The program of a graph, with these of its arguments known."""
        ...

    def is_ours(self, compile_id: str) -> bool:
        """Was this version compiled for the function that is saved?"""
        ...

    def where(self, compile_id: str) -> str:
        """What ended a graph before the end of its frame, and the user's line; else nothing."""
        ...


class _OpenChoice(BaseException):  # not to be caught by the user's code
    def __init__(self, options: Sequence[tuple[str, Sequence[Expression]]]) -> None:
        super().__init__()
        self.options = options


def trace(function: types.FunctionType, bound_to: object, graphs: Graphs) -> Block:
    """All that a call of the function can do; of a method's, given what it is bound to."""
    count = 0

    def explore(taken: tuple[int, ...]) -> Block:
        nonlocal count
        count += 1
        if count > MOST_PATHS:
            raise BundleError(f"there are more than {MOST_PATHS} ways through {function.__name__}")
        tracing = _Tracing(graphs, taken)
        try:
            returned = tracing.frame(function, _arguments(function, bound_to, tracing))
            result = result_expression(returned, graphs.weights)
        except BundleError:
            raise
        except Exception as error:
            # What a call may come to is part of the model; what every call comes to is none.
            if not (taken and _is_raised(error) and type(error).__name__ in ERRORS):
                raise tracing.told(error) from error
            result = ["raise", type(error).__name__, str(error)]
        except _OpenChoice as choice:
            choices = tuple(
                Choice(name, tuple(conditions), explore((*taken, index)))
                for index, (name, conditions) in enumerate(choice.options)
            )
            errors = [_raised_at(choice.then) for choice in choices]
            if None not in errors:
                told = f"all ways through {function.__name__} raise an error: {errors[0]}"
                raise BundleError(told) from None
            return Block(tuple(tracing.steps), choices, None)
        return Block(tuple(tracing.steps), (), result)

    return explore(())


@dataclass(slots=True)
class _Tracing:
    """One way through the function. `steps` are those since the last of the choices `taken`."""

    graphs: Graphs
    taken: tuple[int, ...]
    steps: list[Run | Write] = field(default_factory=list[Run | Write])
    _choices: int = 0
    _runs: int = 0
    _last: str = ""

    def choose(self, options: Sequence[tuple[str, Sequence[Expression]]]) -> int:
        """Which of the options is taken: the first whose conditions hold."""
        if not options[0][1]:
            return 0
        if self._choices == len(self.taken):
            raise _OpenChoice(options)
        self.steps.clear()
        self._choices += 1
        return self.taken[self._choices - 1]

    def decide(self, condition: Expression) -> bool:
        """See `Tracer`."""
        return self.choose([("a branch is taken", [condition]), ("it is not", [])]) == 0

    def write(self, target: Expression, attribute: str | None, value: object) -> None:
        """See `Tracer`."""
        self.steps.append(Write(target, attribute, result_expression(value, self.graphs.weights)))

    def call(self, called: object, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        """See `Tracer`. A function of Python's is followed, whether Dynamo captured it or not."""
        if isinstance(called, torch.nn.Module) and not has_hooks(called):
            called = called.forward
        if isinstance(called, types.MethodType):
            args = (static(called.__self__, self), *args)
            called = called.__func__
        if not isinstance(called, types.FunctionType):
            name = getattr(called, "__qualname__", type(called).__name__)
            raise BundleError(f"{name}() is called between the graphs")
        bound = inspect.signature(called, follow_wrapped=False).bind(*args, **kwargs)
        given = set(bound.arguments)
        bound.apply_defaults()
        local = {n: v if n in given else static(v, self) for n, v in bound.arguments.items()}
        return self.frame(called, local)

    def frame(
        self, function: types.FunctionType, local: Mapping[str, object], *, inside: bool = False
    ) -> object:
        """A frame with these local values, in the version whose guards hold.

        One that is `inside` of another has its variables in common with it, and may set them.
        """
        closure = function.__closure__ or ()
        if inside:
            return self._versioned(function, local, closure)
        cells = [types.CellType(*(static(v, self) for v in _contents(cell))) for cell in closure]
        returned = self._versioned(function, local, cells)
        for name, cell, copy in zip(function.__code__.co_freevars, closure, cells, strict=True):
            for value in _contents(copy):
                before = next(iter(_contents(cell)), None)
                refuse_change(before, value, f"{name} of an enclosing function")
        return returned

    def _versioned(
        self,
        function: types.FunctionType,
        local: Mapping[str, object],
        closure: Sequence[types.CellType],
    ) -> object:
        cells = dict(zip(function.__code__.co_freevars, closure, strict=True))
        versions = [
            version
            for version in code_versions(function.__code__)
            if self.graphs.is_ours(version.compile_id)
        ]
        if not versions:  # Dynamo leaves frames without operators as they are
            return self._execute(function, function.__code__, local, cells, "")
        versions = for_inference(versions, function.__name__)
        free = {name: value for name, cell in cells.items() for value in _contents(cell)}
        seen: dict[str, object] = {**local, **free}
        asked = [(v, _conditions(v, seen, function.__globals__)) for v in versions]
        fitting = [(v, found) for v, found in asked if not isinstance(found, str)]
        if not fitting:
            raise BundleError(
                f"no guard set of {function.__name__} fits what leads to it and the model now:"
                + "".join(f"\n  guard set {v.compile_id}: not {found}" for v, found in asked)
            )
        index = self.choose([(f"guard set {v.compile_id}", found) for v, found in fitting])
        version, _ = fitting[index]
        return self._execute(function, version.code, local, cells, version.compile_id)

    def _execute(
        self,
        function: types.FunctionType,
        code: types.CodeType,
        local: Mapping[str, object],
        cells: Mapping[str, types.CellType],
        compile_id: str,
    ) -> object:
        names = argument_names(code)
        flags = code.co_flags & ~(inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
        plain = code.replace(
            co_argcount=len(names),
            co_posonlyargcount=0,
            co_kwonlyargcount=0,
            co_flags=flags,
            co_consts=tuple(our_super if const is super else const for const in code.co_consts),
        )
        namespace = self._namespace(function, code, compile_id)
        before = {name: namespace.get(name) for name in _stored_globals(code)}
        closure = tuple(cells[name] for name in code.co_freevars)
        run = types.FunctionType(plain, namespace, function.__name__, closure=closure)
        try:
            returned = run(*[local[name] for name in names])
        except BundleError as error:
            raise _located(error, self.graphs.where(self._last)) from error
        except Exception as error:
            if _is_raised(error):
                raise
            raise self.told(error) from error
        for name, value in before.items():
            refuse_change(value, namespace.get(name), f"the global {name}")
        return returned

    def _namespace(
        self, function: types.FunctionType, code: types.CodeType, compile_id: str
    ) -> dict[str, Any]:
        """The globals that the code names: graphs and frames are noted, others only read."""
        found: dict[str, Any] = {"__builtins__": {**BUILTINS, "__import__": self._imported}}
        for name in _names(code):
            value: Any = function.__globals__.get(name)
            if name.startswith("__compiled_fn"):
                found[name] = self._graph(compile_id)
            elif name.startswith("__resume_at"):
                found[name] = self._resumed(value)
            elif name.startswith("__builtins_dict__"):
                found[name] = BUILTINS
            elif name in function.__globals__:
                found[name] = UTILITIES if is_utilities(value) else static(value, self)
        return found

    def told(self, error: Exception) -> BundleError:
        """What went wrong around the graphs, and behind which of them."""
        told = BundleError(f"{type(error).__name__} in the code around the graphs: {error}")
        return _located(told, self.graphs.where(self._last))

    def _imported(
        self, name: str, _globals: object, _locals: object, names: Sequence[str] | None, level: int
    ) -> object:
        """A module that was imported before; an `import` that would run one is refused."""
        if level or name not in sys.modules:
            raise BundleError(f"{name} is imported between the graphs")
        return static(sys.modules[name if names else name.partition(".")[0]], self)

    def _graph(self, compile_id: str) -> Callable[..., tuple[object, ...]]:
        def call(*args: object) -> tuple[object, ...]:
            self._last = compile_id
            called = self.graphs.call(compile_id, args)
            number, self._runs = self._runs, self._runs + 1
            inputs = tuple(
                ["kept", called.kept[position]]
                if position in called.kept
                else expression_of(args[position])
                for position in called.feeds
            )
            self.steps.append(Run(number, called.program, inputs))
            results = [self._result(number, r, args, called.arrays) for r in called.results]
            for position, value in zip(called.written, results, strict=False):
                kept = called.kept.get(position)
                target = expression_of(args[position]) if kept is None else ["kept", kept]
                self.write(target, None, value)
            return tuple(results[len(called.written) :])

        return call

    def _result(
        self,
        number: int,
        result: int | None,
        args: Sequence[object],
        arrays: Mapping[int, torch.dtype],
    ) -> object:
        if result is None or result < 0:
            return None if result is None else args[~result]
        tree: Expression = ["result", number, result]
        return Result(tree, self, arrays[result]) if result in arrays else Symbol(tree, self)

    def _resumed(
        self, function: types.FunctionType, *, inside: bool = False
    ) -> Callable[..., object]:
        if makes_resumed(function):
            return lambda cells: self._resumed(function(cells), inside=True)

        def call(*args: object) -> object:
            names = argument_names(function.__code__)
            return self.frame(function, dict(zip(names, args, strict=True)), inside=inside)

        return call


def _arguments(function: types.FunctionType, bound_to: object, tracer: Tracer) -> dict[str, object]:
    """A symbol for each parameter, but for that of what a method is bound to."""
    code = function.__code__
    names = argument_names(code)
    plain = code.co_argcount + code.co_kwonlyargcount
    local: dict[str, object] = {
        name: (Symbol if index < plain else CallsOwn)(["argument", name], tracer)
        for index, name in enumerate(names)
    }
    if bound_to is not None:
        local[names[0]] = Static(bound_to, tracer)
    return local


def _raised_at(block: Block) -> str | None:
    """The error that ends a block, if one does."""
    result = block.result
    ends = not block.choices and isinstance(result, list) and result[:1] == ["raise"]
    return f"{result[1]}: {result[2]}" if ends and isinstance(result, list) else None


def _is_raised(error: Exception) -> bool:
    """Did the user's code raise it, by `raise`?"""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    at = (i for i in dis.get_instructions(trace.tb_frame.f_code) if i.offset == trace.tb_lasti)
    return any(instruction.opname == "RAISE_VARARGS" for instruction in at)


def _contents(cell: types.CellType) -> tuple[object, ...]:
    """What is in the cell of a variable: nothing before it is set."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def argument_names(code: types.CodeType) -> tuple[str, ...]:
    """Of all parameters, those of *args and **kwargs last."""
    stars = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + stars]


def _conditions(
    version: CodeVersion, local: Mapping[str, object], globals_: Mapping[str, object]
) -> list[Expression] | str:
    """What a version asks of a call; if it cannot be meant, the guard that says so."""
    found: dict[str, Expression] = {}
    for guard in version.guards:
        told = not outdated(guard, local, globals_) and condition(guard, local)
        if told is False:
            return guard.split("  # ", 1)[0].strip()
        if isinstance(told, Symbol):
            found[repr(told.tree_)] = told.tree_
    return list(found.values())


def _stored_globals(code: types.CodeType) -> set[str]:
    stores = ("STORE_GLOBAL", "DELETE_GLOBAL")
    return {i.argval for i in dis.get_instructions(code) if i.opname in stores}


def _names(code: types.CodeType) -> set[str]:
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _located(error: BundleError, where: str) -> BundleError:
    return BundleError(f"{error} (behind {where})") if where and where not in str(error) else error
