"""Programs, providers, sessions, tensors: running what was lowered."""
