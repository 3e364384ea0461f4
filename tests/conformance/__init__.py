"""Sweeps that compare the backend with eager over PyTorch's own test inputs."""
