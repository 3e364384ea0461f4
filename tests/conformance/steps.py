"""The steps that programs are made of: each writes an expression over values it chooses.

"exact" steps choose, move or compare values, "arith" steps may be exact, "smooth" ones round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .drawing import Drawer

Writer = Callable[["Drawer"], Any]
STEPS: list[tuple[str, Writer]] = []
MUTATIONS: list[Callable[[Any], tuple[str, str]]] = []


def step(kind: str, weight: int = 1) -> Callable[[Writer], Writer]:
    def note(writer: Writer) -> Writer:
        STEPS.extend([(kind, writer)] * weight)
        return writer

    return note


def mutation(writer: Callable[[Any], tuple[str, str]]) -> Callable[[Any], tuple[str, str]]:
    MUTATIONS.append(writer)
    return writer


def floating(t: torch.Tensor) -> bool:
    return t.is_floating_point()


def ranked(low: int, high: int = 9) -> Callable[[torch.Tensor], bool]:
    return lambda t: low <= t.dim() <= high


def floats_ranked(low: int, high: int = 9) -> Callable[[torch.Tensor], bool]:
    return lambda t: t.is_floating_point() and low <= t.dim() <= high


# ------------------------------------------------------------------------------ pointwise
SMOOTH = (
    "torch.exp({})", "torch.sin({})", "torch.cos({})", "torch.tanh({})", "torch.sigmoid({})",
    "{}.abs().sqrt()", "({}.abs() + 1).rsqrt()", "({}.abs() + 0.5).log()", "F.gelu({})",
    "F.gelu({}, approximate='tanh')", "F.silu({})", "F.softplus({})", "F.elu({})", "torch.erf({})",
    "{}.abs().log1p()", "torch.expm1({})", "torch.atan({})", "F.hardswish({})", "F.mish({})",
    "F.leaky_relu({}, 0.1)", "F.selu({})", "F.logsigmoid({})", "torch.reciprocal({})",
    "torch.log2({}.abs() + 1)", "torch.exp2({})", "torch.sinh({})", "F.hardsigmoid({})",
    "F.softsign({})", "torch.asinh({})", "F.celu({}, 0.7)", "{} ** 0.5",
    "{}.clamp(-0.9, 0.9).acos()",
    "F.tanhshrink({})", "torch.deg2rad({})", "torch.erfc({})", "torch.special.entr({})",
    "torch.logit({}, 0.1)", "torch.sinc({})",
)  # fmt: skip
CHOOSING = (
    "-{}", "{}.abs()", "F.relu({})", "torch.sign({})", "torch.floor({})", "torch.ceil({})",
    "torch.round({})", "torch.trunc({})", "{}.clone()", "torch.logical_not({})", "torch.isnan({})",
    "torch.isfinite({})", "torch.isinf({})", "~{}", "{}.contiguous()", "F.relu6({})",
    "torch.nan_to_num({}, 0.5, 9.0, -9.0)", "{}.clamp(-1, 2)", "{}.clamp(min=0.5)",
    "{}.clamp(max=1)",
    "F.hardtanh({}, -1.5, 1.0)", "torch.signbit({}.nan_to_num())", "F.threshold({}, 0.25, -2.0)",
    "torch.heaviside({0}, {0})", "F.hardshrink({}, 0.5)", "torch.positive({})", "torch.sgn({})",
)  # fmt: skip
EXACTLY = (
    "{}.square()", "{} * 2", "{} + 1", "{} - 0.5", "1 - {}", "2.0 / {}", "{} / 4", "{} * 0.5",
    "{} ** 2", "{} ** 3", "torch.add({}, 3, alpha=2)", "torch.frac({})", "{} // 2", "{} % 3",
    "torch.fmod({}, 2)", "torch.rsub({}, 2)", "{} * True", "{} + {}.shape[0]", "{} * {}.dim()",
    "torch.floor_divide({}, -2)", "{} % -3", "torch.div({}, 3, rounding_mode='trunc')", "-{} / 3",
    "torch.div({}, 0.5, rounding_mode='floor')", "2 ** {}.clamp(0, 3)", "{} + {}.numel()",
)  # fmt: skip


def table(kind: str, rows: tuple[str, ...], weight: int) -> None:
    def write(d: Drawer) -> str:
        row, name = d.one(rows), d.name()
        return row.replace("{0}", "{}").replace("{}", name)

    step(kind, weight)(write)


table("smooth", SMOOTH, 3)
table("exact", CHOOSING, 3)
table("arith", EXACTLY, 3)

BINARY = (
    "{} + {}", "{} * {}", "{} - {}", "{} / {}", "torch.fmod({}, {})", "torch.remainder({}, {})",
    "{} // {}", "torch.add({}, {}, alpha=2)", "torch.sub({}, {}, alpha=3)", "{} ** 2 + {}",
    "torch.div({}, {}, rounding_mode='trunc')", "torch.lerp({}, {}, 0.25)", "torch.rsub({}, {})",
)  # fmt: skip
BINARY_EXACT = (
    "torch.maximum({}, {})", "torch.minimum({}, {})", "torch.fmax({}, {})", "torch.fmin({}, {})",
    "{} == {}", "{} != {}", "{} < {}", "{} <= {}", "{} > {}", "{} >= {}",
    "torch.logical_and({}, {})",
    "torch.logical_or({}, {})", "torch.logical_xor({}, {})", "{} & {}", "{} | {}", "{} ^ {}",
    "{}.clamp(min={})", "torch.where({} > 0, {}, 2)", "torch.isclose({}, {})", "{} + {}[:0].sum()",
    "torch.where({0} < {1}, {0}, {1})", "torch.copysign({}, {}.nan_to_num())", "{}.type_as({})",
    "torch.gcd({}, {})",
)  # fmt: skip
BINARY_SMOOTH = (
    "torch.atan2({}, {})", "torch.logaddexp({}, {})", "torch.hypot({}, {})", "{} ** {}",
    "torch.xlogy({}, {}.abs())",
)  # fmt: skip


def pairs(kind: str, rows: tuple[str, ...], weight: int) -> None:
    def write(d: Drawer) -> str:
        row, first = d.one(rows), d.name()
        second = d.like(first)
        return row.format(*((second, first) if d.chance(2) else (first, second)))

    step(kind, weight)(write)


pairs("arith", BINARY, 5)
pairs("exact", BINARY_EXACT, 3)
pairs("smooth", BINARY_SMOOTH, 1)


@step("exact", 2)
def where(d: Drawer) -> str:
    mask = d.name(lambda t: t.dtype is torch.bool)
    a = d.like(mask)
    return d.one(
        (f"torch.where({mask}, {a}, {d.like(a)})", f"torch.where({mask}, {a}, 1.5)",
         f"{a}.masked_fill({mask}, -1)", f"torch.where({mask}, 3, {a})")
    )  # fmt: skip


@step("arith")
def three(d: Drawer) -> str:
    a = d.name(floating)
    b, c = d.like(a), d.like(a)
    row = d.one(("torch.addcmul({}, {}, {}, value=2)", "torch.addcdiv({}, {}, {}, value=0.5)",
                 "torch.lerp({}, {}, {})", "{}.clamp({}, {})"))  # fmt: skip
    return row.format(a, b, c)


@step("exact", 3)
def cast(d: Drawer) -> str:
    name = d.name()
    to = d.one(("float32", "float64", "int64", "int32", "bool", "bfloat16", "uint8", "float16"))
    low = 0 if to == "uint8" else -9
    safe = to in ("int64", "int32", "uint8") and d.value(name).is_floating_point()
    source = f"{name}.nan_to_num(1.0, 9.0, {low}.0).clamp({low}, 9)" if safe else name
    return f"{source}.to(torch.{to})"


# ------------------------------------------------------------------------------ reductions
REDUCTIONS = ("sum", "mean", "prod", "var", "std", "norm", "logsumexp")
SELECTIONS = ("amax", "amin", "all", "any", "count_nonzero")


@step("arith", 3)
def reduce(d: Drawer) -> str:
    name, how = d.name(), d.one(("sum", "sum", "mean", "prod"))
    if d.chance(4):
        return f"{name}.{how}()"
    dims = f"{d.dim(name)}"
    if how != "prod" and d.chance(4):
        dims = f"({dims}, {d.dim(name)})"
    extra = d.one(("", "", ", keepdim=True", ", dtype=torch.float64"))
    return f"{name}.{how}({dims}{extra})"


@step("smooth", 2)
def reduce_smooth(d: Drawer) -> str:
    name = d.name(floating)
    dim = d.dim(name)
    rows = (
        "{n}.var({d})", "{n}.std({d}, keepdim=True)", "{n}.norm(dim={d})", "{n}.logsumexp({d})",
        "{n}.var(correction=0)", "{n}.norm(1)", "torch.linalg.vector_norm({n}, 3, {d})",
        "F.softmax({n}, {d})", "F.log_softmax({n}, {d})", "F.normalize({n}, dim={d})",
        "{n}.cumprod({d})", "{n}.logcumsumexp({d})", "F.softmin({n}, {d})", "F.glu({n}, {d})",
        "F.cosine_similarity({n}, {n} + 1, dim={d})", "{n}.softmax({d}, dtype=torch.float64)",
    )  # fmt: skip
    return d.one(rows).format(n=name, d=dim)


@step("exact", 2)
def choose(d: Drawer) -> str:
    name = d.name()
    dim = d.dim(name)
    rows = (
        "{n}.amax({d})", "{n}.amin({d}, keepdim=True)", "{n}.all({d})", "{n}.any({d})", "{n}.max()",
        "{n}.min()", "{n}.max({d})[0]", "{n}.min({d}, keepdim=True)[0]", "{n}.any()", "{n}.all()",
        "{n}.count_nonzero({d})", "{n}.sort({d})[0]", "{n}.sort({d}, descending=True)[0]",
        "{n}.topk(1, {d})[0]", "{n}.topk(2, {d}, largest=False)[0]", "{n}.cummax({d})[0]",
        "{n}.cummin({d})[0]", "{n}.median({d})[0]", "{n}.kthvalue(1, {d})[0]",
        "{n}.aminmax(dim={d})[1]",
        "torch.msort({n})", "{n}.sort({d}, stable=True)[1]", "{n}.median()",
    )  # fmt: skip
    return d.one(rows).format(n=name, d=dim)


@step("arith", 2)
def accumulate(d: Drawer) -> str:
    name = d.name()
    rows = (
        "{n}.cumsum({d})",
        "{n}.diff(dim={d})",
        "{n}.cumsum({d}, dtype=torch.float32)",
        "{n}.trace()",
    )
    return d.one(rows).format(n=name, d=d.dim(name))


@step("exact")
def arg_extremum(d: Drawer) -> tuple[str, str]:
    name = d.name(lambda t: t.dtype is not torch.bool)
    dim, what = d.dim(name), d.one(("max", "min"))
    form = d.one((".arg{w}({d})", ".arg{w}({d}, keepdim=True)", ".{w}({d})[1]"))
    # Which of several equal elements is meant is left open.
    single = f"({name} == {name}.a{what}({dim}, keepdim=True)).sum({dim}).eq(1).all()"
    return name + form.format(w=what, d=dim), single


@step("smooth", 2)
def normalise(d: Drawer) -> str:
    name = d.name(floats_ranked(1))
    last = f"{name}.shape[-1:]"
    return d.one(
        (f"F.layer_norm({name}, {last})", f"F.rms_norm({name}, {last})",
         f"F.layer_norm({name}, {last}, {name}.new_ones({last}), {name}.new_full({last}, 0.5))",
         f"F.group_norm({name}, 1)", f"F.instance_norm({name})",
         f"F.mse_loss({name}, {name} * 2)", f"F.smooth_l1_loss({name}, {name}.floor())",
         f"F.scaled_dot_product_attention({name}, {name}, {name})")
    )  # fmt: skip


# ------------------------------------------------------------------------------ views
@step("exact", 6)
def view(d: Drawer) -> str:
    name = d.name()
    rank = d.value(name).dim()
    if not rank:
        return d.one(("{n}.reshape(1)", "{n}[None]", "{n}.expand(3)", "{n}.view(1, 1)")).format(
            n=name
        )
    a, b = d.dim(name), d.dim(name)
    rows = (
        "{n}.transpose({a}, {b})", "{n}.flatten()", "{n}.unsqueeze({a})", "{n}.squeeze({a})",
        "{n}.squeeze()", "{n}.select({a}, 0)", "{n}.select({a}, -1)", "{n}.movedim({a}, {b})",
        "{n}.flip({a})", "{n}.roll(1, {a})", "{n}.narrow({a}, 0, 1)", "{n}.narrow({a}, 1, 1)",
        "{n}.reshape(-1, {n}.shape[{a}])", "{n}.reshape({n}.shape[{a}], -1)", "{n}.mT", "{n}.mH",
        "{n}.view(-1)", "{n}[None]", "{n}[..., None]", "{n}[1:]", "{n}[..., ::2]", "{n}[..., -1]",
        "{n}[:, 1:]", "{n}[-2:]", "{n}[:-1]", "{n}[0]", "{n}[..., :1]", "{n}.unbind({a})[0]",
        "torch.split({n}, 2, {a})[0]", "torch.chunk({n}, 2, {a})[-1]", "{n}.diagonal()",
        "{n}.unfold({a}, 2, 1)", "{n}.unflatten({a}, (1, -1))", "{n}.tril()", "{n}.triu(1)",
        "torch.tensor_split({n}, 2, {a})[1]", "{n}.rot90()", "{n}.view({n}.shape)", "{n}.detach()",
        "{n}.expand(2, *{n}.shape)", "{n}.repeat(2, *[1] * {n}.dim())", "{n}.tile(2)",
        "{n}.repeat_interleave(2, {a})", "{n}.swapaxes({a}, {b})", "{n}.ravel()", "{n}.diag()",
        "{n}.reshape({n}.shape[0] * {n}.shape[1], -1)", "{n}.permute(1, 0)", "{n}.permute(2, 0, 1)",
        "{n}.permute(1, 2, 0)", "{n}.transpose(0, 1).contiguous()", "{n}[..., 1:, :1]",
        "{n}.transpose(0, -1).reshape(-1)", "{n}.diag_embed()", "{n}.fliplr()",
        "{n}.expand_as({n})",
        "{n}.sum_to_size({n}.shape)", "{n}[[0, -1]]", "{n}[:, [1, 0]]", "{n}[{n}.shape[0] // 2:]",
        "F.pad({n}, (1, 2))", "F.pad({n}, (-1, 1))", "F.pad({n}, (1, 1), value=2)",
        "F.pad({n}, (1, 1), mode='replicate')", "F.pad({n}, (1, 0), mode='reflect')",
        "{n}.view(torch.int32)", "{n}.as_strided(({n}.numel(),), (1,))", "{n}.T",
    )  # fmt: skip
    return d.one(rows).format(n=name, a=a, b=b)


@step("exact", 3)
def join(d: Drawer) -> str:
    a = d.name()
    b = d.like(a)
    rank = d.value(a).dim()
    dim = d.dim(a) if rank else 0
    rows = ("torch.cat([{a}, {b}], {d})", "torch.stack([{a}, {b}], {d})",
            "torch.hstack([{a}, {b}])",
            "torch.cat([{a}, {a}, {b}], {d})", "torch.vstack([{a}, {b}])",
            "torch.broadcast_tensors({a}, {b})[0]", "torch.stack([{a}, {a}], -1)",
            "torch.meshgrid({a}.reshape(-1), {b}.reshape(-1), indexing='ij')[0]",
            "torch.block_diag({a}, {b})", "{a}.expand_as({b})")  # fmt: skip
    return d.one(rows).format(a=a, b=b, d=dim)


@step("exact", 2)
def create(d: Drawer) -> str:
    name = d.name()
    rows = (
        "torch.zeros_like({n})", "torch.ones_like({n})", "torch.full_like({n}, 2)",
        "{n}.new_zeros(2, 3)", "torch.arange({n}.numel())", "torch.arange(4, dtype=torch.float32)",
        "torch.eye(3)", "torch.tensor([1, 0, 2])", "torch.full((2, 3), 0.25)", "torch.ones(3) * 2",
        "torch.arange({n}.shape[0]) % 2", "torch.tensor([True, False, True])", "torch.tensor(0.5)",
        "torch.linspace(0, 1, 5)", "torch.arange(1, 7, 2)", "{n}.new_full({n}.shape, 3)",
        "torch.zeros({n}.shape, dtype=torch.int64)", "torch.tensor(2, dtype=torch.int64)",
        "torch.tril_indices(3, 3)", "torch.arange({n}.shape[-1], dtype=torch.int32)",
        "torch.empty({n}.shape).fill_(1.5)", "torch.zeros(0, 3)",
    )  # fmt: skip
    return d.one(rows).format(n=name)


# ------------------------------------------------------------------------------ indexing
@step("exact", 4)
def index(d: Drawer) -> str:
    name = d.name(ranked(1))
    dim, i = d.dim(name), d.integers()
    size = f"{name}.shape[{dim}]"
    at = f"({i} % {size})"
    rows = (
        "{n}[{i} % {n}.shape[0]]", "{n}[..., {i} % {n}.shape[-1]]", "{n}[:, {i} % {n}.shape[1]]",
        "{n}.index_select({d}, {at}.reshape(-1))", "{n}.take({i} % {n}.numel())",
        "{n}[{i} % {n}.shape[0], {i} % {n}.shape[1]]",
        "{n}[{i} % {n}.shape[0], :, {i} % {n}.shape[2]]",
        "{n}[None, {i} % {n}.shape[0]]", "{n}[-1 - {i} % {n}.shape[0]]",
        "{n}[1:, {i} % {n}.shape[1]]",
        "{n}.take_along_dim({at}, {d})", "{n}.gather({d}, {at})",
        "{n}[:, None, {i} % {n}.shape[1]]",
        "F.embedding({i} % {n}.shape[0], {n})", "F.one_hot({i} % 5, 5)",
        "torch.bucketize({i}, {n}.reshape(-1).sort()[0])",
    )  # fmt: skip
    return d.one(rows).format(n=name, d=dim, i=i, at=at)


@step("exact")
def mask_index(d: Drawer) -> str:
    name = d.name(ranked(1))
    mask = d.name(lambda t: t.dtype is torch.bool)
    return d.one(("{n}[{n} > 0]", "{n}[{m}]", "{n}[:, {m}]", "{n}.masked_select({m})",
    "{n}.nonzero()",
                  "{m}.nonzero()", "{n}.masked_scatter({m}, {n}.flip(0))",
                  "{n}[{n} != 0].unique()")).format(n=name, m=mask)  # fmt: skip


@step("arith", 3)
def scatter(d: Drawer) -> str:
    name, i = d.name(ranked(1)), d.integers()
    source, dim = d.name(), d.dim(name)
    at = f"({i} % {name}.shape[{dim}])"
    rows = (
        "{n}.scatter({d}, {at}, 2)", "{n}.scatter_add({d}, {at}, {n})",
        "{n}.index_add({d}, {at}, {n})",
        "{n}.index_fill({d}, {at}, -1)", "{n}.index_put(({at},), {n}[0], accumulate=True)",
        "{n}.index_put(({i} % {n}.shape[0],), {s}, accumulate=True)",
        "{n}.scatter_add({d}, {at}, {s})",
        "{n}.scatter_reduce({d}, {at}, {n}, 'amax')", "{n}.scatter_reduce({d}, {at}, {n}, 'sum')",
        "{n}.scatter_reduce({d}, {at}, {n}, 'amin', include_self=False)",
        "{n}.scatter_reduce({d}, {at}, {n}, 'prod')", "{n}.scatter_reduce({d}, {at}, {n}, 'mean')",
        "{n}.index_reduce({d}, {at}, {n}, 'amax')", "{n}.select_scatter({s}, {d}, 0)",
        "{n}.slice_scatter({n}[1:], 0, 1)",
        "{n}.index_put(({n} > 0,), torch.tensor(2, dtype={n}.dtype))",
        "{n}.scatter({d}, {at}, {n}.flip(0)[:1])", "{n}.diagonal_scatter({n}.diagonal() * 2)",
    )  # fmt: skip
    return d.one(rows).format(n=name, d=dim, i=i, at=at, s=source)


# ------------------------------------------------------------------------------ products
@step("arith", 4)
def product(d: Drawer) -> str:
    a = d.name(ranked(1))
    value = d.value(a)
    b = d.name(lambda t: t.dtype == value.dtype and t.dim() > 0)
    row = d.one(
        ("{a} @ {b}", "{a} @ {b}.mT", "{a} @ {a}.mT", "{a}.mT @ {b}", "F.linear({a}, {b})",
         "torch.bmm({a}, {b}.mT)", "torch.outer({a}.reshape(-1), {b}.reshape(-1))",
         "torch.addmm({a}, {b}, {b}.mT @ {a}, beta=2)", "torch.einsum('ij,kj->ki', {a}, {b})",
         "torch.einsum('...i,...i->...', {a}, {b})", "F.linear({a}, {b}, {b}.sum(1))",
         "torch.addmm({a}.sum(1, keepdim=True), {a}, {b}.mT)",
         "torch.baddbmm({a} @ {b}.mT, {a}, {b}.mT)",
         "torch.dot({a}.reshape(-1), {a}.reshape(-1))", "torch.kron({a}, {b})",
         "torch.tensordot({a}, {b}, 1)",
         "{a} @ {b}[..., 0]", "torch.cdist({a}, {b})", "torch.inner({a}, {b})",
         "F.conv1d({a}, {b})", "F.conv1d({a}, {a}, padding=1)", "F.max_pool1d({a}, 2)",
         "F.avg_pool1d({a}, 2)", "F.adaptive_avg_pool1d({a}, 2)", "F.max_pool2d({a}, (1, 2), 1)",
         "F.interpolate({a}, scale_factor=2)", "F.conv_transpose1d({a}, {b})")
    )  # fmt: skip
    return row.format(a=a, b=b)


# ------------------------------------------------------------------------------ in place
@mutation
def write(d: Drawer) -> tuple[str, str]:
    name = d.name()
    other = d.like(name)
    rows = (
        "{n}.add_({o})", "{n}.mul_(2)", "{n}.copy_({o})", "{n}.fill_(1)", "{n}.zero_()",
        "{n}.sub_(1)",
        "{n}.masked_fill_({n} > 0, 1)", "{n}.clamp_(-1, 1)", "{n}.relu_()", "{n}.neg_()",
        "{n}.mul_({o})",
        "{n} += 1", "{n} *= {o}", "{n}.logical_not_()", "{n}.addcmul_({n}, {o})",
    )  # fmt: skip
    return name, d.one(rows).format(n=name, o=other)


@mutation
def assign(d: Drawer) -> tuple[str, str]:
    name = d.name(ranked(1))
    rows = (
        "{n}[0] = 2", "{n}[1:] = 3", "{n}[..., -1] = {n}[..., 0]", "{n}[..., ::2] = 0",
        "{n}[{n} > 0] = 1",
        "{n}[[0, -1]] = 5", "{n}[:, :1] += 1", "{n}[-1] = {s}", "{n}.t_()", "{n}.view(-1)[0] = 4",
        "{n}.transpose(0, -1)[0] = 1", "{n}.diagonal().fill_(3)", "{n}[:] = {s}", "{n}[None] *= 2",
        "{n}[torch.tensor([0, 0])] = 7", "{n}.unsqueeze_(0)", "{n}.squeeze_()",
        "{n}.transpose_(0, -1)",
    )  # fmt: skip
    return name, d.one(rows).format(n=name, s=d.name())


@mutation
def assign_at(d: Drawer) -> tuple[str, str]:
    name = d.name(ranked(1))
    i = d.integers()
    dim = d.dim(name)
    at = f"({i} % {name}.shape[{dim}])"
    rows = (
        "{n}.index_copy_({d}, {at}[:1], {n}.narrow({d}, 0, 1))", "{n}.index_add_({d}, {at}, {n})",
        "{n}.index_fill_({d}, {at}, 2)", "{n}.scatter_({d}, {at}, 1)",
        "{n}.scatter_add_({d}, {at}, {n})",
        "{n}[{i} % {n}.shape[0]] = 3", "{n}[:, {i} % {n}.shape[1]] = 1",
        "{n}.index_put_(({i} % {n}.shape[0],), {n}[0], accumulate=True)",
    )  # fmt: skip
    return name, d.one(rows).format(n=name, d=dim, i=i, at=at)
