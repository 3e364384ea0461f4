"""Generation: the loop, what is compared, the table, one run in small."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from benchmarks import generate, harness, record
from benchmarks.generate import Generation, Reading, Task
from benchmarks.machine import Machine
from benchmarks.measure import Quartiles
from benchmarks.record import Case, Row, Run, Settings


def _run(*cases: Case) -> Run:
    settings = Settings(threads=2, rounds=3, backends=("eager", "onnx"))
    machine = Machine("Some CPU", 2, "Linux x86_64", None)
    return Run("2026-01-02T03:04:05+00:00", "", settings, machine, {"torch": "2.13.0"}, cases)


def _exact(value: float) -> Quartiles:
    return Quartiles(value, value, value, 3)


def _rows(page: str) -> list[list[str]]:
    """The cells of a page's table rows, its headers among them."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]


def _made(tokens: list[int], prefill_ms: float, decode_ms: float) -> Generation:
    logits = [torch.arange(4.0) for _ in tokens]
    return Generation(prefill_ms, decode_ms, tokens, logits)


def test_each_token_drawn_is_the_next_input_and_the_noise_decides():
    seen = []

    def forward(input_ids, **_):
        seen.append(input_ids.tolist())
        return SimpleNamespace(logits=torch.zeros(1, input_ids.shape[1], 4))

    noise = torch.eye(4)[[2, 0, 3]]
    made = generate.generate(forward, None, Task(torch.tensor([[1, 1]]), noise))
    assert made.tokens == [2, 0, 3, 3]
    assert seen == [[[1, 1]], [[2]], [[0]], [[3]]]
    assert len(made.logits) == 4
    assert made.prefill_ms > 0
    assert made.decode_ms > 0


def test_only_timed_generations_are_kept():
    recorder = generate.Recorder(lambda: _made([1, 2], 3.0, 4.0))
    recorder()
    assert recorder.timed() == 7.0
    assert len(recorder.made) == 1


def test_rates_are_tokens_a_second_and_ratios_paired_by_round():
    eager = [_made([1, 2, 3], 10.0, 40.0), _made([1, 2, 3], 100.0, 400.0)]
    ours = [_made([1, 2, 3], 5.0, 10.0), _made([1, 2, 3], 50.0, 100.0)]
    row = generate.row_of("onnx", ours, eager, {"regions": 2})
    assert row.values["decode_ratio"] == Quartiles(0.25, 0.25, 0.25, 2)
    assert row.values["prefill_ratio"] == Quartiles(0.5, 0.5, 0.5, 2)
    assert row.values["decode_tokens_per_s"].q3 == pytest.approx(155.0)  # between 20 and 200
    assert row.facts == {"tokens_equal": True, "distinct_tokens": 3, "max_error": 0, "regions": 2}


def test_other_tokens_are_told_and_their_logits_not_compared():
    row = generate.row_of("onnx", [_made([1, 2], 1, 1)], [_made([1, 3], 1, 1)], None)
    assert row.facts == {"tokens_equal": False, "distinct_tokens": 2}


def test_the_table_says_whose_tokens_are_eagers():
    values = {"prefill_ms": _exact(20.0), "decode_tokens_per_s": _exact(50.0)}
    ratios = {"prefill_ratio": _exact(0.5), "decode_ratio": _exact(0.25)}
    rows = (
        Row("eager", values, {"tokens_equal": True}),
        Row("onnx", values | ratios, {"tokens_equal": False}),
    )
    page = generate.page(_run(Case("a", {"prompt_tokens": 128, "new_tokens": 64}, rows=rows)))
    assert _rows(page)[2] == ["a", "20 ms", "20 ms (2.00×)", "50", "50 (4.00×)", "onnx no", ""]
    assert "64 tokens after a prompt of 128" in page


def test_accuracy_is_told_of_quantized_weights_alone():
    text = torch.tensor([[0, 1, 2]])
    certain = Reading(text, torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]).clamp_min(1e-9).log())
    even = Reading(text, torch.full((3, 3), 1 / 3).log())
    assert certain.perplexity == pytest.approx(1.0)
    assert even.perplexity == pytest.approx(3.0)
    assert even.divergence_from(even) == 0
    assert even.divergence_from(certain) == pytest.approx(math.log(3), rel=1e-5)

    values = {"prefill_ms": _exact(20.0), "decode_tokens_per_s": _exact(50.0)}
    lossy = {"perplexity": {"eager": 10.0, "quantized": 10.5}, "divergence": 0.01}
    rows = (
        Row("eager", values, {"tokens_equal": True}),
        Row("onnx int8", values, {"tokens_equal": False} | lossy),
    )
    case = Case("a", {"prompt_tokens": 128, "new_tokens": 64}, rows=rows)
    (*_, same, accuracy) = _rows(generate.page(_run(case)))[2]
    assert same == ""
    assert accuracy == "int8 10.5 for 10; 0.01"


def test_a_small_model_generates_from_the_command_line_as_eager_does(tmp_path):
    out = tmp_path / "run.json"
    argv = ["--small", "--cases", "llama static cache", "--rounds", "3"]
    argv += ["--backends", "onnx,onnx int8"]
    assert harness.main(generate.BENCHMARK, [*argv, "--out", str(out)]) == 0
    (case,) = record.read(out, Run).cases
    onnx = case.row("onnx")
    assert onnx is not None
    assert onnx.facts["tokens_equal"]
    assert onnx.facts["distinct_tokens"] > 1
    assert onnx.facts["graphs"] == 2  # the prompt, one token
    assert onnx.facts["max_error"] < 1e-4
    quantized = case.row("onnx int8")
    assert quantized is not None
    assert 0 < quantized.facts["divergence"] < 1e-3
    assert out.with_suffix(".png").exists()
