"""Chooses the encoder of the picture: its name, settings and pixel format."""

import re
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.codec import UnknownCodecError, find_best_pix_fmt_of_list
from av.container import OutputContainer

from video.alpha import has_alpha
from video.containers import container_of
from video.frame import Colour, is_rgb
from video.hdr import Hdr
from video.pictures.picture import MediaError
from video.writing.audio import COPY

# Constant quality at which each encoder is visually close to its source; others have no such setting.
CRF = {"libx264": 18, "libx265": 20, "libvpx-vp9": 24, "libsvtav1": 24}
PRESET = {"libx264": "medium", "libx265": "medium", "libsvtav1": "8"}
REFUSED_ALPHA = ("libx265",)  # encoders that list formats with alpha, and are built without them
FLOATS = re.compile("f(16|32)(le|be)$")  # in names of pixel formats: samples that are no whole numbers
LISTS = "-params"  # end of the names of settings that are lists of others: name=value:name=value
BITRATE_OPTION = "b"  # a user who gives this setting gets no default quality
CAPTION_OPTION = "a53cc"  # setting of the encoders that store closed captions
QUIET = {
    "libx265": {"x265-params": "log-level=error"},
    "libvpx-vp9": {"b": "0", "row-mt": "1"},
    "libwebp_anim": {"lossless": "1"},
}


@dataclass(frozen=True)
class Encoding:
    """Holds the encoder settings of a user; None takes the default of the suffix or of the encoder."""

    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    audio: str = COPY  # one of AUDIO: what is done with all sound
    options: tuple[tuple[str, str], ...] = ()  # names and values of any other settings of the encoder

    def codec_for(self, path: Path) -> str:
        """Returns the chosen encoder, or the usual one for the file's suffix."""
        return self.codec or container_of(path.suffix).encoder


@dataclass(frozen=True)
class VideoSettings:
    """Holds all that defines the video stream of an output."""

    codec: str
    pix_fmt: str
    width: int
    height: int
    rate: Fraction  # frames/s
    time_base: Fraction  # seconds
    encoding: Encoding
    colour: Colour | None = None  # tags to write
    aspect: Fraction | None = None  # of a pixel
    display_matrix: tuple[int, ...] | None = field(default=None, repr=False)
    hdr: Hdr = field(default_factory=Hdr)

    def add_to(self, output: OutputContainer) -> Any:
        """Adds the stream, with its encoder open, to a container and returns it. Raises what the library raises."""
        stream = self._new_stream(output)
        encoder = stream.codec_context
        encoder.width, encoder.height, encoder.pix_fmt = self.width, self.height, self.pix_fmt
        encoder.time_base, encoder.framerate = self.time_base, self.rate
        if self.aspect:
            encoder.sample_aspect_ratio = self.aspect
        if self.colour is not None:
            encoder.colorspace, encoder.color_range = self.colour.matrix, self.colour.range
            encoder.color_primaries, encoder.color_trc = self.colour.primaries, self.colour.transfer
        if self.display_matrix:
            stream.set_display_matrix(self.display_matrix)
        known = {o.name for o in encoder.supported_options.private}
        options = codec_options(self.codec, self.encoding, known)
        if output.format.name == "yuv4mpegpipe":  # takes unknown as centred, which decoders take as left
            options["chroma_sample_location"] = "left"
        for name, value in (*self.hdr.options(self.codec).items(), *self.encoding.options):
            options[name] = ":".join(filter(None, (options.get(name), value))) if name.endswith(LISTS) else value
        encoder.options = options
        encoder.thread_type = "AUTO"
        encoder.open()
        if unknown := encoder.options.keys() & dict(self.encoding.options):  # what FFmpeg has not taken
            raise MediaError(f"{', '.join(sorted(unknown))}: {self.codec} has no such setting; leave it out")
        return stream

    def _new_stream(self, output: OutputContainer) -> Any:
        """Adds a stream without settings; with the HDR metadata that the container holds beside it."""
        header = self.hdr.stream_header(self.codec)
        if header is None:
            return output.add_stream(self.codec, rate=self.rate)
        with av.open(BytesIO(header), format="matroska") as like:
            return output.add_stream_from_template(like.streams.video[0], opaque=False)

    def blank_frame(self) -> av.VideoFrame:
        """Returns a picture of zeros at time 0, for a trial of the encoder."""
        frame = av.VideoFrame(self.width, self.height, self.pix_fmt)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts, frame.time_base = 0, self.time_base
        if self.colour is not None:
            frame.colorspace, frame.color_range = self.colour.matrix, self.colour.range
        return frame


def check_pix_fmt(name: str | None) -> str | None:
    """Returns the name of a pixel format. Raises MediaError if FFmpeg has none of that name."""
    try:
        return name and av.VideoFormat(name).name
    except ValueError as e:
        raise MediaError(f"pixel format {name}: FFmpeg has none of that name; as in yuv420p, yuv422p10le, rgb24") from e


def choose_pix_fmt(codec: str, wanted: str, width: int, height: int, suffix: str = "") -> str:
    """Returns the pixel format of encoder and container nearest to the source's, with whole chroma for odd sizes.

    RGB becomes 4:2:0 for encoders of videos that are watched: few players show others. Encoders without loss, and
    those of single pictures, as ProRes, keep it.
    """
    try:
        encoder = av.Codec(codec, "w")
    except (UnknownCodecError, ValueError) as e:
        raise MediaError(f"codec {codec}: no such encoder; try libx264, libx265, libsvtav1, ffv1, prores_ks") from e
    if encoder.type != "video":
        raise MediaError(f"codec {codec}: encodes {encoder.type}, not video; try libx264, libx265, libsvtav1, ffv1")
    listed = [f.name for f in encoder.video_formats or () if not FLOATS.search(f.name)]
    formats = listed or list(container_of(suffix).pix_fmts)
    if codec == "gif":
        return "pal8"
    if codec == "dnxhd" and is_rgb(wanted):  # its profile for RGB needs a setting of its own
        wanted = "yuv422p"
    full_range_twin = wanted.replace("yuvj", "yuv")  # the same numbers; the range is a tag of its own
    alpha = has_alpha(wanted)
    if full_range_twin in formats or not formats:
        wanted = full_range_twin
    elif is_rgb(wanted) and encoder.lossy and not encoder.intra_only:
        deep = max(c.bits for c in av.VideoFormat(wanted).components) > 8
        wanted = ("yuva420p" if alpha else "yuv420p") + ("10le" if deep else "")
    if codec in REFUSED_ALPHA:
        formats, alpha = [name for name in formats if not has_alpha(name)], False
    best, _ = find_best_pix_fmt_of_list(formats, wanted, has_alpha=alpha) if formats else (None, None)
    name = best.name if best else wanted
    if codec in ("libx264", "libx265", "libsvtav1") and (width % 2 or height % 2) and "444" not in name:
        whole = "yuv444p10le" if "10" in name else "yuv444p"
        return whole if whole in formats else name
    return name


def codec_options(codec: str, encoding: Encoding, known: set[str]) -> dict[str, str]:
    """Returns the encoder's private options. Raises MediaError if a setting is given that is not among the `known`."""
    options = dict(QUIET.get(codec, {}))
    if CAPTION_OPTION in known:
        options[CAPTION_OPTION] = "1"
    default = None if BITRATE_OPTION in dict(encoding.options) else CRF.get(codec)
    settings = {
        "crf": encoding.crf if encoding.crf is not None else default,
        "preset": encoding.preset or PRESET.get(codec),
    }
    for name, value in settings.items():
        if value is None:
            continue
        if name not in known:
            raise MediaError(f"{name}: {codec} has no such setting; leave it out")
        options[name] = str(value)
    return options


def holds_captions(codec: str) -> bool:
    """Returns whether an encoder stores closed captions (CTA-708, ATSC A/53) that its frames carry."""
    return CAPTION_OPTION in {option.name for option in av.CodecContext.create(codec, "w").supported_options.private}


def palette_graph(size: tuple[int, int], pix_fmt: str, time_base: Fraction, generate: str, use: str) -> av.filter.Graph:
    """Returns a graph that turns pictures into ones with a palette of 256 colours.

    `generate` and `use` are the settings of FFmpeg's filters palettegen and paletteuse.
    """
    graph = av.filter.Graph()
    source = graph.add_buffer(width=size[0], height=size[1], format=av.VideoFormat(pix_fmt), time_base=time_base)
    split = graph.add("split")
    palette, coloured = graph.add("palettegen", generate), graph.add("paletteuse", use)
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(coloured, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(coloured, 0, 1)
    coloured.link_to(sink)
    graph.configure()
    return graph


def quantise(rgb: np.ndarray) -> av.VideoFrame:
    """Returns (H,W,3 or 4) as a picture with its own best palette of 256 colours, for GIF; alpha: all or none."""
    if rgb.dtype == np.uint16:
        rgb = np.round(rgb / 257).astype(np.uint8)
    kind = "rgba" if rgb.shape[2] == 4 else "rgb24"
    height, width = rgb.shape[:2]
    graph = palette_graph((width, height), kind, Fraction(1, 100), "stats_mode=single", "new=1:dither=sierra2_4a")
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), kind)
    picture.pts, picture.time_base = 0, Fraction(1, 100)
    graph.vpush(picture)
    graph.vpush(None)
    return graph.vpull()
