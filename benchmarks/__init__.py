"""Benchmarks: one file per question; each writes its JSON and its picture to `results/`."""
