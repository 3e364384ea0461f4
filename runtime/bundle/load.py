"""A saved bundle as a callable: no torch, no Dynamo, nothing compiled.

from dynamo_onnx.runtime import load

model = load("model.onnxbundle")
logits = model(input_ids, attention_mask=mask)
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import mmap
import os
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ..errors import BundleError, SessionError
from ..providers import CPU, ProviderChoice, as_onnxruntime_takes, choose_providers
from ..settings import INEXACT, SLOWER_ON_CPU, give_files, session_options
from .arrays import (
    ELEMENT_TYPES,
    REALS,
    as_complex,
    as_numpy,
    as_ort_value,
    from_ort_value,
    is_array,
    library_of,
    memory_of,
    number_of,
    overwrite,
)
from .expressions import Values, evaluate, holds
from .manifest import (
    Block,
    Kept,
    Manifest,
    Parameter,
    Port,
    ProgramEntry,
    Run,
    Write,
    check_content,
    check_program,
    check_size,
    opened,
    read_manifest,
)
from .words import in_words


class Bundle:
    """What was compiled, as it was compiled: called like the function or module it was saved from.

    Arrays are numpy's or of any library that speaks DLPack; results are of the first one's library.
    A call that no guard set fits is a BundleError which says what does not.
    """

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        providers: Sequence[ProviderChoice],
        settings: Mapping[str, object],
        threads: int,
    ) -> None:
        self._manifest = manifest
        self._directory = directory
        self._providers = tuple(providers)
        self._settings = dict(settings)
        self._threads = threads
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self._sessions: dict[int, ort.InferenceSession] = {}
        self.signature = _signature(manifest.parameters)
        with ThreadPoolExecutor(1) as pool, _weights_of(directory, manifest) as mapped:
            self._weights = mapped
            # No byte of a weight decides what is executed: they are checked while a program opens.
            checked = pool.submit(_check_weights, mapped, manifest)
            if manifest.programs:
                self._session(0)
            checked.result()
        self._kept = {name: _held(k, self._weights) for name, k in manifest.kept.items()}
        self._overwrites = any(map(_is_overwritten, _steps(manifest.block)))
        self.__name__ = manifest.name

    def __repr__(self) -> str:
        guard_sets = len(self._manifest.block.choices) or 1
        return (
            f"<bundle of {self._manifest.name}{self.signature}: {len(self._manifest.programs)} "
            f"programs, {guard_sets} guard sets, on {', '.join(self.providers)}>"
        )

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that its programs run on."""
        return tuple(name for name, _ in self._providers)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the model's own
        """What the saved model returns: tuples, lists and dicts as they were, objects as Record."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BundleError(f"{self._manifest.name}{self.signature}: {error}") from error
        bound.apply_defaults()
        missing = [name for name, value in bound.arguments.items() if value is _LEFT_OUT]
        if missing:
            raise BundleError(f"{self._manifest.name}: {missing[0]} has a default that is not kept")
        values = Values(bound.arguments, self._kept)
        arrays = [*_leaves(bound.arguments)]
        if self._overwrites:
            _refuse_shared_memory(arrays)
        library = library_of(arrays)
        if not self._kept:
            return self._run(values, library)
        with self._lock:  # its arrays change from call to call
            return self._run(values, library)

    def load_all(self) -> None:
        """Open every program now rather than at the first call that needs it."""
        for index in range(len(self._manifest.programs)):
            self._session(index)

    def _run(self, values: Values, library: str) -> Any:  # noqa: ANN401 - the model's own
        block = self._manifest.block
        while True:
            for step in block.steps:
                if isinstance(step, Run):
                    values.results[step.number] = self._results(step, values, library)
                else:
                    self._write(step, values)
            if not block.choices:
                return _as_arrays(evaluate(block.result, values), library)
            block = self._chosen(block, values)

    def _chosen(self, block: Block, values: Values) -> Block:
        for choice in block.choices:
            if all(holds(condition, values) for condition in choice.conditions):
                return choice.then
        lines = [f"no guard set of {self._manifest.name} fits these arguments:"]
        for choice in block.choices:
            failed = next(c for c in choice.conditions if not holds(c, values))
            lines.append(f"  {choice.name}: {in_words(failed, values)}")
        lines.append("call the compiled model with such arguments before it is saved")
        raise BundleError("\n".join(lines))

    def _results(self, step: Run, values: Values, library: str) -> list[Any]:
        entry = self._manifest.programs[step.program]
        session = self._session(step.program)
        feeds: dict[str, ort.OrtValue] = {}
        for port, expression in zip(entry.inputs, step.inputs, strict=True):
            value = evaluate(expression, values)
            try:
                feeds[port.name] = as_ort_value(value, _element_type(port))
            except BundleError as error:
                raise BundleError(f"{entry.file.name}, input {port.name}: {error}") from error
        names = [port.name for port in entry.outputs]
        try:
            found = session.run_with_ort_values(names, feeds)
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise SessionError(
                f"ONNX Runtime failed while running {entry.file.name}: {error}"
            ) from error
        return [_result(v, port, library) for v, port in zip(found, entry.outputs, strict=True)]

    def _write(self, step: Write, values: Values) -> None:
        value = evaluate(step.value, values)
        if isinstance(step.target, list) and step.target[0] == "kept":
            name = step.target[1]
            self._kept[name] = as_ort_value(value, ELEMENT_TYPES[self._manifest.kept[name].dtype])
            return
        target = evaluate(step.target, values)
        if step.attribute is not None:
            setattr(target, step.attribute, value)
        else:
            overwrite(target, value)

    def _session(self, index: int) -> ort.InferenceSession:
        found = self._sessions.get(index)
        if found is not None:
            return found
        with self._opening:
            if index not in self._sessions:
                self._sessions[index] = self._open(self._manifest.programs[index])
            return self._sessions[index]

    def _open(self, entry: ProgramEntry) -> ort.InferenceSession:
        data = check_program(self._directory, entry, self._manifest.weights)
        options = session_options(self._settings, threads=self._threads, spinning=True, exact=False)
        if self._weights is not None and self._manifest.weights is not None:
            give_files(options, {self._manifest.weights.name: self._weights})
        mixed = self.providers != (CPU,)
        try:
            return ort.InferenceSession(
                data,
                options,
                providers=as_onnxruntime_takes(options, self._providers),
                disabled_optimizers=[*INEXACT, *([] if mixed else SLOWER_ON_CPU)],
                enable_fallback=0,
            )
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise SessionError(f"ONNX Runtime rejected {entry.file.name}: {error}") from error


def load(
    directory: str | os.PathLike[str],
    *,
    providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
    provider_options: Sequence[dict[str, Any]] | None = None,
    session_options: Mapping[str, object] | None = None,
    threads: int = 0,
) -> Bundle:
    """The bundle in a directory, every file of which is checked against the manifest.

    `providers` are those it was saved for, unless others are named; `threads` are those of one
    operator, 0 for as many as onnxruntime chooses. `session_options` are attributes and config
    entries of `onnxruntime.SessionOptions`. Nothing in a bundle is executed but ONNX programs.
    BundleError for what is no bundle, is damaged, or would read outside of its directory.
    """
    folder = Path(directory)
    manifest = read_manifest(folder)
    wanted = manifest.providers if providers is None else providers
    chosen = choose_providers(wanted, provider_options or ()) or ((CPU, {}),)
    return Bundle(folder, manifest, chosen, session_options or {}, threads)


_LEFT_OUT = object()
_KINDS = {str(kind): kind for kind in inspect._ParameterKind}  # noqa: SLF001 - its enumeration


def _signature(parameters: Sequence[Parameter]) -> inspect.Signature:
    made: list[inspect.Parameter] = []
    for parameter in parameters:
        if parameter.kind not in _KINDS:
            raise BundleError(f"{parameter.kind[:80]!r} is no kind of a parameter")
        default = inspect.Parameter.empty
        if parameter.optional:
            left_out = parameter.left_out
            default = _LEFT_OUT if left_out else evaluate(parameter.default, Values({}, {}))
        made.append(inspect.Parameter(parameter.name, _KINDS[parameter.kind], default=default))
    try:
        return inspect.Signature(made)
    except ValueError as error:
        raise BundleError(f"these are no parameters of a function: {error}") from error


@contextlib.contextmanager
def _weights_of(directory: Path, manifest: Manifest) -> Generator[npt.NDArray[np.uint8] | None]:
    """The bytes of the file of weights, which all sessions read where they lie."""
    if manifest.weights is None:
        yield None
        return
    with opened(directory, manifest.weights.name) as stream:
        check_size(stream, manifest.weights)
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        yield np.frombuffer(mapped, np.uint8)


def _check_weights(mapped: npt.NDArray[np.uint8] | None, manifest: Manifest) -> None:
    if mapped is not None and manifest.weights is not None:
        check_content(mapped.data, manifest.weights)


def _held(kept: Kept, weights: npt.NDArray[np.uint8] | None) -> ort.OrtValue:
    assert weights is not None  # as the manifest was checked
    size = kept.size_bytes
    raw = weights[kept.offset : kept.offset + size].copy()
    plain = np.dtype(kept.dtype if kept.is_numpys else f"uint{8 * kept.item_bytes}")
    array = raw.view(plain).reshape(kept.shape)
    element_type = ELEMENT_TYPES[kept.dtype]
    if kept.is_numpys:
        return ort.OrtValue.ortvalue_from_numpy(array)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, element_type)


def _element_type(port: Port) -> int:
    return ELEMENT_TYPES[REALS.get(port.dtype, port.dtype)]


def _result(value: ort.OrtValue, port: Port, library: str) -> Any:  # noqa: ANN401 - the library's
    if port.number:
        return number_of(as_numpy(value))
    array = from_ort_value(value, library)
    return as_complex(array) if port.dtype in REALS else array


def _as_arrays(result: Any, library: str) -> Any:  # noqa: ANN401 - the model's own
    """The result, in which arrays that the bundle keeps are arrays of the library."""
    if isinstance(result, ort.OrtValue):
        return from_ort_value(result, library)
    if type(result) in (list, tuple):
        return type(result)(_as_arrays(item, library) for item in result)
    if type(result) is dict:
        return {key: _as_arrays(item, library) for key, item in result.items()}
    return result


def _steps(block: Block) -> Iterator[Run | Write]:
    """Every step of a bundle, whichever way it goes."""
    yield from block.steps
    for choice in block.choices:
        yield from _steps(choice.then)


def _is_overwritten(step: Run | Write) -> bool:
    """Is it an argument's memory that is written to?"""
    if isinstance(step, Run) or step.attribute is not None:
        return False
    return isinstance(step.target, list) and step.target[0] != "kept"


def _refuse_shared_memory(arrays: Sequence[Any]) -> None:
    """What was compiled writes to arguments, and takes none of them to be part of another."""
    bounds = sorted(memory_of(array) for array in arrays)
    for (_, end), (start, _) in itertools.pairwise(bounds):
        if start < end:
            raise BundleError("the model writes to its arguments, and two of them share memory")


def _leaves(value: Any) -> Iterator[Any]:  # noqa: ANN401 - the user's
    """The arrays in the arguments of a call."""
    if is_array(value):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
