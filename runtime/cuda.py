"""Sessions on a CUDA device: their stream, its order among torch's, the options of their providers.

torch launches its work on streams, by default on one that it calls 0. onnxruntime takes a stream of
0 for none and makes one of its own, of which torch knows nothing: inputs may then be read before
they are written. So each session is given a stream that torch knows, and a call whose stream is
another waits by events, on the device, both ways.

Ref: onnxruntime's documentation of the CUDA, TensorRT and TensorRT-RTX execution providers.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from .program import Program
from .providers import CUDA, TENSORRT, TENSORRT_RTX, ProviderChoice

# Between the devices: all that is not there before the run waits for its end.
ASYNCHRONOUS = "disable_synchronize_execution_providers"


# Torch's streams come from a pool: sessions may share one, and nobody may launch into a capture.
_locks: dict[int, threading.Lock] = {}
_making = threading.Lock()


class SessionStream:
    """The stream on which a session computes. `cuda` is `torch.cuda`, or what stands in for it."""

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:  # noqa: ANN401
        self._cuda = cuda
        self.device = device
        current = cuda.current_stream(device)
        self.stream = current if current.cuda_stream else cuda.Stream(device)
        with _making:
            self._lock = _locks.setdefault(self.handle, threading.Lock())

    @property
    def handle(self) -> int:
        """The address of the stream, which is never 0."""
        return self.stream.cuda_stream

    def owned(self, results: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Results of onnxruntime's as torch's, within `ordered`.

        Its memory is given away in the order of its own stream; torch's waits for the caller's.
        """
        made = [torch.empty_like(result) for result in results]
        with self._cuda.stream(self.stream):
            for ours, result in zip(made, results, strict=True):
                ours.copy_(result)
        return made

    @contextlib.contextmanager
    def ordered(self) -> Generator[None]:
        """Launch on this stream: after all that torch has launched on its own, and before the rest.

        One call at a time. torch's current device is afterwards what it was, which onnxruntime
        would change.
        """
        with self._lock, self._cuda.device(self.device):
            current = self._cuda.current_stream(self.device)
            if current == self.stream:
                yield
                return
            self.stream.wait_stream(current)
            try:
                yield
            finally:
                # Also what the call has freed on the way, torch may give away only then.
                current.wait_stream(self.stream)


def with_cuda_options(
    providers: Sequence[ProviderChoice],
    *,
    stream: int,
    tf32: bool,
    graphs: bool,
    exhaustive: bool,
    cache_dir: Path | None,
) -> tuple[ProviderChoice, ...]:
    """The providers with our options where the user gave none: those of the user win.

    `stream` is the address of the stream to compute on. `graphs` captures runs as CUDA graphs,
    `exhaustive` has cuDNN time all its algorithms, and `cache_dir` keeps TensorRT's engines.
    """
    ours: dict[str, dict[str, Any]] = {
        CUDA: {
            "user_compute_stream": str(stream),
            "use_tf32": str(int(tf32)),
            "cudnn_conv_algo_search": "EXHAUSTIVE" if exhaustive else "HEURISTIC",
            "arena_extend_strategy": "kSameAsRequested",
            "enable_cuda_graph": str(int(graphs)),
        },
        TENSORRT: {
            "user_compute_stream": str(stream),
            **_tensorrt_caches(cache_dir),
        },
        TENSORRT_RTX: {
            "has_user_compute_stream": "1",
            "user_compute_stream": str(stream),
            **({} if cache_dir is None else {"nv_runtime_cache_path": str(cache_dir)}),
        },
    }
    return tuple((name, {**ours.get(name, {}), **own}) for name, own in providers)


def _tensorrt_caches(cache_dir: Path | None) -> Mapping[str, str]:
    if cache_dir is None:
        return {}
    return {
        "trt_engine_cache_enable": "True",  # of all providers, this one takes no "1"
        "trt_engine_cache_path": str(cache_dir),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache_dir),
    }


def may_round_to_tf32(program: Program) -> bool:
    """Does torch let every convolution and matrix product of this program round to TF32?

    torch has a setting for each of the two, onnxruntime one for both.
    """
    ops = {node.op_type for node in program.model.graph}
    convolutions = any(op.startswith("Conv") or op == "DeformConv" for op in ops)
    products = not _PRODUCTS.isdisjoint(ops)
    cudnn: Any = torch.backends.cudnn  # its stub lacks `conv`
    of_convolutions = cudnn.conv.fp32_precision == "tf32"
    of_products = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return (not convolutions or of_convolutions) and (not products or of_products)


_PRODUCTS = frozenset(
    "Attention Einsum FusedMatMul Gemm GroupQueryAttention GRU LSTM MatMul MatMulNBits "
    "MultiHeadAttention RNN".split()
)


def has_bodies(graph: ir.Graph) -> bool:
    """Is there control flow, whose conditions the CPU reads while the device computes?"""
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(a.type in kinds for node in graph for a in node.attributes.values())
