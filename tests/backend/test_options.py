"""Options are parsed once, at the door, and say what is wrong."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

import dynamo_onnx
from dynamo_onnx import OptionError, Options, Quantize
from dynamo_onnx.backend.options import CACHE_VARIABLE

BAD = [
    ({"provider": ["cpu"]}, "did you mean 'providers'"),
    ({"weights": "forzen"}, "did you mean 'frozen'"),
    ({"weights": 3}, "choose one of auto, frozen, live"),
    ({"min_region": 0}, "at least 1"),
    ({"min_region": "2"}, "expected int, got str"),
    ({"min_region": True}, "expected int, got bool"),
    ({"max_programs": 0}, "max_programs=0: the least is 1"),
    ({"max_programs": None}, "expected int, got NoneType"),
    ({"cache_size_mb": 0}, "cache_size_mb=0: the least is 1"),
    ({"strict": 1}, "expected bool, got int"),
    ({"opset": 7}, "choose 23 to"),
    ({"opset": 1000}, "choose 23 to"),
    ({"providers": ["NoSuchExecutionProvider"]}, "not available: this onnxruntime"),
    ({"providers": ["cuda"]}, "onnxruntime-gpu"),
    ({"providers": [3]}, "neither a name nor a"),
    ({"providers": ["cpu"], "provider_options": [{}, {}]}, "2 entries for 1 providers"),
    ({"session_options": []}, "must be a dict"),
    ({"transforms": ["x"]}, "not callable"),
    ({"eager_ops": 3}, "must be a list"),
    ({"dump_dir": 3}, "must be a path"),
    ({"quantize": "int5"}, "weights='int5'; did you mean 'int8'"),
    ({"quantize": 4}, "give one of 'int8', 'int4', or a dict of weights, activations, skip"),
    ({"quantize": {"skip": ["lm_head"]}}, "give one of 'int8', 'int4', or a dict"),
    ({"quantize": {"weights": "int4", "skp": []}}, "did you mean 'skip'"),
    ({"quantize": {"weights": 4}}, "weights=4; choose one of int8, int4"),
    ({"quantize": {"weights": "int4", "activations": "fp32"}}, "choose one of int8, float32"),
    ({"quantize": {"weights": "int4", "skip": [3]}}, "expected str, got int"),
    ({"quantize": {"weights": "int4", "skip": 3}}, "quantize: skip must be a list"),
    ({"quantize": "int8", "weights": "live"}, "choose weights='frozen' or 'auto', not 'live'"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda v: str(v)[:40])
def test_a_bad_option_is_named_with_what_to_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Options.parse(options)


def test_options_of_another_type_are_refused() -> None:
    with pytest.raises(OptionError, match=r"a dict or dynamo_onnx\.Options, not list"):
        Options.parse([1])  # type: ignore[arg-type]


def test_an_unknown_mode_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="did you mean 'max-autotune'"):
        Options.parse(None, "max-autotne")


def test_the_user_meets_the_error_itself_and_not_dynamos_wrapper() -> None:
    compiled = torch.compile(lambda x: x + 1, backend="onnx", options={"strct": True})
    with pytest.raises(OptionError, match="did you mean 'strict'") as caught:
        compiled(torch.ones(2))
    assert isinstance(caught.value, dynamo_onnx.DynamoOnnxError)


def test_an_unknown_session_setting_is_an_option_error() -> None:
    compiled = torch.compile(
        lambda x: x + 1, backend="onnx", options={"session_options": {"no_such_thing": 1}}
    )
    with torch.no_grad(), pytest.raises(OptionError, match="no_such_thing"):
        compiled(torch.ones(2))


def test_session_settings_reach_the_session_in_place_of_ours(
    capfd: pytest.CaptureFixture[str],
) -> None:
    settings = {"intra_op_num_threads": 1, "session.intra_op.allow_spinning": "0"}
    compiled = torch.compile(lambda x: x + 1, backend="onnx", options={"session_options": settings})
    with torch.no_grad():
        assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))
    assert "already exists" not in capfd.readouterr().err  # as onnxruntime says of one set twice


def test_an_unwritable_directory_is_an_option_error(tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.touch()
    with pytest.raises(OptionError, match="dump_dir: cannot write to"):
        Options.parse({"dump_dir": occupied / "below"})


def test_dicts_and_options_mean_the_same() -> None:
    spelled = Options.parse({"providers": "cpu", "eager_ops": "sin", "strict": True})
    assert spelled == Options(providers=("cpu",), eager_ops=frozenset({"sin"}), strict=True)


def test_quantize_is_spelled_as_a_word_a_dict_or_what_it_is() -> None:
    wanted = Quantize("int4", skip=("lm_head",))
    for given in (wanted, {"weights": "int4", "skip": "lm_head"}):
        assert Options.parse({"quantize": given}).quantize == wanted
    assert Options.parse({"quantize": "int8"}) == Options(quantize=Quantize("int8"))
    with pytest.raises(OptionError, match="quantize='int8': expected Quantize, got str"):
        Options.parse(Options(quantize="int8"))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="expected tuple, got str"):
        Options.parse({"quantize": Quantize("int8", skip="lm_head")})  # type: ignore[arg-type]


def test_each_field_says_whether_the_cache_key_includes_it() -> None:
    keyed = {f.name for f in fields(Options) if f.metadata.get("cache_key")}
    assert keyed == {"providers", "opset", "transforms", "quantize"}


def test_dump_dir_gets_each_program_and_graph(tmp_path: Path) -> None:
    compiled = torch.compile(lambda x: x + 1, backend="onnx", options={"dump_dir": tmp_path / "d"})
    with torch.no_grad():
        compiled(torch.ones(2))
    files = {p.suffix: p for p in (tmp_path / "d").iterdir()}
    assert set(files) == {".onnx", ".py"}
    assert "torch.ops.aten.add.Tensor" in files[".py"].read_text()


@pytest.mark.parametrize(
    ("mode", "cuda_graphs", "exhaustive"),
    [
        ("default", False, False),
        ("reduce-overhead", True, False),
        ("max-autotune", True, True),
        ("max-autotune-no-cudagraphs", False, True),
    ],
)
def test_a_mode_is_given_as_torch_does_or_among_the_options(
    mode: str, cuda_graphs: bool, exhaustive: bool
) -> None:
    for options in (Options.parse(None, mode), Options.parse({"mode": mode})):
        assert (options.cuda_graphs, options.exhaustive) == (cuda_graphs, exhaustive)


def test_the_cache_directory_is_an_option_or_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    assert Options().kept_in is None
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "variable"))
    assert Options().kept_in == tmp_path / "variable"
    chosen = Options.parse({"cache_dir": str(tmp_path / "option")})
    assert chosen.kept_in == tmp_path / "option"


def test_run_options_reach_the_runs() -> None:
    entries = {"memory.enable_memory_arena_shrinkage": "cpu:0"}
    compiled = torch.compile(
        lambda x: x.sin() + 1, backend="onnx", options={"run_options": entries}
    )
    x = torch.randn(4)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), x.sin() + 1)
    with pytest.raises(OptionError, match="run_options must be a dict"):
        Options.parse({"run_options": "fast"})
