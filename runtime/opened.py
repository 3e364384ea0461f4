"""A program opened in ONNX Runtime over one set of weights; shared by all that would open the same.

Guard sets, frames and layers often have one program and the same weights: one session serves them,
with one copy of the prepacked weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import ClassVar, TypeAlias
from weakref import WeakValueDictionary

import onnxruntime as ort
import torch

from .cuda import SessionStream, may_round_to_tf32, with_cuda_options
from .cuda_graphs import why_not_captured
from .errors import SessionError
from .in_place import targets
from .integer_weights import read_integers
from .last_reshapes import Reshaped
from .launch import Launch
from .linear_layers import Prepared, quantize_layers
from .locks import ProcessLock
from .placement import Placement, refuse_strays
from .program import Program, TensorSpec
from .providers import CPU, ProviderChoice
from .quantize import QuantizedWeights
from .ranges import ranged, wanted_ranges
from .session import Session, open_session, run_options, session_options
from .settings import QUIET
from .tensors import Feeder, as_input
from .weights import WeightWatch, freezable
from .working_memory import Lease, shared_arena

Argument: TypeAlias = "torch.Tensor | int | float"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Opened:
    """A session, and what its calls need: which inputs are frozen in it and which are fed.

    `weights` picks the frozen ones out of the arguments. `converted` are the places among the fed
    ones of numbers and of complex tensors. `uncaptured` is why runs are not captured as CUDA
    graphs, where that was asked for.

    A fork copies no threads: in the child, closing a session of the parent's would wait for its
    pool, so that such sessions are `left_by_fork` until the child ends. (onnxruntime itself waits
    where a forked child ends by sys.exit; children of multiprocessing end without.)
    """

    left_by_fork: ClassVar[list[object]] = []

    prepared: Prepared
    session: ort.InferenceSession
    launch: Launch
    reshaped: tuple[Reshaped, ...]
    frozen: tuple[int, ...]
    weights: Callable[[Sequence[Argument]], Sequence[Argument]]
    fed: tuple[int, ...]
    converted: tuple[int, ...]
    watch: WeightWatch | None
    owned: tuple[object, ...]
    placement: Placement
    uncaptured: str
    pid: int
    lease: Lease | None  # the last field: it ends when the session is closed

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:
        # As a default: at the interpreter's end, names of modules are None.
        if self.pid != getpid():
            self.left_by_fork.extend((self.session, self.launch))

    def usable(self, args: Sequence[Argument]) -> bool:
        """Was it opened in this process, with the weights as they are?"""
        if self.pid != os.getpid():
            return False
        return self.watch is None or self.watch.unchanged(self.weights(args))

    def why_uncaptured(self) -> str:
        """Why some runs are not captured as CUDA graphs, where that was asked for."""
        graphs = self.launch.graphs
        return self.uncaptured if graphs is None else graphs.why_refused()

    def constants(self) -> dict[int, torch.Tensor]:
        """Its constants by position among the inputs of the prepared program."""
        if self.watch is None:
            return {}
        frozen = dict(zip(self.frozen, self.watch.tensors, strict=True))
        return _constants(self.prepared, frozen)


class Sessions:
    """Those open now, by what they were opened from. Held weakly: executables keep them."""

    def __init__(self) -> None:
        self._open: WeakValueDictionary[object, Opened] = WeakValueDictionary()
        self._lock = ProcessLock()

    def find(self, key: object, args: Sequence[Argument]) -> Opened | None:
        """One with this key, if its weights are still what they were."""
        with self._lock():
            found = self._open.get(key)
        return found if found is not None and found.usable(args) else None

    def keep(self, key: object, opened: Opened) -> None:
        """Offer it to others."""
        with self._lock():
            self._open[key] = opened

    def drop(self, opened: Opened) -> None:
        """Offer it to nobody any longer."""
        with self._lock():
            for key in [k for k, v in self._open.items() if v is opened]:
                del self._open[key]

    def clear(self) -> None:
        """Share none of them any longer."""
        with self._lock():
            self._open.clear()


@dataclass(frozen=True, slots=True)
class Places:
    """The devices of a region: that on which it computes, and of its inputs and outputs."""

    session: torch.device
    inputs: tuple[torch.device, ...]
    outputs: tuple[torch.device, ...]

    def of_outputs(self, count: int) -> tuple[torch.device, ...]:
        """Those of so many outputs: the last ones only compute strides, for the CPU."""
        return (*self.outputs, *[_CPU] * (count - len(self.outputs)))


_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How an executable opens and runs its program.

    `weights` are the positions of inputs that may be frozen, `freeze` whether they are;
    `may_go_live` gives freezing up once the weights keep changing. `require_provider` makes an
    error of nodes that are left to the CPU provider. `computed` are inputs that eager operators
    return, with the dtype that their metadata promises. A quantized program leaves the weights
    `in_float` as they are, for the reasons given, and shares the others in `quantized`.
    `overwrites` are outputs to be written onto an input, by position. `sessions` are those that
    executables share. `places` are the devices, None for the CPU; on CUDA, `cuda_graphs` captures
    runs and `exhaustive` has cuDNN try all its algorithms. `run_settings` are for each run;
    `shares_memory` has its working memory in common with other sessions on the CPU; `label` is how
    tools call its runs.
    """

    providers: tuple[ProviderChoice, ...]
    settings: dict[str, object]
    weights: tuple[int, ...]
    computed: tuple[tuple[int, torch.dtype], ...] = ()
    freeze: bool
    may_go_live: bool
    spinning: bool
    strict: bool
    require_provider: bool = False
    overwrites: Mapping[int, int] = field(default_factory=dict[int, int])
    in_float: Mapping[int, str] = field(default_factory=dict[int, str])
    quantized: QuantizedWeights = field(default_factory=QuantizedWeights)
    sessions: Sessions = field(default_factory=Sessions)
    places: Places | None = None
    cuda_graphs: bool = False
    exhaustive: bool = False
    cache_dir: Path | None = None
    run_settings: Mapping[str, str] = field(default_factory=dict[str, str])
    shares_memory: bool = False
    label: str = ""

    def devices(self, program: Program) -> Places:
        """The devices, of all inputs and outputs of the program."""
        if self.places is not None:
            return self.places
        return Places(_CPU, (_CPU,) * len(program.inputs), (_CPU,) * len(program.outputs))


def session_key(
    program: Program, setup: Setup, frozen: Sequence[int], args: Sequence[Argument]
) -> object:
    """All that a session depends on; its weights by their memory, which it keeps alive."""
    weights = [
        (i, a.data_ptr(), a.stride()) for i in frozen if isinstance(a := args[i], torch.Tensor)
    ]
    return (
        program.fingerprint,
        repr((setup.providers, sorted(setup.settings.items()))),
        (setup.spinning, torch.get_num_threads()),
        tuple(setup.in_float.items()),
        tuple(setup.overwrites.items()),
        (setup.places, setup.cuda_graphs, setup.exhaustive, setup.shares_memory),
        tuple(setup.run_settings.items()),
        setup.places is not None and may_round_to_tf32(program),
        tuple(weights),
    )


def freezable_inputs(program: Program, setup: Setup, args: Sequence[Argument]) -> tuple[int, ...]:
    """The positions of the inputs to freeze.

    onnxruntime drops an initializer that nothing reads before it is given its data.
    """
    return tuple(
        i
        for i in setup.weights
        if setup.freeze
        and _is_read(program, i)
        and _can_freeze(args[i], program.inputs[i], unsampled=not setup.may_go_live)
    )


def open_program(
    program: Program, setup: Setup, frozen: tuple[int, ...], args: Sequence[Argument]
) -> Opened:
    """A new session over the frozen inputs as they are now."""
    # Snapshot before the weights are read: a change in between is then noticed.
    watch = WeightWatch([args[i] for i in frozen]) if frozen else None
    tensors = dict(zip(frozen, watch.tensors, strict=True)) if watch is not None else {}
    on_host = {i: tensor.cpu() for i, tensor in tensors.items()}
    prepared = (
        read_integers(program, on_host, setup.quantized)
        if program.quantization is None
        else quantize_layers(
            program, program.quantization, on_host, setup.in_float, setup.quantized
        )
    )
    constants = _constants(prepared, tensors)
    inputs = prepared.program.inputs
    fed = [i for i in range(len(inputs)) if i not in constants]
    positions = tuple(prepared.origins[i].position for i in fed)
    places = setup.devices(program)
    fed_on = [places.inputs[i] for i in positions]
    returned_on = places.of_outputs(len(program.outputs))
    stream = SessionStream(places.session) if places.session.type == "cuda" else None
    wants_graphs = stream is not None and setup.cuda_graphs
    uncaptured = (
        why_not_captured(program, setup.providers, fed_on, returned_on) if wants_graphs else ""
    )
    captures = wants_graphs and not uncaptured
    on_cpu = [name for name, _ in setup.providers] == [CPU]
    shares = setup.shares_memory and on_cpu and "enable_cpu_mem_arena" not in setup.settings
    lease = shared_arena.lease() if shares else None
    if lease is not None:
        setup = replace(setup, settings={**lease.settings, **setup.settings})
    try:
        opened = _session(prepared.program, setup, constants, stream, captures=captures)
    except SessionError as error:
        if not captures:
            raise
        captures, uncaptured = False, str(error)
        opened = _session(prepared.program, setup, constants, stream, captures=False)
    if setup.require_provider:
        refuse_strays(opened.placement.placed, setup.providers)
    into = None
    if setup.overwrites or stream is not None:
        into = targets(program, setup.overwrites, positions, opened.reshaped, returned_on)
    from_host = any(
        device.type == "cpu" and isinstance(args[i], torch.Tensor)
        for i, device in zip(positions, fed_on, strict=True)
    )
    launch = Launch(
        opened.session,
        ([inputs[i].name for i in fed], Feeder([inputs[i].dtype for i in fed], fed_on)),
        (opened.output_names, Feeder([spec.dtype for spec in program.outputs], returned_on)),
        returned_on,
        run_options=partial(
            run_options,
            setup.run_settings,
            severity=setup.settings.get("log_severity_level", QUIET),
            asynchronous=stream is not None
            and not from_host
            and all(device == places.session for device in returned_on),
        ),
        targets=into,
        stream=stream,
        captures=captures,
        weights=frozenset(
            place
            for place, i in enumerate(positions)
            # One that is not contiguous is fed as a copy, somewhere else each time.
            if i in setup.weights and isinstance(w := args[i], torch.Tensor) and w.is_contiguous()
        ),
        around=partial(ranged, name=setup.label, ranges=wanted_ranges(places.session)),
    )
    return Opened(
        prepared=prepared,
        session=opened.session,
        launch=launch,
        reshaped=opened.reshaped,
        frozen=frozen,
        # One call for all of them; for a single position it would return no sequence.
        weights=itemgetter(*frozen) if len(frozen) > 1 else lambda args: [args[i] for i in frozen],
        fed=positions,
        converted=tuple(
            place for place, i in enumerate(positions) if as_input(args[i]) is not args[i]
        ),
        watch=watch,
        owned=opened.owned,
        placement=opened.placement,
        uncaptured=uncaptured,
        pid=os.getpid(),
        lease=lease,
    )


def _session(
    program: Program,
    setup: Setup,
    constants: Mapping[int, torch.Tensor],
    stream: SessionStream | None,
    *,
    captures: bool,
) -> Session:
    options = session_options(
        setup.settings, threads=torch.get_num_threads(), spinning=setup.spinning
    )
    if stream is None:
        return open_session(program, options, setup.providers, constants)
    providers = with_cuda_options(
        setup.providers,
        stream=stream.handle,
        tf32=may_round_to_tf32(program),
        graphs=captures,
        exhaustive=setup.exhaustive,
        cache_dir=setup.cache_dir,
    )
    return open_session(program, options, providers, constants)


def _can_freeze(value: Argument, spec: TensorSpec, *, unsampled: bool) -> bool:
    # onnxruntime drops an initializer without elements before it is given its data.
    static = all(isinstance(d, int) for d in spec.shape)
    return (
        isinstance(value, torch.Tensor)
        and static
        and value.numel() > 0
        and freezable(value, unsampled=unsampled)
    )


def _is_read(program: Program, index: int) -> bool:
    value = program.model.graph.inputs[index]
    return bool(value.uses()) or value.is_graph_output()


def _constants(prepared: Prepared, frozen: Mapping[int, torch.Tensor]) -> dict[int, torch.Tensor]:
    """By position in the prepared program: frozen weights that it reads, and what it made."""
    weights = {
        i: frozen[origin.position]
        for i, origin in enumerate(prepared.origins)
        if origin.position in frozen
    }
    return {**weights, **prepared.made}
