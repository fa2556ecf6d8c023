"""Tests a short share of the stream of hours in tests/long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HOURS = Path(__file__).parent / "long" / "hours.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident memory from /proc")
def test_memory_stays_flat_and_sound_stays_in_time() -> None:
    done = subprocess.run(
        [sys.executable, str(HOURS), "--hours", "0.05"], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [(result["container"], result["frames"]) for result in results] == [
        (".mkv", 359),
        (".mov", 359),
        (".mp4", 359),
    ]
