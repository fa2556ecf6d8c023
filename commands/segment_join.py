"""Joins the segments of inference_video.py to its output."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from av.video.stream import VideoStream

from commands.errors import FAILED_STATUS
from commands.interrupts import Interrupts
from commands.record import DONE, FileRecord
from commands.result import count_fields, print_mismatches, record_result
from commands.segment_maker import overwriting
from commands.transition_flags import given_decisions
from commands.video_job import VideoJob, open_writer
from commands.video_steps import summarise
from segments.folder import Record, WorkFolder
from segments.join import join_pictures, join_videos, publish
from segments.plan import Plan
from video.interpolate import Report
from video.transitions.confidence import Measure
from video.transitions.decisions import Decision
from video.transitions.scene import Transition
from video.writing.picture_writer import PictureWriter
from video.writing.verify import FrameTimes
from video.writing.writer import VideoWriter


def join_segments(
    args: argparse.Namespace,
    job: VideoJob,
    folder: WorkFolder,
    plan: Plan,
    interrupts: Interrupts,
    record: FileRecord,
) -> int:
    """Joins the segments to the output, checks it and removes the folder; returns the exit status."""
    plan.check_source(job.source.path)  # which the other tracks come from
    report, times = _combine_records(args, job, folder, plan)
    writer: VideoWriter | PictureWriter
    if job.is_video:
        writer = join_videos(folder, plan, _final_writer(args, job, folder), args.fps, interrupts.held)
        record.notes = [*writer.notes]
        writer.notes.clear()  # they were printed before the start
        interrupts.finish(lambda: publish(folder.joined, job.path, overwrite=args.overwrite))
        writer.path = job.path
    else:
        writer = PictureWriter(job.path, job.source)
        writer.frames = join_pictures(folder, plan, job.path)
        writer.finish()
    record_result(record, job, writer, report, times)
    record.output["segments"] = len(plan.parts)
    status = summarise(args, job, writer, report)
    print_mismatches(record, job.path)
    if record.mismatches:
        return FAILED_STATUS
    interrupts.finish(folder.remove)
    return status


def record_share(record: FileRecord, folder: WorkFolder, wanted: list[int]) -> None:
    """Records the finished segments of a share; the whole output is checked when it is joined."""
    made = [folder.record(i) for i in wanted]
    counts = Report()
    for segment in made:
        _add_counts(counts, segment)
    record.result = DONE
    record.counts = count_fields(counts)
    record.losses = [error for segment in made for error in segment.errors]
    record.notes = sorted({note for segment in made for note in segment.notes})
    record.output = {"path": str(folder.path), "segments": wanted, "frames": sum(segment.frames for segment in made)}


def _add_counts(report: Report, made: Record) -> None:
    for name, value in made.counts.items():
        setattr(report, name, getattr(report, name) + value)


def _combine_records(
    args: argparse.Namespace, job: VideoJob, folder: WorkFolder, plan: Plan
) -> tuple[Report, FrameTimes]:
    """Returns the counts and the times of all segments; adds what was found in the source to the job's source."""
    report, times = Report(), FrameTimes()
    source = job.source
    source.errors[:] = plan.errors
    report.given = given_decisions(args)
    for part, made in zip(plan.parts, folder.records(plan), strict=True):
        _add_counts(report, made)
        report.measures += [Measure(*measure) for measure in made.measures]
        report.transitions += [Decision(Fraction(t), Transition(kind), score) for t, kind, score in made.transitions]
        if report.given is not None:
            report.given.used |= {*made.used}
        source.errors += [f"from {float(part.begin):.2f} s on: {error}" for error in made.errors]
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
        writer = open_writer(overwriting(args), replace(job, path=folder.joined), template=template)
        assert isinstance(writer, VideoWriter)
        return writer

    return open_final
