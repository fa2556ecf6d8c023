"""Tests that freed memory is kept, so that a new tensor takes it without a page from the system; peak memory."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from model.inference.memory import peak_resident_bytes

PROGRAM = """
import resource, torch
from model.inference.memory import keep_freed_memory
kept = {keep}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    torch.ones(2**24)
before = faults()
for _ in range(8):
    torch.ones(2**24)
print(kept, faults() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives large blocks back by itself")
def test_freed_memory_is_reused() -> None:
    pages = {}
    for keep in ("keep_freed_memory()", "None"):
        program = [sys.executable, "-c", PROGRAM.format(keep=keep)]
        kept, count = subprocess.run(program, check=True, capture_output=True, text=True).stdout.split()
        pages[kept] = int(count)
    assert pages["True"] < 200
    assert pages["None"] > 8 * 2**26 / 2**21 * 0.9  # by pages of 2 MB, were they as large


def test_peak_memory_is_the_one_that_linux_states_for_this_process(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("Name:\tpython3\nVmPeak:\t    9999 kB\nVmHWM:\t    2048 kB\n")
    assert peak_resident_bytes(tmp_path) == 2**21


def test_peak_memory_without_that_file_is_that_of_the_system(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no module resource")
    unit = 1 if sys.platform == "darwin" else 1024
    assert peak_resident_bytes(tmp_path) == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
