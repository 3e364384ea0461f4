"""Dropout as a draw, which is torch's, and a product, which is ONNX Runtime's.

What is drawn depends on sizes alone: all masks of a graph are drawn in eager before its first
region, in their order, and the graph need not fall into pieces around them.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

import torch
import torch.fx

from ..lowering.dims import Dim, dim_of, dims_of
from ..lowering.layout import output_layout

_library = torch.library.Library("dynamo_onnx", "FRAGMENT")
_library.define(
    "dropout_mask(SymInt[] size, int[]? permute, float keep) -> Tensor",
    tags=(torch.Tag.nondeterministic_seeded,),
)


def _dropout_mask(size: Sequence[int], permute: Sequence[int] | None, keep: float) -> torch.Tensor:
    """bool, true with the probability `keep`: drawn as `native_dropout` does on the CPU.

    It draws in the order in which its input lies in memory, of which `size` are the dimensions and
    which `permute` brings into that of the result.
    """
    mask = torch.empty(size, dtype=torch.bool).bernoulli_(keep)
    return mask if permute is None else mask.permute(*permute)


_library.impl("dropout_mask", _dropout_mask, "CompositeExplicitAutograd")
MASK = torch.ops.dynamo_onnx.dropout_mask.default
TO_COPY = torch.ops.aten._to_copy.default  # noqa: SLF001 - its name
DROPOUT = torch.ops.aten.native_dropout.default
DROPOUT_NAMES = frozenset({"aten.native_dropout.default", "aten.native_dropout", "native_dropout"})


def draw_masks_first(graph: torch.fx.Graph) -> None:
    """Take the dropouts on the CPU apart; on CUDA, torch draws and multiplies in one kernel."""
    inputs = _inputs_by_size(graph)
    for node in graph.find_nodes(op="call_function", target=DROPOUT):
        x, p, train = node.args
        results = {user.args[1]: user for user in node.users if user.target is operator.getitem}
        whole = len(results) < len(node.users)
        val = x.meta["val"]
        like = torch.empty_like(val, dtype=torch.bool)  # whose memory is laid out as the mask's
        layout = output_layout(like)
        if train is False or val.device.type != "cpu" or whole:
            continue
        if layout is None or not isinstance(p, float | int):
            continue
        permute = layout.permute
        axes = range(val.dim()) if permute is None else [permute.index(i) for i in range(val.dim())]
        with graph.inserting_before(node):
            size = [_size(graph, x, axis, inputs) for axis in axes]
            mask = graph.call_function(MASK, (size, permute, 1.0 - p))
            number = graph.call_function(TO_COPY, (mask,), {"dtype": val.dtype})
            # The scale is rounded to the dtype, as the kernel does.
            scale = 0.0 if p == 1 else 1.0 / (1.0 - p)
            scaled = graph.call_function(torch.ops.aten.mul.Tensor, (number, scale))
            product = graph.call_function(torch.ops.aten.mul.Tensor, (x, scaled))
        for made in (mask, number, scaled, product):
            made.meta = dict(node.meta)
        mask.meta["val"] = like
        number.meta["val"] = scaled.meta["val"] = torch.empty_like(val)
        product.meta["val"] = node.meta["val"][0]
        for index, made in ((0, product), (1, mask)):
            if index in results:
                results[index].replace_all_uses_with(made)
                graph.erase_node(results[index])
        graph.erase_node(node)


def _inputs_by_size(graph: torch.fx.Graph) -> dict[Dim, tuple[torch.fx.Node, int]]:
    """The inputs that are sizes (-1), or have them along an axis."""
    found: dict[Dim, tuple[torch.fx.Node, int]] = {}
    for node in graph.find_nodes(op="placeholder"):
        val = node.meta.get("val")
        if isinstance(val, torch.SymInt):
            found[dim_of(val)] = node, -1
        elif isinstance(val, torch.Tensor):
            for axis, dim in enumerate(dims_of(val.shape)):
                found.setdefault(dim, (node, axis))
    return found


def _size(
    graph: torch.fx.Graph,
    x: torch.fx.Node,
    axis: int,
    inputs: Mapping[Dim, tuple[torch.fx.Node, int]],
) -> int | torch.fx.Node:
    """A number, or read off an input; else off what is dropped, which has to be there first."""
    size = x.meta["val"].shape[axis]
    if isinstance(dim_of(size), int):
        return int(size)
    source, place = inputs.get(dim_of(size), (x, axis))
    if place < 0:
        return source
    node = graph.call_function(torch.ops.aten.sym_size.int, (source, place))
    node.meta["val"] = size
    return node
