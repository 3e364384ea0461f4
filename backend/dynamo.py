"""The entry point that Dynamo calls: `torch.compile(model, backend="onnx")`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.fx

from ..lowering.ops import registry
from ..runtime.errors import DynamoOnnxError
from .compile import Contract
from .decompositions import DECOMPOSITIONS
from .kept_graphs import compiled
from .options import Options
from .state import Frame, reset
from .stitch import BoxedFn
from .torch_private import (
    aot_autograd,
    compile_id,
    decompositions_without,
    frozen_candidates,
    graph_break,
    input_source,
    interpolation_whole,
    min_cut,
    offset_outputs,
    returned_inputs,
    translated_code,
    translating_backend,
    user_facing,
    written_inputs,
)


def onnx(
    gm: torch.fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Options | Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compile a graph that Dynamo captured; see `Options` for what can be chosen."""
    try:
        chosen = Options.parse(options, mode)
        frame = Frame(
            compile_id(),
            translated_code(),
            translating_backend(),
            user_names(gm),
            graph_break(gm),
            weights(gm),
        )
        # A fresh AotAutograd per frame: calling one changes its own keyword arguments.
        compile_frame = aot_autograd(
            fw_compiler=partial(_compile_training, options=chosen, frame=frame, kind="forward"),
            bw_compiler=partial(_compile_training, options=chosen, frame=frame, kind="backward"),
            inference_compiler=partial(_compile_inference, options=chosen, frame=frame),
            partition_fn=min_cut,
            decompositions=decompositions_without(registry.__contains__, DECOMPOSITIONS),
        )
        with interpolation_whole(registry.__contains__):
            return compile_frame(gm, example_inputs)
    except DynamoOnnxError as error:
        raise user_facing(error) from error.__cause__


onnx.__dict__["reset"] = reset  # torch.compiler.reset() calls it


def _compile_inference(
    gm: torch.fx.GraphModule, example_inputs: Sequence[Any], *, options: Options, frame: Frame
) -> BoxedFn:
    freezable = frozen_candidates(len(example_inputs))
    contract = Contract(freezable, written_inputs(), offset_outputs(), returned_inputs())
    return compiled(gm, options, frame, contract, "inference")


def _compile_training(
    gm: torch.fx.GraphModule,
    _example_inputs: Sequence[Any],
    *,
    options: Options,
    frame: Frame,
    kind: str,
) -> BoxedFn:
    """A forward or backward graph. Weights change with every step: none is frozen."""
    contract = Contract()
    if kind == "forward":
        contract = Contract(written=written_inputs(), offset_outputs=offset_outputs())
    return compiled(gm, options, frame, contract, kind)


_ACCESS = re.compile(r"\['?([^'\]]+)'?\]|\.([A-Za-z_]\w*)")
_PLUMBING = frozenset({"_modules", "_parameters", "_buffers", "self", "fn", "_orig_mod"})


def user_names(gm: torch.fx.GraphModule) -> tuple[str, ...]:
    """The graph's inputs as the user knows them: `input_ids`, `encoder.layer.0.weight`."""
    names: list[str] = []
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            accesses = [a or b for a, b in _ACCESS.findall(input_source(node))]
            name = ".".join(a for a in accesses if a not in _PLUMBING) or node.name
            names.append(node.name if name in names else name)
    return tuple(names)


def weights(gm: torch.fx.GraphModule) -> frozenset[int]:
    """The places of parameters and buffers among the graph's inputs, by where they come from."""
    sources = [input_source(n) for n in gm.graph.nodes if n.op == "placeholder"]
    return frozenset(i for i, s in enumerate(sources) if "._parameters[" in s or "._buffers[" in s)
