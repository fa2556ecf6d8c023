"""Tests that freed memory is kept: a new tensor takes it without a page from the system."""

import platform
import subprocess
import sys

import pytest

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
