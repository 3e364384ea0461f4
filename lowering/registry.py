"""The registry: which rule lowers which overload. Filled at import, extended by users."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
import torch.fx

from ..runtime.errors import LoweringError, Reason
from .rule import RuleFunction
from .torch_private import HigherOrderOperator, OpOverload

Supports = Callable[[torch.fx.Node], Reason | None]
Operator: TypeAlias = OpOverload | HigherOrderOperator
F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of an ATen schema; `required` ones have no default, `number`s are Scalars."""

    name: str
    required: bool
    default: object
    kwarg_only: bool
    number: bool


@dataclass(frozen=True, slots=True)
class Lowering:
    """A registered rule. `supports` reads metadata only and says why not, or None.

    `numbers` are the arguments that ONNX has as attributes: they cannot be computed from sizes.
    `values` are those that the rule takes as Values too (annotated `Operand`): they may be computed
    at run time. With a tensor of more than `largest` elements the operator stays in eager.
    """

    op: Operator
    rule: RuleFunction
    supports: Supports | None
    arguments: tuple[Argument, ...] | None  # None for an operator without a schema
    numbers: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()
    largest: int | None = None


class Registry:
    """Rules by overload. `version` counts changes, so that caches notice a rule replaced."""

    def __init__(self) -> None:
        self._lowerings: dict[Operator, Lowering] = {}
        self._complex: dict[OpOverload, Lowering] = {}
        self._expected: dict[str, RuleFunction] = {}
        self.version = 0

    def __contains__(self, op: object) -> bool:
        return op in self._lowerings

    def __iter__(self) -> Iterator[Operator]:
        return iter(self._lowerings)

    def __len__(self) -> int:
        return len(self._lowerings)

    def get_complex(self, op: object) -> Lowering | None:
        """The lowering of an overload for complex numbers, if it has one."""
        return self._complex.get(op) if isinstance(op, OpOverload) else None

    def register_complex(self, op: OpOverload, rule: RuleFunction) -> None:
        """Add a rule for the overload where a tensor that it takes or returns is complex."""
        if op in self._complex:
            raise LoweringError(f"{op} has a lowering for complex numbers already")
        arguments = schema_arguments(op)
        _check_parameters(op, rule, arguments)
        self._complex[op] = Lowering(op, rule, None, arguments)
        self.version += 1

    def get(self, op: object) -> Lowering | None:
        """The lowering of an operator, if it has one."""
        if isinstance(op, HigherOrderOperator):
            return self._lowerings.get(op)
        if not isinstance(op, OpOverload):
            return None
        found = self._lowerings.get(op)
        return self._arrived(op) if found is None and str(op) in self._expected else found

    def expect(self, name: str, rule: RuleFunction) -> None:
        """A rule for an overload of another library, which exists once that is imported.

        A rule that is registered for the overload itself comes first.
        """
        self._expected[name] = rule

    def _arrived(self, op: OpOverload) -> Lowering | None:
        """The expected rule of an overload that has come to be, if it still has our arguments."""
        rule, arguments = self._expected[str(op)], schema_arguments(op)
        try:
            _check_parameters(op, rule, arguments)
        except LoweringError:  # another version of the library
            return None
        made = Lowering(op, rule, None, arguments, values=_operands(rule))
        return self._lowerings.setdefault(op, made)

    def register(
        self,
        op: Operator,
        rule: RuleFunction,
        supports: Supports | None = None,
        *,
        replace: bool = False,
        numbers: Iterable[str] = (),
        largest: int | None = None,
    ) -> None:
        """Add a rule; a second one for the same operator must say `replace`."""
        if not isinstance(op, (OpOverload, HigherOrderOperator)):
            raise LoweringError(
                f"lowers({op}): expected an overload such as torch.ops.aten.add.Tensor, "
                f"got {type(op).__name__}; name one of its overloads"
            )
        if op in self._lowerings and not replace:
            raise LoweringError(
                f"{op} has a lowering already; pass replace=True to put yours in its place"
            )
        arguments = None
        if isinstance(op, OpOverload):
            arguments = schema_arguments(op)
            _check_parameters(op, rule, arguments)
        self._lowerings[op] = Lowering(
            op, rule, supports, arguments, frozenset(numbers), _operands(rule), largest
        )
        self.version += 1

    def copy(self) -> Registry:
        """The same rules, in a registry of its own."""
        made = Registry()
        made._lowerings |= self._lowerings
        made._complex |= self._complex
        made._expected |= self._expected
        return made

    def unregister(self, op: Operator) -> None:
        """Remove the rule of an overload."""
        del self._lowerings[op]
        self.version += 1


registry = Registry()


def lowers(
    *ops: Operator,
    supports: Supports | None = None,
    replace: bool = False,
    numbers: Iterable[str] = (),
    largest: int | None = None,
) -> Callable[[F], F]:
    """Register a function as the lowering of one or more overloads.

    The function takes the context `cx` and then every argument of the ATen schema, by position,
    under the schema's names. Tensors come as Values, sizes as ints or expressions, the rest as
    Python values. It returns a Value per tensor that the operator returns (None for one that it
    does not offer). An onnxscript function (`@onnxscript.script()`, or one in torchlib's style,
    decorated or not) is taken as well: it gets the schema's arguments without `cx`.

    `numbers` names arguments that the rule can only take as numbers, since ONNX has them as
    attributes: where one is computed from sizes, the program is compiled for its value.

    `largest` is for what ONNX can only do step by step: with a tensor of more elements the operator
    stays in eager. A tensor whose size is known at run time gets a guard on which of the two it is.

    An operator that takes functions (`torch.ops.higher_order.cond`) has no schema: its rule gets
    the arguments as the graph has them, functions as GraphModules for `cx.inline`.
    """

    def register(function: F) -> F:
        for op in ops:
            own = as_rule(op, function)
            registry.register(op, own, supports, replace=replace, numbers=numbers, largest=largest)
        return function

    return register


def as_rule(op: Operator, function: Callable[..., object]) -> RuleFunction:
    """A function as a rule for the operator: one of onnxscript's is adapted.

    So is a plain function in torchlib's style, which takes the schema's arguments without `cx`.
    """
    from .torchlib import adapt, is_onnxscript, is_traceable

    rule: Any = function
    if isinstance(op, OpOverload) and (is_onnxscript(function) or is_traceable(op, function)):
        return adapt(op, rule)
    return rule


def as_one_rule(op: Operator, functions: Sequence[Callable[..., object]]) -> RuleFunction:
    """Several functions as a rule: the first whose annotations allow the arguments' dtypes."""
    from .torchlib import one_of

    rules = [as_rule(op, function) for function in functions]
    return rules[0] if len(rules) == 1 else one_of(list(zip(functions, rules, strict=True)))


def lowers_complex(*ops: OpOverload) -> Callable[[F], F]:
    """Register a function as the lowering of overloads whose tensors are complex.

    As with `lowers`, but complex tensors come and go as `Complex`, two real values.
    """

    def register(function: F) -> F:
        rule: Any = function
        for op in ops:
            registry.register_complex(op, rule)
        return function

    return register


def schema_arguments(op: OpOverload) -> tuple[Argument, ...]:
    """The schema's arguments in order."""
    return tuple(
        Argument(
            a.name,
            not a.has_default_value(),
            a.default_value if a.has_default_value() else None,
            a.kwarg_only,
            a.type.kind() == "NumberType",
        )
        for a in op._schema.arguments
    )


def bind_arguments(
    arguments: Iterable[Argument], args: Sequence[object], kwargs: Mapping[str, object]
) -> list[object]:
    """The node's arguments in schema order, defaults filled in."""
    bound: list[object] = []
    for index, argument in enumerate(arguments):
        if index < len(args) and not argument.kwarg_only:
            bound.append(args[index])
        elif argument.name in kwargs:
            bound.append(kwargs[argument.name])
        elif argument.required:
            raise LoweringError(f"argument {argument.name!r} is missing")
        else:
            bound.append(argument.default)
    return bound


def _operands(rule: RuleFunction) -> frozenset[str]:
    """The parameters that a rule takes as Values as well as numbers."""
    parameters = inspect.signature(rule).parameters.values()
    return frozenset(p.name.rstrip("_") for p in parameters if p.annotation == "Operand")


def _check_parameters(op: OpOverload, rule: RuleFunction, arguments: tuple[Argument, ...]) -> None:
    """A rule's parameters carry the schema's names in its order (`*_` takes a tail unread)."""
    parameters = list(inspect.signature(rule).parameters.values())[1:]
    open_ended = bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL
    names = [p.name.rstrip("_") for p in parameters[: -1 if open_ended else None]]
    wanted = [a.name.rstrip("_") for a in arguments]
    if names != (wanted[: len(names)] if open_ended else wanted):
        raise LoweringError(
            f"the rule for {op} takes ({', '.join(names)}), its schema has ({', '.join(wanted)})"
        )
