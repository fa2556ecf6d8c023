"""Runs inference_video.py by segments: makes a plan, has the segments made, and joins them."""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from math import ceil
from pathlib import Path

import torch
from av.video.stream import VideoStream

from commands.errors import FAILED
from commands.interrupts import Interrupts
from commands.preview import Preview
from commands.progress import Progress, format_seconds
from commands.record import FileRecord
from commands.result import print_mismatches, record_result
from commands.segment_flags import AUTOMATIC, NEVER
from commands.space import check_space
from commands.video_job import VideoJob, open_writer, plan_job
from commands.video_steps import ended_frames, interpolated_frames, introduce, load_models, summarise
from model import RIFE, UserError, pick_device
from segments.folder import WorkFolder
from segments.join import check_joinable, join_pictures, join_videos, publish
from segments.plan import Plan, current_versions, hash_weights, identify_source
from segments.pool import Channel, run_workers
from segments.scan import cut_source, scan_source
from segments.worker import Stretch, make_segments
from video.confidence import Measure
from video.container import URL_MARK
from video.decisions import Decision
from video.frame import Frame
from video.interpolate import Report
from video.part import Part
from video.picture_writer import PictureWriter
from video.safe_file import check_output
from video.scene import Transition
from video.verify import FrameTimes
from video.writer import VideoWriter

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
        return _join(args, job, folder, plan, interrupts, record)


def work_folder(job: VideoJob) -> WorkFolder:
    """Returns the folder with the segments of a job, beside its output."""
    return WorkFolder(job.path.with_name(f"{job.path.stem}.rife"), job.path.suffix if job.is_video else "")


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
        writer = open_writer(_overwriting(args), replace(job, path=folder.trial))
        writer.stop()
        for note in writer.notes:
            print(note)


def _overwriting(args: argparse.Namespace) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(args), "overwrite": True})


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
        if args.devices:
            run_workers(work_on_device, args, args.devices.split(","), folder, progress.count)
        else:
            models = load_models(args, job, networks)
            print(models[0])
            sys.stdout.flush()
            preview = Preview(args.preview, 0 if args.montage else job.source.rotation) if args.preview else None

            def count(frame: Frame) -> None:
                progress.add(frame)
                if preview is not None:
                    preview.add(frame)

            make_segments(folder, plan.parts, wanted, SegmentMaker(args, job, models), lambda index: None, count)


def work_on_device(args: argparse.Namespace, device: str, channel: Channel) -> None:
    """Makes segments on one device in a process of its own, until none is left."""
    devices = args.devices.split(",")
    if pick_device(device).type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(torch.get_num_threads() // devices.count(device), 1))
    own = argparse.Namespace(**{**vars(args), "device": device, "devices": None})
    job = plan_job(own)
    folder = work_folder(job)
    with closing(folder):
        plan = Plan.read(folder.plan_file)
        maker = SegmentMaker(own, job, load_models(own, job))
        make_segments(folder, plan.parts, range(len(plan.parts)), maker, channel.begin, channel.count)


class SegmentMaker:
    """Makes the frames and the writers of segments by the settings of the flags."""

    def __init__(self, args: argparse.Namespace, job: VideoJob, models: list[RIFE]) -> None:
        self._args, self._job, self._models = _overwriting(args), job, models

    def stretch(self, part: Part) -> Stretch:
        """Returns the frames of a part of the source."""
        source = replace(self._job.source, part=part, complaints=[], notes=[], shifts=[])
        report = Report(part=part)
        make = interpolated_frames if part.end is not None else ended_frames
        frames = make(self._args, replace(self._job, source=source), self._models, report)
        return Stretch(source, part, frames, report)

    def open_writer(self, path: Path) -> VideoWriter | PictureWriter:
        """Returns the writer of a segment: without the source's other tracks."""
        return open_writer(self._args, replace(self._job, path=path, tracks=False))


def _join(
    args: argparse.Namespace,
    job: VideoJob,
    folder: WorkFolder,
    plan: Plan,
    interrupts: Interrupts,
    record: FileRecord,
) -> int:
    """Joins the segments to the output, checks it and removes the folder; returns the exit status."""
    report, times = _combine_records(args, job, folder, plan)
    writer: VideoWriter | PictureWriter
    if job.is_video:
        writer = join_videos(folder, plan, _final_writer(args, job, folder), args.fps)
        writer.notes.clear()  # they were printed before the start
        interrupts.finish(lambda: publish(folder.joined, job.path, overwrite=args.overwrite))
        writer.path = job.path
    else:
        writer = PictureWriter(job.path, job.source)
        writer.frames = join_pictures(folder, plan, job.path)
        writer.finish()
    record_result(record, job, writer, report, times)
    status = summarise(job, writer, report)
    print_mismatches(record, job.path)
    if record.mismatches:
        return FAILED
    interrupts.finish(folder.remove)
    return status


def _combine_records(
    args: argparse.Namespace, job: VideoJob, folder: WorkFolder, plan: Plan
) -> tuple[Report, FrameTimes]:
    """Returns the counts and the times of all segments; adds what was found in the source to the job's source."""
    report, times = Report(), FrameTimes()
    source = job.source
    source.complaints[:] = plan.complaints
    for part, made in zip(plan.parts, folder.records(plan), strict=True):
        for name, value in made.counts.items():
            setattr(report, name, getattr(report, name) + value)
        report.measures += [Measure(*measure) for measure in made.measures]
        report.transitions += [Decision(Fraction(t), Transition(kind), score) for t, kind, score in made.transitions]
        source.complaints += [f"from {float(part.begin):.2f} s on: {complaint}" for complaint in made.complaints]
        source.notes += [note for note in made.notes if note not in source.notes]
        if made.frames:
            times.first = times.first if times.count else Fraction(made.first)
            times.last = Fraction(made.last)
        times.count += made.frames
    if args.fps:  # the frames are numbered anew
        times.first, times.last = Fraction(0), (times.count - 1) / args.fps
    return report, times


def _final_writer(args: argparse.Namespace, job: VideoJob, folder: WorkFolder) -> Callable[[VideoStream], VideoWriter]:
    def open_final(template: VideoStream) -> VideoWriter:
        writer = open_writer(_overwriting(args), replace(job, path=folder.joined), template=template)
        assert isinstance(writer, VideoWriter)
        return writer

    return open_final
