"""What the factorizations of matrices share.

ONNX has determinants and no factorization. A Loop of N steps takes 10 to 50 times what LAPACK
takes, so that only small matrices are worth staying in a region.
"""

from __future__ import annotations

from ..dims import Dims
from ..rule import Rule
from ..value import Value

LARGEST = 1024  # elements: 16 matrices of 8 x 8 take 0.5 ms, eager 0.03


def refuse_to_raise(cx: Rule, check_errors: bool) -> None:
    if check_errors:
        cx.decline("an error to be raised from inside of a region (check_errors=True)")


def unit_matrix(cx: Rule, like: Value) -> Value:
    """[*B, N, N] of unit matrices."""
    rank, dims = like.rank, like.known_dims
    same = cx.op.Equal(cx.places(dims[-1], rank, rank - 2), cx.places(dims[-1], rank, rank - 1))
    return cx.expand(cx.cast(same, cx.dtype(like)), dims)


def transposed(cx: Rule, matrix: Value) -> Value:
    """[*B, M, N] -> [*B, N, M]."""
    rank = matrix.rank
    return cx.transpose(matrix, [*range(rank - 2), rank - 1, rank - 2])


def sized(value: Value, dims: Dims) -> Value:
    value.dims = dims
    return value
