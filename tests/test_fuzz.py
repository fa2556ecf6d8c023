"""Runs a short share of the fuzz run in tests/long: damaged inputs of every format, through the whole commands."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "long"))

from fuzz import FAILURES, Outcome, render_table
from mutate import mutate

FUZZ = Path(__file__).parent / "long" / "fuzz.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")
def test_damaged_inputs_end_in_one_line_or_a_result() -> None:
    """One case of every format, in processes of their own, as the long run does it."""
    command = [sys.executable, str(FUZZ), "--cases", "23", "--seed", "3", "--patience", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["cases"] == 23
    assert {name: counts[name] for name in FAILURES} == dict.fromkeys(FAILURES, 0)


def test_mutations_follow_from_their_seed() -> None:
    data = bytes(range(256)) * 4
    made = [mutate(np.random.default_rng([0, case]), data) for case in range(50)]
    assert made == [mutate(np.random.default_rng([0, case]), data) for case in range(50)]
    assert sum(one != data for one in made) > 45
    assert mutate(np.random.default_rng(0), b"") == b""


def test_the_table_counts_every_run_and_failure() -> None:
    outcomes = [
        Outcome(0, "a.png", 0, (), ""),
        Outcome(1, "a.png", None, ("hang",), ""),
        Outcome(2, "b.mp4", 1, ("traceback", "extra lines"), ""),
    ]
    header, first, second, total = (line.split() for line in render_table(outcomes).splitlines())
    assert header[:1] == ["runs"]
    assert first[:4] == ["a.png", "2", "1", "0"]
    assert second[:4] == ["b.mp4", "1", "0", "1"]
    assert [int(value) for value in total[1:]] == [3, 1, 1, 1, 0, 1, 0, 0, 1, 0]
