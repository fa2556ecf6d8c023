"""Tests a short share of the kill run and the disk run in tests/long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "long"))

from kills import FRAMES, Case, judge

KILLS = Path(__file__).parent / "long" / "kills.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and limits on files")
def test_kills_and_full_disks_leave_whole_files() -> None:
    command = [sys.executable, str(KILLS), "--kills", "8", "--disks", "3", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert (counts["cases"], counts["failed"]) == (11, 0)


@pytest.mark.parametrize(
    ("kind", "status", "written", "left", "playable", "failures"),
    [
        ("SIGINT", 130, 90, "part", 90, []),
        ("SIGINT", 130, 90, "part", 89, ["frames lost"]),
        ("SIGKILL", -9, 200, "part", 90, []),
        ("SIGKILL", -9, 200, "part", 70, ["frames lost"]),
        ("SIGKILL", -9, 200, "nothing", 0, ["everything lost"]),
        ("SIGKILL", -9, 200, "final", 200, ["false final name"]),
        ("SIGTERM", 0, FRAMES, "final", FRAMES, []),
        ("SIGTERM", 1, 90, "part", 90, ["status 1"]),
        ("SIGTERM", -15, 0, "nothing", 0, []),
        ("disk", 0, FRAMES, "part", FRAMES, ["no result"]),
        ("disk", 1, 90, "part", -1, []),
        ("disk", 1, 190, "part", -1, ["the part does not play"]),
    ],
)
def test_the_run_finds_what_is_wrong(
    kind: str, status: int, written: int, left: str, playable: int, failures: list[str]
) -> None:
    assert judge(Case(kind, "mp4", 0.5), status, written, left, playable, "") == failures
    assert judge(Case(kind, "mp4", 0.5), status, written, left, playable, "Traceback ...")[-1:] != []
