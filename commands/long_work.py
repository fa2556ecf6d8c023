"""Runs inference_video.py by segments: makes a plan, has the segments made, and joins them."""

import argparse
import sys
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from math import ceil

from commands.interrupts import Interrupts
from commands.preview import Preview
from commands.progress import Progress, format_seconds
from commands.record import FileRecord
from commands.segment_flags import AUTOMATIC, NEVER
from commands.segment_join import join_segments
from commands.segment_maker import SegmentMaker, overwriting, run_on_ray, work_on_device
from commands.space import check_space
from commands.video_job import VideoJob, open_writer, work_folder
from commands.video_steps import introduce, load_model
from model import RIFE, UserError, pick_device
from segments.folder import WorkFolder
from segments.join import check_joinable
from segments.plan import Plan, current_versions, hash_weights, identify_source
from segments.pool import run_workers
from segments.scan import cut_source, scan_source
from segments.worker import make_segments
from video.container import URL_MARK
from video.frame import Frame
from video.picture_writer import PictureWriter
from video.safe_file import check_output

# Pixels of made frames a second: the default weights on two CPU cores, and about what a GPU of 2020 does.
CPU_SPEED, GPU_SPEED = 1.4e6, 1.5e8
LONG = 600  # seconds of work above which segments are made without being asked for
SEGMENT_WORK = 300  # seconds of work that a segment takes at most, if it is not shorter than SHORTEST
SHORTEST, LONGEST = Fraction(10), Fraction(30)  # seconds of the source in a segment
# Settings on which the frames do not depend, or which the plan has by other names.
OUTSIDE = {
    *("video", "img", "output", "ext", "overwrite", "model", "device", "devices"),
    *("segments", "segment", "join", "ray", "skip", "exp", "stitch", "UHD"),
    *("inputs", "output_folder", "report", "preview", "dry_run", "decisions", "confidence", "speed", "mask"),
}


def is_long_work(args: argparse.Namespace, job: VideoJob) -> bool:
    """Returns whether a run is made by segments: if a flag asks for it, or if it is long and can be joined."""
    if args.segment or args.join or args.ray or args.devices:
        return True
    if args.segments is not None or args.stitch:
        return args.segments not in (None, NEVER)
    try:
        _check_possible(args, job)
    except UserError:
        return False
    return estimate_seconds(args, job) > LONG


def estimate_seconds(args: argparse.Namespace, job: VideoJob) -> float:
    """Returns about how many seconds the network works on the whole output; 0 if its number of frames is unknown."""
    width, height = job.source.size
    made = max((job.count or 0) - (job.source.count or 0), 0)
    devices = args.devices.split(",") if args.devices else [args.device]
    speed = sum(CPU_SPEED if pick_device(device).type == "cpu" else GPU_SPEED for device in devices)
    return made * width * height / speed


def _check_possible(args: argparse.Namespace, job: VideoJob) -> None:
    """Raises UserError if the output cannot be made by segments."""
    if URL_MARK in str(job.source.location):
        raise UserError(f"{job.source.location}: segments need a file that can be read again; save it to a file first")
    if args.blur or args.loop:
        what = "the blur of a shutter" if args.blur else "a loop"
        raise UserError(f"{job.source.path}: {what} reaches over segments; make it in one piece")
    if job.is_video:
        check_joinable(job.path)


def run_long_work(
    args: argparse.Namespace, job: VideoJob, networks: list[RIFE], interrupts: Interrupts, record: FileRecord
) -> int:
    """Makes the output by segments, or does the step that the flags ask for; returns the exit status."""
    _check_possible(args, job)
    folder = work_folder(job)
    _check_target(args, job, folder)
    with closing(folder):
        plan = open_plan(args, job, folder)
        wanted = list(range(len(plan.parts)))
        if args.segment:
            wanted = [i for i in wanted if i % args.segment.total == args.segment.number - 1]
        if not args.join:
            _announce(args, job, folder, plan, wanted)
            try:
                _make(args, job, networks, folder, plan, wanted)
            except BaseException:
                left = len(folder.missing(plan))
                print(
                    f"{len(plan.parts) - left} of {len(plan.parts)} segments are finished in {folder.path}; "
                    "the same command goes on",
                    file=sys.stderr,
                )
                raise
        if args.segment:
            print(f"{len(wanted)} segments of this share are finished in {folder.path}")
            return 0
        missing = folder.missing(plan)
        if missing:
            names = ", ".join(str(i) for i in missing[:20]) + (" ..." if len(missing) > 20 else "")
            raise UserError(f"{folder.path}: {len(missing)} segments are missing: {names}; make them first")
        plan = _make_unequal_anew(args, job, networks, folder, plan)
        return join_segments(args, job, folder, plan, interrupts, record)


def _make_unequal_anew(
    args: argparse.Namespace, job: VideoJob, networks: list[RIFE], folder: WorkFolder, plan: Plan
) -> Plan:
    """Makes the segments anew that do not continue the one before them; returns the plan, which may be another."""
    while unequal := [i for i in folder.unequal(plan) if plan.parts[i].key is not None]:
        print(f"{len(unequal)} segments are made anew: decoding cannot start at every key frame of this source")
        plan = folder.renew(plan, unequal)
        _make(args, job, networks, folder, plan, unequal)
    return plan


def _check_target(args: argparse.Namespace, job: VideoJob, folder: WorkFolder) -> None:
    """Raises UserError if the output cannot be written, before anything is computed."""
    if not job.is_video:
        PictureWriter(job.path, job.source)
        return
    if folder.joined.exists() and job.path.exists() and job.path.samefile(folder.joined):
        job.path.unlink()  # an earlier run was ended between the last two steps, which are done again
    check_output(job.path, [job.source.path], overwrite=args.overwrite)


def _try_output(args: argparse.Namespace, job: VideoJob, folder: WorkFolder) -> None:
    """Raises UserError if the encoder or the container refuses; prints what of the source cannot be kept."""
    if job.is_video:
        writer = open_writer(overwriting(args), replace(job, path=folder.trial))
        writer.stop()
        for note in writer.notes:
            print(note)


def open_plan(args: argparse.Namespace, job: VideoJob, folder: WorkFolder) -> Plan:
    """Returns the plan in the folder, which is made now if there is none."""
    plan = Plan(
        identify_source(job.source.path),
        hash_weights(args.model),
        _settings(args, job),
        current_versions(),
        job.path.name,
    )

    def cut() -> Plan:
        check_space(args, job, copies=2)  # the segments and the joined file
        _try_output(args, job, folder)
        scan = scan_source(job.source)
        if scan.decoded:
            print(f"{job.source.path.name}: has no exact index of its frames: each segment decodes it from the start")
        parts = cut_source(scan, segment_length(args, job))
        return replace(plan, parts=tuple(parts), complaints=tuple(scan.complaints))

    return folder.open(plan, cut, shared=args.segment is not None, overwrite=args.overwrite)


def _settings(args: argparse.Namespace, job: VideoJob) -> dict[str, str]:
    """Returns the settings that shape the frames, as text."""
    settings = {
        name: str(sorted(value) if isinstance(value, frozenset) else value)
        for name, value in vars(args).items()
        if name not in OUTSIDE
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
    """Returns the length of a segment in seconds of the source: as asked for, or by the work that it is."""
    if args.segments not in (None, NEVER, AUTOMATIC):
        return Fraction(args.segments)
    work = estimate_seconds(args, job)
    if not work or job.source.count is None:
        return LONGEST
    duration = job.source.count / job.source.rate
    return min(max(Fraction(ceil(duration * SEGMENT_WORK / Fraction(work))), SHORTEST), LONGEST)


def _announce(args: argparse.Namespace, job: VideoJob, folder: WorkFolder, plan: Plan, wanted: list[int]) -> None:
    introduce(args, job)
    done = sum(folder.is_finished(i) for i in wanted)
    work = estimate_seconds(args, job)
    why = f"about {format_seconds(work)} of work, " if args.segments is None and work > LONG else ""
    kept = f"; {done} are finished" if done else ""
    print(f"{why}made in {len(wanted)} segments that are kept in {folder.path}{kept}")
    sys.stdout.flush()


def _make(
    args: argparse.Namespace, job: VideoJob, networks: list[RIFE], folder: WorkFolder, plan: Plan, wanted: list[int]
) -> None:
    """Has the wanted segments made: here, or by a process for each device."""
    done = sum(folder.record(i).frames for i in wanted if folder.is_finished(i))
    total = None if job.count is None or args.segment else max(job.count - done, 0)
    if all(folder.is_finished(i) for i in wanted):
        return
    with Progress(total, job.rate) as progress:
        if args.ray:
            run_on_ray(args, job, folder, plan, progress.count)
        elif args.devices:
            run_workers(work_on_device, args, args.devices.split(","), folder, progress.count)
        else:
            model = load_model(args, job, networks)
            print(model)
            sys.stdout.flush()
            preview = Preview(args.preview, 0 if args.montage else job.source.rotation) if args.preview else None

            def count(frame: Frame) -> None:
                progress.add(frame)
                if preview is not None:
                    preview.add(frame)

            make_segments(folder, plan.parts, wanted, SegmentMaker(args, job, model), lambda index: None, count)
