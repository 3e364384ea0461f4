"""Guards as conditions of a bundle: read off Dynamo's own words, with symbols for the arguments."""

from __future__ import annotations

import ast
import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...runtime.bundle.arrays import ELEMENT_TYPES
from ...runtime.errors import BundleError
from ..torch_private import CodeVersion
from .symbols import IGNORED, Ignored, Shape, Static, Symbol, expression_of, real

_ROOT = re.compile(r"\bL\['([^']*)'\]")
_TYPED = re.compile(r"^(?P<call>___check_\w+\(.*\)), type=<class '(?P<type>[^']*)'>")
_OPERATIONS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv, ast.Div: operator.truediv, ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
_BUILTIN: dict[str, type] = {
    t.__name__: t for t in (bool, int, float, str, list, tuple, dict, range, slice, set, type(None))
}
_TENSORS = ("torch.Tensor", "torch.nn.parameter.Parameter")


def condition(guard: str, local: Mapping[str, object]) -> object:
    """A guard over a frame's local values.

    A bool is known now; a `Symbol` has to be asked at each call; IGNORED says nothing of the
    arguments: it is of the module, of globals, or of how an array lies in memory. BundleError for
    one that cannot be told as data.
    """
    text = guard.split("  # ", 1)[0].strip()
    roots = _ROOT.findall(text)
    fixed = all(isinstance(local.get(name), Static) for name in roots)
    if fixed or "'_dynamo_" in text or "check_no_aliasing(" in text:
        return IGNORED
    typed = _TYPED.match(text)
    try:
        tree = ast.parse(typed["call"] if typed else text, mode="eval")
        return _Reader(local, typed["type"] if typed else "").read(tree.body)
    except (SyntaxError, BundleError) as error:
        raise BundleError(f"the guard `{text}` cannot be told as data: {error}") from error


def for_inference(versions: Sequence[CodeVersion], name: str) -> list[CodeVersion]:
    """The versions without gradients, where there are some. They must agree on torch's own state.

    A bundle has no such state: of two versions, one for autocast, it could not tell which is meant.
    """
    states = {version.compile_id: _state(version) for version in versions}
    without = [v for v in versions if not states[v.compile_id].get("grad_mode", False)]
    kept = without or list(versions)
    for key in sorted({key for v in kept for key in states[v.compile_id]} - _IRRELEVANT):
        if len({repr(states[v.compile_id].get(key)) for v in kept}) > 1:
            raise BundleError(
                f"{name} was compiled under different settings of torch ({key}): call "
                f"torch.compiler.reset(), and then the compiled function under one of them"
            )
    return kept


_STATE = re.compile(r"^___check_global_state\(\) against (\{.*\})")
_IRRELEVANT = frozenset({"grad_mode", "num_threads"})


def _state(version: CodeVersion) -> Mapping[str, object]:
    found = (_STATE.match(guard) for guard in version.guards)
    return next((json.loads(match[1]) for match in found if match), {})


def outdated(guard: str, local: Mapping[str, object], globals_: Mapping[str, object]) -> bool:
    """Is it a guard of the model, or of globals, that does not hold as they are now?

    Numbers, texts, None and identities are compared. What Dynamo reaches in ways that have no words
    is not: it ends up in the bundle as it is.
    """
    text = guard.split("  # ", 1)[0].strip()
    roots = _ROOT.findall(text)
    if not (roots or "G['" in text) or not all(_is_known(local, name) for name in roots):
        return False
    typed = _TYPED.match(text)
    try:
        tree = ast.parse(typed["call"] if typed else text, mode="eval")
    except SyntaxError:
        return False  # no comparison
    match tree.body:
        case ast.Compare(path, [ast.Eq()], [ast.Constant(wanted)]):
            found = _reached(path, local, globals_)
            return isinstance(found, (bool, int, float, str)) and found != wanted
        case ast.Compare(path, [ast.Is()], [ast.Constant(None)]):
            return _reached(path, local, globals_) not in (None, _UNREACHED)
        case ast.Call(ast.Name("___check_obj_id"), [path, ast.Constant(wanted)]):
            found = _reached(path, local, globals_)
            return found is not _UNREACHED and id(found) != wanted
        case _:
            return False


_UNREACHED = object()


def _is_known(local: Mapping[str, object], name: str) -> bool:
    return name in local and not isinstance(local[name], Symbol)


def _reached(path: ast.expr, local: Mapping[str, object], globals_: Mapping[str, object]) -> object:
    """What is at the end of names, attributes and items, if there is such a thing."""
    match path:
        case ast.Name("L"):
            return local
        case ast.Name("G"):
            return globals_
        case ast.Subscript(owner, ast.Constant(key)):
            container: Any = _reached(owner, local, globals_)
            try:
                return real(container[key])
            except (KeyError, IndexError, TypeError):
                return _UNREACHED
        case ast.Attribute(owner, name):
            return getattr(_reached(owner, local, globals_), name, _UNREACHED)
        case _:
            return _UNREACHED


class _Reader:
    """Evaluates the words of one guard."""

    def __init__(self, local: Mapping[str, object], type_name: str) -> None:
        self._local = local
        self._type = type_name

    def read(self, node: ast.expr) -> Any:  # noqa: ANN401, C901, PLR0912 - of any kind
        """The value of a part."""
        match node:
            case ast.Constant(value):
                return value
            case ast.Name("L"):
                return self._local
            case ast.Name("G" | "torch" | "utils_device"):
                return _ELSEWHERE
            case ast.Tuple(parts) | ast.List(parts):
                return [self.read(part) for part in parts]
            case ast.Set(parts):
                return {self.read(part) for part in parts}
            case ast.Subscript(owner, key):
                return _item(self.read(owner), self.read(key))
            case ast.Attribute(owner, name):
                found = self.read(owner)
                if isinstance(found, (_Elsewhere, Ignored)):
                    return found
                if isinstance(found, Symbol) and name == "__dict__":
                    return found.made_("attributes", found.tree_)
                return _attribute(found, name)
            case ast.UnaryOp(ast.Not(), operand):
                return _negated(self.read(operand))
            case ast.UnaryOp(operation, operand) if type(operation) in _OPERATIONS:
                return _applied(_OPERATIONS[type(operation)], self.read(operand))
            case ast.BinOp(left, operation, right) if type(operation) in _OPERATIONS:
                return _applied(_OPERATIONS[type(operation)], self.read(left), self.read(right))
            case ast.BoolOp(operation, operands):
                found = [self.read(operand) for operand in operands]
                return _joined(found, any_of=isinstance(operation, ast.Or))
            case ast.Compare(left, operations, others):
                values = [self.read(left), *map(self.read, others)]
                pairs = zip(operations, values, values[1:], strict=False)
                return _joined([_compared(o, a, b) for o, a, b in pairs], any_of=False)
            case ast.Call(function, args, keywords):
                return self._call(function, args, {k.arg: k.value for k in keywords})
            case _:
                pass
        raise BundleError(f"{ast.unparse(node)} is not known")

    def _call(
        self, function: ast.expr, args: list[ast.expr], keywords: Mapping[str | None, ast.expr]
    ) -> Any:  # noqa: ANN401 - a value of any kind
        name = ast.unparse(function)
        if isinstance(function, ast.Attribute) and name not in _CALLS:
            method = self.read(function)
            return IGNORED if isinstance(method, Ignored) else method(*map(self.read, args))
        if name not in _CALLS:
            raise BundleError(f"{name}() is not known")
        if name == "check_tensor":
            return self._tensor(self.read(args[0]), args[3], keywords["size"])
        values = [self.read(arg) for arg in args[:2]]
        return IGNORED if _is_foreign(values) else _CALLS[name](self._type, *values)

    def _tensor(self, value: object, dtype: ast.expr, sizes: ast.expr) -> object:
        if isinstance(value, (Static, Ignored)):
            return IGNORED
        if not isinstance(value, Symbol):
            return False
        name = ast.unparse(dtype).removeprefix("torch.")
        if name not in ELEMENT_TYPES:
            raise BundleError(f"{name} is no type of an ONNX input")
        return value.made_("is tensor", value.tree_, name, *self.read(sizes))


def _is_of_type(wanted: str, value: object, _identity: object) -> object:
    builtin = _BUILTIN.get(wanted)
    if not isinstance(value, Symbol):
        return IGNORED if builtin is None else type(value) is builtin
    if builtin is not None:
        return value.made_("is type", value.tree_, builtin.__name__)
    if wanted in _TENSORS:
        return value.made_("is array", value.tree_)
    return value.made_("is object", value.tree_, wanted)


def _is_object(_type: str, value: object, _identity: object) -> object:
    if isinstance(value, Symbol):
        raise BundleError("an argument must be one certain object")
    return IGNORED


def _contains(_type: str, key: object, owner: Any) -> object:  # noqa: ANN401 - a container
    if isinstance(owner, Symbol):
        return owner.made_("has key", owner.tree_, expression_of(key))
    return key in owner


def _length(_type: str, value: Any) -> object:  # noqa: ANN401 - a container
    return value.made_("length", value.tree_) if isinstance(value, Symbol) else len(value)


def _is_nan(_type: str, value: Any) -> object:  # noqa: ANN401 - a number
    return value.made_("is nan", value.tree_) if isinstance(value, Symbol) else math.isnan(value)


def _keys(_type: str, value: Any) -> object:  # noqa: ANN401 - a dict
    return value.made_("keys", value.tree_) if isinstance(value, Symbol) else list(value)


_CALLS: dict[str, Callable[..., object]] = {
    "check_tensor": lambda *_: IGNORED,  # by `_tensor`
    "___check_type_id": _is_of_type,
    "___check_obj_id": _is_object,
    "___dict_contains": _contains,
    "len": _length,
    "math.isnan": _is_nan,
    # What a class has: of an argument's, its name is asked for.
    "type": lambda _type, value: IGNORED if isinstance(value, Symbol) else type(value),
    "dict": lambda _type, value: dict(value),
    "dict.keys": _keys,
    "dict.__getitem__": lambda _type, owner, key: _item(owner, key),
    "set.__contains__": lambda type_, owner, key: _contains(type_, key, owner),
    "list": lambda _type, value: value,
    "hasattr": lambda *_: IGNORED,  # what is read of an object decides
}


class _Elsewhere:
    """What lives in Python alone: a global, torch's own names."""


_ELSEWHERE = _Elsewhere()


def _is_foreign(values: Sequence[object]) -> bool:
    """Says an operation on these nothing of the arguments? One with both cannot be told."""
    if any(isinstance(value, Ignored) for value in values):
        return True
    if not any(isinstance(value, (Static, _Elsewhere)) for value in values):
        return False
    if any(isinstance(value, (Symbol, Shape)) for value in values):
        raise BundleError("an argument is compared with what lives in Python alone")
    return True


def _attribute(owner: Any, name: str) -> Any:  # noqa: ANN401 - of any kind
    try:
        return getattr(owner, name)
    except AttributeError as error:
        raise BundleError(f"{name} of an argument is not known") from error


def _item(owner: Any, key: Any) -> Any:  # noqa: ANN401 - values of any kind
    if isinstance(owner, (_Elsewhere, Ignored)):
        return owner
    try:
        return owner[key]
    except (KeyError, IndexError, TypeError) as error:
        raise BundleError(f"there is no {key!r}") from error


def _applied(function: Callable[..., Any], *values: Any) -> Any:  # noqa: ANN401 - of any kind
    if _is_foreign(values):
        return IGNORED
    if any(isinstance(value, Shape) for value in values):
        raise BundleError("whole shapes are compared")
    return function(*values)


def _compared(operation: ast.cmpop, left: Any, right: Any) -> Any:  # noqa: ANN401 - of any kind
    if isinstance(operation, (ast.Is, ast.IsNot)):
        found = _is(left, right)
        return _negated(found) if isinstance(operation, ast.IsNot) else found
    if type(operation) not in _OPERATIONS:
        raise BundleError(f"{type(operation).__name__} is not known")
    if isinstance(left, Symbol) and isinstance(right, list):
        name = "eq" if isinstance(operation, ast.Eq) else "ne"
        items: list[object] = [*right]
        return left.made_(name, left.tree_, ["list", *map(expression_of, items)])
    return _applied(_OPERATIONS[type(operation)], left, right)


def _is(left: object, right: object) -> object:
    if _is_foreign((left, right)):
        return IGNORED
    if right is None and isinstance(left, Symbol):
        return left.made_("is none", left.tree_)
    if isinstance(left, Symbol) and isinstance(right, Symbol) and left.tree_ == right.tree_:
        return True
    if isinstance(left, Symbol) or isinstance(right, Symbol):
        raise BundleError("an argument must be one certain object")
    return left is right


def _negated(value: object) -> object:
    if _is_foreign((value,)):
        return IGNORED
    if isinstance(value, Symbol):
        return value.made_("not", ["truth", value.tree_])
    return not value


def _joined(values: Sequence[object], *, any_of: bool) -> object:
    """All, or any of the values. One that is ignored says nothing: an `or` with it neither."""
    told = [value for value in values if not _is_foreign((value,))]
    if not told or (any_of and len(told) < len(values)):
        return IGNORED
    symbols = [value for value in told if isinstance(value, Symbol)]
    if any(bool(value) is any_of for value in told if not isinstance(value, Symbol)):
        return any_of
    if not symbols:
        return not any_of
    first, *others = symbols
    if not others:
        return first
    return first.made_("or" if any_of else "and", *(symbol.tree_ for symbol in symbols))
