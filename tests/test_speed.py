"""Tests slow motion and ramps with sound, trims, fractional factors, and the blur of a shutter."""

from dataclasses import replace
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import Clip, make_clip
from conftest import Shift, use

import inference_video
from commands.speed_flags import parse_time
from commands.video_flags import build_parser, check_arguments
from model import UserError
from video.frame import Frame
from video.pictures.picture import write_picture
from video.reading.reader import open_frames
from video.reading.trim import trim_source, trimmed_frames
from video.timing.blur import SHUTTER_SAMPLES, average_samples, shutter_offsets
from video.timing.output_times import resample
from video.timing.speed import SpeedMap, constant_speed, ramps, read_ramps
from video.writing.tempo import Tempo

RATE = 48000


def test_a_constant_speed_is_exact() -> None:
    speed = constant_speed(F(1, 4))
    assert speed.output_time(F(1, 3)) == F(4, 3)
    assert speed.source_time(F(4, 3)) == F(1, 3)


def test_a_ramp_takes_the_time_that_its_integral_gives() -> None:
    """From speed 1 to 1/4 within 3 s: 3 ln(4) / (3/4) seconds of the output."""
    speed = ramps([(F(1), F(1)), (F(4), F(1, 4))])
    took = float(speed.output_time(F(4)) - speed.output_time(F(1)))
    assert took == pytest.approx(4 * np.log(4), abs=2e-3)
    assert speed.output_time(F(5)) - speed.output_time(F(4)) == 4
    assert speed.output_time(F(0)) == 0
    for time in (F(0), F(1, 2), F(27, 10), F(10)):
        assert speed.source_time(speed.output_time(time)) == time


def test_ramps_are_read_from_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0 1\n# slower\n2.5 0.25  # here\n\n4 1\n")
    assert isinstance(read_ramps(tmp_path / "a.txt"), SpeedMap)
    for text, words in (("2 1\n1 1\n", "must rise"), ("a b", "not lines"), ("0 0\n", "a speed is"), ("", "must rise")):
        (tmp_path / "a.txt").write_text(text)
        with pytest.raises(UserError, match=words):
            read_ramps(tmp_path / "a.txt")


def test_a_slow_output_has_the_sources_frames_and_the_steps_between() -> None:
    timing = resample(F(24), speed=constant_speed(F(1, 4)))
    assert timing(F(1, 24), F(2, 24)) == [(F(4 + k, 24), F(k, 4)) for k in range(4)]


def test_a_shutter_takes_samples_while_it_is_open() -> None:
    offsets = shutter_offsets(F(180), F(24))
    assert offsets == [F(k, SHUTTER_SAMPLES * 48) for k in range(SHUTTER_SAMPLES)]
    steps = resample(F(24), offsets=offsets)(F(0), F(1, 24))
    assert [time for time, _ in steps] == offsets
    assert [step for _, step in steps] == [F(k, 2 * SHUTTER_SAMPLES) for k in range(SHUTTER_SAMPLES)]


def test_blur_is_the_mean_of_the_samples_and_leaves_a_still_picture() -> None:
    still = np.zeros((2, 2, 3), np.uint8)
    samples = [Frame(np.full((2, 2, 3), v, np.uint8), F(n, 48)) for n, v in enumerate((10, 20, 40, 60))]
    samples += [Frame(still, F(2, 24)), Frame(still, F(5, 48))]
    out = list(average_samples(samples, F(24)))
    assert [int(f.rgb()[0, 0, 0]) for f in out] == [15, 50, 0]
    assert [f.time for f in out] == [F(0), F(1, 24), F(2, 24)]
    assert out[2].picture is still


@pytest.mark.parametrize(("text", "seconds"), [("90.5", F(181, 2)), ("1:30.5", F(181, 2)), ("1:00:01", F(3601))])
def test_times(text: str, seconds: F) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "given",
    [
        ["--slow=0"], ["--slow=2", "--fps=24"], ["--slow=2", "--speed=a"], ["--blur=0"], ["--blur=400"],
        ["--start=2", "--end=1"], ["--multi=0.5"], ["--multi=2.5", "--exp=1"], ["--repair", "--multi=2"],
    ],
)  # fmt: skip
def test_flags_that_exclude_each_other(given: list[str]) -> None:
    parser = build_parser("")
    with pytest.raises(SystemExit):
        check_arguments(parser, parser.parse_args(["--video", "a.mp4", *given]))


def sound_frames(samples: np.ndarray) -> list[av.AudioFrame]:
    """Returns samples in frames of 1024."""
    frames = []
    for k in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, k : k + 1024].copy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, k, F(1, RATE)
        frames.append(frame)
    return frames


def tone(seconds: float, first: float = 440, last: float = 440) -> np.ndarray:
    """Returns a tone whose frequency in hertz changes evenly from the first to the last."""
    t = np.arange(int(seconds * RATE)) / RATE
    return np.sin(2 * np.pi * (first * t + (last - first) / seconds * t**2 / 2)).astype(np.float32)


def played(speed: SpeedMap, samples: np.ndarray) -> np.ndarray:
    tempo = Tempo(speed)
    out = [piece for frame in sound_frames(samples) for piece in tempo.convert(frame)] + list(tempo.flush())
    ends = np.cumsum([frame.samples for frame in out])
    assert [frame.pts for frame in out] == [0, *ends[:-1]]
    return np.concatenate([frame.to_ndarray()[0] for frame in out])


@pytest.mark.parametrize("speed", [F(1, 8), F(1, 4), F(1, 2), F(2), F(100)])
def test_sound_keeps_its_pitch_and_takes_its_time(speed: F) -> None:
    sound = played(constant_speed(speed), tone(8))
    assert len(sound) == 8 * RATE / speed
    middle = sound[len(sound) // 4 : len(sound) // 4 + min(2 * RATE, len(sound) // 2)]
    peak = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * RATE / len(middle)
    assert peak == pytest.approx(440, abs=2 if speed < 100 else 30)
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5**0.5, rel=0.03)


def test_sound_at_its_own_speed_is_not_changed() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    assert np.abs(played(constant_speed(F(1)), samples) - samples).max() < 1e-6


@pytest.mark.parametrize(
    "speed",
    [
        constant_speed(F(1, 4)),
        constant_speed(F(1, 2)),
        constant_speed(F(4)),
        ramps([(F(0), F(1)), (F(2), F(1, 4)), (F(4), F(1, 4)), (F(6), F(1))]),
    ],
    ids=["quarter", "half", "four", "ramp"],
)
def test_sound_is_where_the_map_of_times_has_it(speed: SpeedMap) -> None:
    """The frequency of a tone that rises shows which time of the source is heard: at most 50 ms off."""
    seconds, first, last, length = 8, 500, 4000, 2048
    sound = played(speed, tone(seconds, first, last))
    assert len(sound) == pytest.approx(float(speed.output_time(F(seconds))) * RATE, abs=1)
    for start in range(length, len(sound) - 2 * length, len(sound) // 24):
        spectrum = np.abs(np.fft.rfft(sound[start : start + length] * np.hanning(length), 8 * length))
        heard = (spectrum.argmax() * RATE / (8 * length) - first) * seconds / (last - first)
        expected = float(speed.output_time(F(heard).limit_denominator(10**6)))
        assert (start + length / 2) / RATE == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("missing", [1200, 12_000])
@pytest.mark.parametrize("speed", [F(1, 2), F(1, 4), F(100)])
def test_sound_after_missing_samples_keeps_its_time(speed: F, missing: int) -> None:
    tempo = Tempo(constant_speed(speed))
    out: list[Any] = []
    length = 4 if speed < 1 else 60
    for start in range(0, 44100 * length, 1536):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1536), np.float32), format="fltp", layout="mono")
        late = missing if start > 44100 else 0
        frame.sample_rate, frame.pts, frame.time_base = 44100, start + late, F(1, 44100)
        out += list(tempo.convert(frame))
    out += list(tempo.flush())
    end = F(start + missing + 1536, 44100) / speed
    assert (out[-1].pts + out[-1].samples) / 44100 == pytest.approx(float(end), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "dtype", "middle"), [("u8", np.uint8, 128), ("s16", np.int16, 0), ("u8p", np.uint8, 128)]
)
def test_silence_stays_silent_to_its_end(name: str, dtype: Any, middle: int) -> None:
    """Silence of unsigned bytes is 128: 0 would be a bang."""
    tempo = Tempo(constant_speed(F(1, 2)))
    frame = av.AudioFrame.from_ndarray(np.full((1, RATE), middle, dtype), format=name, layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, F(1, RATE)
    out = np.concatenate([piece.to_ndarray()[0] for piece in (*tempo.convert(frame), *tempo.flush())])
    assert len(out) == 2 * RATE
    assert np.abs(out).max() == 0


def test_each_of_eight_channels_stays_in_its_place() -> None:
    levels = np.arange(8, dtype=np.float32) / 10
    frame = av.AudioFrame.from_ndarray(np.tile(levels, RATE)[None], format="flt", layout="7.1")
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, F(1, RATE)
    tempo = Tempo(constant_speed(F(1, 2)))
    out = np.concatenate([piece.to_ndarray()[0] for piece in (*tempo.convert(frame), *tempo.flush())]).reshape(-1, 8)
    assert len(out) == 2 * RATE
    assert np.abs(out[RATE // 2 : -RATE // 2] - levels).max() < 1e-5


def test_sound_that_changes_its_kind_goes_on() -> None:
    tempo = Tempo(constant_speed(F(1, 2)))
    kinds: list[tuple[str, str, int, Any]] = [("s16", "stereo", 48000, np.int16), ("fltp", "mono", 44100, np.float32)]
    out: list[Any] = []
    for second, (name, layout, rate, dtype) in enumerate(kinds):
        width = rate * 2 if layout == "stereo" else rate
        frame = av.AudioFrame.from_ndarray(np.zeros((1, width), dtype), format=name, layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, second * rate, F(1, rate)
        out += list(tempo.convert(frame))
    out += list(tempo.flush())
    assert {(f.layout.name, f.sample_rate) for f in out} == {("stereo", 48000), ("mono", 44100)}
    assert (out[-1].pts + out[-1].samples) / 44100 == pytest.approx(4, abs=1e-4)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    use(Shift(0), monkeypatch)
    assert (
        inference_video.main([str(a) for a in (*arguments, "--device=cpu", "--preset=ultrafast", "--dedup=off")]) == 0
    )


def sound_length(path: Path) -> float:
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    return sum(frame.samples for frame in frames) / frames[0].sample_rate


def test_slow_motion_of_a_file_with_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "a.mp4", 24, audio=["aac"])
    run(monkeypatch, "--video", clip, "--slow=2", "--output", tmp_path / "b.mp4")
    assert Clip(tmp_path / "b.mp4").times == [F(n, 24) for n in range(47)]
    assert sound_length(tmp_path / "b.mp4") == pytest.approx(2 * sound_length(clip), abs=0.1)


def test_slow_motion_of_sound_that_starts_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both tracks begin 60 ms after the picture: 0.48 s at an eighth of the speed, which the check expects too."""
    with (
        av.open(str(make_clip(tmp_path / "c.mkv", 24, audio=["aac", "ac3"], options={"bf": "0"}))) as source,
        av.open(str(tmp_path / "a.mkv"), "w") as out,
    ):
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size and packet.pts is not None and packet.dts is not None:
                late = 60 if packet.stream.type == "audio" else 0
                packet.pts, packet.dts, packet.stream = (
                    packet.pts + late,
                    packet.dts + late,
                    streams[packet.stream.index],
                )
                out.mux(packet)
    run(monkeypatch, "--video", tmp_path / "a.mkv", "--slow=8", "--output", tmp_path / "b.mkv")
    with av.open(str(tmp_path / "b.mkv")) as container:
        starts: dict[int, float] = {}
        sounds: Any = container.streams.audio
        for packet in container.demux(sounds):
            starts.setdefault(packet.stream.index, float((packet.pts or 0) * (packet.time_base or 0)))
    assert len(starts) == 2
    assert min(starts.values()) == pytest.approx(0.48, abs=0.06)
    assert max(starts.values()) == pytest.approx(0.48, abs=0.06)


def test_a_span_of_a_file_with_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "a.mkv", 48, audio=["aac"])
    run(monkeypatch, "--video", clip, "--multi=1", "--start=0.5", "--end=1.25", "--output", tmp_path / "b.mkv")
    made = Clip(tmp_path / "b.mkv")
    assert len(made.times) == 18
    assert made.times[0] == 0
    assert sound_length(tmp_path / "b.mkv") == pytest.approx(0.75, abs=0.05)
    with av.open(str(tmp_path / "b.mkv")) as container:
        packets: list[Any] = [p for p in container.demux(audio=0) if p.size]
        ends = [float((p.pts + p.duration) * p.time_base) for p in packets]
    assert max(ends) == pytest.approx(0.75, abs=0.05)


SUBTITLES = """1
00:00:00,200 --> 00:00:00,700
one

2
00:00:01,000 --> 00:00:01,500
two

3
00:00:01,700 --> 00:00:01,900
three
"""


def test_subtitles_and_chapters_follow_a_span_and_a_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 0.5 to 1.6 s, at half the speed: "one" until 0.4 s, "two" from 1 to 2 s, "three" not at all."""
    clip = make_clip(tmp_path / "a.mkv", 48, subtitles=SUBTITLES, chapters=True)
    times = ["--start=0.5", "--end=1.6", "--slow=2"]
    run(monkeypatch, "--video", clip, *times, "--output", tmp_path / "b.mkv")
    with av.open(str(tmp_path / "b.mkv")) as container:
        packets: list[Any] = [p for p in container.demux(subtitles=0) if p.size]
        shown = [(bytes(p), float(p.pts * p.time_base), float(p.duration * p.time_base)) for p in packets]
        assert not container.chapters()  # the only one ended at 0.1 s
    assert shown == [(b"one", 0, 0.4), (b"two", 1, 1)]


def test_two_and_a_half_times_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "a.mp4", 9)
    run(monkeypatch, "--video", clip, "--multi=2.5")
    assert Clip(tmp_path / "a_60fps.mp4").times == [F(n, 60) for n in range(21)]


def test_a_blurred_file_keeps_its_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "a.mp4", 5)
    run(monkeypatch, "--video", clip, "--blur=180", "--output", tmp_path / "b.mp4")
    assert Clip(tmp_path / "b.mp4").times == [F(n, 24) for n in range(5)]


def test_a_span_after_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six frames at 24 frames/s do not end after a quarter of a second if three of them come later."""
    clip = make_clip(tmp_path / "a.mp4", 6, times=[F(n, 24) + 3 * (n > 2) for n in range(6)])
    run(monkeypatch, "--video", clip, "--start=3", "--output", tmp_path / "b.mp4")
    assert Clip(tmp_path / "b.mp4").times == [F(6 + n, 48) for n in range(5)]


def test_the_number_of_frames_in_a_span_of_a_picture_that_starts_late(tmp_path: Path) -> None:
    late = replace(open_frames(make_clip(tmp_path / "a.mp4", 6)), first=F(3))
    spans = (F(1), None), (F(3) + F(2, 24), None), (F(1), F(3) + F(2, 24))
    assert [trim_source(late, *span).count for span in spans] == [6, 4, 2]


def test_a_span_of_pictures_and_one_without_frames(tmp_path: Path) -> None:
    for n in range(5):
        write_picture(tmp_path / f"{n}.png", np.full((16, 16, 3), 10 * n, np.uint8))
    source = trim_source(open_frames(tmp_path, F(10)), F(1, 10), F(3, 10))
    shown = [(frame.time, int(frame.rgb()[0, 0, 0])) for frame in trimmed_frames(source)]
    assert shown == [(F(0), 10), (F(1, 10), 20)]
    with pytest.raises(UserError, match="has no frame in the chosen span"):
        list(trimmed_frames(trim_source(open_frames(tmp_path, F(10)), F(9), None)))
    with pytest.raises(UserError, match="has only one frame in the chosen span; give a longer one"):
        list(trimmed_frames(trim_source(open_frames(tmp_path, F(10)), F(0), F(1, 10))))
