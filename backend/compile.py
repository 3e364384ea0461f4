"""One captured graph to one boxed function: partition, lower, open, stitch, record."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import onnx_ir as ir
import torch
import torch.fx

from ..lowering.fingerprint import fingerprint, fingerprint_entries
from ..lowering.interpreter import Lowered, Refusal, lower_region
from ..lowering.ops import registry
from ..lowering.region import Region, location, source_line
from ..lowering.verdict import verdict
from ..runtime.errors import LoweringError, Reason, ReasonKind, UnsupportedError
from ..runtime.executable import Executable
from ..runtime.in_place import overwritable
from ..runtime.kernels import kernel_table
from ..runtime.opened import Setup
from ..runtime.profitable import Profitability
from ..runtime.program import Program
from ..runtime.providers import ProviderChoice
from ..runtime.trials import Trial
from .dropout import DROPOUT_NAMES, draw_masks_first
from .dump import dump, dump_graph
from .kept import KeptPrograms
from .options import DEFAULT_OPSET, NEWEST_OPSET, Options
from .partition import Plan, is_operator, partition
from .placing import Placing
from .specialise import specialise
from .state import EagerOp, Frame, GraphRecord, RegionRecord, Timings, state
from .stitch import BoxedFn, region_in_eager, stitch
from .verification import Investigator, Verification, pinned
from .views import separate_views

log = logging.getLogger(__name__)
programs_log = logging.getLogger("dynamo_onnx.onnx_programs")  # the name of a module: see there


@dataclass(frozen=True, slots=True)
class Lowerings:
    """A plan all of whose regions have programs."""

    plan: Plan
    programs: Mapping[Region, tuple[Program, bool]]
    timings: Timings


@dataclass(frozen=True, slots=True)
class Contract:
    """What AOTAutograd does with the inputs and outputs of a graph, by position.

    `freezable` are inputs that are parameters or buffers; `written` inputs that the graph writes
    to, and the first outputs are what they become; `offset_outputs` outputs whose storage offset
    is read; `returned` those that are inputs themselves.
    """

    freezable: frozenset[int] = frozenset()
    written: tuple[int, ...] = ()
    offset_outputs: frozenset[int] = frozenset()
    returned: Mapping[int, int] = field(default_factory=dict[int, int])


def compile_graph(
    gm: torch.fx.GraphModule,
    options: Options,
    frame: Frame,
    contract: Contract,
    kind: str = "inference",
) -> BoxedFn:
    """A graph of that kind: regions in ONNX Runtime, the rest in eager."""
    placing = Placing(options, gm.graph)
    if options.dump_dir is not None:
        dump_graph(options.dump_dir, gm, frame.compile_id)
    if options.eager_ops.isdisjoint(DROPOUT_NAMES):
        draw_masks_first(gm.graph)
    separate_views(gm, contract.offset_outputs)
    with _uncollected():
        lowered = lower_graph(gm, options, placing)
    _refuse_eager(lowered.plan, options)
    alone = len(lowered.plan.regions) == 1 and not lowered.plan.eager
    executables: dict[Region, Executable] = {}
    records: list[RegionRecord] = []
    names = _input_names(gm, frame)
    weights = {n for i, n in enumerate(_placeholders(gm)) if i in contract.freezable}
    _warn_of_skip(options, [name for node, name in names.items() if node in weights], frame)
    for region, (program, from_cache) in lowered.programs.items():
        setup = Setup(
            providers=placing.providers(region),
            settings=dict(options.session_options),
            weights=tuple(i for i, n in enumerate(region.inputs) if n in weights),
            computed=_computed(region),
            freeze=options.weights != "live",
            may_go_live=options.weights == "auto" and options.quantize is None,
            spinning=alone,
            strict=options.strict,
            require_provider=options.require_provider,
            # Verified calls need the inputs as they were.
            overwrites={} if options.verify else _overwrites(gm, region, program, contract.written),
            in_float=_in_float(region, weights, names, options),
            quantized=state.quantized,
            sessions=state.sessions,
            places=placing.places(region),
            cuda_graphs=options.cuda_graphs and kind == "inference",
            exhaustive=options.exhaustive,
            cache_dir=options.kept_in,
            run_settings=options.run_options,
            shares_memory=kind != "inference",
            label=f"dynamo_onnx {frame.compile_id} region {len(records)}",
        )
        executable = Executable(
            program,
            setup,
            _eager_form(gm, region),
            _trials(gm, region, setup, options, setup.devices(program).session),
        )
        executables[region] = executable
        input_names = tuple(names.get(n, n.name) for n in region.inputs)
        records.append(RegionRecord(program, weakref.ref(executable), input_names, from_cache))
        told = (frame.compile_id, len(records) - 1, program.model.graph)
        programs_log.debug("frame %s, region %d:\n%s", *told)
        if options.dump_dir is not None:
            dump(options.dump_dir, program, frame.compile_id, len(records) - 1)
    eager = tuple(EagerOp(str(n.target), r, location(n)) for n, r in lowered.plan.eager)
    call, stitched = stitch(gm, lowered.plan, executables)
    record = GraphRecord(
        frame=frame,
        kind=kind,
        native=lowered.plan.native,
        eager=eager,
        regions=tuple(records),
        timings=lowered.timings,
        options=options,
        written=contract.written,
        returned=contract.returned,
        stitched=weakref.ref(stitched),
    )
    state.record(record, options.max_programs)
    log.info(
        "frame %s: %d operators in %d regions, %d in eager",
        frame.compile_id,
        sum(record.native.values()),
        len(records),
        len(eager),
    )
    return call


@contextlib.contextmanager
def _uncollected() -> Generator[None]:
    """No garbage collection while nodes are made, all of which live.

    Their number sets one off after another, and each walks everything that Dynamo and the model
    hold: 0.4 s of the 0.5 s that lowering a llama took.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def lower_graph(gm: torch.fx.GraphModule, options: Options, placing: Placing) -> Lowerings:
    """Partition and lower until every region of the plan has a program."""
    started = time.perf_counter()
    lowering_s = 0.0
    specialise(gm.graph, registry)
    refused: dict[torch.fx.Node, Reason] = {}
    pins = pinned(options)
    for node in gm.graph.nodes:
        if is_operator(node):
            if str(node.target) in pins:
                refused[node] = Reason(ReasonKind.VERIFICATION, pins[str(node.target)])
                continue
            reason = verdict(node, registry, options.eager_ops, placing.reason)
            if reason is not None:
                refused[node] = reason
    while True:
        plan = partition(gm.graph, refused, options.min_region)
        programs: dict[Region, tuple[Program, bool]] = {}
        refusals: list[Refusal] = []
        begun = time.perf_counter()
        for region in plan.regions:
            found = _program(region, options, placing.providers(region))
            if isinstance(found, tuple):
                programs[region] = found
            else:
                refusals.extend(found.refusals)
        lowering_s += time.perf_counter() - begun
        if not refusals:
            total = time.perf_counter() - started
            return Lowerings(plan, programs, Timings((total - lowering_s) * 1e3, lowering_s * 1e3))
        _note(refusals, refused, options)


def _program(
    region: Region, options: Options, providers: tuple[ProviderChoice, ...]
) -> tuple[Program, bool] | Lowered:
    """The region's program and whether it was cached, or why there is none."""
    settings = {
        "opset": options.opset,
        "providers": tuple(name for name, _ in providers),
        "transforms": tuple(
            (getattr(t, "__module__", ""), getattr(t, "__qualname__", ""), id(t))
            for t in options.transforms
        ),
        "quantize": options.quantize,
        "default_dtype": torch.get_default_dtype(),  # of numbers that rules make
    }
    key = fingerprint(fingerprint_entries(region, registry=registry, settings=settings))
    cached = state.find(key)
    if cached is not None:
        return cached, True
    kept = KeptPrograms.of(options)
    earlier = None if kept is None else kept.find(key, region)
    if earlier is not None and not options.cache_verify:
        state.keep(earlier, options.max_programs)
        return earlier, True
    lowered = lower_region(
        region,
        registry=registry,
        kernels=partial(kernel_table, tuple(name for name, _ in providers)),
        opsets=(options.opset or DEFAULT_OPSET, options.opset or NEWEST_OPSET),
        fingerprint=key,
        name="region",
    )
    if lowered.program is None:
        return lowered
    program = transformed(lowered.program, options)
    if options.quantize is not None:
        program = replace(program, quantization=options.quantize.quantization())
    if kept is not None:
        if earlier is not None:
            kept.compare(earlier, program)
        kept.keep(program, region)
    state.keep(program, options.max_programs)
    return program, False


def transformed(program: Program, options: Options) -> Program:
    """The program after the user's transforms, whose inputs and outputs must stay."""
    model = program.model
    for transform in options.transforms:
        name = getattr(transform, "__qualname__", repr(transform))
        try:
            model = transform(model)
        except MemoryError:
            raise
        except Exception as error:
            raise LoweringError(
                f"transforms: {name} raised {type(error).__name__}: {error}"
            ) from error
        if not isinstance(model, ir.Model):
            raise LoweringError(
                f"transforms: {name} returned {type(model).__name__}, not onnx_ir.Model"
            )
    wanted = ([s.name for s in program.inputs], [s.name for s in program.outputs])
    given = ([v.name for v in model.graph.inputs], [v.name for v in model.graph.outputs])
    if given != wanted:
        raise LoweringError(f"transforms changed inputs and outputs from {wanted} to {given}")
    return replace(program, model=model, node_count=len(model.graph))


def _note(refusals: list[Refusal], refused: dict[torch.fx.Node, Reason], options: Options) -> None:
    """Take refusals into account; a rule that failed is an error in strict, else one warning."""
    if all(refusal.node in refused for refusal in refusals):
        raise LoweringError(f"{refusals[0].node} is refused again: {refusals[0].reason}")
    for refusal in refusals:
        if refusal.error is not None:
            if options.strict:
                raise refusal.error
            if refusal.reason not in refused.values():
                log.warning("%s runs in eager PyTorch: %s", refusal.node.target, refusal.reason)
        refused[refusal.node] = refusal.reason


def _refuse_eager(plan: Plan, options: Options) -> None:
    if not options.strict or not plan.eager:
        return
    lines = [_told(node, reason) for node, reason in plan.eager[:10]]
    more = f"\n  … and {len(plan.eager) - 10} more" if len(plan.eager) > 10 else ""
    raise UnsupportedError(
        f"strict: {len(plan.eager)} operators would run in eager\n  " + "\n  ".join(lines) + more
    )


def _told(node: torch.fx.Node, reason: Reason) -> str:
    where = location(node)
    code = f" `{source_line(where)}`" if where else ""
    return f"{node.target}: {reason} at {where or 'an unknown line'}{code}"


def _computed(region: Region) -> tuple[tuple[int, torch.dtype], ...]:
    """Where a region takes what the graph computes, and the dtypes that its metadata says."""
    values = [(i, n.meta["val"]) for i, n in enumerate(region.inputs) if n.op == "call_function"]
    return tuple((i, v.dtype) for i, v in values if isinstance(v, torch.Tensor))


def _overwrites(
    gm: torch.fx.GraphModule, region: Region, program: Program, written: Sequence[int]
) -> dict[int, int]:
    """The outputs of a region that may be written onto the inputs that they are to become."""
    eligible = overwritable(program) if written else {}
    if not eligible or len(program.outputs) != len(region.outputs):
        return {}
    (output,) = gm.graph.find_nodes(op="output")
    results: Sequence[torch.fx.Node | None] = output.args[0]
    placeholders = _placeholders(gm)
    inside = set(region.nodes)
    found: dict[int, int] = {}
    for result, position in zip(results, written, strict=False):
        target = placeholders[position]
        if result not in region.outputs or target not in region.inputs or results.count(result) > 1:
            continue
        pair = region.outputs.index(result), region.inputs.index(target)
        if eligible.get(pair[0]) == pair[1] and inside.issuperset(target.users):
            before, after = target.meta["val"], result.meta["val"]
            if before.stride() == after.stride() and after.is_contiguous():
                found[pair[0]] = pair[1]
    return found


def _warn_of_skip(options: Options, weights: list[str], frame: Frame) -> None:
    """Say which entries of `skip` are in no weight's name: the name may be another."""
    if options.quantize is None or not weights:
        return
    matched = {entry for name in weights for entry in options.quantize.skips(name)}
    for entry in options.quantize.skip:
        if entry not in matched:
            log.warning(
                "frame %s has no weight to skip with %r in its name; programs(...)[i].inputs has "
                "their names, of a tied weight the first",
                frame.compile_id,
                entry,
            )


def _in_float(
    region: Region,
    weights: set[torch.fx.Node],
    names: Mapping[torch.fx.Node, str],
    options: Options,
) -> dict[int, str]:
    """The weights of a region that are not to be quantized, by position, and why."""
    if options.quantize is None or not options.quantize.skip:
        return {}
    reasons: dict[int, str] = {}
    for index, node in enumerate(region.inputs):
        skipped = options.quantize.skips(names[node]) if node in names else []
        if node in weights and node not in names:
            reasons[index] = "its name is not known, and might be one to skip"
        elif skipped:
            reasons[index] = f"skip has {skipped[0]!r} in it"
    return reasons


def _eager_form(gm: torch.fx.GraphModule, region: Region) -> Any:  # noqa: ANN401 - a factory
    return lambda: region_in_eager(gm, region)


def _trials(
    gm: torch.fx.GraphModule,
    region: Region,
    setup: Setup,
    options: Options,
    device: torch.device,
) -> Iterator[Trial]:
    """What a region's first calls are asked: is it right, and is it worth its session?"""
    if options.verify:
        investigator = Investigator(gm, region, setup, options)
        yield Verification(options.verify, investigator, strict=options.strict)
    if options.times_regions and not options.strict:
        yield Profitability(device)


def _placeholders(gm: torch.fx.GraphModule) -> list[torch.fx.Node]:
    return [n for n in gm.graph.nodes if n.op == "placeholder"]


def _input_names(gm: torch.fx.GraphModule, frame: Frame) -> dict[torch.fx.Node, str]:
    """The user's names, where AOTAutograd kept the inputs as Dynamo gave them."""
    placeholders = _placeholders(gm)
    if len(placeholders) != len(frame.input_names):
        return {}
    return dict(zip(placeholders, frame.input_names, strict=True))
