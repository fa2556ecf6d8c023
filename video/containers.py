"""Lists what each container of an output stores, and what is written into it if the user does not choose.

To add a container, add a line to CONTAINERS. FFmpeg takes the container by the suffix of a file's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from video.writing.animated_picture import APNG, GIF, WEBP, Animation

# A part that a killed run leaves plays up to its last second. MP4 is written in fragments, which become one ordinary
# file at the end (FFmpeg 7.1 and later). Its header is delayed by one fragment: only then does it state when each track
# starts, and what AC-3 holds.
FRAGMENTS = {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "500000"}  # microseconds
CLUSTERS = {"cluster_time_limit": "500"}  # milliseconds
# Pixel formats of Y4M; those of more than 8 bits are read by all programs, but no standard has them.
Y4M_FORMATS = (
    "gray",
    "yuv411p",
    *(f"yuv{chroma}p{bits}" for bits in ("", "10le", "12le", "16le") for chroma in (420, 422, 444)),
)
Y4M_OPTIONS = {"strict": "-1"}


@dataclass(frozen=True)
class Container:
    """Holds the properties of one container; the defaults are those of a container that is not listed."""

    encoder: str = "libx264"  # of the picture
    pix_fmts: tuple[str, ...] = ()  # that it stores; empty: those of the encoder
    options: Mapping[str, str] = field(default_factory=dict)  # for FFmpeg, of the container itself
    sound: tuple[str, ...] = ("aac", "libopus", "libmp3lame")  # encoders of sound that is not copied, best first
    subtitles: str | None = None  # encoder of text subtitles that it does not take as they are
    is_mp4: bool = False  # or a relative of MP4
    has_times: bool = True  # False: a finer time base than the frame rate would be stored as the frame rate
    has_colour_tags: bool = True
    has_aspect: bool = False  # the shape of a pixel, if the encoder does not write it into the stream
    has_rotation: bool = False  # a display matrix
    has_hdr: bool = False  # metadata of HDR, if the encoder does not write it into the stream
    has_exact_times: bool = False  # of packets, so that segments can be joined
    animation: Animation | None = None  # if it is an animated picture


PHONE = Container(options=FRAGMENTS, subtitles="mov_text", is_mp4=True)
MOV = replace(PHONE, has_aspect=True, has_rotation=True, has_exact_times=True)
CONTAINERS = {
    ".mp4": replace(MOV, has_hdr=True),
    ".m4v": MOV,
    ".mov": MOV,
    ".m4a": PHONE,
    ".3gp": PHONE,
    ".3g2": PHONE,
    ".mkv": Container(options=CLUSTERS, subtitles="subrip", has_rotation=True, has_hdr=True, has_exact_times=True),
    ".mka": Container(options=CLUSTERS),
    ".webm": Container(
        "libvpx-vp9",
        options=CLUSTERS,
        sound=("libopus",),
        subtitles="webvtt",
        has_hdr=True,
        has_exact_times=True,
    ),
    ".avi": Container(sound=("libmp3lame", "pcm_s16le"), has_times=False),
    ".gif": Container("gif", sound=(), animation=GIF),
    ".apng": Container("apng", animation=APNG),
    ".webp": Container("libwebp_anim", animation=WEBP),
    ".nut": Container("rawvideo", has_colour_tags=False),
    ".y4m": Container("rawvideo", Y4M_FORMATS, Y4M_OPTIONS, has_times=False, has_colour_tags=False),
}


def container_of(suffix: str) -> Container:
    """Returns the container of files whose names end in `suffix`."""
    return CONTAINERS.get(suffix.lower(), Container())
