"""The program that an export returns: torch's, with weights that may come later."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import onnx_ir as ir
import torch
import torch.onnx
from onnx_ir.tensor_adapters import TorchTensor

from ...runtime.errors import OptionError
from ..torch_private import FakeTensor
from .arguments import inputs
from .errors import OnnxExporterError

OTHER_NAMES = "names of the same weight"  # in an initializer's `meta`

Weights: TypeAlias = "Mapping[str, torch.Tensor] | str | os.PathLike[str]"


class ONNXProgram(torch.onnx.ONNXProgram):
    """A `torch.onnx.ONNXProgram` of a model that may have been fake when it was exported."""

    def __call__(self, *args: Any, **kwargs: Any) -> Sequence[torch.Tensor]:  # noqa: ANN401 - the model's
        """Run in onnxruntime, on arguments as the model takes them: see `inputs`."""
        return super().__call__(*self._inputs(args, kwargs))

    def call_reference(self, *args: Any, **kwargs: Any) -> Sequence[torch.Tensor]:  # noqa: ANN401 - the model's
        """Run in ONNX's reference implementation, on arguments as the model takes them."""
        return super().call_reference(*self._inputs(args, kwargs))

    def _inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        if self.exported_program is None:
            return (*args, *kwargs.values())
        return inputs(self.exported_program, args, kwargs)

    def optimize(self) -> None:
        """Nothing is left to do: nodes are merged and fused as the graph is lowered."""

    def apply_weights(self, state_dict: Weights | Sequence[Weights]) -> None:
        """Give the initializers the values that a state dict or safetensors files have for them.

        A path is a `.safetensors` file or a folder of such; tensors are read from them one by one
        when the model is saved or run. OptionError for a value of another dtype or shape, and where
        no initializer has any of the names.
        """
        given = [state_dict] if isinstance(state_dict, (str, os.PathLike, Mapping)) else state_dict
        initializers = dict(self.model.graph.initializers)
        for value in list(initializers.values()):
            initializers |= dict.fromkeys(value.meta.get(OTHER_NAMES, ()), value)
        applied = 0
        for weights in cast("Sequence[Weights]", given):
            for name, tensor in _tensors(weights):
                value = initializers.get(name)
                if value is None or value.const_value is None:
                    continue
                _check(name, tensor, value.const_value)
                value.const_value = tensor
                applied += 1
        if not applied:
            raise OptionError("apply_weights: no initializer of the model has any of these names")
        self.release()

    def save(self, destination: str | os.PathLike[str], **options: Any) -> None:  # noqa: ANN401 - torch's
        """As torch's, weights straight from their memory or file.

        OnnxExporterError while some are fake, unless they are left out.
        """
        if options.get("include_initializers", True):
            self._require_weights()
        super().save(destination, **options)

    def initialize_inference_session(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - torch's
        """As torch's; OnnxExporterError while weights are fake."""
        self._require_weights()
        super().initialize_inference_session(*args, **kwargs)

    def _require_weights(self) -> None:
        missing = self.missing_weights()
        if missing:
            shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
            raise OnnxExporterError(
                f"{len(missing)} weights have no values ({shown}): the model was exported in fake "
                f"mode; call apply_weights first, with a state dict or safetensors files"
            )

    def missing_weights(self) -> list[str]:
        """The initializers that are fake."""
        return [
            name
            for name, value in self.model.graph.initializers.items()
            if isinstance(getattr(value.const_value, "raw", None), FakeTensor)
        ]


def _tensors(weights: Weights) -> Iterator[tuple[str, ir.TensorProtocol]]:
    if isinstance(weights, Mapping):
        for name, tensor in weights.items():
            yield name, TorchTensor(tensor.detach(), name=name)
        return
    path = Path(weights)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise OptionError(f"apply_weights: {path} has no .safetensors file")
    for file in files:
        yield from _of_file(file)


def _of_file(file: Path) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Each tensor of a file, which is read when it is needed and not kept."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise OptionError(
            "weights in files are read by safetensors: pip install safetensors"
        ) from error

    def reader(name: str) -> Callable[[], ir.TensorProtocol]:
        def read() -> ir.TensorProtocol:
            with safe_open(file, framework="pt") as opened:
                return TorchTensor(opened.get_tensor(name), name=name)

        return read

    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            slices = {name: opened.get_slice(name) for name in names}
            kinds = {n: (s.get_dtype(), s.get_shape()) for n, s in slices.items()}
    except (OSError, SafetensorError) as error:
        raise OptionError(f"apply_weights: {file} cannot be read: {error}") from error
    for name in names:
        dtype, shape = kinds[name]
        yield name, ir.LazyTensor(reader(name), _DTYPES[dtype], ir.Shape(shape), name=name)


_DTYPES = {
    "F64": ir.DataType.DOUBLE,
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "I64": ir.DataType.INT64,
    "I32": ir.DataType.INT32,
    "I16": ir.DataType.INT16,
    "I8": ir.DataType.INT8,
    "U8": ir.DataType.UINT8,
    "BOOL": ir.DataType.BOOL,
}


def _check(name: str, given: ir.TensorProtocol, wanted: ir.TensorProtocol) -> None:
    if (given.dtype, given.shape) != (wanted.dtype, wanted.shape):
        raise OptionError(
            f"apply_weights: {name} is {given.dtype.name}{given.shape}, "
            f"the model has {wanted.dtype.name}{wanted.shape}"
        )
