"""Operators that take functions: branches, loops, scans and nested regions."""

from __future__ import annotations

from collections.abc import Sequence

import sympy
import torch
from torch.fx import GraphModule

from ..conditions import truth
from ..dims import Dims
from ..registry import lowers
from ..rule import Operand, Rule, metas
from ..value import Value

hop = torch.ops.higher_order


@lowers(hop.invoke_subgraph)
def invoke_subgraph(
    cx: Rule, subgraph: GraphModule, identifier: str, *operands: Operand
) -> list[Value]:
    """A nested compile region: its nodes, in place. Equal ones are emitted once."""
    return cx.inline(subgraph, *operands)


@lowers(hop.cond)
def cond(
    cx: Rule,
    pred: Value | sympy.Basic,
    true_fn: GraphModule,
    false_fn: GraphModule,
    operands: Sequence[Operand],
) -> list[Value]:
    """pred bool, one element, or a condition on sizes -> the results of one of the two graphs.

    Ref: https://onnx.ai/onnx/operators/onnx__If.html
    """
    then_branch, else_branch = (
        cx.body([], lambda graph=graph: cx.inline(graph, *operands))
        for graph in (true_fn, false_fn)
    )
    made = cx.op.If(
        _truth(cx, pred),
        outputs=len(cx.outs),
        dtypes=[meta.onnx for meta in cx.outs],
        then_branch=then_branch,
        else_branch=else_branch,
    )
    return _several(made)


@lowers(hop.while_loop)
def while_loop(
    cx: Rule,
    cond_fn: GraphModule,
    body_fn: GraphModule,
    carried_inputs: Sequence[Operand],
    additional_inputs: Sequence[Operand],
) -> list[Value]:
    """carried [*Si] each -> the same, after as many steps as the condition holds.

    ONNX's Loop takes the first condition as an input, and each further one from its body.
    Ref: https://onnx.ai/onnx/operators/onnx__Loop.html
    """
    carried = _tensors(cx, carried_inputs)

    def more(values: Sequence[Value]) -> Value:
        (holds,) = cx.inline(cond_fn, *values, *additional_inputs)
        return _truth(cx, holds)

    def step(_number: Value, _holds: Value, *values: Value) -> list[Value]:
        following = cx.inline(body_fn, *values, *additional_inputs)
        return [more(following), *following]

    body = cx.body([(torch.int64, ()), (torch.bool, ()), *_parameters(body_fn, len(carried))], step)
    made = cx.op.Loop(
        None,
        more(carried),
        *carried,
        outputs=len(carried),
        dtypes=[meta.onnx for meta in cx.outs],
        body=body,
    )
    return _several(made)


@lowers(hop.scan)
def scan(
    cx: Rule,
    combine_fn: GraphModule,
    init: Sequence[Operand],
    xs: Sequence[Operand],
    additional_inputs: Sequence[Operand],
) -> list[Value]:
    """init [*Si], xs [N, *Xj] -> carried [*Si], ys [N, *Yk]: one step for each of N rows.

    Ref: https://onnx.ai/onnx/operators/onnx__Scan.html
    """
    carried, rows = _tensors(cx, init), _tensors(cx, xs)
    if not rows:
        cx.decline("a scan over nothing")
    parameters = _parameters(combine_fn, len(carried) + len(rows))
    body = cx.body(parameters, lambda *values: cx.inline(combine_fn, *values, *additional_inputs))
    made = cx.op.Scan(
        *carried,
        *rows,
        outputs=len(cx.outs),
        dtypes=[meta.onnx for meta in cx.outs],
        body=body,
        num_scan_inputs=len(rows),
    )
    return _several(made)


@lowers(hop.map_impl)
def map_impl(
    cx: Rule, f: GraphModule, xs: Sequence[Operand], pos_args: Sequence[Operand]
) -> list[Value]:
    """xs [N, *Xj] -> ys [N, *Yk]: `f` of each row. A Scan that carries nothing."""
    return scan(cx, f, (), xs, pos_args)


def _truth(cx: Rule, condition: Value | sympy.Basic) -> Value:
    """bool [] of one element, or of a condition on sizes."""
    if isinstance(condition, Value):
        return cx.reshape(condition, ())
    return truth(cx, condition)


def _parameters(graph: GraphModule, count: int) -> list[tuple[torch.dtype, Dims]]:
    """dtype and dims of the first arguments of a graph."""
    nodes = graph.graph.find_nodes(op="placeholder")[:count]
    return [(meta.dtype, meta.dims) for node in nodes for meta in metas(node)]


def _tensors(cx: Rule, operands: Sequence[Operand]) -> list[Value]:
    values = [o for o in operands if isinstance(o, Value)]
    if len(values) != len(operands):
        cx.decline("a number that is carried from step to step")
    return values


def _several(made: Value | tuple[Value, ...]) -> list[Value]:
    return [made] if isinstance(made, Value) else list(made)
