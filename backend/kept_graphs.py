"""Compiled graphs as torch writes them: what `aot_compile` saves, with Dynamo's guards around it.

One that is read again is compiled from AOTAutograd's graph, which is in the file with its programs:
there is nothing to trace and nothing to lower.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch.fx

from .compile import Contract, compile_graph
from .kept import program_bytes
from .options import Options
from .state import Frame, state
from .stitch import BoxedFn
from .torch_private import (
    OutputCode,
    graph_bytes,
    graph_from_bytes,
    graphs_are_kept,
    real_tensors,
)


def compiled(
    gm: torch.fx.GraphModule, options: Options, frame: Frame, contract: Contract, kind: str
) -> BoxedFn:
    """A graph of AOTAutograd's as a boxed function, which torch can keep where that is wanted.

    Weights change with every step of training: there, none is quantized.
    """
    chosen = options if kind == "inference" else replace(options, quantize=None)
    make = KeptGraph if graphs_are_kept() else compile_graph
    with real_tensors():
        return make(gm, chosen, frame, contract, kind)


@dataclass(frozen=True, slots=True)
class _Written:
    """What a graph is compiled from in another process."""

    graph: bytes
    options: Options
    frame: Frame
    contract: Contract
    kind: str
    programs: dict[str, bytes]


class KeptGraph(OutputCode):
    """A compiled graph. AOTAutograd writes a copy of it, of which nothing but bytes is left."""

    def __init__(
        self,
        gm: torch.fx.GraphModule,
        options: Options,
        frame: Frame,
        contract: Contract,
        kind: str,
    ) -> None:
        super().__init__()
        self._boxed_call = True  # in its own dict, from which AOTAutograd's wrapper takes it
        self._from = gm, options, frame, contract, kind
        self._call = compile_graph(*self._from)

    def __call__(self, inputs: Any) -> Sequence[Any]:  # noqa: ANN401 - torch says a Sequence
        """Call it, boxed: with one list, which is emptied."""
        return self._call(inputs)

    def prepare_for_serialization(self) -> None:
        """Of a copy: become bytes."""
        gm, options, frame, contract, kind = self._from
        written = _Written(
            graph_bytes(gm),
            options,
            Frame("?", None, None, frame.input_names, None, frame.weights),
            contract,
            kind,
            self._programs(),
        )
        self._written = pickle.dumps(written)
        del self._from, self._call

    def post_compile(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - Inductor's
        """Of a copy that was read: compile it."""
        written: _Written = pickle.loads(self._written)  # noqa: S301 - read from a pickle itself
        state.delivered.update(written.programs)
        gm = graph_from_bytes(written.graph)
        self._from = gm, written.options, written.frame, written.contract, written.kind
        with real_tensors():
            self._call = compile_graph(*self._from)

    def set_triton_bundle(self, triton_bundle: object) -> None:
        """Nothing of Triton's belongs to it."""

    def _programs(self) -> dict[str, bytes]:
        stitched = self._call.__dict__["stitched"]
        (record,) = (g for g in state.graphs if g.stitched() is stitched)
        pairs = zip(record.regions, stitched.plan.regions, strict=True)
        return dict(program_bytes(told.program, region) for told, region in pairs)
