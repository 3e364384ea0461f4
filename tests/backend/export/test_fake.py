"""Models without memory for their weights, which get their values afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dynamo_onnx import OnnxExporterError, OptionError, enable_fake_mode, export


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.linear = nn.Linear(8, 4)
        self.register_buffer("offset", torch.ones(4))

    def forward(self, ids: Tensor) -> Tensor:
        return self.linear(self.embed(ids)) + self.offset


IDS = torch.arange(6).reshape(2, 3)


def test_weights_come_from_a_state_dict() -> None:
    real = Model().eval()
    with enable_fake_mode():
        model = Model().eval()
        ids = torch.zeros(2, 3, dtype=torch.int64)
        program = export(model, (ids,))
    assert sorted(program.missing_weights()) == sorted(real.state_dict())
    program.apply_weights(real.state_dict())
    assert program.missing_weights() == []
    torch.testing.assert_close(program(IDS)[0], real(IDS))


def test_real_inputs_are_taken_outside_of_the_mode() -> None:
    with enable_fake_mode():
        model = Model().eval()
    program = export(model, (IDS,), dynamic_shapes=({0: "batch", 1: "length"},))
    real = Model().eval()
    program.apply_weights(real.state_dict())
    ids = torch.arange(8).reshape(4, 2)
    torch.testing.assert_close(program(ids)[0], real(ids))


def test_weights_come_from_files(tmp_path: Path) -> None:
    real = Model().eval()
    state = real.state_dict()
    save_file({"embed.weight": state.pop("embed.weight")}, tmp_path / "1.safetensors")
    save_file(state, tmp_path / "2.safetensors")
    with enable_fake_mode():
        model = Model().eval()
    for given in (tmp_path, [tmp_path / "1.safetensors", str(tmp_path / "2.safetensors")]):
        program = export(model, (IDS,))
        program.apply_weights(given)
        program.save(tmp_path / "model.onnx", external_data=True)
        torch.testing.assert_close(program(IDS)[0], real(IDS))


def test_what_lacks_values_is_not_saved(tmp_path: Path) -> None:
    with enable_fake_mode():
        model = Model().eval()
    program = export(model, (IDS,))
    with pytest.raises(OnnxExporterError, match=r"4 weights have no values .*apply_weights"):
        program.save(tmp_path / "model.onnx")
    with pytest.raises(OnnxExporterError, match="4 weights have no values"):
        program(IDS)
    program.save(tmp_path / "bare.onnx", include_initializers=False)


def test_values_that_do_not_fit(tmp_path: Path) -> None:
    with enable_fake_mode():
        model = Model().eval()
    program = export(model, (IDS,))
    with pytest.raises(OptionError, match=r"linear\.bias is FLOAT\[5\], the model has FLOAT\[4\]"):
        program.apply_weights({"linear.bias": torch.zeros(5)})
    with pytest.raises(OptionError, match="has any of these names"):
        program.apply_weights({"other": torch.zeros(5)})
    with pytest.raises(OptionError, match=r"no \.safetensors file"):
        program.apply_weights(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(OptionError, match="cannot be read"):
        program.apply_weights(tmp_path / "x.safetensors")


class Positions(nn.Module):
    """A table of positions, as language models have it: in no state dict."""

    def __init__(self) -> None:
        super().__init__()
        frequencies = 1.0 / (10.0 ** (torch.arange(0, 4, dtype=torch.int64).float() / 4))
        table = torch.outer(torch.arange(8).float(), frequencies)
        table[0] = 7.0
        table.t()[1].add_(1)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("mask", torch.ones(8, 8, dtype=torch.bool).tril(), persistent=False)
        self.rates = [r.item() for r in torch.linspace(0, 1, 3)]
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        mask = self.mask[: x.shape[0], : x.shape[0]].float()
        return mask @ self.linear(x + self.table[: x.shape[0]]) * self.rates[1]


def test_what_no_state_dict_has_is_computed_while_the_model_is_made() -> None:
    real = Positions().eval()
    with enable_fake_mode():
        fake = Positions().eval()
    program = export(fake, (torch.randn(3, 4),))
    assert sorted(program.missing_weights()) == ["linear.bias", "linear.weight"]
    program.apply_weights(real.state_dict())
    x = torch.randn(3, 4)
    torch.testing.assert_close(program(x)[0], real(x))


class Unknown(nn.Module):
    """Buffers that cannot be known: random, uninitialised, overwritten by something unknown."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.empty(4)
        mixed = torch.zeros(2, 4)
        mixed[1] = weight
        scaled = torch.ones(4)
        row = scaled[1:]
        row.mul_(torch.rand(3))
        self.weight = nn.Parameter(weight)
        self.register_buffer("noise", torch.randn(4), persistent=False)
        self.register_buffer("mixed", mixed, persistent=False)
        self.register_buffer("scaled", scaled, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.noise + self.mixed.sum(0) + self.scaled


def test_what_depends_on_something_unknown_is_missing() -> None:
    with enable_fake_mode():
        fake = Unknown()
    program = export(fake, (torch.randn(4),))
    assert sorted(program.missing_weights()) == ["mixed", "noise", "scaled", "weight"]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.head = nn.Linear(4, 8, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids))


@pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
def test_tied_weights_are_one_and_known_by_each_name(name: str) -> None:
    real = Tied().eval()
    with enable_fake_mode():
        fake = Tied().eval()
    program = export(fake, (IDS,))
    assert len(program.missing_weights()) == 1
    program.apply_weights({name: real.embed.weight})
    torch.testing.assert_close(program(IDS)[0], real(IDS))


class Truncated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(4, 4), std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def test_a_weight_that_is_drawn_until_it_fits_is_fake_too() -> None:
    with enable_fake_mode():
        fake = Truncated()
    program = export(fake, (torch.randn(2, 4),))
    assert program.missing_weights() == ["weight"]
    torch.manual_seed(0)
    first = nn.init.trunc_normal_(torch.empty(100), std=3.0)
    assert first.abs().max() <= 2.0


class Moved(nn.Module):
    """A buffer whose memory was exchanged behind the operators' backs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("moved", torch.zeros(4), persistent=False)
        self.moved.data = torch.arange(4.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.moved


def test_a_buffer_that_was_given_other_memory_has_not_the_values_of_the_first() -> None:
    with enable_fake_mode():
        fake = Moved()
    program = export(fake, (torch.zeros(4),))
    assert program.missing_weights() == ["moved"]
