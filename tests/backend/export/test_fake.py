"""Models without memory for their weights, which get their values afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dynamo_onnx import OnnxExporterError, OptionError, enable_fake_mode, export


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(10, 8)
        self.linear = torch.nn.Linear(8, 4)
        self.register_buffer("offset", torch.ones(4))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
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
