"""Overloads that torchlib lowers for us.

Each was compared with eager on the inputs in tests/lowering/test_torchlib.py, where a row is
required of every entry here; what failed there, or is common in models, has a rule of our own or
none. prims come from torch's own decompositions and from the pass that turns numbers into tensors.
"""

from __future__ import annotations

import torch

from ..registry import registry
from ..torchlib import register_tail

prims = torch.ops.prims

TAIL = [
    prims.abs.default,
    prims.acos.default,
    prims.acosh.default,
    prims.add.default,
    prims.asin.default,
    prims.asinh.default,
    prims.atan.default,
    prims.atanh.default,
    prims.ceil.default,
    prims.cos.default,
    prims.cosh.default,
    prims.div.default,
    prims.eq.default,
    prims.erf.default,
    prims.exp.default,
    prims.floor.default,
    prims.ge.default,
    prims.gt.default,
    prims.le.default,
    prims.log.default,
    prims.lt.default,
    prims.mul.default,
    prims.ne.default,
    prims.neg.default,
    prims.pow.default,
    prims.reshape.default,
    prims.round.default,
    prims.sin.default,
    prims.sinh.default,
    prims.sqrt.default,
    prims.sub.default,
    prims.sum.default,
    prims.tan.default,
    prims.tanh.default,
    prims.where.default,
]

register_tail(registry, TAIL)
