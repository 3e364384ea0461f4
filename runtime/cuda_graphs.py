"""CUDA graphs of a session: runs that are captured once and replayed, without a launch per kernel.

A graph repeats its work on the same memory. So each set of input shapes has tensors of its own:
what a call is given is copied into them, its results out of them. Weights are read where they are.

Ref: onnxruntime's `enable_cuda_graph` and the run option `gpu_graph_id`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnxruntime as ort
import torch
from onnxruntime.capi import _pybind_state as ort_c

from .cuda import SessionStream, has_bodies
from .in_place import Targets
from .program import Program
from .providers import CPU, CUDA, ProviderChoice
from .sizes import sizes_of
from .tensors import Feeder

GRAPHS_PER_SESSION = 16  # each keeps the memory of its inputs and outputs
_NUMBER = "gpu_graph_id"
NOT_CAPTURED = "-1"
# Ref: onnxruntime's pull requests 32121 and 32120, on pointers that a replay would find stale.
_CAPTURES_RIGHT_SINCE, _GATHERND_RIGHT_SINCE = (1, 30, 0), (1, 31, 1)
_OF_UNKNOWN_SIZES = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique"})


@dataclass(frozen=True, slots=True)
class _Graph:
    """One captured run: its own tensors, and the vectors over them."""

    copied: tuple[int, ...]
    inputs: list[torch.Tensor | None]  # None for a weight, which is not ours to keep
    outputs: list[torch.Tensor]
    feeds: ort_c.OrtValueVector
    results: ort_c.OrtValueVector
    options: ort.RunOptions


class CudaGraphs:
    """The captured runs of a session, by the shapes of its inputs and the places of its weights.

    `launch` runs the session on these options, feeds and results. `weights` are places among the
    fed tensors. `cuda` is `torch.cuda`, or what stands in for it.
    """

    def __init__(
        self,
        launch: Callable[[ort.RunOptions, ort_c.OrtValueVector, ort_c.OrtValueVector], None],
        run_options: Callable[[], ort.RunOptions],
        feeders: tuple[Feeder, Feeder],
        stream: SessionStream,
        targets: Targets,
        weights: frozenset[int],
        cuda: Any = torch.cuda,  # noqa: ANN401
    ) -> None:
        self._launch = launch
        self._run_options = run_options
        self._inputs_feeder, self._outputs_feeder = feeders
        self._stream = stream
        self._targets = targets
        self._weights = weights
        self._cuda = cuda
        self._graphs: dict[object, _Graph] = {}
        self._failed = False
        self.refused = 0

    @property
    def captured(self) -> int:
        """How many there are."""
        return len(self._graphs)

    def why_refused(self) -> str:
        """Why some runs were not captured; nothing if all were."""
        if self._failed:
            return "onnxruntime failed to capture a run"
        return f"more than {GRAPHS_PER_SESSION} shapes" if self.refused else ""

    def run(self, fed: Sequence[torch.Tensor], args: Sequence[object]) -> list[torch.Tensor] | None:
        """The results, in memory of their own. None: there are too many graphs, run without one."""
        with self._stream.ordered():
            # All on the session's stream, where one call's work follows another's, but for the
            # memory of the results: that is the caller's to give away.
            with self._cuda.stream(self._stream.stream), torch.inference_mode(mode=False):
                graph = None if self._failed else self._graph(fed, args)
            if graph is None:
                self.refused += 1
                return None
            results = [torch.empty_like(output) for output in graph.outputs]
            with self._cuda.stream(self._stream.stream):
                for place in graph.copied:
                    target = graph.inputs[place]
                    assert target is not None
                    target.copy_(fed[place])
                try:
                    self._launch(graph.options, graph.feeds, graph.results)
                except Exception:
                    self._failed = True  # what cannot be captured runs without
                    raise
                for result, output in zip(results, graph.outputs, strict=True):
                    result.copy_(output)
        return results

    def _graph(self, fed: Sequence[torch.Tensor], args: Sequence[object]) -> _Graph | None:
        key = tuple(
            tensor.data_ptr() if place in self._weights else tuple(tensor.shape)
            for place, tensor in enumerate(fed)
        )
        graph = self._graphs.get(key)
        if graph is not None or len(self._graphs) >= GRAPHS_PER_SESSION:
            return graph
        inputs = [
            tensor if place in self._weights else torch.empty_like(tensor)
            for place, tensor in enumerate(fed)
        ]
        outputs = self._targets.tensors(inputs, args)
        options = self._run_options()
        number(options, str(len(self._graphs) + 1))
        graph = self._graphs[key] = _Graph(
            copied=tuple(place for place in range(len(fed)) if place not in self._weights),
            inputs=[None if place in self._weights else x for place, x in enumerate(inputs)],
            outputs=outputs,
            feeds=self._inputs_feeder.feed(inputs),
            results=self._outputs_feeder.feed(outputs),
            options=options,
        )
        return graph


def number(options: ort.RunOptions, graph: str) -> None:
    """Capture or replay the graph of this number, or NOT_CAPTURED, in runs with these options."""
    options.add_run_config_entry(_NUMBER, graph)


def why_not_captured(
    program: Program,
    providers: Sequence[ProviderChoice],
    inputs: Sequence[torch.device],
    outputs: Sequence[torch.device],
) -> str:
    """What keeps a program from being captured, before a session is asked; nothing if it may be.

    `inputs` and `outputs` are the devices of what is fed and returned.
    """
    others = [name for name, _ in providers if name not in (CPU, CUDA)]
    if others:  # TensorRT replays its first capture, whatever the shapes
        return f"{others[0]} takes no number for a graph"
    version = tuple(int(part) for part in ort.__version__.split(".")[:3])
    if version < _CAPTURES_RIGHT_SINCE:
        return f"onnxruntime {ort.__version__} captures some operators wrongly"
    ops = {node.op_type for node in program.model.graph}
    if not ops.isdisjoint(_OF_UNKNOWN_SIZES):
        return "it has a size that is known only in the run"
    if "GatherND" in ops and version < _GATHERND_RIGHT_SINCE:
        return f"onnxruntime {ort.__version__} captures GatherND wrongly"
    if has_bodies(program.model.graph):
        return "it has control flow"
    if any(device.type == "cpu" for device in inputs):
        return "it reads a tensor or a size from the CPU"
    if any(device.type == "cpu" for device in outputs):
        return "it returns a tensor on the CPU"
    if any(sizes_of(spec.shape, program.inputs) is None for spec in program.outputs):
        return "the shapes of its results are known only after a run"
    return ""
