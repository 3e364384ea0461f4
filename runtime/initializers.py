"""Frozen weights as initializers of a session, whose data is torch's own memory.

In the model, each is a file of its own that does not exist; its contents are given beside the
model. onnxruntime 1.31 and newer reads them where they lie. An older one copies every weight while
a session is opened, which takes about as long as packing them for its matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnxruntime as ort
import torch

from .program import Program
from .settings import READS_BUFFERS, give_files
from .tensors import ort_value


def as_initializers(
    graph: onnx.GraphProto,
    options: ort.SessionOptions,
    program: Program,
    frozen: Mapping[int, torch.Tensor],
) -> tuple[object, ...]:
    """Turn the inputs in `frozen` (by position) into initializers with the tensors' data.

    No weight passes through protobuf. A tensor that is not contiguous is copied. One on another
    device than the CPU is read there, and while the session is opened, from a copy on the CPU. What
    is returned must live as long as the session, which reads its memory in place.
    """
    tensors = {index: tensor.detach().contiguous() for index, tensor in frozen.items()}
    kept = [value for i, value in enumerate(graph.input) if i not in frozen]
    for index, tensor in tensors.items():
        spec = program.inputs[index]
        declared = graph.initializer.add()
        declared.name = spec.name
        declared.data_type = int(spec.dtype)
        declared.dims.extend(tensor.shape)
        declared.data_location = onnx.TensorProto.EXTERNAL
        for key, text in (
            ("location", _file(index)),
            ("offset", "0"),
            ("length", str(tensor.nbytes)),
        ):
            entry = declared.external_data.add()
            entry.key, entry.value = key, text
    del graph.input[:]
    graph.input.extend(kept)
    if READS_BUFFERS and all(tensor.device.type == "cpu" for tensor in tensors.values()):
        return _as_files(options, tensors)
    return _as_values(options, program, tensors)


def _file(index: int) -> str:
    return f"weight-{index}"


def _as_files(
    options: ort.SessionOptions, tensors: Mapping[int, torch.Tensor]
) -> tuple[object, ...]:
    buffers = [t.view(-1).view(torch.uint8).numpy() for t in tensors.values()]
    give_files(options, {_file(i): b for i, b in zip(tensors, buffers, strict=True)})
    return tuple(buffers)


def _as_values(
    options: ort.SessionOptions, program: Program, tensors: Mapping[int, torch.Tensor]
) -> tuple[object, ...]:
    """Both calls are needed: by the second alone, the first stage looks for the files."""
    names = [program.inputs[index].name for index in tensors]
    values = [ort_value(tensor) for tensor in tensors.values()]
    options.add_external_initializers(names, [ort_value(t.cpu()) for t in tensors.values()])
    for name, value in zip(names, values, strict=True):
        options.add_initializer(name, value)
    return tuple(values)
