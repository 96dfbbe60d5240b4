"""Cores under quotas."""

import os
from pathlib import Path

import pytest

from detectors.cores import count_cores, usable_cores


@pytest.mark.parametrize(
    ("quotas", "left"),
    [
        ([], 8),
        (["max 100000\n"], 8),
        (["200000 100000\n"], 2),
        (["250000 100000\n"], 3),
        (["50000 100000\n"], 1),
        (["6400000 100000\n"], 8),
        (["max 100000\n", "300000 100000\n", "400000 100000\n"], 3),
        (["", "nonsense", "100000"], 8),
    ],
)
def test_the_narrowest_quota_bounds_the_cores(quotas: list[str], left: int) -> None:
    assert count_cores(8, quotas) == left


def test_this_machine_has_some_of_the_cores_that_it_may_run_on() -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


def test_the_quotas_of_outer_groups_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without its own view of the groups sees a path of several."""
    line = next((text for text in Path("/proc/self/cgroup").read_text().splitlines() if text.startswith("0::/")), None)
    if line is None:
        pytest.skip("control groups of version 1")
    (group := tmp_path / line.removeprefix("0::/")).mkdir(parents=True, exist_ok=True)
    (group / "cpu.max").write_text("max 100000\n")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr("detectors.cores._GROUPS", tmp_path)
    assert usable_cores() == 1
