"""A program opened in ONNX Runtime over one set of weights; shared by all that would open the same.

Guard sets, frames and layers often have one program and the same weights: one session serves them,
with one copy of the prepacked weights.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TypeAlias
from weakref import WeakValueDictionary

import onnxruntime as ort
import torch

from .in_place import Overwrites, Targets, targets
from .integer_weights import read_integers
from .last_reshapes import Reshaped
from .linear_layers import Prepared, quantize_layers
from .placement import Placed, refuse_strays
from .program import Program, TensorSpec
from .providers import ProviderChoice
from .quantize import QuantizedWeights
from .session import open_session, session_options
from .tensors import Feeder, as_input
from .weights import WeightWatch, freezable

Argument: TypeAlias = "torch.Tensor | int | float"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Opened:
    """A session, and what its calls need: which inputs are frozen in it and which are fed.

    `weights` picks the frozen ones out of the arguments. `converted` are the places among the fed
    ones of numbers and of complex tensors; `targets` are tensors to write outputs to, if not new
    ones of onnxruntime's.
    """

    prepared: Prepared
    session: ort.InferenceSession
    run: Callable[..., None]
    output_names: list[str]
    reshaped: tuple[Reshaped, ...]
    targets: Targets | None
    target_feeder: Feeder
    frozen: tuple[int, ...]
    weights: Callable[[Sequence[Argument]], Sequence[Argument]]
    fed: tuple[int, ...]
    converted: tuple[int, ...]
    names: list[str]
    watch: WeightWatch | None
    feeder: Feeder
    owned: tuple[object, ...]
    placed: tuple[Placed, ...]
    pid: int

    def usable(self, args: Sequence[Argument]) -> bool:
        """Was it opened in this process, with the weights as they are?"""
        if self.pid != os.getpid():
            return False
        return self.watch is None or self.watch.unchanged(self.weights(args))

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
        self._lock = threading.Lock()

    def find(self, key: object, args: Sequence[Argument]) -> Opened | None:
        """One with this key, if its weights are still what they were."""
        with self._lock:
            found = self._open.get(key)
        return found if found is not None and found.usable(args) else None

    def keep(self, key: object, opened: Opened) -> None:
        """Offer it to others."""
        with self._lock:
            self._open[key] = opened

    def clear(self) -> None:
        """Share none of them any longer."""
        with self._lock:
            self._open.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How an executable opens and runs its program.

    `weights` are the positions of inputs that may be frozen, `freeze` whether they are;
    `may_go_live` gives freezing up once the weights keep changing. `require_provider` makes an
    error of nodes that are left to the CPU provider. `computed` are inputs that eager operators
    return, with the dtype that their metadata promises. A quantized program leaves the weights
    `in_float` as they are, for the reasons given, and shares the others in `quantized`.
    `overwrites` are outputs to be written onto an input. `sessions` are those that executables
    share.
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
    overwrites: Overwrites | None = None
    in_float: Mapping[int, str] = field(default_factory=dict[int, str])
    quantized: QuantizedWeights = field(default_factory=QuantizedWeights)
    sessions: Sessions = field(default_factory=Sessions)


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
        () if setup.overwrites is None else tuple(setup.overwrites.inputs.items()),
        tuple(weights),
    )


def freezable_inputs(program: Program, setup: Setup, args: Sequence[Argument]) -> tuple[int, ...]:
    """The positions of the inputs to freeze.

    onnxruntime drops an initializer that nothing reads before it is given its data.
    """
    return tuple(
        i
        for i in setup.weights
        if setup.freeze and _is_read(program, i) and _can_freeze(args[i], program.inputs[i])
    )


def open_program(
    program: Program, setup: Setup, frozen: tuple[int, ...], args: Sequence[Argument]
) -> Opened:
    """A new session over the frozen inputs as they are now."""
    # Snapshot before the weights are read: a change in between is then noticed.
    watch = WeightWatch([args[i] for i in frozen]) if frozen else None
    tensors = dict(zip(frozen, watch.tensors, strict=True)) if watch is not None else {}
    prepared = (
        read_integers(program, tensors, setup.quantized)
        if program.quantization is None
        else quantize_layers(
            program, program.quantization, tensors, setup.in_float, setup.quantized
        )
    )
    constants = _constants(prepared, tensors)
    options = session_options(
        setup.settings, threads=torch.get_num_threads(), spinning=setup.spinning
    )
    opened = open_session(prepared.program, options, setup.providers, constants)
    if setup.require_provider:
        refuse_strays(opened.placed, setup.providers)
    inputs = prepared.program.inputs
    fed = [i for i in range(len(inputs)) if i not in constants]
    positions = tuple(prepared.origins[i].position for i in fed)
    return Opened(
        prepared=prepared,
        session=opened.session,
        # What InferenceSession wraps this in checks names that are ours, at every call.
        run=opened.session._sess.run_with_ortvaluevector,  # noqa: SLF001  # pyright: ignore[reportOptionalMemberAccess]
        output_names=opened.output_names,
        reshaped=opened.reshaped,
        targets=targets(program, setup.overwrites, positions, opened.reshaped),
        target_feeder=Feeder([spec.dtype for spec in program.outputs]),
        frozen=frozen,
        # One call for all of them; for a single position it would return no sequence.
        weights=itemgetter(*frozen) if len(frozen) > 1 else lambda args: [args[i] for i in frozen],
        fed=positions,
        converted=tuple(
            place for place, i in enumerate(positions) if as_input(args[i]) is not args[i]
        ),
        names=[inputs[i].name for i in fed],
        watch=watch,
        feeder=Feeder([inputs[i].dtype for i in fed]),
        owned=opened.owned,
        placed=opened.placed,
        pid=os.getpid(),
    )


def _can_freeze(value: Argument, spec: TensorSpec) -> bool:
    # onnxruntime drops an initializer without elements before it is given its data.
    static = all(isinstance(d, int) for d in spec.shape)
    return isinstance(value, torch.Tensor) and static and value.numel() > 0 and freezable(value)


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
