"""Models on providers that are not onnxruntime's own: plugins, each in a process of its own."""

from __future__ import annotations

import importlib.util
import json
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
if plugin == "nxrt_ep_cpu":  # one that nobody but its user knows
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
    for found, wanted in zip(leaves(compiled(x)), leaves(model(x)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
report = dynamo_onnx.report(compiled)
assert "nodes by provider: " in str(report)
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


def run(plugin: str, name: str, *, required: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, plugin, name, "required" if required else ""],
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
