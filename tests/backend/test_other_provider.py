"""Models on providers that are not onnxruntime's own: plugins, each in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache

import pytest

SCRIPT = """
import json
import sys

import onnxruntime
import torch
from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel

import dynamo_onnx

torch.manual_seed(0)


class MLP(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


def bert():
    return BertModel(BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                intermediate_size=64, vocab_size=100))


def resnet():
    return ResNetModel(ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1],
                                    layer_type="basic"))


CASES = {
    "mlp": (MLP, lambda n: torch.randn(n, 8)),
    "bert": (bert, lambda n: torch.randint(0, 100, (n, 12))),
    "resnet": (resnet, lambda n: torch.randn(n, 3, 32, 32)),
}
plugin, name, required = sys.argv[1], sys.argv[2], sys.argv[3] == "required"
if plugin == "webgpu":  # onnxruntime's own, in a build of its own
    from benchmarks.models import MODELS

    provider = "webgpu"
    for name_of in ("bert-base", "resnet50"):
        made = MODELS[name_of].build(1, small=False)
        CASES[name_of] = (lambda made=made: made.module, lambda n, made=made: made.kwargs)
elif plugin == "nxrt_ep_cpu":  # one that nobody but its user knows
    import nxrt_ep_cpu

    onnxruntime.register_execution_provider_library(plugin, nxrt_ep_cpu.get_library_path())
    provider = "cpu_ep"
else:
    provider = "openvino"
make, inputs = CASES[name]
model = make().eval()
compiled = torch.compile(
    model, backend="onnx", dynamic=False,
    options={"providers": [provider], "strict": True, "require_provider": required},
)
leaves = torch.utils._pytree.tree_leaves
with torch.no_grad():
    x = inputs(2)
    args, kwargs = ((), x) if isinstance(x, dict) else ((x,), {})
    wanted_leaves, found_leaves = leaves(model(*args, **kwargs)), leaves(compiled(*args, **kwargs))
    for found, wanted in zip(found_leaves, wanted_leaves, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
report = dynamo_onnx.report(compiled)
assert plugin == "webgpu" or "nodes by provider: " in str(report)
print(json.dumps([[p.provider, p.op_type, p.location, p.count] for p in report.placed]))
"""


@cache
def offers_openvino() -> str:
    """What OpenVINO's plugin is missing here; nothing if it can be used."""
    if importlib.util.find_spec("onnxruntime_ep_openvino") is None:
        return "onnxruntime-ep-openvino is not installed"
    script = (
        "import onnxruntime as o, onnxruntime_ep_openvino as p\n"
        "o.register_execution_provider_library('p', p.get_library_path())\n"
        "assert any(d.ep_name == p.get_ep_name() for d in o.get_ep_devices())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    return "" if done.returncode == 0 else "OpenVINO's plugin offers no device here"


def run(
    plugin: str, name: str, *, required: bool = False, path: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, plugin, name, "required" if required else ""],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, *sys.path]))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def placed(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, int]]:
    """Counts by provider and operator."""
    assert done.returncode == 0, done.stdout + done.stderr
    counts: dict[str, dict[str, int]] = {}
    for provider, op_type, _, count in json.loads(done.stdout.splitlines()[-1]):
        of = counts.setdefault(provider, {})
        of[op_type] = of.get(op_type, 0) + count
    return counts


needs_nxrt = pytest.mark.skipif(
    importlib.util.find_spec("nxrt_ep_cpu") is None,
    reason="nxrt-ep-cpu is not installed: it is for Linux, macOS and Windows on x86-64",
)


@needs_nxrt
def test_a_plugin_computes_what_it_takes() -> None:
    counts = placed(run("nxrt_ep_cpu", "mlp", required=True))
    assert counts == {"cpu_ep": {"Gemm": 2, "Relu": 1}}


@needs_nxrt
@pytest.mark.parametrize(("name", "node"), [("bert", "LayerNormalization"), ("resnet", "Conv")])
def test_what_a_plugin_leaves_is_told(name: str, node: str) -> None:
    """This one takes all of a program or nothing; the report has it from onnxruntime."""
    counts = placed(run("nxrt_ep_cpu", name))
    assert counts["CPUExecutionProvider"][node] > 1
    assert "cpu_ep" not in counts
    refused = run("nxrt_ep_cpu", name, required=True)
    assert refused.returncode != 0
    assert "SessionError: require_provider: cpu_ep does not take" in refused.stderr


@pytest.mark.parametrize("name", ["mlp", "bert", "resnet"])
def test_a_model_on_openvino(name: str) -> None:
    if missing := offers_openvino():
        pytest.skip(missing)
    counts = placed(run("onnxruntime_ep_openvino", name))
    assert counts["OpenVINOExecutionProvider"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "bert-base", "resnet50"])
def test_a_model_on_webgpu(name: str) -> None:
    """`make test-webgpu`; a Vulkan driver is needed, of which software ones will do."""
    build = os.environ.get("ONNXRUNTIME_WEBGPU", "")
    if not build:
        pytest.skip("ONNXRUNTIME_WEBGPU does not name the folder of an onnxruntime-webgpu")
    counts = placed(run("webgpu", name, path=build))
    # What it has no kernel for is told. onnxruntime 1.27 does not list what a provider took.
    left = set(counts.get("CPUExecutionProvider", {}))
    known = {
        "mlp": set[str](),
        "bert-base": {"Attention", "Cast", "Mod", "Reshape"},
        "resnet50": {"AveragePool", "MaxPool"},
    }
    assert left <= known[name]
