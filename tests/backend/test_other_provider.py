"""Models on a provider that is not the CPU's: OpenVINO's, in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_ep_openvino") is None,
    reason="onnxruntime-ep-openvino is not installed: it is for Linux and Windows on x86-64",
)

SCRIPT = """
import torch
from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel
import dynamo_onnx

torch.manual_seed(0)


class MLP(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 4)
        )

    def forward(self, x):
        return self.layers(x).softmax(-1)


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
name, given = SCRIPT_ARGUMENTS
make, inputs = CASES[name]
model = make().eval()
compiled = torch.compile(
    model, backend="onnx", dynamic=True,
    options={"providers": ["openvino"], "strict": True, **given},
)
with torch.no_grad():
    for n in (2, 5):
        x = inputs(n)
        for found, wanted in zip(
            torch.utils._pytree.tree_leaves(compiled(x)),
            torch.utils._pytree.tree_leaves(model(x)), strict=True,
        ):
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
report = dynamo_onnx.report(compiled)
print(report)
nodes = {p.provider: 0 for p in report.placed}
for p in report.placed:
    nodes[p.provider] += p.count
assert nodes["OpenVINOExecutionProvider"] > 0, nodes
print("NODES", nodes)
"""


def run(name: str, **options: object) -> str:
    script = SCRIPT.replace("SCRIPT_ARGUMENTS", repr((name, options)))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["mlp", "bert", "resnet"])
def test_a_model_on_openvino(name: str) -> None:
    assert "nodes by provider: OpenVINOExecutionProvider" in run(name)
