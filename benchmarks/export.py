"""How long does exporting a whole model take, how much memory, and how fast is the file it gives?

    python -m benchmarks.export
    python -m benchmarks.export --cases "llama-5GB" --backends "dynamo_onnx,dynamo_onnx fake"

Every export comes from a process of its own, which exports one linear layer, so that everything is
loaded, builds the model, exports it and saves it with its weights beside it. In fake mode the model
is built without memory for its weights, which come from safetensors files when the program is
saved. Each file is then run in plain onnxruntime and compared with eager, and all of a case are
timed in turn in one process.
"""

from __future__ import annotations

import contextlib
import gc
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort
import torch
from torch import Tensor
from torch.export import Dim
from torch.utils import _pytree as pytree

from . import contest, harness, measure, plots, record, render
from .isolate import isolated, prepared
from .machine import Watch
from .memory import resident_mb
from .models import MODELS, Example, Model, large_llama
from .record import Case, Row, Run, Settings

THEIRS, OURS, FAKE = "torch.onnx", "dynamo_onnx", "dynamo_onnx fake"
DYNAMIC = " dynamic"  # every dimension that may vary
LARGE = "llama-5GB"
SHARD_MB = 1000.0
FIGURES = ("load_s", "export_s", "save_s", "peak_mb", "peak_per_weight")
Export = Callable[[Example, Any, Path, Path], Any]


def model_of(case: str) -> Model:
    """The model of a case."""
    name = case.removesuffix(DYNAMIC)
    return Model(LARGE, large_llama) if name == LARGE else MODELS[name]


def _torch_onnx() -> Callable[..., Any]:
    import torch.onnx

    return lambda example, shapes: torch.onnx.export(
        example.module,
        (),
        kwargs=example.kwargs,
        dynamic_shapes=shapes,
        dynamo=True,
        optimize=True,
        verbose=False,
    )


def _ours() -> Callable[..., Any]:
    import dynamo_onnx

    return lambda example, shapes: dynamo_onnx.export(
        example.module, kwargs=example.kwargs, dynamic_shapes=shapes
    )


def export_once(
    case: str, exporter: str, folder: Path, shards: Path, settings: Settings
) -> dict[str, float]:
    """Build, export and save as `folder`/model.onnx. Meant for a process of its own."""
    with prepared(settings.threads):
        start = time.perf_counter()
        export = _torch_onnx() if exporter == THEIRS else _ours()
        export(Example(torch.nn.Linear(2, 2), {"input": torch.ones(1, 2)}), None)
        load_s = time.perf_counter() - start
        mode: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if exporter == FAKE:
            import dynamo_onnx

            mode = dynamo_onnx.enable_fake_mode()
        base_mb = resident_mb().get("now", 0.0)
        with mode:
            example = model_of(case).build(small=settings.small)
        if exporter != FAKE:  # what making the model took besides is no export's
            forget_peak()
        shapes = dynamic_shapes(example.kwargs) if case.endswith(DYNAMIC) else None
        start = time.perf_counter()
        program = export(example, shapes)
        exported = time.perf_counter()
        if exporter == FAKE:
            program.apply_weights(shards)
        program.save(folder / "model.onnx", external_data=True)
        saved = time.perf_counter()
        peak_mb = resident_mb()["peak"]
        weights_mb = size_mb(example)
        nodes = sum(1 for _ in program.model.graph.all_nodes())
    return {
        "load_s": load_s,
        "export_s": exported - start,
        "save_s": saved - exported,
        "base_mb": base_mb,
        "peak_mb": peak_mb,
        "weights_mb": weights_mb,
        "peak_per_weight": (peak_mb - base_mb) / weights_mb,
        "nodes": nodes,
    }


def forget_peak() -> None:
    """Let the peak of resident memory be what is resident now, where the system can (Linux)."""
    gc.collect()
    control = Path("/proc/self/clear_refs")
    if control.exists():
        control.write_text("5", encoding="ascii")


def dynamic_shapes(kwargs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Every dimension may vary; torch.export fixes those that the model fixes."""
    return {name: dict.fromkeys(range(value.dim()), Dim.AUTO) for name, value in kwargs.items()}


def size_mb(example: Example) -> float:
    """What the weights take, in MB of 10^6 bytes; tied ones once."""
    tensors = {*example.module.parameters(), *example.module.buffers()}
    return sum(t.numel() * t.element_size() for t in tensors) / 1e6


def write_shards(case: str, folder: Path, settings: Settings) -> None:
    """The model's weights in safetensors files, as transformers cuts them."""
    from safetensors.torch import save_file

    with prepared(settings.threads):
        module = model_of(case).build(small=settings.small).module
        shard: dict[str, Tensor] = {}
        seen: set[int] = set()
        count, size = 0, 0.0
        for name, tensor in [*module.state_dict().items(), ("", torch.empty(0))]:
            if shard and (not name or size > SHARD_MB):
                save_file(shard, folder / f"model-{count:05d}.safetensors")
                shard, count, size = {}, count + 1, 0.0
            if name and tensor.data_ptr() not in seen:
                seen.add(tensor.data_ptr())
                shard[name] = tensor.contiguous()
                size += tensor.numel() * tensor.element_size() / 1e6


def run_once(case: str, path: Path, settings: Settings) -> float:
    """The error of the saved model against eager, which lets go of its weights before."""
    with prepared(settings.threads):
        example = model_of(case).build(small=settings.small)
        expected = _tensors(example.module(**example.kwargs))
        kwargs = example.kwargs
        del example
        session = _session(path, settings.threads)
        found = session.run(None, _feeds(session, kwargs))
        return contest.finite_error([torch.from_numpy(r) for r in found], expected)


def time_files(
    case: str, paths: Mapping[str, Path], settings: Settings
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Milliseconds of a run by exporter, all of them in turn, and of opening each file."""
    with prepared(settings.threads):
        kwargs = model_of(case).build(small=settings.small).kwargs
        calls: dict[str, Callable[[], object]] = {}
        opened_ms: dict[str, float] = {}
        for name, path in paths.items():
            start = time.perf_counter()
            session = _session(path, settings.threads)
            opened_ms[name] = (time.perf_counter() - start) * 1e3
            calls[name] = _call(session, _feeds(session, kwargs))
        cpu = torch.device("cpu")
        return (
            measure.interleave(calls, cpu, rounds=RUN_ROUNDS, limit_s=settings.limit_s),
            opened_ms,
        )


RUN_ROUNDS = 15


def _call(session: ort.InferenceSession, feeds: Mapping[str, Any]) -> Callable[[], object]:
    return lambda: session.run(None, feeds)


def _tensors(outputs: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _feeds(session: ort.InferenceSession, kwargs: Mapping[str, Tensor]) -> dict[str, Any]:
    return {value.name: kwargs[value.name].numpy() for value in session.get_inputs()}


def measure_case(name: str, settings: Settings) -> Case:
    """Every exporter once a round, another one first each time; then their files."""
    watch = Watch.start()
    found: dict[str, list[Mapping[str, float]]] = {each: [] for each in settings.backends}
    errors: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="export-") as temporary:
        shards = Path(temporary) / "shards"
        shards.mkdir()
        if FAKE in settings.backends:
            isolated(write_shards, name, shards, settings)
        folders = {each: Path(temporary) / str(i) for i, each in enumerate(settings.backends)}
        for index in range(settings.rounds):
            first = index % len(settings.backends)
            for each in (*settings.backends[first:], *settings.backends[:first]):
                if each in errors:
                    continue
                shutil.rmtree(folders[each], ignore_errors=True)
                folders[each].mkdir()
                try:
                    found[each].append(
                        isolated(export_once, name, each, folders[each], shards, settings)
                    )
                except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
                    errors[each] = record.describe(error)
        paths = {e: f / "model.onnx" for e, f in folders.items() if e not in errors}
        relative: dict[str, float] = {}
        for each, path in list(paths.items()):
            try:
                relative[each] = isolated(run_once, name, path, settings)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
                errors[each] = record.describe(error)
                del paths[each]
        times: dict[str, list[float]] = {}
        if paths and name.removesuffix(DYNAMIC) != LARGE:  # its sessions do not fit side by side
            times, _ = isolated(time_files, name, paths, settings)
    rows = [
        Row(each, error=errors[each])
        if each in errors
        else row_of(each, found, times, relative[each])
        for each in settings.backends
    ]
    return Case(name, {}, watch.load(), tuple(rows))


def row_of(
    exporter: str,
    found: Mapping[str, Sequence[Mapping[str, float]]],
    times: Mapping[str, Sequence[float]],
    error: float,
) -> Row:
    """One exporter's figures as quartiles; its ratios are to torch's of the same round."""
    own, theirs = found[exporter], found.get(THEIRS, ())
    values = {figure: measure.quartiles([one[figure] for one in own]) for figure in FIGURES}
    if len(own) == len(theirs):
        pairs = zip(theirs, own, strict=True)
        values["times_faster"] = measure.quartiles(
            [a["export_s"] / b["export_s"] for a, b in pairs]
        )
    if exporter in times:
        values["run_ms"] = measure.quartiles(times[exporter])
        if THEIRS in times:
            ratios = measure.paired_ratios(times[THEIRS], times[exporter])
            values["run_times_faster"] = measure.quartiles(ratios)
    facts = {"nodes": own[-1]["nodes"], "weights_mb": own[-1]["weights_mb"], "error": error}
    return Row(exporter, values, facts)


def page(run: Run) -> str:
    """A row per case and exporter."""
    header = ["model", "exporter", "export", "× torch's speed", "save", "peak memory"]
    header += ["÷ weights", "ONNX nodes", "a run", "× torch's speed", "error"]
    rows: list[list[str]] = []
    for case in run.cases:
        for row in case.rows:
            if row.error is not None:
                continue
            ratios = [row.median("times_faster"), row.median("run_times_faster")]
            own = row.contender == THEIRS
            rows.append(
                [
                    render.case_name(case),
                    row.contender,
                    render.cell(row.median("export_s"), "s"),
                    "" if own else render.times(ratios[0]),
                    render.cell(row.median("save_s"), "s"),
                    render.cell(row.median("peak_mb"), "MB"),
                    render.cell(row.median("peak_per_weight")),
                    f"{row.facts['nodes']:.0f}",
                    render.cell(row.median("run_ms"), "ms"),
                    "" if own else render.times(ratios[1]),
                    f"{row.facts['error']:.1e}",
                ]
            )
    return render.page(
        run,
        [render.table(header, rows)],
        f"Medians of {run.settings.rounds} exports, each in a process of its own that has "
        f"exported one linear layer before, so that everything is loaded{_loading(run)}. "
        "torch.onnx is `torch.onnx.export(dynamo=True, optimize=True)`. Peak memory is the "
        "most that was resident from the model made (in fake mode: from before) to saved; "
        "divided by the weights is what of it came after loading. A run is one call of the "
        "saved model in plain onnxruntime, all of a model's files in turn in one process; "
        "error is the largest difference from eager over eager's largest value.",
    )


def _loading(run: Run) -> str:
    """What that took, by exporter."""
    found = {
        name: [case.median(name, "load_s") for case in run.cases] for name in run.settings.backends
    }
    known = {name: [v for v in values if v is not None] for name, values in found.items()}
    said = [
        f"{name} {render.cell(measure.quartiles(values).median, 's')}"
        for name, values in known.items()
        if values
    ]
    return f" ({', '.join(said)})" if said else ""


def picture(run: Run, path: Path) -> None:
    """Bars of the seconds, a group per model."""
    where = render.hardware(run.machine, run.settings.threads)
    plots.bars(
        path,
        [case.name for case in run.cases],
        plots.by_contender(run.cases, run.settings.backends, "export_s"),
        title=f"Exporting a model; {where}",
        label="seconds, shorter is faster",
        digits=".1f",
    )


_USUAL = ("bert-base", "llama-30x576", "vit-base", "resnet50", "whisper-tiny")
BENCHMARK = harness.Benchmark(
    name="export",
    text=__doc__ or "",
    cases=(*(n + d for n in MODELS for d in ("", DYNAMIC)), LARGE),
    backends=(THEIRS, OURS, FAKE),
    usual=Settings(
        rounds=3,
        limit_s=20.0,
        cases=(*_USUAL, "llama-30x576" + DYNAMIC),
        backends=(THEIRS, OURS, FAKE),
    ),
    measure=measure_case,
    page=page,
    picture=picture,
    caption="Seconds of exporting a model, per exporter",
)

if __name__ == "__main__":
    raise SystemExit(harness.main(BENCHMARK, sys.argv[1:]))
