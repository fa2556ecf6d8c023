"""Tries a whole output before the first frame is computed: header, a frame, the tracks' first packets, trailer.

Whatever a container, an encoder or a track would refuse is found here, while nothing has been computed yet.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import AttachmentStream, Disposition, Stream

from model.errors import UserError
from video.losses import LIBRARY_ERRORS, reason
from video.pictures.picture import MediaError
from video.reading.container import main_video, open_container
from video.reading.pipe import InputPipe
from video.reading.reader import Source
from video.writing.audio import COPY, NONE, usable_encoders
from video.writing.encoding import VideoSettings
from video.writing.lost_tags import Tags, describe_lost_tags, has_tags, read_tags
from video.writing.muxer import Muxer
from video.writing.output import MP4, UNFRAGMENTED, MemoryFile, NullFile, open_output
from video.writing.subtitle import usable_format
from video.writing.track import TrackPlan, describe_stream
from video.writing.tracks import Tracks, holds_chapters

DEVICE_TAGS = "com."  # start of the names of tags that phones write; MP4 keeps them under their own names only
# Seconds of the tracks that a trial writes: until every sound track has begun.
SHORTEST_TRIAL, LONGEST_TRIAL = Fraction(1), Fraction(30)


@dataclass
class OutputPlan:
    """Holds how each stream of the source beside its picture is carried into an output, with notes for the user."""

    tracks: list[TrackPlan] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)  # of the container


def try_picture(path: Path, settings: VideoSettings) -> None:
    """Raises MediaError if the encoder, with its settings, or the container refuses the picture."""
    try:
        _try_output(NullFile(path.suffix), settings)
    except UserError:
        raise
    except LIBRARY_ERRORS as e:
        given = ", ".join([settings.pix_fmt, *("=".join(option) for option in settings.encoding.options)])
        raise MediaError(
            f"{path}: {settings.codec} in {path.suffix} with {given} at {settings.width}x{settings.height} "
            f"is refused ({reason(e)}); choose another codec, pixel format or container"
        ) from e


def plan_output(path: Path, settings: VideoSettings, source: Source, *, audio: str = COPY) -> OutputPlan:
    """Returns how each stream other than the picture is written: copied, encoded anew, or dropped and named.

    `audio`, one of AUDIO, is what is done with all sound. Raises MediaError only if the picture itself is refused.
    """
    with open_container(source.location) as container:
        video = main_video(container, source.stream)
        streams: list[Stream] = [s for s in container.streams if s is not video]
        streams = [s for s in streams if audio != NONE or s.type != "audio"]
        form = open_output(NullFile(path.suffix))
        name = form.format.name
        choices = {s.index: list(_possible_plans(s, path.suffix, name, audio, source)) for s in streams}
        plan = OutputPlan([plans[0] for plans in choices.values() if plans])
        trial = _try_tracks(path, settings, source, plan.tracks, container)
        if trial is None:
            try_picture(path, settings)
            plan.tracks = [t for plans in choices.values() if (t := _first_that_works(path, source, plans, container))]
            while (trial := _try_tracks(path, settings, source, plan.tracks, container)) is None and plan.tracks:
                plan.tracks.pop()
        kept = {track.index: track for track in plan.tracks}
        for stream in streams:
            if stream.index not in kept:
                plan.notes.append(f"{describe_stream(stream)} dropped: {_why_dropped(stream, name)}")
            elif (encoder := kept[stream.index].encoder) is not None:
                verb = "transcoded" if stream.type == "audio" else "converted"
                plan.notes.append(f"{describe_stream(stream)} {verb} to {encoder.codec}")
        if container.chapters() and not holds_chapters(form):
            plan.notes.append(f"{len(container.chapters())} chapters dropped: {name} holds none")
        plan.options = _options(path, source, plan.tracks, container)
        if any(plan.options.get(name) == value for name, value in UNFRAGMENTED.items()):
            plan.notes.append("with these subtitles, the file can be played only when it is complete")
        if trial is not None and has_tags(container) and (found := trial.read_tags()):
            made_of = [stream for stream in (video, *(container.streams[i] for i in kept)) if stream is not None]
            had = [*trial.tags, *read_tags(container)]  # a timecode that the output cannot hold is not among its tags
            plan.notes += describe_lost_tags(had, found, made_of, name)
    return plan


def _options(path: Path, source: Source, tracks: Sequence[TrackPlan], container: InputContainer) -> dict[str, str]:
    """Returns the options of the container for these tracks.

    MP4 has no fragments where subtitles are converted or moved: FFmpeg writes wrong times into them, or ends the whole
    process by an assertion.
    """
    if path.suffix.lower() not in MP4:
        return {}
    flags = "+use_metadata_tags" if any(key.startswith(DEVICE_TAGS) for key in container.metadata) else ""
    is_moved = source.is_trimmed or source.length is not None or source.speed is not None
    subtitles = [track for track in tracks if container.streams[track.index].type == "subtitle"]
    if any(track.encoder is not None or is_moved for track in subtitles):
        return {**UNFRAGMENTED, "movflags": UNFRAGMENTED["movflags"] + flags}
    return {"movflags": flags} if flags else {}


def _why_dropped(stream: Stream, container: str) -> str:
    """Returns the reason for the user."""
    if stream.type == "video":
        is_cover = stream.disposition & Disposition.attached_pic
        return "cover pictures are not carried" if is_cover else "one video stream is carried, the main one"
    if stream.type == "data":
        return "tracks of data are not carried; chapters and a timecode are written anew where the container holds them"
    if isinstance(stream, AttachmentStream):
        return f"{container} holds no attachments"
    if stream.codec_context is None:
        return "its codec is not known"
    return f"{container} does not take it"


def _possible_plans(stream: Stream, suffix: str, container: str, audio: str, source: Source) -> Iterator[TrackPlan]:
    """Yields what may be done with a stream, best first; nothing if it cannot be carried at all.

    Sound that is played at another speed, or for which `audio` names an encoder, is not copied.
    """
    if isinstance(stream, AttachmentStream):
        if "matroska" in container:
            yield TrackPlan(stream.index)
    elif isinstance(stream, AudioStream) and stream.codec_context is not None:
        if audio == COPY and source.speed is None:
            yield TrackPlan(stream.index)
        for encoder in usable_encoders(stream, suffix, audio):
            yield TrackPlan(stream.index, encoder)
    elif stream.type == "subtitle" and stream.codec_context is not None:
        yield TrackPlan(stream.index)
        if subtitles := usable_format(stream, suffix):
            yield TrackPlan(stream.index, subtitles)


def _first_that_works(
    path: Path, source: Source, choices: Sequence[TrackPlan], container: InputContainer
) -> TrackPlan | None:
    return next((track for track in choices if _try_tracks(path, None, source, [track], container)), None)


@dataclass(frozen=True)
class _Trial:
    """Holds the start of an output, which was written to memory."""

    tags: list[Tags]  # that the output was given, as of `read_tags`
    file: MemoryFile

    def read_tags(self) -> list[Tags]:
        """Returns the tags that the output holds; none if it cannot be read."""
        try:
            with av.open(io.BytesIO(self.file.getvalue()), "r") as written:
                return read_tags(written)
        except LIBRARY_ERRORS:
            return []


def _try_tracks(
    path: Path, settings: VideoSettings | None, source: Source, plans: Sequence[TrackPlan], container: InputContainer
) -> _Trial | None:
    """Writes the start of an output with these tracks, and a picture if there are settings; None if it is refused."""
    file = MemoryFile(path.suffix)
    try:
        shortest = Fraction(0) if isinstance(source.location, InputPipe) else SHORTEST_TRIAL  # what is read is held
        tracks = Tracks(source, plans)
        tags = _try_output(file, settings, tracks, shortest, _options(path, source, plans, container))
        return None if tracks.lost else _Trial(tags, file)
    except LIBRARY_ERRORS:
        return None


def _try_output(
    file: NullFile | MemoryFile,
    settings: VideoSettings | None,
    tracks: Tracks | None = None,
    shortest: Fraction = SHORTEST_TRIAL,
    options: dict[str, str] | None = None,
) -> list[Tags]:
    """Writes a frame and the first seconds of the tracks, `shortest` at least; returns the tags of the output.

    Raises the library's error if the container or an encoder refuses.
    """
    muxer = None
    try:
        muxer = Muxer(file, settings, tracks, options)
        if settings is not None:
            muxer.encode(settings.blank_frame())
            muxer.encode(None)
        if tracks is not None:
            tracks.write_start(shortest, LONGEST_TRIAL)
        muxer.close()
    except BaseException:
        if muxer is not None:
            muxer.abandon()
        elif tracks is not None:
            tracks.close()
        raise
    return muxer.tags
