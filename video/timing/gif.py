"""Finds the properties that only GIF files have: number of repeats, duration of the last picture, fastest rate."""

from fractions import Fraction
from pathlib import Path

from video.reading.container import main_video, open_container, read_packets
from video.reading.reader import Source

FASTEST = Fraction(50)  # frames/s; browsers show a picture of less than 20 ms for 100 ms
SHORTEST_DELAY = Fraction(1, 50)  # seconds
FOREVER, ONCE = 0, -1
EXTENSION = b"NETSCAPE2.0\x03\x01"  # followed by the number of repeats, 2 bytes, low byte first
SEARCHED_BYTES = 1 << 16  # bytes in which the extension is searched


def repeats(path: Path) -> int:
    """Returns how often a GIF file repeats: FOREVER, ONCE, or a number. Other files repeat forever."""
    if path.suffix.lower() != ".gif" or not path.is_file():
        return FOREVER
    with path.open("rb") as file:
        head = file.read(SEARCHED_BYTES)
    at = head.find(EXTENSION)
    return ONCE if at < 0 else int.from_bytes(head[at + len(EXTENSION) :][:2], "little")


def last_duration(source: Source) -> Fraction:
    """Returns how many seconds the last frame of a source is shown, by its packets."""
    end = (Fraction(0), 1 / source.rate)  # start and duration of the packet that is shown last
    if source.is_video:
        with open_container(source.location) as container:
            stream = main_video(container, source.stream)
            for packet in read_packets(container, [stream] if stream else []):
                if packet.pts is not None and packet.duration and packet.time_base:
                    end = max(end, (packet.pts * packet.time_base, packet.duration * packet.time_base))
    return end[1]


def gif_options(source: Source, last_delay: Fraction) -> dict[str, str]:
    """Returns FFmpeg's options for a GIF file: repeats as the source, the last picture shown for `last_delay` s."""
    delay = max(last_delay, SHORTEST_DELAY)
    return {"loop": str(repeats(source.path)), "final_delay": str(min(round(delay * 100), 65535))}
