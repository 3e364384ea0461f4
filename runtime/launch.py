"""Runs of one session: what it is fed, the memory of its results, the stream it works on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnxruntime as ort
import torch
from onnxruntime.capi import _pybind_state as ort_c
from torch.utils.dlpack import from_dlpack

from .cuda import SessionStream
from .cuda_graphs import NOT_CAPTURED, CudaGraphs, number
from .in_place import Targets
from .tensors import Feeder, ort_device


class Launch:
    """Calls a session with tensors, in the order of its inputs.

    `inputs` and `outputs` are names and what binds tensors to them, `devices` those of the outputs.
    `targets` has the tensors to write to, if not new ones of onnxruntime's. `stream` is that of a
    CUDA device; `captures` asks for CUDA graphs, which `weights`, places among the inputs, are read
    by where they lie. `around` wraps what runs the session.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        inputs: tuple[list[str], Feeder],
        outputs: tuple[list[str], Feeder],
        devices: Sequence[torch.device],
        *,
        run_options: Callable[[], ort.RunOptions],
        targets: Targets | None,
        stream: SessionStream | None,
        captures: bool,
        weights: frozenset[int],
        around: Callable[[Callable[..., None]], Callable[..., None]] = lambda run: run,
    ) -> None:
        # What InferenceSession wraps this in checks names that are ours, at every call.
        self._run = around(session._sess.run_with_ortvaluevector)  # noqa: SLF001  # pyright: ignore[reportOptionalMemberAccess]
        self._names, self._feeder = inputs
        self._output_names, self._target_feeder = outputs
        self._devices = [*map(ort_device, devices)]
        self._options = run_options()
        self.targets = targets
        self._stream = stream
        self.graphs: CudaGraphs | None = None
        if captures:
            number(self._options, NOT_CAPTURED)
            if stream is not None and targets is not None:
                feeders = (self._feeder, self._target_feeder)
                self.graphs = CudaGraphs(
                    self._launch, run_options, feeders, stream, targets, weights
                )

    def __call__(
        self, tensors: Sequence[torch.Tensor], args: Sequence[object]
    ) -> list[torch.Tensor]:
        """The results of these contiguous tensors; `args` are the program's arguments."""
        if self.graphs is not None:
            replayed = self.graphs.run(tensors, args)
            if replayed is not None:
                return replayed
        outputs = [] if self.targets is None else self.targets.tensors(tensors, args)
        results = self._target_feeder.feed(outputs) if outputs else ort_c.OrtValueVector()
        if self._stream is None:
            self._launch(self._options, self._feeder.feed(tensors), results)
            return results.to_dlpacks(from_dlpack) if self.targets is None else outputs
        with self._stream.ordered():
            self._launch(self._options, self._feeder.feed(tensors), results)
            return (
                outputs
                if self.targets is not None
                else self._stream.owned(results.to_dlpacks(from_dlpack))
            )

    def _launch(
        self,
        options: ort.RunOptions,
        feeds: ort_c.OrtValueVector,
        results: ort_c.OrtValueVector,
    ) -> None:
        self._run(options, self._names, feeds, self._output_names, results, self._devices)
