"""Which encoder, with which settings and which pixel format."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.codec import UnknownCodecError, find_best_pix_fmt_of_list

from video.picture import MediaError

CODECS = {".webm": "libvpx-vp9", ".gif": "gif"}  # by suffix; everything else gets H.264
DEFAULT_CODEC = "libx264"
# Constant quality at which each encoder is visually close to its source; others have no such setting.
CRF = {"libx264": 18, "libx265": 20, "libvpx-vp9": 24, "libsvtav1": 24}
PRESET = {"libx264": "medium", "libx265": "medium", "libsvtav1": "8"}
QUIET = {"libx265": {"x265-params": "log-level=error"}, "libvpx-vp9": {"b": "0", "row-mt": "1"}}


@dataclass(frozen=True)
class Encoding:
    """How to encode; None takes the default of the suffix or of the codec."""

    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    pix_fmt: str | None = None

    def codec_for(self, path: Path) -> str:
        """The encoder asked for, or the usual one for the file's suffix."""
        return self.codec or CODECS.get(path.suffix.lower(), DEFAULT_CODEC)


def choose_pix_fmt(codec: str, wanted: str, width: int, height: int) -> str:
    """The encoder's pixel format nearest to the source's; 4:2:0 for RGB sources, whole chroma for odd sizes."""
    try:
        encoder = av.Codec(codec, "w")
    except (UnknownCodecError, ValueError) as e:
        raise MediaError(f"--codec {codec}: no such encoder; try libx264, libx265, libsvtav1, ffv1, prores_ks") from e
    if encoder.type != "video":
        raise MediaError(f"--codec {codec}: encodes {encoder.type}, not video; try libx264, libx265, libsvtav1, ffv1")
    formats = [f.name for f in encoder.video_formats or ()]
    if codec == "gif":
        return "pal8"
    full_range_twin = wanted.replace("yuvj", "yuv")  # the same numbers; the range is a tag of its own
    if full_range_twin in formats:
        wanted = full_range_twin
    elif av.VideoFormat(wanted).is_rgb or wanted == "pal8":
        wanted = "yuv420p10le" if max(c.bits for c in av.VideoFormat(wanted).components) > 8 else "yuv420p"
    best, _ = find_best_pix_fmt_of_list(formats, wanted) if formats else (None, None)
    name = best.name if best else wanted
    if codec in ("libx264", "libx265", "libsvtav1") and (width % 2 or height % 2) and "444" not in name:
        whole = "yuv444p10le" if "10" in name else "yuv444p"
        return whole if whole in formats else name
    return name


def codec_options(codec: str, encoding: Encoding, known: set[str]) -> dict[str, str]:
    """The encoder's private options; MediaError if a setting was asked for that is not among the `known` ones."""
    options = dict(QUIET.get(codec, {}))
    asked = {
        "crf": encoding.crf if encoding.crf is not None else CRF.get(codec),
        "preset": encoding.preset or PRESET.get(codec),
    }
    for name, value in asked.items():
        if value is None:
            continue
        if name not in known:
            raise MediaError(f"--{name}: {codec} has no such setting; leave it out")
        options[name] = str(value)
    return options


def quantise(rgb: np.ndarray) -> av.VideoFrame:
    """(H,W,3 or 4) uint8 -> a picture with its own best palette of 256 colours, for GIF; alpha becomes all or none."""
    kind = "rgba" if rgb.shape[2] == 4 else "rgb24"
    graph = av.filter.Graph()
    height, width = rgb.shape[:2]
    buffer = graph.add_buffer(width=width, height=height, format=av.VideoFormat(kind), time_base=Fraction(1, 100))
    split = graph.add("split")
    generate, use = graph.add("palettegen", "stats_mode=single"), graph.add("paletteuse", "new=1:dither=sierra2_4a")
    sink = graph.add("buffersink")
    buffer.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(generate, 1, 0)
    generate.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), kind)
    picture.pts, picture.time_base = 0, Fraction(1, 100)
    graph.vpush(picture)
    graph.vpush(None)
    return graph.vpull()
