"""Tests the end of an output: durations, held and extrapolated frames, loops; GIF files are parsed here."""

from fractions import Fraction as F
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import Clip, audio_stream, make_clip, picture, write_tone
from conftest import Shift, use

import inference_video
from video.frame import Frame
from video.reading.matroska import is_whole
from video.reading.reader import open_frames
from video.timing.ending import Ending, close_loop, move_on, without_closing

RATE = F(24)


def frames(count: int, rate: F = RATE) -> list[Frame]:
    return [Frame(np.full((8, 8, 3), i, np.uint8), i / rate) for i in range(count)]


def ended(end: F | None, **settings: Any) -> list[Frame]:
    """Returns three frames at 48/s, of a source of 24/s that ends at a time, with their ending."""
    return list(Ending(2 * RATE, RATE, **settings).apply(frames(3, 2 * RATE), lambda: end))


def test_a_last_frame_of_one_step_gets_the_step_of_the_output() -> None:
    assert [frame.duration for frame in ended(F(2, 48) + 1 / RATE)] == [None, None, F(1, 48)]


def test_a_last_frame_that_is_shown_for_long_keeps_its_duration() -> None:
    assert ended(F(2, 48) + 2)[-1].duration == 2
    assert ended(F(2, 48) + 1 / RATE, exact=True)[-1].duration == 1 / RATE
    assert ended(F(2, 48) + 100, match="hold")[-1].duration == 100  # not thousands of copies


def test_a_held_end_is_as_long_as_the_source() -> None:
    made = ended(F(4, 48), match="hold")
    assert [frame.time * 48 for frame in made] == [0, 1, 2, 3]
    assert made[3].time + (made[3].duration or 0) == F(4, 48)
    assert made[3].picture is made[2].picture


def test_the_last_held_frame_lasts_up_to_the_end() -> None:
    """Steps of the output are 1/48 s: after two of them half a step is left."""
    made = ended(F(2, 48) + F(5, 96), match="hold")
    assert [frame.duration for frame in made[2:]] == [F(1, 48), F(3, 96)]


def test_a_moved_on_frame_continues_the_motion() -> None:
    """A textured square that moves by 3 px a step is 3 and 6 px further on."""
    texture = np.random.default_rng(0).integers(60, 255, (6, 6, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    shown = []
    for x in (10, 13, 16, 19):
        picture = np.full((64, 96, 3), 40, np.uint8)
        picture[20:44, x : x + 24] = texture
        shown.append(Frame(picture, F(x)))
    for steps_on in (1, 2):
        moved = move_on(shown[0], shown[1], steps_on).rgb().astype(int)
        right, unmoved = (np.abs(moved - shown[i].rgb()).mean() for i in (1 + steps_on, 1))
        assert right < unmoved / 3


def test_a_closed_loop_ends_where_it_begins() -> None:
    closed = list(close_loop([*frames(3)[:2], Frame(frames(3)[2].picture, F(2, 24), duration=F(1))], 1 / RATE))
    assert [frame.time for frame in closed] == [0, F(1, 24), F(2, 24), F(2, 24) + 1]
    assert closed[3].picture is closed[0].picture
    shown = list(without_closing(closed, lambda: F(2, 24) + 1))
    assert (len(shown), shown[-1].duration) == (3, 1)
    grid = [Frame(frame.picture, frame.time + F(1, 100)) for frame in closed[:3]]  # that the end does not lie on
    assert [frame.duration for frame in without_closing(grid, lambda: F(1, 8))] == [None, None, F(1, 8) - grid[2].time]


def write_gif(path: Path, delays: list[int], loop: int) -> Path:
    """Writes moving squares as a GIF by FFmpeg; delays in 1/100 s; `loop` 0 repeats forever, -1 never."""
    options = {"final_delay": str(delays[-1]), "loop": str(loop)}
    with av.open(str(path), "w", options=options) as out:
        stream: Any = out.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        stream.codec_context.time_base = F(1, 100)
        for i in range(len(delays)):
            picture = np.full((48, 64, 3), 30, np.uint8)
            picture[10:30, 4 + 6 * i : 24 + 6 * i] = (230, 60, 40)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="rgb8")
            frame.pts, frame.time_base = sum(delays[:i]), F(1, 100)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def gif_facts(path: Path) -> tuple[list[int], int | None]:
    """Returns the delays in 1/100 s and the number of repeats, None without one, by the structure of GIF89a."""
    data = path.read_bytes()
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 128 else 0)
    delays, loop = [], None
    while data[at] != 0x3B:
        if data[at] == 0x21:
            if data[at + 1] == 0xF9:
                delays.append(int.from_bytes(data[at + 4 : at + 6], "little"))
            if data[at + 3 : at + 14] == b"NETSCAPE2.0":
                loop = int.from_bytes(data[at + 16 : at + 18], "little")
            at += 2
        else:
            at += 11 + (3 << ((data[at + 9] & 7) + 1) if data[at + 9] & 128 else 0)
        while data[at]:
            at += data[at] + 1
        at += 1
    return delays, loop


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command with a stub network."""

    def call(*arguments: Any) -> None:
        use(Shift(0), monkeypatch)
        assert inference_video.main([str(a) for a in (*arguments, "--device=cpu")]) == 0

    return call


@pytest.mark.parametrize("loop", [0, -1, 3])
def test_a_gif_keeps_its_length_and_its_repeats(tmp_path: Path, convert: Any, loop: int) -> None:
    source = write_gif(tmp_path / "a.gif", [10, 6, 6, 30, 6, 100], loop)
    convert("--video", source, "--output", tmp_path / "b.gif", "--dedup", "off")
    delays, repeats = gif_facts(tmp_path / "b.gif")
    assert delays == [5, 5, 3, 3, 3, 3, 15, 15, 3, 3, 100]
    assert repeats == (None if loop < 0 else loop)


@pytest.mark.parametrize(
    ("flags", "count", "length", "last"),
    [
        (["--slow=2"], 11, 300, 200),
        (["--target-fps=20"], 11, 150, 100),
        (["--multi=2.5"], 13, 150, 102),
        (["--start=0.2"], 7, 130, 100),
        (["--start=0.2", "--end=0.8"], 7, 60, 30),
        (["--blur=180"], 6, 150, 100),
        (["--match-duration=hold"], 30, 150, 5),
        (["--loop", "--target-fps=20"], 30, 150, 5),
    ],
)
def test_a_gif_with_a_long_last_picture_has_its_length_at_every_speed(
    tmp_path: Path, convert: Any, flags: list[str], count: int, length: int, last: int
) -> None:
    """Six pictures at 10 a second, the last of which is shown for a second: the rate is 10, not 4."""
    source = write_gif(tmp_path / "a.gif", [10] * 5 + [100], 0)
    convert("--video", source, "--output", tmp_path / "b.gif", "--dedup=off", "--cuts=off", *flags)
    delays, _ = gif_facts(tmp_path / "b.gif")
    assert (len(delays), sum(delays), delays[-1]) == (count, length, last)


def test_no_frame_of_a_gif_is_shorter_than_browsers_show(tmp_path: Path, convert: Any) -> None:
    """30 ms doubled would be 15 ms; browsers show 10 ms as 100 ms."""
    source = write_gif(tmp_path / "a.gif", [3] * 8, 0)
    convert("--video", source, "--output", tmp_path / "b.gif", "--dedup", "off")
    delays, _ = gif_facts(tmp_path / "b.gif")
    assert set(delays[:-1]) == {2}
    assert sum(delays) == 24


def test_a_looped_gif_has_frames_between_the_last_and_the_first(tmp_path: Path, convert: Any) -> None:
    source = write_gif(tmp_path / "a.gif", [10] * 5, 0)
    convert("--video", source, "--output", tmp_path / "b.gif", "--loop", "--dedup", "off", "--cuts", "off")
    assert gif_facts(tmp_path / "b.gif")[0] == [5] * 10


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])  # Matroska rounds the duration of the last frame to 41 ms
@pytest.mark.parametrize(("match", "count"), [("hold", 16), ("extrapolate", 16), (None, 15)])
def test_the_length_of_the_source_is_kept_on_request(
    tmp_path: Path, convert: Any, match: str | None, count: int, suffix: str
) -> None:
    source = make_clip(tmp_path / f"a.{suffix}", 8, rate=F(24))
    convert("--video", source, "--output", tmp_path / "b.mp4", *(["--match-duration", match] if match else []))
    clip = Clip(tmp_path / "b.mp4")
    assert (len(clip.pictures), clip.rate) == (count, 48)
    assert float(clip.duration) == pytest.approx(count / 48, abs=0.001)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_screen_recording_keeps_its_last_still(tmp_path: Path, convert: Any, suffix: str) -> None:
    """The last of 6 frames is shown for 2 s."""
    source = tmp_path / f"a.{suffix}"
    with (
        av.open(str(make_clip(tmp_path / "c.mp4", 6, rate=F(25), options={"bf": "0"}))) as clip,
        av.open(str(source), "w") as out,
    ):
        stream = out.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux():
            if packet.size and packet.pts is not None and packet.time_base:
                if packet.pts * packet.time_base == F(5, 25):
                    packet.duration = round(2 / packet.time_base)
                packet.stream = stream
                out.mux(packet)
    convert("--video", source, "--output", tmp_path / f"b.{suffix}", "--dedup", "off", "--cuts", "off")
    written = Clip(tmp_path / f"b.{suffix}")
    assert len(written.pictures) == 11
    assert {b - a for a, b in pairwise(written.times)} == {F(1, 50)}
    assert open_frames(source).rate == 25
    assert float(written.duration) == pytest.approx(2.2, abs=0.03)


def write_recording(path: Path, track: str = "") -> Path:
    """Writes frames at 0, 40, 80 ms and 1 s, the last of which is shown for 2 s, which only the header states."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libvpx", rate=25, options={"deadline": "realtime"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base, stream.codec_context.framerate = F(1, 1000), F(0)  # no duration of a frame
        sound = audio_stream(out, track) if track else None
        out.start_encoding()
        if sound is not None:
            write_tone(out, sound, 1.5, F(0))
        packets = []
        for i, time in enumerate((0, 40, 80, 1000)):
            frame = av.VideoFrame.from_ndarray(picture(i), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = time, F(1, 1000)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        packets[-1].duration = 2000
        out.mux(packets)
    return path


@pytest.mark.parametrize("track", ["", "libopus"])
def test_the_last_still_of_matroska_lasts_to_the_end_that_its_header_states(tmp_path: Path, track: str) -> None:
    source = open_frames(write_recording(tmp_path / "a.webm", track))
    *_, last = source
    assert (last.time, last.duration, source.errors) == (1, 2, [])


@pytest.mark.parametrize("share", [0.9, 0.95, 0.99])
def test_a_matroska_file_that_is_cut_off_is_not_whole(tmp_path: Path, share: float) -> None:
    path = write_recording(tmp_path / "a.webm")
    assert is_whole(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert not is_whole(path)
    source = open_frames(path)
    *_, last = source
    assert last.time + (last.duration or 0) < F(3, 2)
    assert "cut off" in source.errors[-1]
