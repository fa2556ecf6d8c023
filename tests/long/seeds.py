"""Makes the small valid inputs that the fuzz run damages: videos, pictures and weight files."""

import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
import safetensors.torch
import torch

from model.IFNet_v4 import IFNet_v4
from model.weights.published import IFNetConfig
from video.pictures.picture import write_picture

NCNN = Path(__file__).parents[1] / "golden" / "ncnn"
FRAMES, SIZE = 8, (64, 48)
# The graph of 4.25 at widths that nobody published: a frame of 64x64 px takes a few milliseconds.
CONFIG = IFNetConfig((8, 8, 4, 4, 4), (16, 8, 4, 2, 1), encoder="H3", encoder_width=4, encoder_channels=4)


class Seed(NamedTuple):
    """Holds the files of one valid input, the name of the one to pass to the command, and its kind."""

    kind: str  # video, picture or weights
    name: str
    files: dict[str, bytes]


# Name: container suffix, video encoder, pixel format, encoder options, sound encoder or "".
VIDEOS = {
    "h264_aac.mp4": ("libx264", "yuv420p", {"bf": "2", "g": "4"}, "aac"),
    "mpeg4.mov": ("mpeg4", "yuv420p", {}, "pcm_s16le"),
    "h264_flac.mkv": ("libx264", "yuv420p", {"bf": "2"}, "flac"),
    "vp9_opus.webm": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}, "libopus"),
    "mpeg4_mp3.avi": ("mpeg4", "yuv420p", {"bf": "1"}, "libmp3lame"),
    "flv1.flv": ("flv", "yuv420p", {}, "aac"),
    "h264_aac.ts": ("libx264", "yuv420p", {"bf": "2", "g": "4"}, "aac"),
    "mpeg2_mp2.mpg": ("mpeg2video", "yuv420p", {"bf": "1"}, "mp2"),
    "x.gif": ("gif", "rgb8", {}, ""),
    "h264_10bit.mp4": ("libx264", "yuv420p10le", {"preset": "ultrafast"}, ""),
    "ffv1.mkv": ("ffv1", "yuv444p", {}, ""),
}


def picture(i: int) -> np.ndarray:
    """Returns frame i (H,W,3) uint8: a textured ground and a square that moves by 3 px a frame."""
    width, height = SIZE
    rng = np.random.default_rng(0)
    rgb = cv2.resize(rng.integers(60, 200, (6, 8, 3), dtype=np.uint8), SIZE, interpolation=cv2.INTER_CUBIC)
    left = width // 8 + 3 * i
    rgb[height // 4 : height // 2, left : left + width // 6] = (230, 200, 30)
    return rgb


def make_video(path: Path) -> None:
    """Encodes FRAMES frames, with a tone of the same length where VIDEOS names a sound encoder."""
    codec, pix_fmt, options, sound = VIDEOS[path.name]
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=Fraction(24), options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pix_fmt
        stream.codec_context.thread_count = 1
        audio: Any = out.add_stream(sound, rate=48000, layout="stereo") if sound else None
        if audio is not None:
            audio.codec_context.open()  # before the first packet: its frame size is needed below
        for i in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(i), "rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = i, Fraction(1, 24)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if audio is not None:
            wave = (np.sin(np.arange(48000 * FRAMES // 24) / 17) * 8000).astype(np.int16)
            tone = av.AudioFrame.from_ndarray(np.stack((wave, wave)), "s16p", "stereo")
            tone.sample_rate, tone.pts = 48000, 0
            context = audio.codec_context
            resampler = av.AudioResampler(context.format, context.layout, 48000, context.frame_size or None)
            for piece in [*resampler.resample(tone), *resampler.resample(None)]:
                out.mux(audio.encode(piece))
            out.mux(audio.encode(None))


def encoded(save: Callable[[io.BytesIO], Any]) -> bytes:
    """Returns what a function writes to a file."""
    out = io.BytesIO()
    save(out)
    return out.getvalue()


def make_weights() -> dict[str, bytes]:
    """Returns the weights of one small network in every file format, by file name."""
    torch.manual_seed(7)
    state = IFNet_v4(CONFIG).state_dict()
    plain = {f"module.{key}": value for key, value in state.items()}
    pickled = encoded(lambda out: torch.save(plain, out))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("train_log/flownet.pkl", pickled)
    return {
        "flownet.pkl": pickled,
        "old.pth": encoded(lambda out: torch.save(plain, out, _use_new_zipfile_serialization=False)),
        "flownet.safetensors": safetensors.torch.save(state),
        "weights.zip": archive.getvalue(),
    }


def make_seeds() -> list[Seed]:
    """Returns one seed for each format that the commands read."""
    folder = Path(tempfile.mkdtemp())
    seeds = []
    try:
        for name in VIDEOS:
            make_video(folder / name)
            seeds.append(Seed("video", name, {name: (folder / name).read_bytes()}))
        rgb = picture(0)
        deep = np.dstack((rgb, rgb[..., 0])).astype(np.uint16) * 257
        others: dict[str, np.ndarray] = {"deep.png": deep, "a.exr": rgb.astype(np.float32) / 255}
        for name in ("a.png", "a.jpg", "a.webp", "a.tif", *others):
            write_picture(folder / name, others.get(name, rgb))
            seeds.append(Seed("picture", name, {name: (folder / name).read_bytes()}))
        cv2.imwrite(str(folder / "a.bmp"), rgb)
        seeds.append(Seed("picture", "a.bmp", {"a.bmp": (folder / "a.bmp").read_bytes()}))
    finally:
        shutil.rmtree(folder)
    seeds += [Seed("weights", name, {name: data}) for name, data in make_weights().items()]
    ncnn = {f"flownet{end}": (NCNN / f"fp16{end}").read_bytes() for end in (".param", ".bin")}
    return [*seeds, Seed("weights", "flownet.param", ncnn)]
