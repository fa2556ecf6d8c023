"""Finds sound of AVI files whose header has a wrong rate, and gives its packets the times at which they play.

AVI files have no times: FFmpeg counts the packets at the rate of the header. How long a packet plays is known from the
codec.
"""

from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from statistics import median

from av.container import InputContainer
from av.packet import Packet

from video.losses import LIBRARY_ERRORS
from video.reading.container import Location, open_container, read_packets

SAMPLE = 50  # packets of a track that are compared
LARGEST_RATIO = 1.5  # of the step between two packets to the duration of one, or the reverse


def find_wrong_rates(location: Location, opened: InputContainer) -> set[int]:
    """Returns the numbers of the sound streams of an AVI file whose packets do not come at the rate at which they play.

    Empty for files of other formats. `opened` is the same file; it is not read any further.
    """
    wrong: set[int] = set()
    if opened.format.name != "avi":
        return wrong
    for number in [stream.index for stream in opened.streams.audio]:
        with open_container(location) as container:
            packets = read_packets(container, [container.streams[number]])
            if _is_wrong(islice((packet for packet in packets if packet.size), SAMPLE)):
                wrong.add(number)
    return wrong


def _is_wrong(packets: Iterable[Packet]) -> bool:
    """Returns whether the steps between packets differ from their durations throughout."""
    try:
        stamps = [(packet.dts, packet.duration) for packet in packets if packet.dts is not None]
    except LIBRARY_ERRORS:
        return False
    ratios = [(after - before) / duration for (before, duration), (after, _) in pairwise(stamps) if duration]
    return len(ratios) > 1 and not 1 / LARGEST_RATIO < median(ratios) < LARGEST_RATIO


def one_after_the_other(packets: Iterable[Packet], streams: set[int]) -> Iterator[Packet]:
    """Yields the packets; those of some streams, by number, begin where the packet before them ends."""
    ends: dict[int, int] = {}
    for packet in packets:
        number = packet.stream.index
        if number in streams and packet.size:
            packet.pts = packet.dts = ends.get(number, packet.dts or 0)
            ends[number] = packet.dts + (packet.duration or 0)
        yield packet
