"""Decides whether an output is made by segments, and plans them by the settings of the flags."""

import argparse
import sys
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from math import ceil
from pathlib import Path
from textwrap import wrap

from commands.progress import format_seconds
from commands.segment_flags import AUTOMATIC, NO_SEGMENTS
from commands.segment_maker import overwriting
from commands.space import check_space
from commands.video_job import VideoJob, open_writer, work_folder
from model import UserError, pick_device
from segments.folder import WorkFolder
from segments.join import JOINABLE, JOINED_ENCODERS
from segments.plan import Plan, current_versions, hash_weights, identify_source
from segments.scan import boundary_kinds, cut_source, scan_source
from segments.worker import Hold
from video.writing.encoding import Encoding

# Pixels of made frames a second: the default weights on two CPU cores, and about what a GPU of 2020 does.
CPU_SPEED, GPU_SPEED = 1.4e6, 1.5e8
LONG_WORK = 600  # seconds of work above which segments are made without a flag
SEGMENT_WORK = 300  # seconds of work that a segment takes at most, if it is not shorter than SHORTEST_SEGMENT
SHORTEST_SEGMENT, LONGEST_SEGMENT = Fraction(10), Fraction(30)  # seconds of the source in a segment
# Settings on which the frames do not depend, or which the plan has by other names.
UNPLANNED = {
    *("video", "img", "output", "ext", "overwrite", "model", "device", "devices"),
    *("segments", "segment", "join", "ray", "skip", "exp", "stitch", "UHD"),
    *("inputs", "batch", "output_folder", "report", "preview", "dry_run", "decisions", "confidence", "speed", "mask"),
}


def is_long_work(args: argparse.Namespace, job: VideoJob) -> bool:
    """Returns whether a run is made by segments: if a flag requires it, or if it is long and can be joined.

    Prints a line about long work that cannot be made by segments.
    """
    if args.segment or args.join or args.ray or args.devices:
        return True
    if args.segments is not None:
        return bool(args.segments != NO_SEGMENTS)
    work = estimate_seconds(args, job)
    if work <= LONG_WORK:
        return False
    reason = one_piece_reason(args, job)
    if reason is not None:
        about = f"about {format_seconds(work)} of work, made in one piece because {reason}"
        print(f"{about}: a run that is ended begins anew", flush=True)
    return reason is None


def estimate_seconds(args: argparse.Namespace, job: VideoJob) -> float:
    """Returns about how many seconds the network works on the whole output; 0 if its number of frames is unknown."""
    width, height = job.source.size
    made = max((job.count or 0) - (0 if args.stitch else job.source.count or 0), 0)
    devices = args.devices.split(",") if args.devices else [args.device]
    speed = sum(CPU_SPEED if pick_device(device).type == "cpu" else GPU_SPEED for device in devices)
    return made * width * height / speed


def one_piece_reason(args: argparse.Namespace, job: VideoJob) -> str | None:
    """Returns why an output cannot be made by segments, or None if it can."""
    if job.is_pipe or not isinstance(job.source.location, Path):
        return "a pipe or a network address cannot be read again from the middle"
    if args.stitch:
        return "two views are read at once"
    if args.span is not None:
        return "a file is made for each size of the frames"
    if args.blur:
        return "the blur of a shutter reaches over segments"
    if args.loop:
        return "a loop reaches over segments"
    if job.is_video and job.path.suffix.lower() not in JOINABLE:
        return f"segments cannot be joined in {job.path.suffix}, only in {', '.join(JOINABLE)}"
    return None


def check_possible(args: argparse.Namespace, job: VideoJob) -> None:
    """Raises UserError if the output cannot be made by segments."""
    reason = one_piece_reason(args, job)
    if reason is not None:
        raise UserError(f"{job.path}: {reason}; make it in one piece")


def open_plan(args: argparse.Namespace, job: VideoJob, folder: WorkFolder, held: Hold) -> Plan:
    """Returns the plan in the folder, which is made now if there is none; the output is tried in the context `held`."""
    plan = plan_settings(args, job)

    def cut() -> Plan:
        check_space(args, job, copies=2)  # the segments and the joined file
        with held():
            _try_output(args, job, folder)
        scan = scan_source(job.source)
        if scan.decoded:
            print(f"{job.source.path.name}: has no exact index of its frames: each segment decodes it from the start")
        parts = cut_source(scan, segment_length(args, job))
        return replace(plan, parts=tuple(parts), errors=tuple(scan.errors))

    return folder.open(plan, cut, shared=args.segment is not None, overwrite=args.overwrite)


def plan_settings(args: argparse.Namespace, job: VideoJob) -> Plan:
    """Returns a plan without parts: the source, the weights, the settings and the versions of a run."""
    return Plan(
        identify_source(job.source.path),
        hash_weights(args.model),
        _settings(args, job),
        current_versions(),
        job.path.name,
    )


def _settings(args: argparse.Namespace, job: VideoJob) -> dict[str, str]:
    """Returns the settings that shape the frames, as text."""
    settings = {
        name: str(sorted(value) if isinstance(value, frozenset) else value)
        for name, value in vars(args).items()
        if name not in UNPLANNED
    }
    for name, file in (
        ("decisions", args.decisions if job.decisions is None else None),
        ("speed", args.speed),
        ("mask", args.mask),
    ):
        if file is not None:  # it is read
            settings[name] = sha256(file.read_bytes()).hexdigest()[:16]
    return settings


def segment_length(args: argparse.Namespace, job: VideoJob) -> Fraction:
    """Returns the length of a segment in seconds of the source: that of the flag, or one for the amount of work."""
    if args.segments not in (None, NO_SEGMENTS, AUTOMATIC):
        return Fraction(args.segments)
    work = estimate_seconds(args, job)
    if not work or job.source.count is None:
        return LONGEST_SEGMENT
    duration = job.source.count / job.source.rate
    return min(max(Fraction(ceil(duration * SEGMENT_WORK / Fraction(work))), SHORTEST_SEGMENT), LONGEST_SEGMENT)


def _try_output(args: argparse.Namespace, job: VideoJob, folder: WorkFolder) -> None:
    """Raises UserError if the encoder or the container refuses; prints what of the source cannot be kept."""
    if job.is_video:
        writer = open_writer(overwriting(args), replace(job, path=folder.trial))
        writer.stop()
        for note in [*writer.notes, *_untested(args, job)]:
            print(note)


def _untested(args: argparse.Namespace, job: VideoJob) -> list[str]:
    """Returns a note if segments by the encoder were never joined in a test."""
    codec = Encoding(args.codec).codec_for(job.path)
    return [] if codec in JOINED_ENCODERS else [f"joining segments by {codec} is not tested: the result is checked"]


def wanted_segments(args: argparse.Namespace, plan: Plan) -> list[int]:
    """Returns the numbers of the segments that a run has to make: all, or those of its share."""
    every = range(len(plan.parts))
    return [i for i in every if not args.segment or i % args.segment.total == args.segment.number - 1]


def check_missing(folder: WorkFolder, plan: Plan) -> None:
    """Raises UserError with the numbers of the segments that are not finished."""
    missing = folder.missing(plan)
    if missing:
        names = ", ".join(str(i) for i in missing[:20]) + (" ..." if len(missing) > 20 else "")
        verb = "segment is" if len(missing) == 1 else "segments are"
        raise UserError(f"{folder.path}: {len(missing)} {verb} missing: {names}; make them first")


def describe_plan(args: argparse.Namespace, job: VideoJob) -> list[str]:
    """Returns lines about the segments of a run, for a dry run. Raises UserError if the run would be refused."""
    check_possible(args, job)
    check_space(args, job, copies=2)
    folder, settings = work_folder(job), plan_settings(args, job)
    found = folder.find_plan(settings, overwrite=args.overwrite)
    scan = scan_source(job.source)
    plan = found or replace(settings, parts=tuple(cut_source(scan, segment_length(args, job))))
    if args.join:
        check_missing(folder, plan)
    wanted = wanted_segments(args, plan)
    done = sum(folder.is_finished(i) for i in wanted) if found else 0
    of = f" of {len(plan.parts)}" if args.segment else ""
    first = f"{len(wanted)}{of}, kept in {folder.path} until they are joined, {done} are finished"
    begins = [plan.parts[i].begin for i in wanted]
    kinds = zip(begins, boundary_kinds(scan, begins), strict=True)
    lines = wrap(f"they begin at (seconds): {', '.join(f'{float(begin):.3f} {kind}' for begin, kind in kinds)}", 110)
    return [f"segments: {first}", *lines, *(_untested(args, job) if job.is_video else [])]


def announce_plan(args: argparse.Namespace, job: VideoJob, folder: WorkFolder, plan: Plan, wanted: list[int]) -> None:
    """Prints how many segments are made, where they are kept, and how many are finished; checks the free space."""
    done = sum(folder.is_finished(i) for i in wanted)
    if done:
        check_space(args, job, copies=1 + len(folder.missing(plan)) / len(plan.parts))
    work = estimate_seconds(args, job)
    why = f"about {format_seconds(work)} of work, " if args.segments is None and work > LONG_WORK else ""
    kept = f"; {done} are finished" if done else ""
    noun = "segment that is" if len(wanted) == 1 else "segments that are"
    print(f"{why}made in {len(wanted)} {noun} kept in {folder.path}{kept}")
    sys.stdout.flush()
