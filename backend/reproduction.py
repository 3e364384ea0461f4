"""A script of a few lines that shows one operator's deviation, without the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.fx
from torch import Tensor

from .dump import write_atomically

INLINE_ELEMENTS = 64  # of a tensor that is written into the script


def write_reproduction(
    directory: Path, node: torch.fx.Node, values: Mapping[torch.fx.Node, Any], detail: str
) -> Path:
    """`deviation_<operator>.py`, which ends with 1 where the operator still deviates.

    `values` are those that the node reads. Large tensors lie beside the script as `.npy`.
    """
    name = f"deviation_{str(node.target).replace('.', '_')}"
    directory.mkdir(parents=True, exist_ok=True)
    read = [source for source in node.all_input_nodes if isinstance(values[source], Tensor)]
    names = {source: f"x{index}" for index, source in enumerate(read)}
    tensors = [
        f"    {_written(directory, f'{name}_{names[source]}', values[source])}," for source in read
    ]
    arguments = [_argument(a, names, values) for a in node.args]
    arguments += [f"{k}={_argument(v, names, values)}" for k, v in node.kwargs.items()]
    lines = [
        f'"""{detail}"""',
        "",
        "from pathlib import Path",
        "",
        "import numpy as np",
        "import torch",
        "from torch import device",
        "",
        "import dynamo_onnx",
        "",
        "HERE = Path(__file__).resolve().parent",
        "",
        "",
        f"def fn({', '.join(names.values())}):",
        f"    return torch.ops.{node.target}({', '.join(arguments)})",
        "",
        "",
        "inputs = [",
        *tensors,
        "]",
        'compiled = torch.compile(fn, backend="onnx", options={"verify": 1})',
        "with torch.no_grad():",
        "    compiled(*inputs)",
        "report = dynamo_onnx.report(compiled)",
        "print(report)",
        'raise SystemExit(any(f.reason.kind == "verification" for f in report.fallbacks))',
    ]
    path = directory / f"{name}.py"
    write_atomically(path, lambda p: p.write_text("\n".join(lines) + "\n"))
    return path


def _written(directory: Path, name: str, tensor: Tensor) -> str:
    """Code that makes a tensor of the same values, dtype and strides."""
    tensor = tensor.detach().cpu()
    if tensor.numel() <= INLINE_ELEMENTS:
        flat = f"torch.tensor({tensor.tolist()!r}, dtype={tensor.dtype})"
        flat = flat.replace("nan", "torch.nan").replace("inf", "torch.inf")
        made = f"{flat}.reshape({list(tensor.shape)})"
    else:
        raw = tensor.contiguous().view(-1).view(torch.uint8).numpy()
        np.save(directory / f"{name}.npy", raw)
        loaded = f"torch.from_numpy(np.load(HERE / {name + '.npy'!r}))"
        made = f"{loaded}.view({tensor.dtype}).reshape({list(tensor.shape)})"
    if tensor.is_contiguous():
        return made
    strides = f"{tuple(tensor.shape)}, {tensor.stride()}, dtype={tensor.dtype}"
    return f"torch.empty_strided({strides}).copy_({made})"


def _argument(
    value: Any,  # noqa: ANN401 - of a node
    names: Mapping[torch.fx.Node, str],
    values: Mapping[torch.fx.Node, Any],
) -> str:
    if isinstance(value, torch.fx.Node):
        return names.get(value) or repr(values[value])
    if isinstance(value, (list, tuple)):
        items: Sequence[Any] = value
        return f"[{', '.join(_argument(item, names, values) for item in items)}]"
    return repr(value)
