"""`TORCH_LOGS="+dynamo_onnx.onnx_programs"` prints each ONNX program as it is lowered.

PyTorch reads that variable while torch is imported, and takes the names of its own artifacts and
those of modules. So what others have to log must be a module, whose name is then a logger's.
"""
