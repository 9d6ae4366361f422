"""The 35-day simulation of bench/, shorter: whatever goes wrong, nothing is late, overdue or early."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.retention_sim import Simulation, simulate

SIMULATION = Path(__file__).parents[2] / "bench" / "retention_sim.py"


@pytest.fixture
def memory():
    """A directory where a sync costs nothing: what is simulated is not the disk."""
    fast = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=fast if fast.is_dir() else None) as root:
        yield Path(root)


def test_nothing_is_late_overdue_or_early_whatever_goes_wrong():
    """As it is typed: the last line says it, and so does the exit code."""
    command = [sys.executable, SIMULATION, "--days", "1", "--cameras", "10", "--seed", "5", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["lateness_max_s"], result["overdue"], result["early_deletions"]) == (0, 0, 0)
    assert result["segments_deleted"] > 5
    assert result["restarts"] > 5
    assert result["faults_injected"] > 20


def test_the_simulation_sees_what_is_late_and_overdue(memory, monkeypatch):
    """Retention that never runs: the keyring still refuses, but bytes and keys are overdue."""
    monkeypatch.setattr(Simulation, "retain", Simulation.retain_nothing)
    result = simulate(memory, days=0.5, cameras=10, seed=1)
    assert result.overdue > 0
    assert not result.ok
