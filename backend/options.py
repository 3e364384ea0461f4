"""What the user can choose: parsed once, frozen, checked at the door."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import onnx_ir as ir

from ..runtime.errors import OptionError
from ..runtime.placement import is_mixed
from ..runtime.program import Quantization
from ..runtime.providers import ProviderChoice, choose_providers
from ..runtime.session import run_options, session_options
from ..runtime.settings import QUIET

Transform: TypeAlias = Callable[[ir.Model], ir.Model]
Weights: TypeAlias = Literal["auto", "frozen", "live"]
WEIGHTS = ("auto", "frozen", "live")
BITS = {"int8": 8, "int4": 4}
ACCURACY_LEVELS = {"int8": 4, "float32": 1}  # of com.microsoft.MatMulNBits
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_WITH_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
_EXHAUSTIVE = ("max-autotune", "max-autotune-no-cudagraphs")
CACHE_VARIABLE = "DYNAMO_ONNX_CACHE"
PROFITABLE_VARIABLE = "DYNAMO_ONNX_PROFITABLE"
OLDEST_OPSET, DEFAULT_OPSET, NEWEST_OPSET = 23, 23, 26

KEYED = {"cache_key": True}  # the lowered program depends on it


@dataclass(frozen=True, slots=True)
class Quantize:
    """What `options={"quantize": ...}` asks for; `"int4"` is short for `{"weights": "int4"}`."""

    weights: Literal["int8", "int4"]
    """How the frozen weights of linear layers are kept: a scale in float32 for each 32 of them."""
    activations: Literal["int8", "float32"] = "int8"
    """ "int8": what a layer is given is rounded to 8 bits at each call, in blocks of 32, and
    multiplied in integers. "float32": it is not; much slower with weights in "int8", which
    onnxruntime then converts back at each call."""
    skip: tuple[str, ...] = ()
    """Weights to leave in float, by words of their dotted names: "lm_head" is `lm_head.weight` and
    `model.lm_head.weight`. A tied weight has one name, that under which Dynamo met it first."""

    def check(self) -> None:
        """Raise OptionError for the first field that cannot be used."""
        _choose("quantize: weights", self.weights, tuple(BITS))
        _choose("quantize: activations", self.activations, tuple(ACCURACY_LEVELS))
        _expect("quantize: skip", self.skip, tuple)
        for name in self.skip:
            _expect("quantize: skip", name, str)

    def quantization(self) -> Quantization:
        """The same as a program carries it."""
        return Quantization(BITS[self.weights], ACCURACY_LEVELS[self.activations])

    def skips(self, name: str) -> list[str]:
        """The entries of `skip` that a weight's dotted name has in it, as whole words."""
        return [entry for entry in self.skip if f".{entry}." in f".{name}."]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `torch.compile(..., backend="onnx", options=...)`.

    Fields marked KEYED are part of a program's fingerprint; the others only change how a program
    is run.
    """

    providers: tuple[str | tuple[str, dict[str, Any]], ...] = field(default=(), metadata=KEYED)
    """Execution providers in order of preference: names ("CPUExecutionProvider", "cpu") or
    (name, options) pairs. Empty: those of the devices that the tensors are on."""
    provider_options: tuple[dict[str, Any], ...] = ()
    """One dict per provider."""
    require_provider: bool = False
    """Raise SessionError where the CPU provider takes nodes that another one was to compute."""
    session_options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Attributes of `onnxruntime.SessionOptions` and `section.key` config entries."""
    run_options: Mapping[str, str] = field(default_factory=dict[str, str])
    """Config entries of `onnxruntime.RunOptions`, for each run."""
    mode: str = "default"
    """As `torch.compile(mode=...)`, which cannot be given beside options. On CUDA,
    "reduce-overhead" captures runs as CUDA graphs, "max-autotune-no-cudagraphs" has cuDNN try all
    its algorithms and puts TensorRT first if it is installed, "max-autotune" does both."""
    cache_dir: Path | None = None
    """Keep lowered programs here, and what providers build, such as TensorRT's engines. None: the
    directory in the environment variable DYNAMO_ONNX_CACHE, or nothing is kept."""
    cache_size_mb: int = 1024
    """The programs in `cache_dir` have at most so many megabytes (of 10^6 bytes) together."""
    cache_verify: bool = False
    """Lower what `cache_dir` has as well, and compare: CacheError where they differ."""
    max_programs: int = 512
    """So many lowered programs are held in memory for others that are equal, and as many records
    of graphs whose compiled functions are gone; those not used for longest are forgotten."""
    weights: Weights = "auto"
    """ "frozen": weights are constants of the session; a change is noticed at the next call and
    opens a new one. "live": they are read at each call. "auto": frozen until they change often;
    on CUDA, live."""
    quantize: Quantize | None = field(default=None, metadata=KEYED)
    """Keep the weights of linear layers in 8 or 4 bits: "int8", "int4", or a `Quantize`."""
    verify: int = 0
    """Compare the first calls of each program, so many, with eager. A result that differs by more
    than rounding is eager's, and the operator at fault is left to eager: see the report."""
    profitable: bool | None = None
    """Time each region against its eager form, at a first call: one that is slower runs in eager.
    In strict, regions keep their place and nothing is timed. By default, whether the environment
    variable DYNAMO_ONNX_PROFITABLE is 1."""
    min_region: int = 2
    """A region with fewer computing operators stays in eager, unless it is the whole graph."""
    strict: bool = False
    """Raise UnsupportedError where something would run in eager."""
    eager_ops: frozenset[str] = frozenset()
    """Operators to leave in eager: "aten.sin.default", "aten.sin" or "sin"."""
    opset: int | None = field(default=None, metadata=KEYED)
    """The ai.onnx opset of the programs. None: 23, or a later one that a program needs."""
    transforms: tuple[Transform, ...] = field(default=(), metadata=KEYED)
    """Functions `onnx_ir.Model -> onnx_ir.Model` applied to each lowered program."""
    dump_dir: Path | None = None
    """Write each program, without weights, and its FX graph here as it is compiled."""

    @staticmethod
    def parse(given: Options | Mapping[str, Any] | None, mode: str | None = None) -> Options:
        """The checked options of a `torch.compile` call; OptionError names what is wrong."""
        if mode is not None and mode not in MODES:
            raise OptionError(
                f"unknown mode {mode!r}{_nearest(mode, MODES)}; modes: {', '.join(MODES)}"
            )
        if given is None:
            options = Options(mode=mode or "default")
        elif isinstance(given, Options):
            options = given
        elif isinstance(given, Mapping):
            _know("option", given, Options)
            options = Options(**{str(k): _coerce(str(k), v) for k, v in given.items()})
        else:
            raise OptionError(
                f"options must be a dict or dynamo_onnx.Options, not {type(given).__name__}"
            )
        options.check()
        return options

    def check(self) -> None:
        """Raise OptionError for the first field that cannot be used."""
        _choose("weights", self.weights, WEIGHTS)
        _choose("mode", self.mode, MODES)
        if self.quantize is not None:
            _expect("quantize", self.quantize, Quantize)
            self.quantize.check()
            if self.weights == "live":
                raise OptionError(
                    "quantize needs weights that are constants of the session: "
                    "choose weights='frozen' or 'auto', not 'live'"
                )
        _expect("min_region", self.min_region, int)
        if self.min_region < 1:
            raise OptionError(f"min_region={self.min_region}: a region has at least 1 operator")
        _expect("strict", self.strict, bool)
        _expect("require_provider", self.require_provider, bool)
        if self.opset is not None:
            _expect("opset", self.opset, int)
            if not OLDEST_OPSET <= self.opset <= NEWEST_OPSET:
                raise OptionError(f"opset={self.opset}: choose {OLDEST_OPSET} to {NEWEST_OPSET}")
        for name in self.eager_ops:
            _expect("eager_ops", name, str)
        for transform in self.transforms:
            if not callable(transform):
                raise OptionError(f"transforms: {transform!r} is not callable")
        session_options(self.session_options, threads=1, spinning=False)
        run_options(self.run_options, severity=QUIET, asynchronous=False)
        if self.dump_dir is not None:
            check_writable("dump_dir", self.dump_dir)
        self._check_cache()
        self._check_trials()
        providers = self.chosen_providers()
        if self.require_provider and providers and not is_mixed(providers):
            raise OptionError("require_provider: name another provider than the CPU's in providers")

    def _check_trials(self) -> None:
        if self.profitable is not None:
            _expect("profitable", self.profitable, bool)
        _expect("verify", self.verify, int)
        if self.verify < 0:
            raise OptionError(f"verify={self.verify}: give the number of calls to compare")

    def _check_cache(self) -> None:
        if self.cache_dir is not None:
            check_writable("cache_dir", self.cache_dir)
        _expect("cache_verify", self.cache_verify, bool)
        for name in ("cache_size_mb", "max_programs"):
            value = getattr(self, name)
            _expect(name, value, int)
            if value < 1:
                raise OptionError(f"{name}={value}: the least is 1")

    def chosen_providers(self) -> tuple[ProviderChoice, ...]:
        """The providers by full name with their options; none if the devices are to choose."""
        return choose_providers(self.providers, self.provider_options)

    @property
    def cuda_graphs(self) -> bool:
        """Are runs on CUDA to be captured?"""
        return self.mode in _WITH_CUDA_GRAPHS

    @property
    def exhaustive(self) -> bool:
        """Is a slow start fine where it brings faster runs?"""
        return self.mode in _EXHAUSTIVE

    @property
    def times_regions(self) -> bool:
        """Does a region that is slower than its eager form lose its place?"""
        if self.profitable is None:
            return os.environ.get(PROFITABLE_VARIABLE) == "1"
        return self.profitable

    @property
    def kept_in(self) -> Path | None:
        """The directory of what outlives the process, if there is one."""
        found = os.environ.get(CACHE_VARIABLE)
        return self.cache_dir or (Path(found) if found else None)


def check_writable(option: str, directory: Path) -> None:
    """Create the directory if need be; OptionError when files cannot be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OptionError(f"{option}: cannot write to {directory}: {error.strerror}") from error


def _coerce(key: str, value: Any) -> Any:  # noqa: ANN401 - the user's
    """A dict's natural spellings as the field's types: lists for tuples, str for Path."""
    if key in ("providers", "transforms", "provider_options"):
        if isinstance(value, (str, dict)) or callable(value):
            value = [value]
        entries = _entries(key, value)
        if key == "providers":
            return tuple(_provider(e) for e in entries)
        return tuple(entries)
    if key == "eager_ops":
        return frozenset(
            str(e) for e in _entries(key, [value] if isinstance(value, str) else value)
        )
    if key == "quantize" and value is not None:
        return _quantize(value)
    if key in ("dump_dir", "cache_dir") and value is not None:
        if not isinstance(value, (str, os.PathLike)):
            raise OptionError(f"{key} must be a path, not {type(value).__name__}")
        return Path(cast("str", value))
    if key in ("session_options", "run_options") and not isinstance(value, Mapping):
        raise OptionError(f"{key} must be a dict of setting to value, not {type(value).__name__}")
    return value


def _quantize(value: Any) -> Quantize:  # noqa: ANN401 - the user's
    if isinstance(value, Quantize):
        return value
    if isinstance(value, str):
        return Quantize(cast("Any", value))
    if not isinstance(value, Mapping) or "weights" not in value:
        raise OptionError(
            f"quantize={value!r}: give one of {', '.join(map(repr, BITS))}, "
            f"or a dict of {', '.join(f.name for f in fields(Quantize))}"
        )
    given = dict(cast("Mapping[str, Any]", value))
    _know("quantize: key", given, Quantize)
    skip = given.pop("skip", ())
    names = [skip] if isinstance(skip, str) else _entries("quantize: skip", skip)
    return Quantize(**given, skip=tuple(names))


def _provider(entry: Any) -> str | tuple[str, dict[str, Any]]:  # noqa: ANN401 - the user's
    if isinstance(entry, str):
        return entry
    if isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[0], str):
        return entry[0], dict(cast("Mapping[str, Any]", entry[1]))
    raise OptionError(f"providers: {entry!r} is neither a name nor a (name, options) pair")


def _entries(key: str, value: Any) -> list[Any]:  # noqa: ANN401 - the user's
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise OptionError(f"{key} must be a list, not {type(value).__name__}")
    return list(cast("list[Any]", value))


def _know(what: str, given: Mapping[Any, Any], kind: type[Options | Quantize]) -> None:
    """OptionError for the first key that is no field of the dataclass."""
    names = [f.name for f in fields(kind)]
    for key in given:
        if key not in names:
            raise OptionError(
                f"unknown {what} {key!r}{_nearest(str(key), names)}; {what}s: {', '.join(names)}"
            )


def _choose(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise OptionError(
            f"{name}={value!r}{_nearest(str(value), known)}; choose one of {', '.join(known)}"
        )


def _expect(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise OptionError(f"{name}={value!r}: expected {kind.__name__}, got {type(value).__name__}")


def _nearest(word: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
