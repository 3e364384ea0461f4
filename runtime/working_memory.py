"""Working memory that sessions have in common.

A session has an arena of its own by default, which grows to what one run needs and keeps that. The
graphs of a training step run in turn: in one arena, each takes the memory that those before it have
given back.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import onnx
import onnxruntime as ort
from onnx import helper

from .providers import CPU
from .settings import QUIET

_SHARED = {
    "session.use_env_allocators": "1",
    # A pattern is a block for all tensors of a run, which no other session's can be fitted into.
    "enable_mem_pattern": False,
}
_POWERS_OF_TWO = 0  # how the arena grows: as much as is asked for would fall into pieces
_SHRINK = "memory.enable_memory_arena_shrinkage"


class SharedArena:
    """onnxruntime's one arena of the process for the CPU; made when the first session asks for it.

    A child that was forked leaves it alone: another thread may have been in it.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._leases = 0
        self._lock = threading.RLock()  # a lease may end within another one's beginning

    def lease(self) -> Lease | None:
        """For one session, as long as it lives; None where it is to have memory of its own."""
        if self._pid not in (0, os.getpid()):
            return None
        with self._lock:
            if not self._pid:
                memory = ort.OrtMemoryInfo(
                    "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
                )
                grows = ort.OrtArenaCfg({"arena_extend_strategy": _POWERS_OF_TWO})
                ort.create_and_register_allocator(memory, grows)
                self._pid = os.getpid()
            self._leases += 1
        return Lease(self._ended)

    def _ended(self) -> None:
        if self._pid != os.getpid():
            return
        with self._lock:
            self._leases -= 1
            if self._leases == 0:
                self.shrink()

    def shrink(self) -> None:
        """Give back to the system what no tensor is in: at the end of a run that asks for it."""
        graph = helper.make_graph(
            [helper.make_node("Constant", [], ["nothing"], value_int=0)],
            "shrink",
            [],
            [helper.make_tensor_value_info("nothing", onnx.TensorProto.INT64, [])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        options, run = ort.SessionOptions(), ort.RunOptions()
        options.log_severity_level = QUIET
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.use_env_allocators", "1")
        run.add_run_config_entry(_SHRINK, "cpu:0")
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[CPU])
        session.run(None, {}, run)


class Lease:
    """A session's share in the arena: the last to end has it shrunk."""

    settings = _SHARED

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ending():
            self._ended()


shared_arena = SharedArena()
