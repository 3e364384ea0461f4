"""FX regions to ONNX programs: the registry, the rules, the builder."""
