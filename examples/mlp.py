"""The four-layer sigmoid MLP of PyTorch's ONNX exporter documentation, by way of torch.compile.

Compile and run; take the program that was made, optimise and save it; load the file in plain
ONNX Runtime and compare. Exits with 1 if the three disagree.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

import dynamo_onnx

TOLERANCE = 1e-5


class MLP(nn.Module):
    """[N, 8] to [N, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.fc0 = nn.Linear(8, 8)
        self.fc1 = nn.Linear(8, 4)
        self.fc2 = nn.Linear(4, 2)
        self.fc3 = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.fc0(x))
        x = torch.sigmoid(self.fc1(x))
        x = torch.sigmoid(self.fc2(x))
        return self.fc3(x)


@torch.no_grad()
def main() -> int:
    model = MLP().eval()
    x = torch.rand(97, 8)
    expected = model(x)

    compiled = torch.compile(model, backend="onnx")
    result = compiled(x)

    program = dynamo_onnx.programs(compiled)[0].onnx_program
    program.optimize()
    path = Path("build/mlp/mlp.onnx")
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(path)

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (reloaded,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})

    nodes = [node.op_type for node in program.model.graph]
    compiled_error = (result - expected).abs().max().item()
    reloaded_error = (torch.from_numpy(reloaded) - expected).abs().max().item()
    print(f"{path}: {path.stat().st_size} bytes, {len(nodes)} nodes: {', '.join(nodes)}")
    print(f"max |eager - compiled|            {compiled_error:.1e}")
    print(f"max |eager - file in onnxruntime| {reloaded_error:.1e}")
    return 0 if max(compiled_error, reloaded_error) <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
