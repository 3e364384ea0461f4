"""Training: forward and backward in ONNX Runtime, with the gradients of eager."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import dynamo_onnx

Fn = Callable[..., Any]
torch.manual_seed(0)


def gradients(run: Fn, model: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    """The result and all gradients by name, of a sum that weighs every element differently."""
    model.zero_grad()
    given = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
    torch.manual_seed(1)
    result = run(*given)
    (result * torch.arange(result.numel()).cos().reshape(result.shape)).sum().backward()
    found = {"result": result.detach()}
    found |= {f"input {i}": x.grad for i, x in enumerate(given) if x.grad is not None}
    found |= {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return found | {f"buffer {n}": b.clone() for n, b in model.named_buffers()}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-4) -> None:
    """1e-4 of the scale of all gradients: some are nothing but rounding."""
    assert found.keys() == wanted.keys()
    scale = max(float(t.abs().max()) for t in wanted.values() if t.is_floating_point())
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, name
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance * scale, msg=lambda m, n=name: n + m
        )


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 16, 3, groups=4, bias=False, dilation=2)
        self.pointwise = nn.Conv2d(16, 8, 1, stride=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.transposed = nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1)
        self.last = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.strided(x)))
        x = F.silu(self.pointwise(self.grouped(x)))
        x = F.max_pool2d(self.transposed(self.depthwise(x)), 2)
        return self.last(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Attention(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.qkv = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (y.unflatten(2, (4, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, 2))
        mask = None
        if self.kind == "mask":
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
            mask[2] = False  # a row that sees nothing
        if self.kind == "groups":
            k, v = k[:, :2], v[:, :2]
        out = F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=self.kind == "causal", enable_gqa=self.kind == "groups"
        )
        return out.transpose(1, 2).flatten(2)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8, padding_idx=0)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 20, bias=False)
        self.out.weight = self.embed.weight  # tied

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.embed(ids))
        logits = self.out(F.gelu(x.cumsum(1), approximate="tanh"))
        return F.cross_entropy(logits.flatten(0, 1), ids.flatten(), label_smoothing=0.1)[None]


class Mixed(nn.Module):
    """Norms, activations, indexing, interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = nn.GroupNorm(2, 4)
        self.rms = nn.RMSNorm(6)
        self.prelu = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.groups(x))
        x = F.interpolate(x, scale_factor=2, mode="nearest")[:, [0, 2, 1, 1], ::2, 1::2]
        x = self.rms(F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride=1))
        return (
            F.softplus(x).log_softmax(-1).gather(-1, torch.tensor([[[[0, 3]]]]).expand(2, 4, 6, 2))
        )


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "linear": (
        lambda: nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 4)),
        (torch.randn(5, 16),),
    ),
    "convolutions": (Convolutions, (torch.randn(2, 3, 19, 17),)),
    "attention": (lambda: Attention(""), (torch.randn(2, 5, 16),)),
    "causal": (lambda: Attention("causal"), (torch.randn(2, 5, 16),)),
    "mask": (lambda: Attention("mask"), (torch.randn(2, 5, 16),)),
    "groups": (lambda: Attention("groups"), (torch.randn(2, 5, 16),)),
    "words": (Words, (torch.randint(0, 20, (3, 7)),)),
    "mixed": (Mixed, (torch.randn(2, 4, 6, 6),)),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_eagers_with_nothing_in_eager(name: str) -> None:
    make, inputs = CASES[name]
    model = make().train()
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    same(gradients(compiled, model, *inputs), gradients(other, other, *inputs))
    kinds = [program.kind for program in dynamo_onnx.programs(compiled)]
    assert kinds == ["forward", "backward"]


def test_what_an_operator_has_no_form_for_is_eager_with_it() -> None:
    """The indices of unequal windows, which only the backward pass reads."""
    model = nn.Sequential(nn.Linear(4, 4), nn.AdaptiveMaxPool2d((2, 3)), nn.Linear(3, 4))
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="onnx")
    x = torch.randn(1, 4, 5, 4)
    same(gradients(compiled, model, x), gradients(other, other, x))
    (reason,) = {f.reason for f in dynamo_onnx.report(compiled).fallbacks if "pool" in f.op}
    assert reason.kind.value == "not expressible"


def test_a_nan_is_no_row_that_sees_nothing() -> None:
    model = Attention("mask")
    x = torch.randn(1, 5, 16)
    x[0, 1, 3] = torch.nan
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    found = gradients(compiled, model, x)
    wanted = gradients(model, model, x)
    for name, value in wanted.items():
        assert torch.equal(found[name].isnan(), value.isnan()), name


def test_sizes_that_vary_while_training() -> None:
    model = Convolutions().train()
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="onnx", dynamic=True, options={"strict": True})
    for n, side in ((2, 19), (3, 23), (4, 31)):
        x = torch.randn(n, 3, side, side)
        same(gradients(compiled, model, x), gradients(other, other, x))
    assert dynamo_onnx.report(compiled).graphs < 6  # not each size anew


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.dropout(torch.relu(self.first(x)), 0.5, self.training))


def test_training_and_inference_in_turn() -> None:
    model = Convolutions().train()
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    x = torch.randn(2, 3, 19, 17)
    for _ in range(2):
        same(gradients(compiled, model, x), gradients(other, other, x))
        for each in (model, other):
            each.eval()
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), other(x), rtol=1e-4, atol=1e-4)
        with torch.inference_mode():
            torch.testing.assert_close(compiled(x), other(x), rtol=1e-4, atol=1e-4)
        same(gradients(compiled, model, x), gradients(other, other, x))  # in eval mode
        for each in (model, other):
            each.train()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("options", [{"foreach": True}, {"foreach": False}], ids=str)
def test_steps_of_an_optimizer(optimizer: Any, options: dict[str, bool]) -> None:
    """Eager optimizers change the weights in place: the next forward pass reads them."""

    def losses(run: Fn, model: nn.Module) -> list[float]:
        torch.manual_seed(3)
        steps = optimizer(model.parameters(), lr=1e-2, **options)
        found = []
        for _ in range(12):
            steps.zero_grad()
            x = torch.randn(8, 16)
            loss = run(x).square().mean()
            loss.backward()
            steps.step()
            found.append(loss.item())
        return found

    model = Dropping().train()
    other = copy.deepcopy(model)
    found = losses(torch.compile(model, backend="onnx"), model)
    torch.testing.assert_close(found, losses(other, other), rtol=1e-3, atol=1e-5)


def test_gradients_add_up_and_graphs_are_kept() -> None:
    model = nn.Linear(4, 3)
    compiled = torch.compile(model, backend="onnx", options={"strict": True})

    def added(run: Fn) -> list[Tensor]:
        model.zero_grad()
        x = torch.ones(2, 4, requires_grad=True)
        loss = run(x).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        run(x * 2).sum().backward()
        assert model.weight.grad is not None
        assert x.grad is not None
        return [model.weight.grad.clone(), x.grad]

    torch.testing.assert_close(added(compiled), added(model))


def test_gradients_of_gradients_are_refused_as_torch_compile_does() -> None:
    compiled = torch.compile(lambda x: (x * x).sin().sum(), backend="onnx")
    x = torch.randn(3, requires_grad=True)
    (first,) = torch.autograd.grad(compiled(x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        first.sum().backward()


def test_frozen_parameters_and_hooks() -> None:
    model = Dropping().eval()
    model.first.weight.requires_grad_(requires_grad=False)
    other = copy.deepcopy(model)
    x = torch.randn(3, 16)
    found = []
    for each in (model, other):
        each.last.weight.register_hook(lambda grad: grad * 2)
        each.last.weight.register_post_accumulate_grad_hook(lambda p: found.append(p.grad.clone()))
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    same(gradients(compiled, model, x), gradients(other, other, x))
    torch.testing.assert_close(found[0], found[1])


def test_checkpointed_activations() -> None:
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.last = Dropping().eval(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(checkpoint(self.inner, x, use_reentrant=False))

    model = Kept()
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="onnx")
    x = torch.randn(3, 16)
    same(gradients(compiled, model, x), gradients(other, other, x))


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * x.cos()


def test_an_autograd_function_of_the_users() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(Doubled.apply(self.linear(x)))

    model = Own()
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    x = torch.randn(3, 4)
    same(gradients(compiled, model, x), gradients(other, other, x))


def test_autocast_to_bfloat16() -> None:
    model = Dropping().eval()
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="onnx")
    x = torch.randn(6, 16)

    def cast(run: Fn) -> Fn:
        def autocast(x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return run(x).float()

        return autocast

    same(gradients(cast(compiled), model, x), gradients(cast(other), other, x), 2e-2)


def test_a_grad_scaler_skips_the_step_that_overflows() -> None:
    found: list[tuple[list[Tensor], float]] = []
    for backend in ("eager", "onnx"):
        torch.manual_seed(0)
        net = nn.Linear(8, 4)
        model = torch.compile(net, backend=backend)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        for step in range(4):
            optimizer.zero_grad()
            x = torch.full((2, 8), torch.inf if step == 1 else 0.5)
            scaler.scale(model(x).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
        found.append(([p.detach() for p in net.parameters()], scaler.get_scale()))
    (eager, eager_scale), (ours, our_scale) = found
    assert our_scale == eager_scale == 2.0**15  # halved once
    torch.testing.assert_close(ours, eager)


def test_the_loss_is_compiled_too() -> None:
    model = Words()
    other = copy.deepcopy(model)

    def step(run: nn.Module, ids: Tensor) -> Tensor:
        return run(ids).square().sum() / 3

    compiled = torch.compile(step, backend="onnx", options={"strict": True})
    ids = torch.randint(0, 20, (3, 7))
    for run, each in ((compiled, model), (step, other)):
        run(each, ids).backward()
    assert model.out.weight.grad is not None
    torch.testing.assert_close(model.out.weight.grad, other.out.weight.grad, rtol=1e-4, atol=1e-5)


def test_compiled_autograd() -> None:
    model = Dropping().eval()
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="onnx")
    x = torch.randn(3, 16)
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="onnx")):
        found = gradients(compiled, model, x)
    same(found, gradients(other, other, x))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_compiled_optimizer_steps_without_compiling_again(optimizer: Any) -> None:
    def trained(compiles: bool) -> tuple[list[Tensor], int]:
        torch.manual_seed(0)
        model = Dropping()
        steps = optimizer(model.parameters(), lr=torch.tensor(1e-2))
        step = torch.compile(steps.step, backend="onnx") if compiles else steps.step
        counts = []
        for index in range(6):
            torch.manual_seed(index)
            model(torch.randn(8, 16)).square().mean().backward()
            step()
            steps.zero_grad()
            counts.append(dynamo_onnx.report().graphs)
        assert counts[2:] == [counts[2]] * 4
        return [p.detach().clone() for p in model.parameters()], counts[-1]

    found, graphs = trained(compiles=True)
    assert graphs > 0
    dynamo_onnx.reset()
    wanted, _ = trained(compiles=False)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_quantized_options_are_for_inference_alone() -> None:
    model = nn.Linear(64, 64)
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="onnx", options={"quantize": "int8"})
    x = torch.randn(3, 64)
    same(gradients(compiled, model, x), gradients(other, other, x))
    assert not dynamo_onnx.report(compiled).quantized


def test_a_language_model_follows_eagers_loss_for_200_steps() -> None:
    """Adam, with dropout: the same draws, and no drift."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_embd=64, n_layer=2, n_head=4, n_positions=32, vocab_size=256, bos_token_id=0,
        eos_token_id=0, use_cache=False,
    )  # fmt: skip
    torch.manual_seed(0)
    first = GPT2LMHeadModel(config).train()
    text = torch.randint(0, 256, (64,)).repeat(8)  # to be learnt

    def losses(backend: str | None) -> list[float]:
        model = copy.deepcopy(first)
        run: Any = model if backend is None else torch.compile(model, backend=backend)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
        torch.manual_seed(2)
        found = []
        for step in range(200):
            at = torch.arange(4)[:, None] * 17 + step % 100
            ids = text[at + torch.arange(32)]
            optimizer.zero_grad()
            loss = run(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    found, wanted = losses("onnx"), losses(None)
    assert wanted[-1] < wanted[0] - 1
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0.0)
