"""The command line: `python -m dynamo_onnx export | report | explain | run | bench | cache | …`."""

from __future__ import annotations

import argparse
import importlib
import logging
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import DynamoOnnxError, OptionError

if TYPE_CHECKING:
    import numpy as np
    import torch

_TENSOR = re.compile(r"(?P<dtype>\w+)\[(?P<shape>[\d,\s]*)\](?:<(?P<bound>\d+))?")
_DYNAMIC = re.compile(r"(?P<input>\w+):(?P<axis>\d+)=(?P<name>[A-Za-z_]\w*)")
_USUAL_BOUND = 10


def main(argv: Sequence[str] | None = None) -> int:
    """0 when it worked, 1 when it did not (the reason is on stderr), 2 for a wrong command."""
    arguments = _parser().parse_args(argv)
    if sys.stderr.isatty():
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        logging.getLogger("dynamo_onnx.backend.export").setLevel(logging.INFO)
    try:
        return arguments.run(arguments)
    except DynamoOnnxError as error:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        print(f"{type(error).__name__}: {error}{notes}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dynamo_onnx", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, run, what in (
        ("export", _export, "export a model to a file"),
        ("report", _report, "export a model and write a report of how it went"),
    ):
        command = commands.add_parser(name, help=what, epilog=_SPECS)
        command.set_defaults(run=run)
        add = command.add_argument
        add("model", help="module:name of a model, or of a function that makes one")
        add("--args", nargs="*", default=[], metavar="INPUT", help="positional example inputs")
        add("--kwargs", nargs="*", default=[], metavar="NAME=INPUT", help="those by name")
        add("--dynamic", nargs="*", default=[], metavar="INPUT:AXIS=NAME", help="what may vary")
        add("--opset", type=int)
        add("--verify", action="store_true", help="run it in onnxruntime and compare")
        add("--sarif", action="store_true", help="write the findings as SARIF too")
        add("--artifacts", type=Path, default=Path(), help="the folder for reports")
        add("-o", "--output", type=Path, required=name == "export")
    command = commands.add_parser("run", help="run a file in onnxruntime", epilog=_SPECS)
    command.set_defaults(run=_run)
    _add_inputs(command)
    command.add_argument("--output", type=Path, help="a folder for the results, one .npy each")
    command = commands.add_parser("bench", help="time a file in onnxruntime", epilog=_SPECS)
    command.set_defaults(run=_bench)
    _add_inputs(command)
    command.add_argument("--runs", type=int, default=50)
    command = commands.add_parser(
        "explain", help="compile a model, profile it, and report what ran where", epilog=_SPECS
    )
    command.set_defaults(run=_explain)
    add = command.add_argument
    add("model", help="module:name of a model or function, or of what makes one")
    add("--args", nargs="*", default=[], metavar="INPUT", help="positional example inputs")
    add("--kwargs", nargs="*", default=[], metavar="NAME=INPUT", help="those by name")
    add("--calls", type=int, default=10, help="how many calls are measured")
    add("-o", "--output", type=Path, help="write the report too: a .html, .md or .json")
    command = commands.add_parser(
        "minify", help="a script of the first operator whose result is not eager's", epilog=_SPECS
    )
    command.set_defaults(run=_minify)
    add = command.add_argument
    add("model", help="module:name of a model or function, or of what makes one")
    add("--args", nargs="*", default=[], metavar="INPUT", help="positional example inputs")
    add("--kwargs", nargs="*", default=[], metavar="NAME=INPUT", help="those by name")
    add("-o", "--output", type=Path, default=Path("deviation"), help="the folder for the script")
    command = commands.add_parser("cache", help="the programs that outlive a process")
    command.set_defaults(run=_cache)
    add = command.add_argument
    add("what", choices=("ls", "show", "verify", "clear"))
    add("key", nargs="?", default="", help="of a program to show, or how it begins")
    add("--dir", type=Path, help="the cache_dir; by default what DYNAMO_ONNX_CACHE names")
    command = commands.add_parser("view", help="open a file in Netron's local viewer")
    command.set_defaults(run=_view)
    command.add_argument("file", type=Path)
    command.add_argument("--picture", type=Path, help="write a .svg or .png of the graph instead")
    return parser


_SPECS = (
    "INPUT is a .npy file, or a tensor of random numbers such as float32[1,3,224,224], or "
    "int64[2,8]<30522 for integers below 30522."
)


def _add_inputs(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path)
    command.add_argument(
        "--input", nargs="*", default=[], metavar="[NAME=]INPUT", help="in order, or by name"
    )
    command.add_argument(
        "--provider", nargs="*", default=["CPUExecutionProvider"], metavar="PROVIDER"
    )


def _export(arguments: argparse.Namespace) -> int:
    program = _exported(arguments, report=False)
    graph = program.model.graph
    print(
        f"{arguments.output}: {len(graph)} nodes, {len(graph.initializers)} initializers, "
        f"opset {program.model.opset_imports['']}"
    )
    return 0


def _report(arguments: argparse.Namespace) -> int:
    _exported(arguments, report=True)
    print(f"exported; the report is in {arguments.artifacts.resolve()}")
    return 0


def _exported(arguments: argparse.Namespace, *, report: bool) -> torch.onnx.ONNXProgram:
    from . import export

    model = _model(arguments.model)
    args = tuple(_tensor(text) for text in arguments.args)
    kwargs = {name: _tensor(text) for name, text in map(_named, arguments.kwargs)}
    return export(
        model,
        args,
        arguments.output,
        kwargs=kwargs,
        opset_version=arguments.opset,
        dynamic_shapes=_dynamic(model, args, kwargs, arguments.dynamic),
        verify=arguments.verify,
        report=report,
        sarif_report=arguments.sarif,
        artifacts_dir=arguments.artifacts,
    )


def _model(spelled: str) -> Any:  # noqa: ANN401 - the user's
    """What `module:name` names; a function that needs no argument makes it."""
    import torch

    module, colon, name = spelled.partition(":")
    if not colon:
        raise OptionError(f"{spelled!r}: spell the model as module:name")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise OptionError(f"{spelled!r} cannot be loaded: {error}") from error
    if isinstance(found, torch.nn.Module):
        return found.eval()
    made = found()
    return made.eval() if isinstance(made, torch.nn.Module) else made


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise OptionError(f"{text!r}: spell it as NAME=INPUT")
    return name, value


def _tensor(text: str) -> torch.Tensor:
    import torch

    return torch.from_numpy(_array(text))


def _array(text: str) -> np.ndarray[Any, Any]:
    """A `.npy` file, or random numbers of the dtype and shape that are spelled."""
    import numpy as np

    if text.endswith(".npy"):
        try:
            return np.load(text)
        except (OSError, ValueError) as error:
            raise OptionError(f"{text} cannot be read: {error}") from error
    match = _TENSOR.fullmatch(text.strip())
    if match is None:
        raise OptionError(f"{text!r} is no input. {_SPECS}")
    try:
        dtype = np.dtype(match["dtype"])
    except TypeError as error:
        raise OptionError(f"{text!r}: {error}") from error
    shape = tuple(int(size) for size in match["shape"].split(",") if size.strip())
    draw = np.random.default_rng(0)
    if dtype.kind == "f":
        return draw.standard_normal(shape).astype(dtype)
    bound = 2 if dtype.kind == "b" else int(match["bound"] or _USUAL_BOUND)
    return draw.integers(0, bound, shape).astype(dtype)


def _dynamic(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    spelled: Sequence[str],
) -> dict[str, dict[int, str]] | None:
    """`x:0=batch` of several inputs as `torch.export` takes it."""
    import inspect

    if not spelled:
        return None
    parameters = inspect.signature(getattr(model, "forward", model)).parameters
    names = [*list(parameters)[: len(args)], *kwargs]
    shapes: dict[str, dict[int, str]] = {name: {} for name in names}
    for text in spelled:
        match = _DYNAMIC.fullmatch(text)
        if match is None or match["input"] not in shapes:
            raise OptionError(
                f"--dynamic {text!r}: spell it as INPUT:AXIS=NAME; the inputs: {', '.join(names)}"
            )
        shapes[match["input"]][int(match["axis"])] = match["name"]
    return shapes


def _opened(arguments: argparse.Namespace) -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
    """A session of the file, and what to feed."""
    import onnxruntime as ort

    if not arguments.file.is_file():
        raise OptionError(f"{arguments.file} is no file")
    try:
        session = ort.InferenceSession(arguments.file, providers=arguments.provider)
    except Exception as error:  # its exceptions have no common base
        raise OptionError(f"onnxruntime does not open {arguments.file}: {error}") from error
    inputs = [value.name for value in session.get_inputs()]
    feeds: dict[str, Any] = {}
    for place, text in enumerate(arguments.input):
        name, equals, value = text.partition("=")
        if not equals:
            name, value = inputs[place] if place < len(inputs) else "", text
        if name not in inputs:
            raise OptionError(f"--input {text!r}: the file's inputs: {', '.join(inputs)}")
        feeds[name] = _array(value)
    missing = [f"{v.name} {v.type}{v.shape}" for v in session.get_inputs() if v.name not in feeds]
    if missing:
        raise OptionError(f"--input lacks {', '.join(missing)}")
    return session, feeds


def _run(arguments: argparse.Namespace) -> int:
    import numpy as np

    session, feeds = _opened(arguments)
    names = [value.name for value in session.get_outputs()]
    for name, result in zip(names, session.run(None, feeds), strict=True):
        print(f"{name}: {result.dtype}{list(result.shape)}")
        if arguments.output is not None:
            arguments.output.mkdir(parents=True, exist_ok=True)
            file = re.sub(r"[^-.\w]", "_", name)
            np.save(arguments.output / f"{file}.npy", result)
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    session, feeds = _opened(arguments)
    times: list[float] = []
    for _ in range(arguments.runs + 1):
        started = time.perf_counter()
        session.run(None, feeds)
        times.append((time.perf_counter() - started) * 1e3)
    times = times[1:] if len(times) > 1 else times  # the first one warms up
    low, middle, high = statistics.quantiles(times, n=4) if len(times) > 1 else (times[0],) * 3
    print(f"{middle:.3g} ms a run (quartiles {low:.3g} and {high:.3g}, {len(times)} runs)")
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    import torch

    from . import profile

    args = tuple(_tensor(text) for text in arguments.args)
    kwargs = {name: _tensor(text) for name, text in map(_named, arguments.kwargs)}
    compiled = torch.compile(_model(arguments.model), backend="onnx")
    with torch.no_grad():
        made = profile(compiled, *args, calls=arguments.calls, **kwargs)
    print(made)
    if arguments.output is not None:
        print(made.save(arguments.output))
    return 0


def _minify(arguments: argparse.Namespace) -> int:
    import torch

    from . import report

    model = _model(arguments.model)
    args = tuple(_tensor(text) for text in arguments.args)
    kwargs = {name: _tensor(text) for name, text in map(_named, arguments.kwargs)}
    options = {"verify": 1, "dump_dir": arguments.output}
    compiled = torch.compile(model, backend="onnx", options=options)
    with torch.no_grad():
        compiled(*args, **kwargs)
    found = [f for f in report(compiled).fallbacks if f.reason.kind == "verification"]
    if not found:
        print("nothing deviates from eager by more than rounding")
        return 0
    for fallback in found:
        print(fallback.reason.detail)
    for script in sorted(arguments.output.glob("deviation_*.py")):
        print(script)
    return 1


def _cache(arguments: argparse.Namespace) -> int:
    from .backend.options import CACHE_VARIABLE, Options
    from .backend.program_files import ProgramFiles
    from .runtime.errors import CacheError
    from .runtime.stored import from_bytes

    directory = arguments.dir or Options().kept_in
    if directory is None:
        raise OptionError(f"which cache? Give --dir, or set {CACHE_VARIABLE}")
    if not directory.is_dir():
        raise OptionError(f"{directory} is no directory")
    files = ProgramFiles(directory, Options().cache_size_mb * 1_000_000)
    entries = [entry for entry in files.entries() if entry.key.startswith(arguments.key)]
    if arguments.what == "clear":
        print(f"{files.clear()} programs removed")
        return 0
    if arguments.key and not entries:
        raise OptionError(f"no program in {directory} has a key that begins with {arguments.key}")
    damaged = 0
    for entry in entries:
        try:
            program, _ = from_bytes(entry.path.read_bytes())
        except (CacheError, OSError) as error:
            damaged += 1
            print(f"{entry.key[:12]}  damaged: {error}")
            continue
        if arguments.what == "show":
            print(f"{entry.key}  {entry.size_bytes} bytes, {program.node_count} nodes")
            for kind, specs in (("in", program.inputs), ("out", program.outputs)):
                for spec in specs:
                    print(f"  {kind} {spec.name}: {spec.dtype.name}{list(spec.shape)}")
        elif arguments.what == "ls":
            used = datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds")
            print(f"{entry.key[:12]}  {entry.size_bytes:>9} bytes  used {used}")
    total = sum(entry.size_bytes for entry in entries)
    print(f"{len(entries)} programs, {total} bytes, {damaged} damaged")
    return 1 if damaged else 0


def _view(arguments: argparse.Namespace) -> int:
    if not arguments.file.is_file():
        raise OptionError(f"{arguments.file} is no file")
    if arguments.picture is not None:
        return _picture(arguments.file, arguments.picture)
    try:
        netron: Any = importlib.import_module("netron")
    except ImportError as error:
        raise OptionError("the viewer is Netron: pip install netron") from error
    netron.start(str(arguments.file))
    netron.wait()
    return 0


def _picture(file: Path, target: Path) -> int:
    import onnx_ir as ir

    from .backend.export.picture import svg

    drawn = svg(ir.load(file))
    if target.suffix == ".svg":
        target.write_text(drawn, encoding="utf-8")
        return 0
    if target.suffix != ".png":
        raise OptionError(f"--picture {target}: it is a .svg or a .png")
    try:
        cairosvg: Any = importlib.import_module("cairosvg")
    except (ImportError, OSError) as error:  # it needs the library cairo
        raise OptionError(
            f"a .png is made by cairosvg, a .svg needs nothing: pip install cairosvg ({error})"
        ) from error
    cairosvg.svg2png(bytestring=drawn.encode(), write_to=str(target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
