"""The whole-model exporter: capture by `torch.export`, the same lowering, one ONNX model."""
