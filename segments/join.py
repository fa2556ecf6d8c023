"""Joins the segments: their packets are copied into the final file, which gets the source's other tracks once."""

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path

from av.packet import Packet
from av.video.stream import VideoStream

from segments.folder import Record, WorkFolder
from segments.inspect import Inspection, inspect_video
from segments.plan import Plan
from segments.worker import Hold
from video.containers import CONTAINERS
from video.pictures.picture import MediaError
from video.reading.container import main_video, open_container, read_packets
from video.safe_file import check_output, sync_folder
from video.writing.picture_writer import WRITTEN_SUFFIXES
from video.writing.writer import VideoWriter

# Containers whose packets have exact times, so that segments in them can be joined.
JOINABLE = tuple(suffix for suffix, container in CONTAINERS.items() if container.has_exact_times)
# Encoders whose segments were joined and decoded in a test (docs/cluster.md).
JOINED_ENCODERS = ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "prores_ks", "ffv1", "png")
OpenWriter = Callable[[VideoStream], VideoWriter]


def join_videos(
    folder: WorkFolder, plan: Plan, open_writer: OpenWriter, rate: Fraction | None, held: Hold = nullcontext
) -> VideoWriter:
    """Copies all segments into one file, `folder.joined`; returns its writer, which is finished.

    The frames keep their times, which are those of the whole output; with a `rate` they are numbered anew and shown at
    `rate` frames/s. The file is written in the context of `held`. Raises MediaError if the segments do not belong
    together.
    """
    parts = [(folder.file(i), record) for i, record in enumerate(folder.records(plan)) if record.frames]
    headers = {record.header for _, record in parts}
    if len(headers) > 1:
        raise MediaError(f"{folder.path}: segments by different encoders or settings; overwrite them to make all anew")
    if not parts:
        raise MediaError(f"{folder.path}: no segment holds a frame; is the rate too low?")
    delay = max(record.delay for _, record in parts)
    writer: VideoWriter | None = None
    try:
        with open_container(parts[0][0]) as container, held():
            template = main_video(container)
            assert template is not None
            writer = open_writer(template)
        count = sum(record.frames for _, record in parts)
        last = parts[-1][1]
        if last.duration is not None:
            video = inspect_video(parts[-1][0])
            time = _display_times(video, last, count - last.frames, rate)[-1] * video.time_base
            writer.set_end(time, Fraction(last.duration))
        for number, packet in enumerate(_joined_packets(parts, delay, rate), 1):
            with held():
                writer.copy(packet, is_last=number == count)
        with held():
            writer.finish()
    except BaseException:
        if writer is not None:
            writer.stop()
            writer.part.unlink(missing_ok=True)
        raise
    return writer


def _joined_packets(parts: list[tuple[Path, Record]], delay: int, rate: Fraction | None) -> Iterator[Packet]:
    """Yields the packets of all files in order of decoding, with rising decoding times.

    As encoders do, a frame is decoded at the display time of the frame `delay` places before it in order of display.
    """
    earlier: list[int] = []  # display times of the last `delay` frames
    frames = 0
    for file, record in parts:
        video = inspect_video(file)
        times = _display_times(video, record, frames, rate)
        moved = dict(zip(video.times, times, strict=True))
        if not frames:
            lead = times[min(delay, len(times) - 1)] - times[0]
            earlier = [time - lead for time in (*times, *range(times[-1] + 1, times[-1] + 1 + delay))][:delay]
        decoding = [*earlier, *times]
        with open_container(file) as container:
            stream = main_video(container)
            assert stream is not None
            packets = (packet for packet in read_packets(container, [stream]) if packet.size)
            for place, packet in enumerate(packets):
                assert packet.pts is not None  # as inspected
                packet.pts = moved[packet.pts]
                packet.dts = decoding[place]
                yield packet
        frames += len(times)
        earlier = decoding[len(decoding) - delay :]


def _display_times(video: Inspection, record: Record, number: int, rate: Fraction | None) -> list[int]:
    """Returns the times of the frames of one file in the joined one, in its time base; `number` frames are before it.

    The file begins at the time in its record, or at that of its number: MP4 rounds the start of a file to milliseconds.
    """
    if rate is not None:
        return [round((number + i) / rate / video.time_base) for i in range(len(video.times))]
    late = round(Fraction(record.first) / video.time_base) - video.times[0]
    return [time + late for time in video.times]


def join_pictures(folder: WorkFolder, plan: Plan, target: Path) -> int:
    """Moves the pictures of all segments into one folder, numbered through; returns how many there are.

    Pictures that an interrupted call has moved are left where they are.
    """
    number = 0
    for index, record in enumerate(folder.records(plan)):
        for i in range(record.frames):
            for suffix in WRITTEN_SUFFIXES:
                picture = folder.file(index) / f"{i:07d}{suffix}"
                if picture.exists():
                    os.replace(picture, target / f"{number:07d}{suffix}")
            number += 1
    sync_folder(target)
    return number


def publish(joined: Path, path: Path, *, overwrite: bool) -> None:
    """Gives the joined file its final name; one that exists is replaced only if `overwrite`."""
    if overwrite:
        os.replace(joined, path)
    elif not (path.exists() and path.samefile(joined)):
        check_output(path)
        try:
            os.link(joined, path)
        except FileExistsError as e:
            raise MediaError(f"{path}: was made by another program meanwhile; the whole result is in {joined}") from e
        except OSError:  # a file system without hard links
            os.rename(joined, path)
    sync_folder(path.parent)
