"""Finds the input and the output of a run of inference_video.py from its flags, before a network is loaded."""

import argparse
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.video.stream import VideoStream

from commands.side_files import check_side_files, files_read
from commands.speed_flags import changes_speed, timed_source
from commands.video_flags import MAX_RATE
from model import UserError
from segments.folder import WorkFolder
from video.containers import container_of
from video.pictures.montage import montage_size
from video.reading.interlace import KEEP, Deinterlacing, InterlacedError, ScanType
from video.reading.rate import exact_time_base
from video.reading.reader import Source, open_frames
from video.writing.animated_picture import Animation
from video.writing.encoding import Encoding
from video.writing.picture_writer import PictureWriter
from video.writing.writer import VideoWriter

PICTURES_FOLDER = Path("vid_out")  # upstream's folder of pictures


@dataclass
class VideoJob:
    """Holds the input and the output of a run."""

    source: Source
    right: Source | None  # the second view of --stitch
    rate: Fraction  # frames/s of the output
    count: int | None  # frames of the output, if the container of the input states how many it has
    path: Path  # of the video, or of the folder of pictures
    is_video: bool  # the output
    decisions: Path | None = None  # the file that the decisions of this run are written to
    confidence: Path | None = None  # the file that the measures of the made frames are written to
    is_pipe: bool = False  # the output goes to standard output
    tracks: bool = True  # the sound and the other tracks of the source are kept

    @property
    def animation(self) -> Animation | None:
        """Returns the format of the output if it is an animated picture."""
        return container_of(self.path.suffix).animation if self.is_video else None


def plan_job(args: argparse.Namespace) -> VideoJob:
    """Opens the input and returns the job. Raises UserError if input or output cannot be used."""
    source = _open_source(args)
    right = _open_right_view(args, source) if args.stitch else None
    source = timed_source(args, source)
    source = source if args.span is None else args.span.apply(source)
    if not args.target_fps and (changes_speed(args) or isinstance(args.multi, Fraction)):
        args.target_fps, args.multi = source.rate * args.multi, 1
    rate = args.fps or args.target_fps or source.rate * args.multi
    if rate > MAX_RATE:
        raise UserError(
            f"{source.path}: {float(rate):g} frames/s are too many; {MAX_RATE} at most, lower --multi or give --fps"
        )
    path = _video_path(args, source, rate)
    animation = container_of(path.suffix).animation if path is not None else None
    if animation is not None and rate > animation.fastest and not args.fps:
        path = _video_path(args, source, animation.fastest)  # players slow down what is faster
        args.target_fps = rate = animation.fastest
    if path is not None and path.suffix.lower() == ".y4m" and not (args.fps or args.stitch):
        args.target_fps = rate  # a constant one: Y4M holds no times
    written = args.decisions if args.decisions and not args.decisions.exists() else None, args.confidence
    check_side_files(args, path or args.output or PICTURES_FOLDER, [file for file in written if file is not None])
    if path is None:
        folder = _numbered(args, args.output or PICTURES_FOLDER)
        return VideoJob(source, right, rate, _frame_count(args, source), folder, False, *written)
    is_pipe = args.output_pipe is not None
    return VideoJob(source, right, rate, _frame_count(args, source), path, True, *written, is_pipe=is_pipe)


def _open_source(args: argparse.Namespace) -> Source:
    """Opens the input. Raises UserError with the flags that convert it if it is interlaced or telecined."""
    deinterlacing: Deinterlacing | str | None = None
    if args.inverse_telecine:
        deinterlacing = Deinterlacing.FILM
    elif args.deinterlace:
        deinterlacing = KEEP if args.deinterlace == KEEP else Deinterlacing[args.deinterlace.upper()]
    try:
        location = args.video or args.img or args.stitch[0]
        return open_frames(location, args.input_fps, number=args.stream, deinterlacing=deinterlacing)
    except InterlacedError as e:
        flag = "--inverse-telecine" if e.scan is ScanType.TELECINED else "--deinterlace"
        raise UserError(f"{e} by {flag}, or take the frames as they are by --deinterlace {KEEP}") from e


def _open_right_view(args: argparse.Namespace, left: Source) -> Source:
    """Opens the right view of --stitch, which must match the left one."""
    right = open_frames(args.stitch[1], deinterlacing=KEEP)
    if (right.size, right.rate) != (left.size, left.rate):
        sizes = " and ".join(f"{s.path} is {s.size[0]}x{s.size[1]} at {float(s.rate):g} fps" for s in (left, right))
        raise UserError(f"{sizes}; bring both views to one size and rate")
    return right


def _video_path(args: argparse.Namespace, source: Source, rate: Fraction) -> Path | None:
    """Returns the name of the video, upstream's by default; None if pictures are to be written."""
    output: Path | None = args.output
    if args.output_pipe is not None:
        return Path(args.output_pipe.name)
    if args.png or (args.img is not None and (output is None or output.suffix == "" or output.is_dir())):
        return None
    if args.stitch:
        name = f"{source.path.stem}_stitched.{args.ext}"
    else:
        fps = int(np.round(float(rate)))  # half to even, as upstream names files
        factor = f"{args.multi}X_" if not args.target_fps else f"{float(args.slow):g}Xslow_" if args.slow else ""
        name = f"{source.path.stem}_{factor}{fps}fps.{args.ext}"
    if output is None:
        return _numbered(args, (args.output_folder or source.path.parent) / name)
    if output.is_dir():
        raise UserError(f"{output}: is a folder; give --output the name of a file, as in {output / name}")
    if not output.suffix:
        raise UserError(f"{output}: no suffix names its container; give --output a name as {output}.{args.ext}")
    return _numbered(args, output)


def _numbered(args: argparse.Namespace, path: Path) -> Path:
    """Returns the name of one of several outputs, as in out.mp4, out_2.mp4, ..."""
    if args.span is None or args.span.number == 1:
        return path
    return path.with_name(f"{path.stem}_{args.span.number}{path.suffix}")


def _frame_count(args: argparse.Namespace, source: Source) -> int | None:
    if source.count is None:
        return None
    closing = 1 if args.loop or args.match_duration else 0
    if args.target_fps:
        end = (source.count - 1 + closing) / source.rate
        return int((end if source.speed is None else source.speed.output_time(end)) * args.target_fps) + (not closing)
    return source.count * args.multi if closing else (source.count - 1) * args.multi + 1


def open_writer(
    args: argparse.Namespace, job: VideoJob, *, template: VideoStream | None = None
) -> VideoWriter | PictureWriter:
    """Returns the writer, ready for the first frame: whatever encoder or container refuse is refused here.

    With a `template` the writer copies packets of that stream.
    """
    source = job.source
    if args.montage:
        source = replace(source, size=montage_size(source.size, source.rotation), rotation=0, display_matrix=None)
    if not job.is_video:
        return PictureWriter(job.path, source, files_read(args))
    return VideoWriter(
        job.path,
        source,
        job.rate,
        exact_time_base(job.rate) if args.fps or args.target_fps else source.time_base / args.multi,
        encoding=Encoding(args.codec, args.crf, args.preset, args.pix_fmt, args.audio, tuple(args.encoder_option)),
        tracks=job.tracks and not args.fps,
        overwrite=args.overwrite,
        inputs=files_read(args),
        template=template,
        trial=job.tracks,
        pipe=args.output_pipe,
    )


def try_output(args: argparse.Namespace) -> None:
    """Raises UserError if the output of these settings would be refused; writes nothing."""
    args = argparse.Namespace(**vars(args))
    job = plan_job(args)
    if job.is_video:
        open_writer(args, job).stop()


def work_folder(job: VideoJob) -> WorkFolder:
    """Returns the folder with the segments of a job, beside its output."""
    return WorkFolder(job.path.with_name(f"{job.path.stem}.rife"), job.path.suffix if job.is_video else "")
