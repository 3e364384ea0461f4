"""Every private torch name the backend uses, each with the torch versions it was seen in.

What differs between torch releases is answered here and nowhere else.
"""

from __future__ import annotations

import contextlib
import types
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
import torch.fx
from torch._C import DispatchKey  # 2.11-2.13
from torch._C._dynamo.guards import DictGuardManager  # 2.13
from torch._decomp import decomposition_table  # 2.11-2.13
from torch._decomp.decompositions import upsample_compute_output_size  # 2.11-2.13
from torch._dispatch.python import enable_python_dispatcher  # 2.11-2.13
from torch._dynamo import graph_break as break_graph  # 2.11-2.13
from torch._dynamo.backends.common import aot_autograd  # 2.11-2.13
from torch._dynamo.eval_frame import _debug_get_cache_entry_list  # 2.11-2.13
from torch._dynamo.exc import ShortenTraceback  # 2.11-2.13
from torch._dynamo.output_graph import GraphCompileReason  # 2.11-2.13
from torch._dynamo.symbolic_convert import InstructionTranslator  # 2.11-2.13
from torch._dynamo.utils import graph_break_reasons  # 2.11-2.13
from torch._export.utils import _is_preservable_cia_op  # 2.11-2.13
from torch._functorch._aot_autograd.schemas import OutputType  # 2.11-2.13
from torch._functorch.partitioners import (
    min_cut_rematerialization_partition as min_cut,  # 2.11-2.13
)
from torch._guards import CompileContext, TracingContext  # 2.11-2.13
from torch._inductor.output_code import OutputCode  # 2.11-2.13, which AOTAutograd has loaded
from torch._ops import OpOverload, OpOverloadPacket  # 2.11-2.13
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode  # 2.11-2.13
from torch.compiler._cache import (
    CacheArtifact,  # 2.11-2.13
    CacheArtifactFactory,  # 2.11-2.13
    CacheArtifactManager,  # 2.11-2.13
)
from torch.export import default_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.fx.graph import _BoxedCodeGen  # 2.11-2.13
from torch.multiprocessing.reductions import StorageWeakRef  # 2.11-2.13
from torch.utils import _pytree as pytree  # 2.11-2.13: what torch.export's trees are made of
from torch.utils._python_dispatch import (
    TorchDispatchMode,  # 2.11-2.13
    _disable_current_modes,  # 2.11-2.13
)
from torch.utils._sympy.value_ranges import ValueRanges  # 2.11-2.13

from ..lowering.registry import bind_arguments, schema_arguments
from .state import GraphBreak

__all__ = [
    "FakeTensor",
    "FakeTensorMode",
    "OpOverload",
    "OpOverloadPacket",
    "OutputCode",
    "ShapeEnv",
    "TorchDispatchMode",
    "ValueRanges",
    "aot_autograd",
    "as_scalar",
    "backend_object_of",
    "boxed_module",
    "break_graph",
    "compile_id",
    "decompositions_without",
    "export_decompositions",
    "exporting_to_onnx",
    "frozen_candidates",
    "graph_break",
    "graph_breaks",
    "graph_bytes",
    "graph_from_bytes",
    "graphs_are_kept",
    "guards_text",
    "has_hooks",
    "input_source",
    "interpolation_whole",
    "is_composite",
    "min_cut",
    "offset_outputs",
    "pytree",
    "real_tensors",
    "record_artifact",
    "returned_inputs",
    "storage_of",
    "traced",
    "translated_code",
    "translating_backend",
    "truncated_normal_unread",
    "user_facing",
]


@CacheArtifactFactory.register
class _ProgramArtifact(CacheArtifact):
    """A program among what `torch.compiler.save_cache_artifacts()` returns."""

    def populate_cache(self) -> None:
        from .kept import deliver

        deliver(self.key, self.content)

    @staticmethod
    def type() -> str:
        return "dynamo_onnx"


def record_artifact(key: str, content: bytes) -> None:
    """Have `torch.compiler.save_cache_artifacts()` return a program."""
    CacheArtifactManager.record_artifact(_ProgramArtifact.type(), key, content)


_KEEPS_GRAPHS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
_READ_LATER = ("val", "stack_trace", "nn_module_stack")  # of a node's metadata, by us


def graphs_are_kept() -> bool:
    """Does AOTAutograd want compiled graphs as `OutputCode`, which it can write? 2.13."""
    if not _KEEPS_GRAPHS:
        return False
    from torch._functorch._aot_autograd.autograd_cache import should_bundle_autograd_cache

    return should_bundle_autograd_cache()


def graph_bytes(gm: torch.fx.GraphModule) -> bytes:
    """A graph of AOTAutograd's with its shapes and the user's lines, as a pickle. 2.13."""
    from torch.fx._graph_pickler import GraphPickler, Options

    metas = [(node, node.meta) for node in gm.graph.nodes]
    try:
        for node, meta in metas:
            node.meta = {key: meta[key] for key in _READ_LATER if key in meta}
            modules = node.meta.pop("nn_module_stack", None)
            if modules:  # of which the classes need not be importable
                node.meta["nn_module_stack"] = {k: (path, "") for k, (path, _) in modules.items()}
        return GraphPickler.dumps(gm, Options(ops_filter=None, node_metadata_key_filter=None))
    finally:
        for node, meta in metas:
            node.meta = meta


def graph_from_bytes(data: bytes) -> torch.fx.GraphModule:
    """The graph again, in a mode for fake tensors and with sizes of its own. 2.13."""
    from torch.fx._graph_pickler import GraphPickler

    loaded = GraphPickler.loads(data, FakeTensorMode(shape_env=ShapeEnv()))
    return cast("torch.fx.GraphModule", loaded)


def compile_id() -> str:
    """Dynamo's `frame/version` of the frame being compiled, `"?"` outside a compilation."""
    current = CompileContext.current_compile_id()
    return "?" if current is None else str(current)


def translating_backend() -> weakref.ref[object] | None:
    """The backend object of the `torch.compile` call whose frame is being compiled, weakly."""
    transaction = _transaction()
    backend = None if transaction is None else _innermost(transaction.output.compiler_fn)
    return None if backend is None else weakref.ref(backend)


def translated_code() -> weakref.ref[types.CodeType] | None:
    """The code object being compiled, weakly."""
    transaction = _transaction()
    return None if transaction is None else weakref.ref(transaction.f_code)


def _transaction() -> Any:  # noqa: ANN401 - InstructionTranslator, or None when another caller
    try:
        return InstructionTranslator.current_tx()
    except AttributeError:  # the thread has never translated: we were called without Dynamo
        return None


def backend_object_of(compiled: object) -> object | None:
    """The backend object of a compiled function or module, None if torch.compile did not make it.

    Dynamo keeps the backend as the innermost `_torchdynamo_orig_backend` of the callback that
    the compiled callable's closure holds.
    """
    if isinstance(compiled, torch.nn.Module):
        implementation = getattr(compiled, "_compiled_call_impl", None)
        if implementation is not None:
            return backend_object_of(implementation)
        context = getattr(compiled, "dynamo_ctx", None)
        callback = getattr(context, "callback", None)
        return _innermost(callback)
    function = getattr(compiled, "__func__", compiled)
    for cell in getattr(function, "__closure__", None) or ():
        try:
            content = cell.cell_contents
        except ValueError:  # an empty cell
            continue
        if hasattr(content, "_torchdynamo_orig_backend"):
            return _innermost(content)
    return None


def _innermost(callback: Any) -> object | None:  # noqa: ANN401 - one of Dynamo's callables
    while callback is not None and hasattr(callback, "_torchdynamo_orig_backend"):
        callback = callback._torchdynamo_orig_backend
    return callback


def guards_text(code: types.CodeType, wanted: str) -> tuple[str, ...]:
    """The guards of one compiled version of a code object, as Dynamo words them."""
    for version in code_versions(code):
        if version.compile_id == wanted:
            return tuple(map(_without_comment, version.guards))
    return ()


def _without_comment(guard: str) -> str:
    """Dynamo quotes the user's line behind two spaces and a #; a text may have those as well."""
    quote = ""
    for place, character in enumerate(guard):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif guard.startswith("  # ", place):
            return guard[:place].rstrip()
    return guard


@dataclass(frozen=True, slots=True)
class CodeVersion:
    """What Dynamo made of a frame's code under one guard set, whose guards are as it words them."""

    compile_id: str
    code: types.CodeType
    guards: tuple[str, ...]


def code_versions(code: types.CodeType) -> tuple[CodeVersion, ...]:
    """The compiled versions of a code object, in the order in which they are tried.

    Guards on sizes come last, as lambdas with a text. 2.11-2.13.
    """
    found: list[CodeVersion] = []
    for entry in _debug_get_cache_entry_list(code):
        root = entry.guard_manager.root
        lambdas = root.get_epilogue_lambda_guards()
        sizes = (part for guard in lambdas for part in guard.verbose_code_parts())
        guards = tuple(dict.fromkeys([*_guard_texts(root), *map(str, sizes)]))
        found.append(CodeVersion(str(entry.compile_id), entry.code, guards))
    return tuple(found)


def has_hooks(module: torch.nn.Module) -> bool:
    """Does a call of the module do more than its `forward`? 2.11-2.13."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._compiled_call_impl)  # noqa: SLF001


def makes_resumed(value: Callable[..., Any]) -> bool:
    """Is a global of Dynamo's code not what goes on behind a break, but what makes it? 2.13.

    It is for code with variables of an enclosing function, and is given their cells.
    """
    return value.__code__.co_freevars == ("code", "f_globals", "name")


def _guard_texts(manager: Any) -> Iterator[str]:  # noqa: ANN401 - torch's GuardManager
    """Those of a tree of guards.

    A dict that is gone through has a manager which compares its length without a text, and what is
    below it is not in `code_parts`.
    """
    for guard in manager.get_leaf_guards():
        yield from map(str, guard.verbose_code_parts())
    for child in manager.get_child_managers():
        yield from _guard_texts(child)
    if isinstance(manager, DictGuardManager):
        found: dict[int, tuple[Any, Any]] = manager.get_key_value_managers()
        pairs = [found[index] for index in sorted(found)]
        keys = [key for key, _ in pairs if key is not None]
        if keys:  # all of them are guarded, or none
            yield f"len({manager.get_source()}) == {len(keys)}"
        for child in (m for pair in pairs for m in pair if m is not None):
            yield from _guard_texts(child)


as_scalar: Callable[[float], torch.Tensor] = torch._as_tensor_fullprec  # noqa: SLF001  # 2.11-2.13


@dataclass(frozen=True, slots=True)
class Entry:
    """The function that calls of something compiled run first, what it is bound to, and its name.

    Of a module of torch's own, that is a function around the module.
    """

    function: Any  # types.FunctionType, which pyright takes for a method of this class
    bound_to: object | None
    name: str


def entry_of(compiled: Any) -> Entry:  # noqa: ANN401 - what torch.compile returned
    """Where calls of a compiled function or module begin. 2.11-2.13."""
    module = getattr(compiled, "_orig_mod", compiled)
    if not isinstance(module, torch.nn.Module):
        called = getattr(compiled, "_torchdynamo_orig_callable", compiled)
        function = cast("types.FunctionType", getattr(called, "__func__", called))
        return Entry(function, getattr(called, "__self__", None), function.__name__)
    name = type(module).__name__
    around = getattr(getattr(compiled, "forward", None), "_torchdynamo_orig_callable", None)
    if isinstance(around, types.FunctionType) and "fn" in around.__code__.co_freevars:
        return Entry(around, None, name)
    forward: Any = module.forward
    return Entry(getattr(forward, "__func__", forward), getattr(forward, "__self__", None), name)


def input_source(placeholder: torch.fx.Node) -> str:
    """Dynamo's spelling of an input's origin: `L['self']._modules['0']._parameters['weight']`.

    `Source.name` is a method up to 2.9 and a property since; `_dynamo_source` 2.11-2.13.
    """
    source = getattr(placeholder, "_dynamo_source", None)
    return "" if source is None else str(source.name)


def graph_break(gm: torch.fx.GraphModule) -> GraphBreak | None:
    """What ended this graph, unless it was the end of the frame. 2.11-2.13."""
    cause = getattr(gm, "compile_subgraph_reason", None)
    return _told(cause) if cause is not None and cause.graph_break else None


def graph_breaks() -> tuple[GraphBreak, ...]:
    """Every break since Dynamo's last reset, also those with no graph before them."""
    return tuple(map(_told, graph_break_reasons))


def _told(cause: GraphCompileReason) -> GraphBreak:
    """Dynamo's first line, with its first hint, at the user's own line."""
    first, *others = (line.strip() for line in cause.reason.split("\n"))
    if first.startswith("generic_jump"):
        first = "a branch on the value of a tensor (torch.cond takes both sides into the graph)"
    hint = next((f" ({line})" for line in others if line.startswith("Hint: ")), "")
    frames = [f for f in cause.user_stack if "/torch/" not in f.filename] or cause.user_stack
    return GraphBreak(first + hint, f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "")


def frozen_candidates(input_count: int) -> frozenset[int]:
    """Positions of AOTAutograd's inputs that are parameters or buffers and are not written to."""
    context = TracingContext.try_get()
    metadata = None if context is None else context.fw_metadata
    if metadata is None:
        return frozenset()
    static = {i for i in metadata.static_input_indices if i < input_count}
    return frozenset(static - set(metadata.mutated_inp_runtime_indices))


def written_inputs() -> tuple[int, ...]:
    """Positions of AOTAutograd's inputs that the graph writes to.

    Its first outputs are what they become, in this order.
    """
    context = TracingContext.try_get()
    metadata = None if context is None else context.fw_metadata
    return () if metadata is None else tuple(metadata.mutated_inp_runtime_indices)


def returned_inputs() -> dict[int, int]:
    """Which of AOTAutograd's outputs are its inputs themselves, by position."""
    context = TracingContext.try_get()
    metadata = None if context is None else context.fw_metadata
    if metadata is None:
        return {}
    first = len(metadata.mutated_inp_runtime_indices)
    infos = enumerate(metadata.output_info, first)
    return {
        i: info.base_idx
        for i, info in infos
        if info.output_type is OutputType.is_input and info.base_idx is not None
    }


_ALIASES = (
    OutputType.alias_of_input,
    OutputType.alias_of_intermediate,
    OutputType.alias_of_intermediate_save_as_output,
    OutputType.alias_of_intermediate_base_is_user_output,
)


def offset_outputs() -> frozenset[int]:
    """Positions of AOTAutograd's outputs whose storage offset it reads.

    An output that aliases an input or another output is made again as a view of that. Its views
    are replayed if they take no symbolic size; otherwise `as_strided` is given the sizes, strides
    and offset of what we return. `view_meta_sequence` 2.13; without it the views count as symbolic.
    """
    context = TracingContext.try_get()
    metadata = None if context is None else context.fw_metadata
    if metadata is None:
        return frozenset()
    first = len(metadata.mutated_inp_runtime_indices)
    return frozenset(
        first + i
        for i, info in enumerate(metadata.output_info)
        if info.output_type in _ALIASES and not _replayed(info)
    )


def _replayed(info: Any) -> bool:  # noqa: ANN401 - OutputAliasInfo
    views = getattr(info, "view_meta_sequence", None)
    return views is not None and not any(v.has_symbolic_inputs for v in views.sequence)


def decompositions_without(
    registered: Callable[[object], bool], others: Mapping[OpOverload, Callable[..., Any]]
) -> dict[Any, Callable[..., Any]]:
    """torch's decompositions of the ATen operators that have no rule, and these others."""
    table = {**_decompositions(), **others}
    return {op: decompose for op, decompose in table.items() if not registered(op)}


def export_decompositions(
    registered: Callable[[object], bool], others: Mapping[OpOverload, Callable[..., Any]]
) -> dict[Any, Callable[..., Any]]:
    """The same for `ExportedProgram.run_decompositions`, which leaves whole what is not in a table.

    What autograd itself decomposes (CompositeImplicitAutograd) is never seen in a captured frame.
    """
    composite = {
        op: decompose
        for op, decompose in default_decompositions().items()
        if _is_preservable_cia_op(op)
    }
    packets = [getattr(torch.ops.aten, name) for name in _INTERPOLATION]
    sized = {p.vec: _sized(p.vec, p.default) for p in packets if registered(p.default)}
    return {**composite, **sized, **decompositions_without(registered, others)}


@cache
def _decompositions() -> dict[OpOverload, Callable[..., Any]]:
    """Those of ATen operators, down to ATen operators. Random ones stay whole.

    The table also holds references that go down to `prims`, an operator set of its own; those
    would trade one operator without a rule for several. (`core_aten_decompositions()` has three
    more, which tracing takes from the operators themselves, and 100 ms to collect them.)
    """
    return {
        op: decomposition
        for op, decomposition in decomposition_table.items()
        if isinstance(op, OpOverload)
        and op.namespace == "aten"
        and torch.Tag.nondeterministic_seeded not in op.tags
        and decomposition.__module__ == "torch._decomp.decompositions"
    }


_INTERPOLATION = (
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
    "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
    "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d",
)  # fmt: skip


@contextlib.contextmanager
def interpolation_whole(registered: Callable[[object], bool]) -> Generator[None]:
    """While this lasts, tracing keeps interpolations that have a rule as one ATen operator each.

    torch registers Python kernels for them above autograd, which no decomposition table overrides
    and which turn each into some thirty operators. `torch.export` swaps such kernels for the time
    of a trace in the same way. Dynamo's compile lock is held meanwhile, and nothing but tracing
    reads Python kernels, so other backends see them as they were. 2.11-2.13.
    """
    saved: list[tuple[OpOverload, dict[Any, Any]]] = []
    try:
        for name in _INTERPOLATION:
            packet = getattr(torch.ops.aten, name)
            if not registered(packet.default):
                continue
            for op in (packet.default, packet.vec):
                saved.append((op, dict(op.py_kernels)))
                op.py_kernels.pop(DispatchKey.Autograd, None)
                op.py_kernels.pop(DispatchKey.CompositeImplicitAutograd, None)
                op._dispatch_cache.clear()  # noqa: SLF001 - as torch.export does
            packet.vec.py_kernels[DispatchKey.CompositeImplicitAutograd] = _sized(
                packet.vec, packet.default
            )
        yield
    finally:
        for op, kernels in reversed(saved):
            op.py_kernels.clear()
            op.py_kernels.update(kernels)
            op._dispatch_cache.clear()  # noqa: SLF001 - as torch.export does


def _sized(vec: OpOverload, default: OpOverload) -> Callable[..., Any]:
    """The overload that takes a size or factors, by the one that takes a size and factors."""
    arguments = schema_arguments(vec)

    def kernel(*args: object, **kwargs: object) -> object:
        given: list[Any] = bind_arguments(arguments, args, kwargs)
        image, output_size, *align_corners, factors = given
        size: Any = upsample_compute_output_size(image.size(), output_size, factors)
        return default(image, size, *align_corners, *(factors or [None] * len(size)))

    return kernel


def is_composite(op: OpOverload) -> bool:
    """Is it made of others above autograd, so that no captured frame has it? 2.11-2.13."""
    return op._can_decompose()  # noqa: SLF001


def traced(
    call: Callable[..., object],
    values: Sequence[object],
    table: Mapping[Any, Callable[..., Any]],
    mode: FakeTensorMode,
) -> torch.fx.Graph:
    """What a function does on fake tensors and sizes, by the decompositions of the table."""
    with mode, enable_python_dispatcher(), torch.no_grad():
        made = make_fx(call, dict(table), "real")(*values)
    return made.graph


@contextlib.contextmanager
def exporting_to_onnx() -> Generator[None]:
    """`torch.onnx.is_in_onnx_export()` is true meanwhile. 2.11-2.13."""
    from torch.onnx._internal.exporter import _flags

    flag = "_is_onnx_exporting"
    before = getattr(_flags, flag)
    setattr(_flags, flag, True)
    try:
        yield
    finally:
        setattr(_flags, flag, before)


def storage_of(tensor: torch.Tensor) -> StorageWeakRef:
    """What tensors have in common that share memory, fake ones as well; a key. 2.11-2.13.

    While it is kept, no other memory is equal to it, not even after the tensors are gone.
    """
    return StorageWeakRef(tensor.untyped_storage())


@contextlib.contextmanager
def truncated_normal_unread() -> Generator[None]:
    """While this lasts, `nn.init.trunc_normal_` does not look at what it has drawn. 2.13.

    It draws again until all lies within the bounds, which fake values cannot tell. Earlier
    releases compute what they draw, and are left as they are.
    """
    draw = torch.nn.init._no_grad_trunc_normal_

    def unread(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401 - its own
        fake = isinstance(tensor, FakeTensor)
        return tensor.normal_() if fake else draw(tensor, *args, **kwargs)

    torch.nn.init._no_grad_trunc_normal_ = unread
    try:
        yield
    finally:
        torch.nn.init._no_grad_trunc_normal_ = draw


def real_tensors() -> contextlib.AbstractContextManager[object]:
    """Leave AOTAutograd's fake mode, in which the graph's own constants cannot be read."""
    return _disable_current_modes()


def boxed_module(graph: torch.fx.Graph, root: torch.nn.Module) -> torch.fx.GraphModule:
    """A GraphModule whose forward takes one list and empties it."""
    graph.set_codegen(_BoxedCodeGen())
    module = torch.fx.GraphModule(root, graph)
    module.recompile()
    return module


def user_facing(error: Exception) -> Exception:
    """The same error, of its own class, in a form that Dynamo passes to the user unwrapped.

    Dynamo turns an exception from a backend into BackendCompilerFailed, except subclasses of
    ShortenTraceback.
    """
    if isinstance(error, ShortenTraceback):
        return error
    kind: Any = type(error)

    def init(self: ShortenTraceback, *args: object) -> None:
        ShortenTraceback.__init__(self, *args, first_useful_frame=None)

    body = {"__init__": init, "__module__": kind.__module__}
    shown: Any = type(kind.__name__, (kind, ShortenTraceback), body)
    made: Exception = shown(*error.args)
    made.__cause__ = error.__cause__
    return made.with_traceback(error.__traceback__)
