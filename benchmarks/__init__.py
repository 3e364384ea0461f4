"""Benchmarks: one file per question; each writes its JSON and its picture to `results/`.

The questions are `inference`, `compile_time`, `bundle`, `call_overhead`, `memory`, `generate`,
`graph_breaks` and `threads`. They share `models` and `backends` (what is measured), `measure`,
`machine` and `isolate` (how), `record` (the JSON), `render` and `plots` (what the reader sees), and
`harness` (the command line).
"""
