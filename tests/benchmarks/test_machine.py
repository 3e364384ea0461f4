"""The machine: its load, its clocks, its rates, its versions."""

from __future__ import annotations

import pytest
import torch

from benchmarks import machine
from benchmarks.machine import CpuClock, Load


def test_the_load_separates_other_processes_from_this_one():
    before = CpuClock(wall_s=100.0, busy_s=50.0, stolen_s=1.0, own_s=20.0)
    after = CpuClock(wall_s=110.0, busy_s=65.0, stolen_s=2.0, own_s=30.0)
    load = machine.load_between(before, after, 0.5, 0.7, cores=2)
    assert load == Load(0.5, 0.7, others_share=0.25, stolen_share=0.05)


def test_the_cpu_clock_reads_proc_stat(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 999 40 5 6 700 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n")
    clock = machine.read_cpu_clock(stat)
    assert clock is not None
    assert clock.busy_s / clock.stolen_s == pytest.approx(161 / 700)
    assert machine.read_cpu_clock(tmp_path / "absent") is None


def test_versions_name_torch_and_leave_out_what_is_not_installed():
    found = machine.versions()
    assert found["torch"] == torch.__version__
    assert set(found) <= {"python", *machine.PACKAGES}
    assert all(found.values())


def test_the_rate_of_a_copy_counts_what_is_read_and_what_is_written(monkeypatch):
    monkeypatch.setattr(machine, "time_ms", lambda call, device: 2.0)
    assert machine.copy_gb_s(torch.device("cpu"), size_bytes=10**6) == pytest.approx(1.0)


def test_a_watch_reads_the_load_since_its_start():
    load = machine.Watch(CpuClock(0.0, 0.0, 0.0, 0.0), 0.5).load()
    assert load.average_before == 0.5
