"""Names the tags of a source that an output does not hold: the output is written to memory and read back.

Where the output is the picture alone, the other tracks, the chapters and the tags of the file are named.
"""

from collections.abc import Sequence

from av.container import InputContainer
from av.stream import Stream

from video.reading.container import main_video, open_container
from video.reading.reader import Source
from video.timing.timecode import TIMECODE
from video.writing.track import describe_stream

Tags = dict[str, str]
# Tags that are of a container or of a program rather than of the content, or that another line names.
TECHNICAL = (
    *("encoder", "handler_name", "vendor_id", "duration", "software", "alpha_mode", "stereo_mode", "filename"),
    *("major_brand", "minor_version", "compatible_brands"),
)
STATISTICS = ("_statistics", "bps", "number_of_", "mimetype")  # starts of such names
UNKNOWN_LANGUAGE = "und"


def read_tags(container: InputContainer) -> list[Tags]:
    """Returns the tags of an opened file: those of the whole, then those of each stream."""
    return [dict(holder.metadata) for holder in (container, *container.streams)]


def has_tags(container: InputContainer) -> bool:
    """Returns whether a file has any tag that an output could lose."""
    return any(not _is_technical(name.lower(), value) for tags in read_tags(container) for name, value in tags.items())


def describe_lost_tags(
    wanted: Sequence[Tags], found: Sequence[Tags], streams: Sequence[Stream], form: str
) -> list[str]:
    """Returns a line for the user if tags of `wanted` are not in `found`; both as of `read_tags`.

    `streams` are those of the source that the streams of the output are made of. `form` is the name of the container.
    """
    lost = [*_lost(wanted[0], found[0])]
    for stream, tags, kept in zip(streams, wanted[1:], found[1:], strict=False):
        lost += [f"{name} of {describe_stream(stream)}" for name in _lost(tags, kept)]
    lost += [TIMECODE] if _holds_timecode(wanted) and not _holds_timecode(found) else []
    return [f"tags dropped: {', '.join(lost)}: {form} does not hold them"] if lost else []


def describe_left_out(source: Source, output: str) -> list[str]:
    """Returns a line for the user: all tracks, chapters and tags of a source, for an `output` of the picture alone."""
    if not source.is_video:
        return []
    with open_container(source.location) as container:
        picture = main_video(container, source.stream)
        names = [describe_stream(stream) for stream in container.streams if stream is not picture]
        names += [f"{len(container.chapters())} chapters"] if container.chapters() else []
        names += [name for name, value in container.metadata.items() if not _is_technical(name.lower(), value)]
    return [f"left out of {output}: {', '.join(names)}"] if names else []


def _lost(wanted: Tags, found: Tags) -> list[str]:
    """Returns the names of the tags of content whose name and value are both missing in `found`."""
    names, values = {name.lower() for name in found}, {*found.values()}
    return [
        name
        for name, value in wanted.items()
        if not (name.lower() in names or value in values or _is_technical(name.lower(), value))
    ]


def _holds_timecode(tags: Sequence[Tags]) -> bool:
    """Returns whether the file or a stream has a timecode: containers move it from one to the other."""
    return any(name.lower() == TIMECODE for holder in tags for name in holder)


def _is_technical(name: str, value: str) -> bool:
    is_empty = not value.strip() or (name == "language" and value == UNKNOWN_LANGUAGE)
    return is_empty or name in TECHNICAL or name == TIMECODE or name.startswith(STATISTICS)
