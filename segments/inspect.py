"""Reads the times of a segment's packets, to verify it and to join it."""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from video.pictures.picture import MediaError
from video.reading.container import main_video, open_container, read_packets


@dataclass(frozen=True)
class Inspection:
    """Holds the times of a file's frames in order of display, in units of `time_base` seconds."""

    times: list[int]
    time_base: Fraction
    delay: int  # frames that the order of decoding is behind the order of display, at most
    header: str  # hash of the encoder's header


def inspect_video(path: Path) -> Inspection:
    """Reads the times of all frames of a video without decoding it. Raises MediaError if it is damaged."""
    with open_container(path) as container:
        stream = main_video(container)
        if stream is None or stream.time_base is None:
            raise MediaError(f"{path}: holds no video; remove it to make it again")
        stamps = [packet.pts for packet in read_packets(container, [stream]) if packet.size]
        header = hashlib.sha256(stream.codec_context.extradata or b"").hexdigest()[:16]
        times = sorted(stamp for stamp in stamps if stamp is not None)
        if len(set(times)) != len(stamps):
            raise MediaError(
                f"{path}: has frames without times of their own; choose mp4, mkv, mov or webm as the output"
            )
        return Inspection(times, stream.time_base, decoding_delay(stamps), header)


def decoding_delay(stamps: list[int | None]) -> int:
    """Returns how many frames after its place in display order a frame is decoded, at most."""
    ranks = {stamp: rank for rank, stamp in enumerate(sorted(s for s in stamps if s is not None))}
    return max((place - ranks[stamp] for place, stamp in enumerate(stamps) if stamp is not None), default=0)


def file_size(path: Path) -> int:
    """Returns the bytes of a file; 0 for a folder."""
    return 0 if path.is_dir() else path.stat().st_size
