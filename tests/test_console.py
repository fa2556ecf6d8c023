"""Tests that printing never raises, whatever happens to the streams, and that encoders do not print."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
from tqdm import tqdm

from commands.console import SafeStream, safe_printing

ROOT = Path(__file__).parents[1]


class Broken(io.StringIO):
    """Fails from its second write on, as a pipe does whose reader has ended."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.writes = error, 0

    def write(self, text: str) -> int:
        self.writes += 1
        if self.writes > 1:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "no terminal"), ValueError("closed")]
)
def test_a_stream_that_fails_is_given_up(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken(error)
    monkeypatch.setattr(sys, "stderr", broken)
    with safe_printing():
        for _ in tqdm(range(50), mininterval=0):
            print("line", file=sys.stderr, flush=True)
    assert broken.writes == 2


def test_no_stream_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with safe_printing():
        print("line", file=sys.stderr)
        assert not sys.stderr.isatty()
    assert sys.stderr is None


def test_names_that_are_no_text_are_escaped() -> None:
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, "utf-8", write_through=True)
    print(os.fsdecode(b"\xff.mp4"), file=SafeStream(stream))
    assert data.getvalue() == b"\\udcff.mp4\n"


@pytest.mark.parametrize("redirection", ["2>&1 | true", "2>&-", ">&- 2>&-", "> /dev/full 2>&1"])
def test_the_program_ends_as_if_it_had_printed(tmp_path: Path, redirection: str) -> None:
    """A child process, since Python itself flushes the streams at its end; file descriptors must stay taken."""
    code = (
        "import sys\nfrom commands.console import safe_printing\n"
        "with safe_printing():\n"
        "    file = open('out', 'w')\n"
        "    print('x' * 100000); print('x', file=sys.stderr)\n"
        "    file.write(str(file.fileno())); file.close()\n"
        "sys.exit(7)\n"
    )
    (tmp_path / "code.py").write_text(code)
    command = f"{sys.executable} code.py {redirection}"
    command = f"bash -c 'set -o pipefail; {command}'"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 7
    assert int((tmp_path / "out").read_text()) > 2


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_standard_file_neither_reads_nor_writes(closed: int) -> None:
    """Video through it fails: the null device would take a whole video, or give an empty one."""
    code = (
        "import os, sys\nfrom commands.console import open_standard_files\n"
        f"os.close({closed}); open_standard_files()\n"
        "try:\n"
        f"    os.read({closed}, 1) if {closed} == 0 else os.write({closed}, b'x')\n"
        "except OSError:\n"
        "    os._exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 7, done.stderr


@pytest.mark.parametrize(("level", "quiet"), [(None, True), ("3", False)])
def test_an_encoder_prints_nothing_unless_the_user_wants_it(level: str | None, quiet: bool) -> None:
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this FFmpeg has no libsvtav1")
    code = (
        "import av\nfrom commands.console import quieten_encoders\nquieten_encoders()\n"
        "encoder = av.CodecContext.create('libsvtav1', 'w')\n"
        "encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = 64, 64, 'yuv420p', 25\n"
        "encoder.open()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "SVT_LOG"}
    environment |= {} if level is None else {"SVT_LOG": level}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert (done.stdout + done.stderr == b"") == quiet
