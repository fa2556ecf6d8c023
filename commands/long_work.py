"""Runs inference_video.py by segments: makes a plan, has the segments made, and joins them."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction

from commands.interrupts import Interrupts
from commands.progress import Progress
from commands.record import DONE, FileRecord
from commands.segment_join import join_segments, record_share
from commands.segment_maker import SegmentMaker, make_on_ray, with_preview, work_on_device
from commands.segment_plan import (
    announce_plan,
    check_missing,
    check_possible,
    open_plan,
    plan_settings,
    wanted_segments,
)
from commands.side_files import files_read
from commands.video_job import VideoJob, work_folder
from commands.video_steps import introduce, model_for_job
from model import RIFE
from model.errors import UserError
from segments.folder import WorkFolder
from segments.plan import Plan
from segments.pool import run_workers
from segments.worker import make_segments
from video.safe_file import check_output, same_file
from video.writing.picture_writer import check_pictures


def run_long_work(
    args: argparse.Namespace, job: VideoJob, networks: list[RIFE], interrupts: Interrupts, record: FileRecord
) -> int:
    """Makes the output by segments, or does the step that the flags name; returns the exit status."""
    check_possible(args, job)
    folder = work_folder(job)
    if _is_complete(args, job, folder):
        record.result, record.output = DONE, {"path": str(job.path)}
        print(f"{job.path}: was completed by an earlier run, which was ended while it removed {folder.path}")
        return 0
    _check_target(args, job, folder)
    with closing(folder):
        plan = _open_plan(args, job, folder, interrupts)
        if damaged := folder.discard_damaged(plan):
            print(f"{folder.path}: segments that were changed or cut off are made again: {damaged}", file=sys.stderr)
        wanted = wanted_segments(args, plan)
        if args.join:
            check_missing(folder, plan)
        with _kept_segments(folder, plan):
            if not args.join:
                introduce(args, job)
                announce_plan(args, job, folder, plan, wanted)
                _make(args, job, networks, folder, plan, wanted, interrupts, record)
            if args.segment:
                noun, verb = ("segment", "is") if len(wanted) == 1 else ("segments", "are")
                print(f"{len(wanted)} {noun} of this share {verb} finished in {folder.path}")
                record_share(record, folder, wanted)
                return 0
            plan = _make_unequal_anew(args, job, networks, folder, plan, interrupts, record)
            return join_segments(args, job, folder, plan, interrupts, record)


def _is_complete(args: argparse.Namespace, job: VideoJob, folder: WorkFolder) -> bool:
    """Returns whether an earlier run has completed this output but not the removal of its folder; removes the rest."""
    done = folder.done_plan()
    if done is None:
        return False
    differences = plan_settings(args, job).differences(done)
    folder.remove()
    return job.path.exists() and not differences


def _open_plan(args: argparse.Namespace, job: VideoJob, folder: WorkFolder, interrupts: Interrupts) -> Plan:
    """Returns the plan; prints a line if an interruption comes before it is complete."""
    try:
        return open_plan(args, job, folder, interrupts.held)
    except KeyboardInterrupt:
        left = f"{folder.path} is as it was" if folder.plan_file.exists() else "nothing was written"
        print(f"interrupted: {left}", file=sys.stderr)
        raise


@contextmanager
def _kept_segments(folder: WorkFolder, plan: Plan) -> Iterator[None]:
    """Prints how many segments are finished if an error or a signal ends the `with` block."""
    try:
        yield
    except BaseException:
        done = len(plan.parts) - len(folder.missing(plan))
        print(
            f"{done} of {len(plan.parts)} segments are finished in {folder.path}; the same command continues",
            file=sys.stderr,
        )
        raise


def _make_unequal_anew(
    args: argparse.Namespace,
    job: VideoJob,
    networks: list[RIFE],
    folder: WorkFolder,
    plan: Plan,
    interrupts: Interrupts,
    record: FileRecord,
) -> Plan:
    """Makes the segments anew that do not continue the one before them; returns the plan, which may be another."""
    while unequal := [i for i in folder.unequal(plan) if plan.parts[i].key is not None]:
        print(f"{len(unequal)} segments are made anew: decoding cannot start at every key frame of this source")
        plan = folder.renew(plan, unequal)
        _make(args, job, networks, folder, plan, unequal, interrupts, record)
    return plan


def _check_target(args: argparse.Namespace, job: VideoJob, folder: WorkFolder) -> None:
    """Raises UserError if the output cannot be written, or if an input is in the working folder, which is removed."""
    inputs = files_read(args)
    for file in inputs:
        if any(same_file(above, folder.path) for above in file.absolute().parents):
            raise UserError(f"{file}: is in the working folder of the output {job.path}; choose another output")
    if not job.is_video:
        check_pictures(job.path, inputs)
        return
    if folder.joined.exists() and job.path.exists() and job.path.samefile(folder.joined):
        job.path.unlink()  # an earlier run was ended between the last two steps, which are done again
    check_output(job.path, inputs, overwrite=args.overwrite)


def _expected_frames(job: VideoJob, folder: WorkFolder, plan: Plan, wanted: list[int]) -> int | None:
    """Returns how many frames are still to be made, of a share about how many; None if it is unknown."""
    if job.count is None or job.source.count is None:
        return None
    if len(wanted) == len(plan.parts):
        return max(job.count - sum(folder.record(i).frames for i in wanted if folder.is_finished(i)), 0)
    first = plan.parts[0].begin
    ends = [part.begin - first for part in plan.parts[1:]] + [job.source.count / job.source.rate]
    missing = [i for i in wanted if not folder.is_finished(i)]
    seconds = sum((ends[i] - (plan.parts[i].begin - first) for i in missing), Fraction(0))
    return max(round(job.count * seconds / max(ends)), 1)


def _make(
    args: argparse.Namespace,
    job: VideoJob,
    networks: list[RIFE],
    folder: WorkFolder,
    plan: Plan,
    wanted: list[int],
    interrupts: Interrupts,
    record: FileRecord,
) -> None:
    """Makes the wanted segments: in this process, or in one for each device."""
    if all(folder.is_finished(i) for i in wanted):
        return

    def state() -> str:
        return f"{sum(folder.is_finished(i) for i in wanted)}/{len(wanted)} segments"

    with Progress(_expected_frames(job, folder, plan, wanted), job.rate, state=state) as progress:
        if args.ray:
            record.network = [f"{args.model} on Ray at {args.ray}"]
            make_on_ray(args, job, folder, plan, progress.count)
        elif args.devices:
            record.network = [f"{args.model} on {device}" for device in args.devices.split(",")]
            run_workers(work_on_device, args, args.devices.split(","), folder, progress.count)
        else:
            model = model_for_job(args, job, networks)
            record.network = [str(model)]
            print(model)
            sys.stdout.flush()
            count = with_preview(args, job, folder, progress.add)
            maker = SegmentMaker(args, job, model, plan)
            make_segments(folder, plan.parts, wanted, maker, lambda index: None, count, interrupts.held)
