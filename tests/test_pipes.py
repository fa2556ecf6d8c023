"""Tests video through standard input and output: the frames of files; messages on standard error."""

import gc
import io
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import Clip, make_clip, picture
from conftest import Shift

import inference_video
from commands import network_flags as flags
from commands import pipes
from commands.errors import FAILED_STATUS
from commands.video_steps import DAMAGED_STATUS
from model import RIFE
from video.pictures.picture import MediaError
from video.reading import container, pipe
from video.reading.pipe import InputPipe
from video.reading.reader import open_frames

ROOT = Path(__file__).parents[1]
SUBTITLES = "1\n00:00:00,000 --> 00:00:00,200\none\n"


class Piped:
    """Runs main() with pipes as standard input and standard output; keeps what came out."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.capfd = capfd
        self.out, self.err = b"", ""

    def __call__(self, data: bytes, *arguments: object, read: bool = True) -> int:
        source, feed = os.pipe()
        drain, sink = os.pipe()
        kept = os.dup(0), os.dup(1)
        found = io.BytesIO()
        if not read:
            os.close(drain)
        threads = [threading.Thread(target=_write, args=(feed, data))]
        threads += [threading.Thread(target=_read, args=(drain, found))] if read else []
        os.dup2(source, 0)
        os.dup2(sink, 1)
        os.close(source)
        os.close(sink)
        for thread in threads:
            thread.start()
        try:
            return inference_video.main([*map(str, arguments), "--device", "cpu"])
        finally:
            os.dup2(kept[0], 0)
            os.dup2(kept[1], 1)
            os.close(kept[0])
            os.close(kept[1])
            for thread in threads:
                thread.join()
            self.out, self.err = found.getvalue(), self.capfd.readouterr().err


def _write(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        try:
            file.write(data)
        except BrokenPipeError:
            return


def _read(descriptor: int, found: io.BytesIO) -> None:
    with os.fdopen(descriptor, "rb") as file:
        shutil.copyfileobj(file, found)


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Piped:
    """Runs the command between pipes with a network whose answer is known (everything moves 2 pixels a frame)."""
    monkeypatch.setattr(flags, "load_model", lambda *a, **k: RIFE(Shift(2), name="shift"))
    return Piped(capfd)


def clip_of(data: bytes, suffix: str, folder: Path) -> Clip:
    """Returns what a stream of bytes holds."""
    path = folder / f"read{suffix}"
    path.write_bytes(data)
    return Clip(path)


def arrays(clip: Clip) -> list[np.ndarray]:
    return [frame.to_ndarray() for frame in clip.pictures]


def as_stream(clip: Path, suffix: str) -> bytes:
    """Returns the frames of a clip as Y4M or NUT, made by PyAV alone, without going back in the file."""

    class Sink:
        name = f"x{suffix}"
        data = bytearray()

        def write(self, data: bytes) -> int:
            self.data += data
            return len(data)

    sink = Sink()
    sink.data = bytearray()
    with av.open(str(clip)) as source, av.open(sink, "w", container_options={"strict": "-1"}) as out:
        video = source.streams.video[0]
        stream: Any = out.add_stream("rawvideo", rate=video.average_rate)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, video.pix_fmt
        for frame in source.decode(video):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return bytes(sink.data)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".y4m", ".nut"])
@pytest.mark.parametrize(("pix_fmt", "codec"), [("yuv420p", "libx264"), ("yuv422p10le", "ffv1")])
def test_frames_through_pipes_are_those_of_files(
    suffix: str, pix_fmt: str, codec: str, piped: Piped, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "a.mkv", 5, rate=F(24000, 1001), codec=codec, pix_fmt=pix_fmt)
    assert piped(b"", "--video", clip, "--output", tmp_path / "file.mkv", "--codec", "ffv1") == 0
    assert piped(as_stream(clip, suffix), "--video", "-", "--output", "-", "--ext", suffix[1:]) == 0, piped.err
    got = clip_of(piped.out, suffix, tmp_path)
    want = arrays(Clip(tmp_path / "file.mkv"))
    assert [np.array_equal(a, b) for a, b in zip(arrays(got), want, strict=True)] == [True] * 9
    assert {frame.format.name for frame in got.pictures} == {pix_fmt}
    assert got.times == [i * F(1001, 48000) for i in range(9)]
    assert "Wrote standard output" in piped.err


def test_y4m_with_the_header_of_vspipe_is_read(piped: Piped, tmp_path: Path) -> None:
    header = b"YUV4MPEG2 C420p10 W64 H48 F24000:1001 Ip A0:0 XLENGTH=3\n"
    data = header + 3 * (b"FRAME\n" + np.full(64 * 48 * 3 // 2, 512, "<u2").tobytes())
    assert piped(data, "--video", "-", "--output", "-", "--ext", "y4m") == 0, piped.err
    assert piped.out.startswith(b"YUV4MPEG2 W64 H48 F48000:1001 Ip A0:0 C420p10 ")


def test_matroska_keeps_sound_subtitles_and_tags(piped: Piped, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", 8, audio=["flac"], subtitles=SUBTITLES, chapters=True, tags=(9, 1, 9, 16))
    assert piped(clip.read_bytes(), "--video", "-", "--output", "-") == 0, piped.err
    source, got = Clip(clip), clip_of(piped.out, ".mkv", tmp_path)
    assert got.packets["audio 0"] == source.packets["audio 0"]
    assert got.packets["subtitle 0"] == source.packets["subtitle 0"]
    assert len(got.pictures) == 15
    with av.open(io.BytesIO(piped.out)) as read:
        assert read.streams.video[0].codec_context.name == "ffv1"
        assert read.metadata["title"] == "a clip"
        tags = read.streams.video[0].codec_context
        assert (tags.colorspace, tags.color_primaries, tags.color_trc) == (9, 9, 16)


def test_y4m_names_what_it_cannot_hold_before_the_first_frame(piped: Piped, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", 4, audio=["flac"], tags=(1, 1, 1, 1))
    assert piped(b"", "--video", clip, "--output", "-", "--ext", "y4m") == 0, piped.err
    assert "audio track 1 (flac) dropped: yuv4mpegpipe does not take it" in piped.err
    assert "colour tags cannot be stored in .y4m: matrix 1, primaries 1, transfer 1" in piped.err
    assert piped.out.startswith(b"YUV4MPEG2 W64 H48 F48:1 ")


def test_y4m_has_a_constant_rate_also_of_a_variable_source(piped: Piped, tmp_path: Path) -> None:
    times = [F(0), F(1, 30), F(1, 10), F(4, 30)]
    clip = make_clip(tmp_path / "a.mp4", 4, times=times, options={"crf": "0"})
    assert piped(b"", "--video", clip, "--output", "-", "--ext", "y4m", "--target-fps", "30") == 0, piped.err
    got, source = arrays(clip_of(piped.out, ".y4m", tmp_path)), arrays(Clip(clip))
    assert [np.array_equal(a, b) for a, b in zip([*got[:2], *got[3:]], source, strict=True)] == [True] * 4
    assert not np.array_equal(got[2], got[1]), "made in the gap, where a copy would be the same"


def test_rgb_and_transparent_sources_become_y4m(piped: Piped, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", 3, codec="ffv1", pix_fmt="yuva420p")
    assert piped(b"", "--video", clip, "--output", "-", "--ext", "y4m") == 0, piped.err
    assert "transparency cannot be kept" in piped.err
    assert b"C420" in piped.out[:80]
    clip = make_clip(tmp_path / "b.mkv", 3, codec="ffv1", pix_fmt="bgr0")
    assert piped(b"", "--video", clip, "--output", "-", "--ext", "y4m") == 0, piped.err
    assert b"C444 " in piped.out[:80]


def test_raw_frames_are_read_with_the_format_that_is_given(piped: Piped, tmp_path: Path) -> None:
    raw = b"".join(picture(i).tobytes() for i in range(4))
    settings = "--input-format", "rgb24,64x48", "--input-fps", "25"
    assert piped(raw, "--video", "-", *settings, "--output", tmp_path / "a.mkv", "--codec", "ffv1") == 0, piped.err
    got = Clip(tmp_path / "a.mkv")
    assert [_rgb_difference(got.pictures[2 * i], picture(i)) for i in range(4)] == [0] * 4
    assert got.times[-1] == F(120, 1000)
    cut = piped(raw[:-100], "--video", "-", *settings, "--output", tmp_path / "b.mkv", "--codec", "ffv1")
    assert cut == DAMAGED_STATUS, "a frame that is cut off is an error"


def _rgb_difference(frame: av.VideoFrame, expected: np.ndarray) -> int:
    return int(np.abs(frame.to_ndarray(format="rgb24").astype(int) - expected).max())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--video", "-", "--segments", "10"], "standard input can be read only once: leave out --segments"),
        (["--video", "-", "--dry-run"], "standard input can be read only once: leave out --dry-run"),
        (["--video", "-", "--on-resize", "split"], "standard input can be read only once: leave out --on-resize split"),
        (["--video", "-", "--devices", "cpu,cpu"], "standard input can be read only once: leave out --devices"),
        (["-", "b.mp4"], "- (standard input) must be the only input"),
        (["--stitch", "-", "b.mp4"], "- (standard input) must be the only input"),
        (["--video", "a.mp4", "--output", "-", "--png"], "made in one piece: leave out --png"),
        (["--video", "a.mp4", "--output", "-", "--ext", "mp4"], "--output - takes --ext mkv, nut, y4m: mp4 is not"),
        (["a.mp4", "b.mp4", "--output", "-"], "--output - (standard output) holds one video: give one input"),
        (["--video", "a.mp4", "--input-format", "rgb24,4x4"], "--input-format needs --video -"),
        (["--video", "-", "--input-format", "rgb24"], "'rgb24' is not FORMAT,WIDTHxHEIGHT"),
        (["--video", "-", "--input-format", "rbg,4x4"], "pixel format rbg: FFmpeg has none of that name"),
    ],
)
def test_flags_that_a_pipe_excludes_are_refused_before_the_start(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        inference_video.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_reader_that_ends_costs_one_line(piped: Piped, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", 4)
    assert piped(b"", "--video", clip, "--output", "-", read=False) == FAILED_STATUS
    errors = [line for line in piped.err.splitlines() if line.startswith("inference_video.py")]
    assert len(errors) == 1
    assert errors[0].endswith("standard output.mkv: the program that reads it has ended; nothing more can be written")
    assert "Traceback" not in piped.err


@pytest.mark.parametrize("data", [b"", b"no video at all" * 100])
def test_a_pipe_without_a_video_is_one_line(data: bytes, piped: Piped, tmp_path: Path) -> None:
    assert piped(data, "--video", "-", "--output", tmp_path / "a.mp4") == FAILED_STATUS
    assert piped.err.startswith("inference_video.py: standard input: not a video that FFmpeg can open")
    assert len(piped.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="closes descriptors by a shell")
@pytest.mark.parametrize(("redirection", "name"), [("<&-", "standard input"), (">&-", "standard output")])
def test_a_closed_descriptor_is_one_line(redirection: str, name: str, tmp_path: Path) -> None:
    video = "-" if name == "standard input" else str(make_clip(tmp_path / "a.mkv", 2))
    command = f"exec {sys.executable} {ROOT / 'inference_video.py'} --video {video} --output - {redirection}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert done.returncode == FAILED_STATUS
    assert done.stderr.startswith(f"inference_video.py: {name}: is closed; pipe ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="redirects by a shell")
@pytest.mark.parametrize("source", ["--video=a.mp4", "--video=- < a.mp4"])
def test_standard_output_is_never_appended_to_a_file_that_is_read(source: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", 3)
    content = clip.read_bytes()
    command = f"'{sys.executable}' '{ROOT / 'inference_video.py'}' --output=- {source} >> a.mp4"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "inference_video.py: standard output: is a file that is read; choose another file\n"
    assert clip.read_bytes() == content


def test_a_stream_that_is_cut_off_gives_what_came(piped: Piped, tmp_path: Path) -> None:
    data = as_stream(make_clip(tmp_path / "a.mkv", 6), ".y4m")
    frame = data.index(b"FRAME", data.index(b"FRAME") + 1) - data.index(b"FRAME")
    assert piped(data[:-1000], "--video", "-", "--output", "-", "--ext", "y4m") == DAMAGED_STATUS
    assert len(clip_of(piped.out, ".y4m", tmp_path).pictures) == 9
    line = f"cut off: the file has only {frame - 1000} bytes of its last frame, which is left out"
    assert line in piped.err
    path = tmp_path / "half.y4m"
    path.write_bytes(data[:-1000])
    assert piped(b"", "--video", path, "--output", tmp_path / "twice.mkv") == DAMAGED_STATUS
    assert line in piped.err


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "CHUNK", 1 << 12)
    monkeypatch.setattr(container, "PIPE_BUFFER", 1 << 12)
    data = as_stream(make_clip(tmp_path / "a.mkv", 200, codec="ffv1", audio=["flac"]), ".nut")
    source, feed = os.pipe()
    thread = threading.Thread(target=_write, args=(feed, data))
    thread.start()
    stdin = InputPipe(source)
    assert sum(1 for _ in open_frames(stdin)) == 200
    thread.join()
    os.close(source)
    assert stdin.held < len(data) / 2
    with pytest.raises(MediaError, match="can be read only once"):
        stdin.open()


@pytest.mark.parametrize("sound", [["flac"], []])
def test_picture_and_sound_of_a_pipe_are_read_in_step(
    sound: list[str], piped: Piped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[InputPipe] = []

    class Recorded(InputPipe):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            opened.append(self)

    monkeypatch.setattr(pipes, "InputPipe", Recorded)
    monkeypatch.setattr(pipe, "CHUNK", 1 << 13)
    monkeypatch.setattr(container, "PIPE_BUFFER", 1 << 13)
    still = [picture(0, (128, 96))] * 220  # 8 MB, of which FFmpeg examines 5 at the start
    clip = make_clip(tmp_path / "a.nut", 220, size=(128, 96), codec="rawvideo", pix_fmt="bgr24", audio=sound,
                     pictures=still)  # fmt: skip
    gc.disable()  # what is no longer read is released at once, not when Python searches for cycles
    try:
        settings = "--exp", "0", "--dedup", "off", "--preset", "ultrafast"
        assert piped(clip.read_bytes(), "--video", "-", "--output", tmp_path / "b.mkv", *settings) == 0, piped.err
    finally:
        gc.enable()
    assert len(Clip(tmp_path / "b.mkv").packets) == len(sound)
    assert opened[0].held < clip.stat().st_size / 3


def test_an_idle_pipe_is_given_up_after_a_signal() -> None:
    source, feed = os.pipe()
    signals: list[int] = []
    threading.Timer(0.3, signals.append, [15]).start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        open_frames(InputPipe(source, lambda: bool(signals)))
    assert 0.2 < time.monotonic() - begin < 2
    os.close(source)
    os.close(feed)


@pytest.mark.slow
def test_readers_that_lie_too_far_apart_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "CHUNK", 1 << 10)
    monkeypatch.setattr(pipe, "MAX_HELD", 1 << 13)
    source, feed = os.pipe()
    os.write(feed, bytes(1 << 14))
    os.close(feed)
    stdin = InputPipe(source)
    fast, slow = stdin.open(), stdin.open(is_last=True)
    with pytest.raises(MediaError, match="standard input: its tracks lie more than"):
        list(iter(lambda: fast.read(1 << 10), b""))
    os.close(source)
    assert slow.read(4) == bytes(4)


def serve(answer: Callable[[Any], None]) -> Iterator[str]:
    """Yields the address of a server on the loopback whose connections are given to `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with server.accept()[0] as connection:
                answer(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/a.mkv"


@pytest.mark.parametrize("starts", [False, True])
def test_a_network_address_that_does_not_answer_ends_in_time(starts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "NETWORK_TIMEOUT", 0.3)

    def answer(connection: Any) -> None:
        if starts:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n\x1a\x45\xdf\xa3")
        time.sleep(3)

    for address in serve(answer):
        begin = time.monotonic()
        with pytest.raises(MediaError, match=r"a.mkv: the server did not answer for 0\.3 seconds; check the address"):
            open_frames(address)
        assert time.monotonic() - begin < 2


def test_a_network_address_that_is_missing_is_named() -> None:
    def answer(connection: Any) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        connection.close()

    for address in serve(answer):
        with pytest.raises(MediaError, match=r"a.mkv: cannot be opened \(Server returned 404 Not Found\); check the"):
            open_frames(address)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the program ffmpeg")
def test_a_chain_of_programs_needs_no_file(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", 6, audio=["flac"])
    command = (
        "ffmpeg -v error -i a.mkv -c:v rawvideo -c:a copy -f nut - | "
        f"{sys.executable} {ROOT / 'inference_video.py'} --video - --output - --ext nut --device cpu | "
        "ffmpeg -v error -i - -c:v ffv1 -c:a copy b.mkv; echo ${PIPESTATUS[@]}"
    )
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["0", "0", "0"], done.stderr
    got = Clip(tmp_path / "b.mkv")
    assert len(got.pictures) == 11
    assert got.packets["audio 0"] == Clip(clip).packets["audio 0"]
