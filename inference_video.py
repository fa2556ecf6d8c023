"""Adds frames between the frames of a video, or of a folder of pictures: for smoother motion or slow motion.

    python3 inference_video.py --exp=1 --video=video.mp4                    2X: 24 to 48 frames/s, sound kept
    python3 inference_video.py --multi=3 --video=video.mp4 --output=out.mkv 3X, true thirds
    python3 inference_video.py --target-fps=60 --video=video.mp4            any rate to 60 frames/s
    python3 inference_video.py --exp=2 --fps=24 --video=video.mp4           slow motion: 4X the frames, played at 24
    python3 inference_video.py --slow=4 --video=video.mp4                   slow motion with sound at its own pitch
    python3 inference_video.py --exp=2 --img=frames/                        pictures in, vid_out/0000000.png ... out
    python3 inference_video.py --exp=1 --video=video.mp4 --scale=0.5        flow at half size: 4K, large motion
    python3 inference_video.py --exp=1 --video=video.mp4 --montage          original and result side by side
    python3 inference_video.py --stitch left.mp4 right.mp4                  two views blended into one, left to right
    ffmpeg ... -f nut - | python3 inference_video.py --video - --output - | ffmpeg -i - ...    no files between
    python3 inference_video.py a.mp4 b.mkv folder/ list.txt --output made/  several, one after the other

Exit status: 0 done; 1 an error, reported in one line; 2 wrong arguments; 3 done, but the input was damaged or cut off;
130 interrupted by Ctrl-C, SIGTERM or SIGHUP: what was made until then is kept.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports below ends without a traceback

import argparse
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager

from commands.batch import Accept, check_batch, find_videos, is_batch, run_batch
from commands.console import quieten_encoders, safe_printing
from commands.dry_run import run_dry
from commands.errors import FAILED_STATUS, run_command
from commands.interrupts import Interrupts
from commands.long_work import run_long_work
from commands.network_flags import pick_scale
from commands.pipes import opened_pipes
from commands.preview import Preview
from commands.progress import Progress
from commands.record import FileRecord, RunRecord, check_report_and_preview
from commands.resize_flags import divide
from commands.result import print_mismatches, record_result
from commands.segment_plan import is_long_work
from commands.space import check_space
from commands.video_flags import build_parser, check_arguments
from commands.video_job import VideoJob, open_writer, plan_job, try_output
from commands.video_steps import DAMAGED_STATUS, PROGRAM, ended_frames, introduce, model_for_job, summarise
from model import RIFE
from model.inference.memory import keep_freed_memory
from model.inference.tile_engine import describe_tiles
from video.frame import Frame
from video.interpolate import Report
from video.pictures.stitch import stitch_frames
from video.prefetch import prefetch
from video.writing.picture_writer import PictureWriter
from video.writing.verify import FrameTimes
from video.writing.writer import VideoWriter


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    keep_freed_memory()
    quieten_encoders()
    with safe_printing(), Interrupts() as interrupts:
        return run_command(PROGRAM, lambda: run(argv, interrupts), interrupted="")


def run(argv: list[str] | None, interrupts: Interrupts) -> int:
    """Reads the settings and runs all inputs; returns the exit status."""
    args = parse_arguments(argv)
    with opened_pipes(args, interrupts):
        return run_inputs(args, interrupts)


def run_inputs(args: argparse.Namespace, interrupts: Interrupts) -> int:
    """Runs all inputs of the settings with one loaded network; returns the exit status."""
    networks: list[RIFE] = []
    if args.inputs and not args.dry_run:
        return run_batch(args, lambda args, record, accept: run_file(args, networks, interrupts, record, accept))
    views = [location for location in (args.video, args.img, *(args.stitch or ())) if location is not None]
    report = RunRecord(args, args.report)
    with _nothing_written():
        interrupts.begin()
        if args.dry_run:
            return run_dry(args, find_videos(args.inputs) or views[:1], interrupts.held)
        check_report_and_preview(args, report)
        outputs = divide(args)
        for settings in outputs if outputs[1:] else ():
            with interrupts.held():
                try_output(settings)
    statuses = []
    for settings in outputs:
        with report.file(views[0]) as record:
            statuses.append(run_file(settings, networks, interrupts, record))
    statuses += [FAILED_STATUS] * report.is_lost
    return next((status for status in (FAILED_STATUS, DAMAGED_STATUS) if status in statuses), 0)


def run_file(
    args: argparse.Namespace,
    networks: list[RIFE],
    interrupts: Interrupts,
    record: FileRecord,
    accept: Accept | None = None,
) -> int:
    """Interpolates or stitches one input; returns the exit status.

    `networks` holds those that are loaded already, one a device, and gets the others. `record` gets what is done.
    `accept` is called when the output is known, and returns whether the output is to be made.
    """
    with _nothing_written():
        interrupts.begin_file()
        job = plan_job(args)
        if accept is not None and not accept(job):
            return 0
        record.describe_source(job.source)
        if args.scale is None:
            args.scale = pick_scale(job.source.size[1], job.source.size[0])
        is_long = is_long_work(args, job)
        if not is_long:
            check_space(args, job)
    return (run_long_work if is_long else run_whole)(args, job, networks, interrupts, record)


@contextmanager
def _nothing_written() -> Iterator[None]:
    """Prints that nothing was written if a signal ends the `with` block."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        raise


def run_whole(
    args: argparse.Namespace, job: VideoJob, networks: list[RIFE], interrupts: Interrupts, record: FileRecord
) -> int:
    """Makes the output in one piece; returns the exit status."""
    writer: VideoWriter | PictureWriter | None = None
    try:
        model = model_for_job(args, job, networks)
        record.network = [str(model)]
        with interrupts.held():
            writer = open_writer(args, job)
            interrupts.protect(writer.part)
        report = Report()
        make = stitched_frames(args, job, model) if args.stitch else ended_frames(args, job, model, report)
        with closing(prefetch(make)) as frames:
            announce(args, job, model, writer)
            record.notes = [*writer.notes]
            writer.notes.clear()
            times = write_frames(args, job, frames, writer, interrupts)
        record_result(record, job, writer, report, times)
    except BaseException as e:
        if writer is not None:
            interrupts.finish(writer.stop)  # keeps what was made until then; nothing is left to do after `finish`
        for note in writer.notes if writer is not None else []:
            print(note, file=sys.stderr)
        if isinstance(e, KeyboardInterrupt) and (writer is None or not writer.notes):
            print("interrupted: nothing was written", file=sys.stderr)
        raise
    status = summarise(args, job, writer, report)
    print_mismatches(record, writer.path)
    return FAILED_STATUS if record.mismatches else status


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Returns the settings; ends the program if they are out of range or exclude each other."""
    parser = build_parser(__doc__ or "")
    args = parser.parse_args(argv)
    check_arguments(parser, args)
    if is_batch(args.inputs):
        check_batch(parser, args)
    elif args.inputs:
        (args.video,), args.inputs = args.inputs, []
    if args.skip:
        print("skip flag is abandoned, please refer to issue #207.")
    return args


def stitched_frames(args: argparse.Namespace, job: VideoJob, model: RIFE) -> Iterator[Frame]:
    """Yields the blended frames of both views."""
    assert job.right is not None
    return stitch_frames(prefetch(job.source), prefetch(job.right), model, args.scale)


def announce(args: argparse.Namespace, job: VideoJob, model: RIFE, writer: VideoWriter | PictureWriter) -> None:
    """Prints the first lines: input, rates, sound, weights, device, size, and what of the source cannot be kept."""
    source = job.source
    introduce(args, job)
    print(model)
    width, height = source.size
    tiles = describe_tiles(model, height, width, args.scale)
    print(f"{width}x{height}, flow at scale {args.scale:g}{tiles}, to {job.path}")
    if not model.arbitrary_time and args.multi & (args.multi - 1):
        print(
            f"This network estimates only middle frames: {args.multi - 1} times are reached to within 0.01 of a frame"
        )
    for note in writer.notes:
        print(note)
    sys.stdout.flush()


def write_frames(
    args: argparse.Namespace,
    job: VideoJob,
    frames: Generator[Frame, None, None],
    writer: VideoWriter | PictureWriter,
    interrupts: Interrupts,
) -> FrameTimes:
    """Writes all frames and finishes the file; returns their number and times."""
    times = FrameTimes()
    preview = Preview(args.preview, 0 if args.montage else job.source.rotation) if args.preview else None
    with Progress(job.count, job.rate) as progress:
        for frame in frames:
            with interrupts.held():
                writer.write(frame)
            times.add(frame)
            progress.add(frame)
            if preview is not None:
                preview.add(frame)
    interrupts.finish(writer.finish)
    return times


if __name__ == "__main__":
    sys.exit(main())
