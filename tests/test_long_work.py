"""Tests a short share of the run of kills and full disks in tests/long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and limits on files")
def test_a_job_is_complete_after_kills_full_disks_and_a_second_run() -> None:
    command = [sys.executable, str(Path(__file__).parent / "long" / "long_work.py"), "--kills", "5", "--cost", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"kills": 5, "failed": 0}
