"""Makes small clips of known content: a square that moves by a whole number of pixels; reads what was written."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = Fraction(24)
TONE = 440  # Hz


def picture(i: int, size: tuple[int, int] = (64, 48), depth: int = 8) -> np.ndarray:
    """Returns (H,W,3): a smooth ground and a square that has moved i * 2 pixels to the right."""
    width, height = size
    limit = 2**16 - 1 if depth > 8 else 255
    ys, xs = np.mgrid[0:height, 0:width]
    rgb = np.stack((xs / width * 0.6 + 0.2, ys / height * 0.6 + 0.2, 0.5 + 0 * xs), 2)
    left = width // 8 + 2 * i
    rgb[height // 4 : height // 2, left : left + width // 6] = (0.9, 0.8, 0.1)
    return (rgb * limit).round().astype(np.uint16 if depth > 8 else np.uint8)


def make_clip(
    path: Path,
    count: int = 6,
    *,
    size: tuple[int, int] = (64, 48),
    rate: Fraction = RATE,
    times: Sequence[Fraction] | None = None,  # seconds; a variable rate
    pictures: Sequence[np.ndarray] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    audio: Sequence[str] = (),  # codecs of the audio tracks
    subtitles: str = "",  # SubRip text
    rotation: int = 0,
    aspect: Fraction | None = None,
    tags: tuple[int, int, int, int] | None = None,  # matrix, range, primaries, transfer
    chapters: bool = False,
    container_options: dict[str, str] | None = None,
) -> Path:
    depth = 16 if "10" in pix_fmt or "12" in pix_fmt else 8
    with av.open(str(path), "w", options=container_options or {}) as out:
        stream: Any = out.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        encoder = stream.codec_context
        encoder.time_base = Fraction(1, 90000) if times else 1 / rate
        if aspect:
            encoder.sample_aspect_ratio = aspect
        if tags:
            encoder.colorspace, encoder.color_range, encoder.color_primaries, encoder.color_trc = tags
        if rotation:
            stream.set_display_rotation(rotation)
        tracks = [audio_stream(out, name) for name in audio]
        text = _subtitle_source(path, subtitles) if subtitles else None
        text_stream: Any = out.add_stream_from_template(text.streams[0]) if text else None
        out.metadata["title"] = "a clip"
        if chapters:
            out.set_chapters(
                [{"id": 1, "start": 0, "end": 100, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}}]
            )
        out.start_encoding()
        for track in tracks:
            write_tone(out, track, float(count / rate), times[0] if times else Fraction(0))
        if text is not None:
            for packet in text.demux():
                if packet.size:
                    packet.stream = text_stream
                    out.mux(packet)
            text.close()
        for i in range(count):
            rgb = pictures[i] if pictures is not None else picture(i, size, depth)
            frame = av.VideoFrame.from_ndarray(rgb, "rgb48le" if depth > 8 else "rgb24").reformat(format=pix_fmt)
            time = times[i] if times else i / rate
            frame.time_base = encoder.time_base
            frame.pts = round(time / encoder.time_base)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def _subtitle_source(clip: Path, text: str) -> Any:
    path = clip.with_suffix(".srt")
    path.write_text(text)
    return av.open(str(path))


def audio_stream(out: Any, name: str) -> Any:
    stream = out.add_stream(name, rate=48000, layout="mono")
    stream.codec_context.open()
    return stream


def write_tone(out: Any, stream: Any, seconds: float, start: Fraction) -> None:
    encoder = stream.codec_context
    samples = (np.sin(np.arange(int(seconds * 48000)) * TONE * 2 * np.pi / 48000) * 8000).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, round(start * 48000), Fraction(1, 48000)
    resampler = av.AudioResampler(encoder.format, encoder.layout, 48000, encoder.frame_size or None)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        out.mux(stream.encode(piece))
    out.mux(stream.encode(None))


class Clip:
    """Reads a file with PyAV alone: an independent reader of what the project wrote."""

    def __init__(self, path: Path) -> None:
        self.pictures: list[av.VideoFrame] = []
        self.packets: dict[str, list[bytes]] = {}  # of the other tracks, by "type index among its type"
        with av.open(str(path)) as container:
            video: Any = container.streams.best("video")
            kinds = {
                s.index: f"{s.type} {[t for t in container.streams if t.type == s.type].index(s)}"
                for s in container.streams
            }
            self.codecs = [s.codec_context.name for s in container.streams if s.type == "audio"]
            self.kinds = sorted(kinds.values())
            self.chapters = container.chapters()
            self.metadata = dict(container.metadata)
            self.duration = Fraction(container.duration or 0, av.time_base)
            self.rate = video.average_rate
            self.aspect = video.sample_aspect_ratio
            packets: Any = container.demux()
            for packet in packets:
                if packet.stream is video:
                    self.pictures += packet.decode()
                elif packet.size:
                    self.packets.setdefault(kinds[packet.stream.index], []).append(bytes(packet))
        first = self.pictures[0]
        self.size = first.width, first.height
        self.pix_fmt = first.format.name
        self.rotation = first.rotation
        self.tags = first.colorspace, first.color_range, first.color_primaries, first.color_trc
        self.times = [Fraction(p.pts or 0) * Fraction(p.time_base or 0) for p in self.pictures]

    def planes(self, i: int) -> bytes:
        """Returns the numbers of picture i as stored, without line padding."""
        frame = self.pictures[i]
        lines = []
        for plane, component in zip(frame.planes, frame.format.components, strict=True):
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
            lines.append(rows[:, : plane.width * ((component.bits + 7) // 8)].tobytes())
        return b"".join(lines)
