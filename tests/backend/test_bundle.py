"""A bundle answers as the compiled model did: every guard set, and what lies between the graphs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

import dynamo_onnx
from dynamo_onnx import Bundle, BundleError
from dynamo_onnx.runtime.bundle.record import Record

Fn = Callable[..., Any]


def bundle_of(
    fn: Fn, *calls: tuple[Any, ...], to: Path, options: dict[str, Any] | None = None
) -> Bundle:
    """What is saved after these calls."""
    compiled = torch.compile(fn, backend="onnx", options={"strict": True, **(options or {})})
    with torch.no_grad():
        for args in calls:
            compiled(*args)
    dynamo_onnx.save(compiled, to / "a.onnxbundle")
    return dynamo_onnx.load(to / "a.onnxbundle")


class Branching(nn.Module):
    """Several graphs, with a branch on a value and Python's containers around them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(
        self, x: Tensor, flag: bool = False, *, mask: Tensor | None = None, more: Any = ()
    ) -> dict[str, Any]:
        y = self.linear(x)
        if flag:
            y = y + 1
        if mask is not None:
            y = y * mask
        torch._dynamo.graph_break()
        if y.sum() > 0:
            return {"y": y, "rows": x.shape[0], "both": (x, y.view(-1))}
        return {"y": y * 2, "more": [e + 1 for e in more]}


def test_branches_breaks_guard_sets_and_containers_are_as_in_eager(tmp_path: Path) -> None:
    model = Branching()
    ones, mask = torch.ones(5, 4), torch.tensor([1.0, 2, 3, 4])
    more = [torch.ones(2), torch.ones(3)]
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((sign * ones[:rows],), kwargs)
        for sign in (1, -1)
        for rows, kwargs in ((2, {}), (3, {"flag": True}), (5, {"mask": mask, "more": more}))
    ]
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    with torch.no_grad():
        for args, kwargs in calls:
            compiled(*args, **kwargs)
    dynamo_onnx.save(compiled, tmp_path / "b.onnxbundle")
    bundle = dynamo_onnx.load(tmp_path / "b.onnxbundle")
    branches: set[str] = set()
    for args, kwargs in calls:
        with torch.no_grad():
            expected = model(*args, **kwargs)
        found = bundle(*args, **kwargs)
        torch.testing.assert_close(found, expected)
        branches.update(found)
    assert branches == {"y", "rows", "both", "more"}


def test_without_torch_the_answer_is_the_same(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)), torch.randn(3, 8)
    bundle_of(model, (x,), to=tmp_path)
    np.save(tmp_path / "x.npy", x.numpy())
    script = (
        "import sys, numpy as np\n"
        "from dynamo_onnx.runtime import load\n"
        "model = load('a.onnxbundle')\n"
        "np.save('y.npy', model(np.load('x.npy')))\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"), model(x).detach().numpy(), rtol=1e-5, atol=1e-6
    )


def test_a_dynamic_size_takes_what_its_guards_allow_and_refuses_the_rest(tmp_path: Path) -> None:
    def halves(x: Tensor) -> Tensor:
        return x.view(2, -1) * 2 if x.shape[0] % 2 == 0 and x.shape[0] < 100 else x + 1

    bundle = bundle_of(halves, (torch.ones(4),), (torch.ones(6),), to=tmp_path)
    assert bundle(np.ones(8, np.float32)).shape == (2, 4)
    with pytest.raises(BundleError, match=r"no guard set of halves fits.*\n.*x\.shape\[0\] % 2"):
        bundle(np.ones(7, np.float32))
    with pytest.raises(BundleError, match=r"x is float32 \[any\] does not hold: x is float64 \[8"):
        bundle(np.ones(8))
    with pytest.raises(BundleError, match="missing a required argument: 'x'"):
        bundle()


def test_a_dict_that_is_gone_through_must_be_as_it_was(tmp_path: Path) -> None:
    def shifted(xs: dict[str, Any]) -> dict[str, Any]:
        by = 1 if xs["up"] else -1
        return {key: x + by for key, x in xs.items() if key != "up"}

    x = torch.ones(3)
    bundle = bundle_of(shifted, ({"up": True, "x": x},), ({"up": False, "x": x},), to=tmp_path)
    ones = np.ones(3, np.float32)
    assert bundle({"up": True, "x": ones})["x"].tolist() == [2, 2, 2]
    assert bundle({"up": False, "x": ones})["x"].tolist() == [0, 0, 0]
    for other, words in (
        ({"up": True, "x": ones[:2]}, r"is float32 \[3\] does not hold: .* is float32 \[2\]"),
        ({"up": True, "x": ones, "y": ones}, r"length\(xs\) == 2 does not hold"),
        ({"x": ones, "up": True}, r"keys\(xs\)\[0\] == 'up' does not hold"),
    ):
        with pytest.raises(BundleError, match=words):
            bundle(other)


def test_an_output_of_transformers_keeps_its_names(tmp_path: Path) -> None:
    import transformers

    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    model = transformers.BertModel(config).eval()
    ids = torch.arange(12).view(2, 6)
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    with torch.no_grad():
        expected = compiled(input_ids=ids, attention_mask=torch.ones_like(ids))
    dynamo_onnx.save(compiled, tmp_path / "bert.onnxbundle")
    bundle = dynamo_onnx.load(tmp_path / "bert.onnxbundle")
    found = bundle(input_ids=ids.numpy(), attention_mask=np.ones((2, 6), np.int64))
    assert list(found) == ["last_hidden_state", "pooler_output"]
    assert found.class_name == "BaseModelOutputWithPoolingAndCrossAttentions"
    assert found.attentions is None
    assert len(found.to_tuple()) == 2
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.pooler_output, expected[1], rtol=1e-4, atol=1e-5)


class Counting(nn.Module):
    """Writes to its buffer and to an argument."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x.add_(self.calls)
        return x * self.calls


def test_what_the_model_writes_to_goes_on_from_call_to_call(tmp_path: Path) -> None:
    model = Counting()
    bundle = bundle_of(model, (torch.ones(2),), to=tmp_path)
    assert model.calls.tolist() == [1, 1]
    x = np.ones(2, np.float32)
    assert bundle(x).tolist() == [6, 6]
    assert x.tolist() == [3, 3]
    assert bundle(x).tolist() == [18, 18]
    assert dynamo_onnx.load(tmp_path / "a.onnxbundle")(np.ones(2, np.float32)).tolist() == [6, 6]
    assert model.calls.tolist() == [1, 1]


class Remembering(nn.Module):
    """Returns what it keeps as well."""

    last: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.last + x
        self.last.copy_(y)
        return y


@pytest.mark.parametrize("one", [np.ones(2, np.float32), torch.ones(2)], ids=["numpy", "torch"])
def test_a_result_that_is_kept_as_well_is_the_callers_to_change(tmp_path: Path, one: Any) -> None:
    bundle = bundle_of(Remembering(), (torch.zeros(2),), to=tmp_path)
    found = bundle(one)
    found[:] = 100
    assert bundle(one).tolist() == [2, 2]


def test_arguments_that_are_written_to_must_not_share_memory(tmp_path: Path) -> None:
    def shift(x: Tensor, y: Tensor) -> Tensor:
        x.add_(1)
        return x + y

    bundle = bundle_of(shift, (torch.ones(2), torch.ones(2)), to=tmp_path)
    x, y = np.ones(2, np.float32), np.ones(2, np.float32)
    assert bundle(x, y).tolist() == [3, 3]
    both = np.zeros(3, np.float32)
    for first, second in ((x, x), (both[:2], both[1:])):
        with pytest.raises(BundleError, match="two of them share memory"):
            bundle(first, second)
    shared = torch.ones(3)
    with pytest.raises(BundleError, match="two of them share memory"):
        bundle(shared[:2], shared[1:])


class Plus:
    """Adds what it was made with."""

    def __init__(self, value: float) -> None:
        self.value = value

    def on(self, x: Tensor) -> Tensor:
        return x + self.value


class Times(Plus):
    """Multiplies."""

    def on(self, x: Tensor) -> Tensor:
        return x * self.value


def test_an_object_must_be_of_the_class_that_was_seen(tmp_path: Path) -> None:
    def apply(x: Tensor, by: Plus) -> Tensor:
        return by.on(x)

    x = torch.ones(2)
    bundle = bundle_of(apply, (x, Plus(3.0)), (x, Times(3.0)), to=tmp_path)
    assert bundle(x, Plus(3.0)).tolist() == [4, 4]
    assert bundle(x, Times(3.0)).tolist() == [3, 3]
    assert bundle(x, Record("Times", {"value": 3.0})).tolist() == [3, 3]
    with pytest.raises(BundleError, match="by is"):
        bundle(x, 3.0)


def test_settings_of_torch_must_be_one(tmp_path: Path) -> None:
    model, x = nn.Linear(4, 4), torch.randn(2, 4)
    compiled = torch.compile(model, backend="onnx")
    compiled(x)  # with gradients: a version that a bundle leaves out
    with torch.no_grad():
        expected = compiled(x)
    dynamo_onnx.save(compiled, tmp_path / "a.onnxbundle")
    torch.testing.assert_close(dynamo_onnx.load(tmp_path / "a.onnxbundle")(x), expected)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        compiled(x)
    with pytest.raises(BundleError, match=r"different settings of torch \(autocast_state\)"):
        dynamo_onnx.save(compiled, tmp_path / "a.onnxbundle")


def test_a_dtype_is_no_argument_of_a_bundle(tmp_path: Path) -> None:
    def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.to(dtype) / 2

    with pytest.raises(BundleError, match=r"the guard .*dtype.* cannot be told as data"):
        bundle_of(cast, (torch.ones(2), torch.float64), to=tmp_path)


def test_views_that_negate_and_arrays_without_elements_are_taken(tmp_path: Path) -> None:
    def shift(x: Tensor, y: Tensor) -> Tensor:
        x.add_(1)
        return x + y

    bundle = bundle_of(shift, (torch.ones(2), torch.ones(2)), to=tmp_path)
    negated = torch.tensor([1 + 2j, 3 + 4j]).conj().imag
    assert negated.is_neg()
    assert bundle(torch.zeros(2), negated).tolist() == [-1, -3]

    empty = [torch.empty(0), torch.empty(0)]
    bundle = bundle_of(shift, (empty[0].clone(), empty[1].clone()), to=tmp_path)
    assert bundle(*empty).shape == (0,)


def test_sizes_are_guarded_whichever_way_dynamo_does_it(tmp_path: Path) -> None:
    def even(x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] % 2 == 0 else x + 1

    for way in (False, True):
        torch._dynamo.reset()
        with torch._dynamo.config.patch(enable_cpp_symbolic_shape_guards=way):
            compiled = torch.compile(even, backend="onnx", dynamic=True)
            with torch.no_grad():
                compiled(torch.ones(4))
        dynamo_onnx.save(compiled, tmp_path / "even.onnxbundle")
        bundle = dynamo_onnx.load(tmp_path / "even.onnxbundle")
        assert bundle(np.ones(6, np.float32)).tolist() == [2] * 6
        for rows in (1, 5):
            with pytest.raises(BundleError, match="no guard set"):
                bundle(np.ones(rows, np.float32))


def test_numbers_go_in_and_come_out(tmp_path: Path) -> None:
    def grow(x: Tensor, by: int) -> tuple[Tensor, int, int]:
        rows = x.shape[0] * by
        y = x.sum().item()
        return x.expand(by, -1) * by + y, rows, 7

    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_scalar_outputs=False):
        bundle = bundle_of(
            grow, (torch.ones(3), 2), (torch.ones(4), 3), (torch.ones(5), 4), to=tmp_path
        )
    for rows, by in ((3, 2), (6, 5), (9, 8)):
        x = torch.arange(rows, dtype=torch.float32)
        expected, found = grow(x, by), bundle(x.numpy(), by)
        np.testing.assert_allclose(found[0], expected[0])
        assert found[1:] == expected[1:]


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.bool, torch.complex64, torch.int8, torch.float64]
)
def test_arrays_of_every_type_go_in_and_come_out(tmp_path: Path, dtype: torch.dtype) -> None:
    x = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(dtype)
    bundle = bundle_of(lambda x: x.t().contiguous(), (x,), to=tmp_path)
    if dtype is not torch.complex64:
        torch.testing.assert_close(bundle(x), x.t())
    if dtype is torch.bfloat16:
        import ml_dtypes

        given = x.float().numpy().astype(ml_dtypes.bfloat16)
    else:
        given = x.numpy()
    found = bundle(given)
    assert found.dtype == given.dtype
    assert found.tolist() == given.T.tolist()


def test_two_guard_sets_share_one_copy_of_the_weights(tmp_path: Path) -> None:
    model = nn.Linear(64, 64)
    bundle_of(model, (torch.ones(2, 64),), (torch.ones(64),), to=tmp_path)
    folder = tmp_path / "a.onnxbundle"
    weights = load_file(folder / "weights.safetensors")
    assert {name: w.shape for name, w in weights.items()} == {"weight": (64, 64), "bias": (64,)}
    np.testing.assert_array_equal(weights["weight"], model.weight.detach().numpy())
    programs = sorted(folder.glob("*.onnx"))
    assert len(programs) == 2
    for path in programs:  # by any runtime that reads external data
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        shape = (2, 64) if session.get_inputs()[0].shape == [2, 64] else (64,)
        (found,) = session.run(None, {session.get_inputs()[0].name: np.ones(shape, np.float32)})
        expected = model(torch.ones(shape)).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_quantized_weights_are_saved_as_integers(tmp_path: Path) -> None:
    model, x = nn.Linear(256, 128, bias=False), torch.randn(4, 256)
    compiled = torch.compile(model, backend="onnx", options={"quantize": "int8"})
    with torch.no_grad():
        expected = compiled(x)
    dynamo_onnx.save(compiled, tmp_path / "q.onnxbundle")
    found = dynamo_onnx.load(tmp_path / "q.onnxbundle")(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    size = (tmp_path / "q.onnxbundle" / "weights.safetensors").stat().st_size
    assert size < model.weight.nbytes / 3


def test_many_threads_call_one_bundle(tmp_path: Path) -> None:
    model = nn.Linear(16, 16)
    bundle = bundle_of(model, (torch.ones(2, 16),), to=tmp_path)
    inputs = [torch.randn(2, 16) for _ in range(64)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(bundle, inputs))
    for x, y in zip(inputs, found, strict=True):
        torch.testing.assert_close(y, model(x).detach())


def test_a_bundle_is_replaced_whole_and_nothing_else_is_touched(tmp_path: Path) -> None:
    bundle_of(nn.Linear(2, 2), (torch.ones(2),), to=tmp_path)
    bundle = bundle_of(nn.Linear(3, 3), (torch.ones(3),), to=tmp_path)
    assert bundle(np.ones(3, np.float32)).shape == (3,)
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnxbundle"]
    mine = tmp_path / "mine.onnxbundle"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    compiled = torch.compile(nn.Linear(2, 2), backend="onnx")
    with torch.no_grad():
        compiled(torch.ones(2))
    with pytest.raises(BundleError, match="is there and no bundle"):
        dynamo_onnx.save(compiled, mine)
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_whoever_may_read_one_file_of_a_bundle_may_read_all(tmp_path: Path) -> None:
    bundle_of(nn.Linear(2, 2), (torch.ones(2),), to=tmp_path)
    plain = tmp_path / "plain"
    plain.touch()
    modes = {path.stat().st_mode for path in (tmp_path / "a.onnxbundle").iterdir()}
    assert modes == {plain.stat().st_mode}


def test_the_manifest_has_no_path_of_this_machine(tmp_path: Path) -> None:
    bundle_of(nn.Linear(2, 2), (torch.ones(2),), to=tmp_path)
    text = (tmp_path / "a.onnxbundle" / "manifest.json").read_text()
    assert str(Path(__file__).parent) not in text
    assert json.loads(text)["format"] == "dynamo_onnx bundle 1"


# ------------------------------------------------------------------------------------ refusals
def prints(x: Tensor) -> Tensor:
    y = x + 1
    print("between")  # noqa: T201 - it breaks the graph
    return y * 2


def draws(x: Tensor) -> Tensor:
    return x + torch.rand(3)


def counts(x: Tensor, box: list[int]) -> Tensor:
    box.append(1)
    return x + 1


def applies(x: Tensor, fn: Fn) -> Tensor:
    return fn(x) + 1


def inner(x: Tensor) -> Tensor:
    return x + 1


def loops(x: Tensor) -> Tensor:
    for _ in range(2):
        torch._dynamo.graph_break()
        x = inner(x)
    return x


REFUSED = [
    (prints, (), r"print\(\) is called between the graphs.*test_bundle.py:\d+"),
    (draws, (), r"operators in eager PyTorch.*\n.*aten.rand.*test_bundle.py:\d+: random"),
    (counts, ([],), "writing an item into a value that only a call knows"),
    (applies, (torch.sin,), "cannot be told as data: an argument must be one certain object"),
    (loops, (), "Dynamo does not capture loops itself, but what it calls"),
]


@pytest.mark.parametrize(("fn", "more", "words"), REFUSED, ids=lambda v: getattr(v, "__name__", ""))
def test_what_a_bundle_cannot_say_is_refused_by_name(
    tmp_path: Path, fn: Fn, more: tuple[Any, ...], words: str
) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(fn, backend="onnx")
    with torch.no_grad():
        compiled(torch.ones(3), *more)
    with pytest.raises(BundleError, match=words):
        dynamo_onnx.save(compiled, tmp_path / "a.onnxbundle")
    assert list(tmp_path.iterdir()) == []


def test_what_was_never_called_or_called_for_training_is_refused(tmp_path: Path) -> None:
    compiled = torch.compile(nn.Linear(2, 2), backend="onnx")
    with pytest.raises(BundleError, match="nothing to save: call the compiled function"):
        dynamo_onnx.save(compiled, tmp_path / "a.onnxbundle")
    compiled(torch.ones(2))
    with pytest.raises(BundleError, match=r"compiled for training; call it under torch.no_grad"):
        dynamo_onnx.save(compiled, tmp_path / "a.onnxbundle")
