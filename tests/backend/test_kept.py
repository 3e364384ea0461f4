"""What outlives a process: programs in `cache_dir`, read by the next one, by many at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import dynamo_onnx
from dynamo_onnx import CacheError, lowers, registry
from dynamo_onnx.backend import kept, program_files
from dynamo_onnx.backend.program_files import SUFFIX, ProgramFiles
from dynamo_onnx.backend.state import state
from dynamo_onnx.lowering.ops import OWN_RULES

SCRIPT = """
import sys, torch, dynamo_onnx
from dynamo_onnx.backend.state import state
from dynamo_onnx.lowering.ops import OWN_RULES

def fn(x, y):
    return torch.nn.functional.gelu(x @ y).softmax(-1)

compiled = torch.compile(fn, backend="onnx")
x, y = torch.ones(3, 4), torch.ones(4, 5)
with torch.no_grad():
    torch.testing.assert_close(compiled(x, y), fn(x, y))
print(state.cache_misses, state.cache_loads, dynamo_onnx.report(compiled).timings.lowering_ms)
"""


@pytest.fixture(autouse=True)
def own_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no test before had registered a rule of its own, and removed it."""
    monkeypatch.setattr(registry, "version", OWN_RULES)


def fn(x: torch.Tensor) -> torch.Tensor:
    return (x.sin() + 1) * x


def use(directory: Path, **options: Any) -> int:
    """Compile and call fn as a new process would; how many programs came from files."""
    torch._dynamo.reset()
    dynamo_onnx.reset()
    compiled = torch.compile(fn, backend="onnx", options={"cache_dir": directory, **options})
    x = torch.linspace(0, 1, 12).reshape(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), fn(x))
    return state.cache_loads


def files(directory: Path) -> list[Path]:
    return sorted(directory.rglob(f"*{SUFFIX}"))


def test_the_next_process_finds_what_one_has_lowered(tmp_path: Path) -> None:
    environment = {**os.environ, "DYNAMO_ONNX_CACHE": str(tmp_path)}
    found: list[list[str]] = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        found.append(done.stdout.split())
    assert [counts[:2] for counts in found] == [["1", "0"], ["1", "1"]]
    assert len(files(tmp_path)) == 1


def test_workers_that_follow_the_first_lower_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "DYNAMO_ONNX_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT]
    subprocess.run(command, env=environment, check=True)
    workers = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    found = [worker.communicate()[0].split() for worker in workers]
    assert [(missed, loaded) for missed, loaded, _ in found] == [("1", "1")] * 4
    assert len(files(tmp_path)) == 1


def test_processes_that_start_together_leave_one_good_file(tmp_path: Path) -> None:
    environment = {**os.environ, "DYNAMO_ONNX_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT]
    running = [subprocess.Popen(command, env=environment) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    (path,) = files(tmp_path)
    program_files.from_bytes(path.read_bytes())
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p != path]


def test_lines_are_those_of_the_code_now(tmp_path: Path) -> None:
    assert use(tmp_path) == 0
    before = _locations()
    assert use(tmp_path) == 1
    assert _locations() == before
    assert any("test_kept.py:" in where for where in before)


def _locations() -> set[str]:
    (graph,) = state.graphs
    return set(graph.regions[0].program.locations.values())


@pytest.mark.parametrize("damage", [b"", b"half", None], ids=["emptied", "overwritten", "cut"])
def test_a_damaged_file_is_lowered_again_and_replaced(
    damage: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    use(tmp_path)
    (path,) = files(tmp_path)
    good = path.read_bytes()
    path.write_bytes(good[:-30] if damage is None else damage)
    assert use(tmp_path) == 0
    assert "is compiled again" in caplog.text
    assert path.read_bytes() == good
    assert use(tmp_path) == 1


def test_another_programs_file_under_this_name_is_not_taken(tmp_path: Path) -> None:
    use(tmp_path)
    (path,) = files(tmp_path)
    torch.compile(torch.cos, backend="onnx", options={"cache_dir": tmp_path})(torch.ones(2))
    (other,) = set(files(tmp_path)) - {path}
    path.write_bytes(other.read_bytes())
    assert use(tmp_path) == 0


def test_a_directory_that_cannot_be_written_to_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, write: object) -> None:
        raise CacheError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(program_files, "write_atomically", full)
    assert use(tmp_path) == 0
    assert "No space left on device" in caplog.text


def test_verification_lowers_again_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(tmp_path)
    assert use(tmp_path, cache_verify=True) == 1
    monkeypatch.setattr(kept, "structure", lambda program: id(program))
    with pytest.raises(CacheError, match="cache_verify: the program kept as"):
        use(tmp_path, cache_verify=True)


def test_with_rules_or_transforms_of_the_users_nothing_is_kept(tmp_path: Path) -> None:
    use(tmp_path, transforms=[lambda model: model])
    assert not files(tmp_path)
    sinc = torch.ops.aten.special_i1e.default
    before = registry.get(sinc)
    assert before is not None
    lowers(sinc, replace=True)(before.rule)
    try:
        use(tmp_path)
        assert not files(tmp_path)
    finally:
        registry.version = OWN_RULES


def test_a_rule_that_came_before_the_backend_was_loaded_counts_as_well(tmp_path: Path) -> None:
    mine = (
        "import torch\nfrom dynamo_onnx import lowers\n"
        "lowers(torch.ops.aten.erf.default, replace=True)(lambda cx, self: cx.op.Erf(self))\n"
    )
    environment = {**os.environ, "DYNAMO_ONNX_CACHE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", mine + SCRIPT], env=environment, check=True)
    assert not files(tmp_path)


def test_a_program_is_one_of_its_default_dtype() -> None:
    """A number among integers has that of the process."""
    bounds = torch.arange(3)
    made: set[str] = set()

    def place(x: torch.Tensor) -> torch.Tensor:
        return torch.searchsorted(x, 0.1)

    for default in (torch.float32, torch.float64, torch.float32):
        torch._dynamo.reset()
        torch.set_default_dtype(default)
        try:
            with torch.no_grad():
                assert torch.equal(torch.compile(place, backend="onnx")(bounds), place(bounds))
        finally:
            torch.set_default_dtype(torch.float32)
        made.update(state.programs)
    assert len(made) == 2


def test_the_oldest_files_go_first_and_use_makes_young(tmp_path: Path) -> None:
    cache = ProgramFiles(tmp_path, limit_bytes=3000)
    for number in range(3):
        cache.keep(str(number), bytes(900))
        path = cache._path(program_files.key_of(str(number)))
        os.utime(path, (number, number))
    used = cache._path(program_files.key_of("0"))
    os.utime(used)
    cache.keep("3", bytes(900))
    left = {entry.key for entry in cache.entries()}
    assert left == {program_files.key_of(name) for name in "023"}
    leftover = used.with_name(f".{used.name}.abc")
    leftover.touch()
    cache.evict()
    assert leftover.exists()  # somebody may be writing it
    os.utime(leftover, (1, 1))
    cache.evict()
    assert not leftover.exists()


def test_a_process_killed_while_writing_leaves_no_half_file(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from dynamo_onnx.backend.program_files import ProgramFiles\n"
        "files = ProgramFiles(Path(sys.argv[1]), 1 << 40)\nprint('ready', flush=True)\n"
        "while True:\n    for n in range(50):\n        files.keep(str(n), bytes([n]) * 3_000_000)\n"
    )
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
    for path in files(tmp_path):
        content = path.read_bytes()
        assert content == content[:1] * 3_000_000


def test_torchs_cache_artifacts_carry_the_programs(tmp_path: Path) -> None:
    from torch.compiler._cache import CacheArtifactManager

    with CacheArtifactManager.with_fresh_cache():
        assert use(tmp_path / "here") == 0
        saved = torch.compiler.save_cache_artifacts()
    assert saved is not None
    content, info = saved
    assert len(info.artifacts["dynamo_onnx"]) == 1
    torch._dynamo.reset()
    dynamo_onnx.reset()
    torch.compiler.load_cache_artifacts(content)
    assert len(state.delivered) == 1
    compiled = torch.compile(fn, backend="onnx", options={"cache_dir": tmp_path / "there"})
    x = torch.linspace(0, 1, 12).reshape(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), fn(x))
    assert state.cache_loads == 1
    assert len(files(tmp_path / "there")) == 1


def test_the_command_line_lists_and_clears(tmp_path: Path) -> None:
    use(tmp_path)
    (path,) = files(tmp_path)

    def cache(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "dynamo_onnx", "cache", *words, "--dir", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    assert path.stem[:12] in cache("ls")[1]
    assert "in x0: FLOAT[3, 4]" in cache("show", path.stem[:6])[1]
    assert cache("verify") == (0, f"1 programs, {path.stat().st_size} bytes, 0 damaged\n")
    assert cache("show", "zz")[0] == 1
    path.write_bytes(b"damage")
    code, told = cache("verify")
    assert code == 1
    assert "damaged: not a stored program" in told
    assert cache("clear") == (0, "1 programs removed\n")
    assert not files(tmp_path)
