"""Makes segments by the settings of the flags: in this process, in one for a device, or as a task of Ray."""

import argparse
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from commands.preview import Preview
from commands.video_job import VideoJob, open_writer, plan_job, work_folder
from commands.video_steps import ended_frames, interpolated_frames, model_for_job
from model import RIFE, UserError, pick_device
from model.weights.checkpoint import find_weights
from segments import ray_tasks
from segments.excerpt import cut_excerpt
from segments.folder import WorkFolder
from segments.plan import Plan
from segments.pool import Channel
from segments.ray_tasks import Supplies, write_supplies
from segments.worker import SegmentFrames, make_segments
from video.frame import Frame
from video.interpolate import Report
from video.reading.container import location_path
from video.reading.source_part import SourcePart
from video.writing.picture_writer import PictureWriter
from video.writing.writer import VideoWriter


class SegmentMaker:
    """Makes the frames and the writers of segments by the settings of the flags.

    `plan` holds the properties of the source; None if the source is an excerpt.
    """

    def __init__(self, args: argparse.Namespace, job: VideoJob, model: RIFE, plan: Plan | None) -> None:
        self._args, self._job, self._model, self._plan = overwriting(args), job, model, plan

    def open_frames(self, part: SourcePart) -> SegmentFrames:
        """Returns the frames of a part of the source."""
        source = replace(self._job.source, part=part, checksums={}, formats=[], errors=[], notes=[], shifts=[])
        report = Report(part=part)
        make = interpolated_frames if part.end is not None else ended_frames
        frames = make(self._args, replace(self._job, source=source), self._model, report)
        return SegmentFrames(source, part, frames, report)

    def open_writer(self, path: Path) -> VideoWriter | PictureWriter:
        """Returns the writer of a segment: without the source's other tracks."""
        return open_writer(self._args, replace(self._job, path=path, tracks=False))

    def check_source(self) -> None:
        """Raises UserError if the source has changed since the plan was made."""
        if self._plan is not None:
            self._plan.check_source(location_path(self._job.source.location))


def overwriting(args: argparse.Namespace) -> argparse.Namespace:
    """Returns the settings with `overwrite` on: the files that are replaced are in the working folder."""
    return argparse.Namespace(**{**vars(args), "overwrite": True})


def with_preview(
    args: argparse.Namespace, job: VideoJob, folder: WorkFolder, count: Callable[[Frame], None]
) -> Callable[[Frame], None]:
    """Returns a function that counts a frame and gives it to the preview, which one process of a work writes."""
    if not (args.preview and folder.take_preview()):
        return count
    preview = Preview(args.preview, 0 if args.montage else job.source.rotation)

    def count_and_show(frame: Frame) -> None:
        count(frame)
        preview.add(frame)

    return count_and_show


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
        maker = SegmentMaker(own, job, model_for_job(own, job), plan)
        count = with_preview(own, job, folder, channel.count)
        make_segments(folder, plan.parts, range(len(plan.parts)), maker, channel.begin, count)


def make_on_ray(
    args: argparse.Namespace, job: VideoJob, folder: WorkFolder, plan: Plan, count: Callable[[int, int], None]
) -> None:
    """Makes all missing segments on a Ray cluster; `count` gets frames and made frames."""
    paths = {name: value.resolve() for name, value in vars(args).items() if isinstance(value, Path)}
    own = argparse.Namespace(**{**vars(args), **paths})
    source = replace(job.source, location=job.source.path.resolve())
    remote = WorkFolder(folder.path.resolve(), folder.suffix)

    def supplies(index: int) -> Supplies:
        if not job.is_video:
            raise UserError(f"{job.path}: a folder of pictures, which every machine must be able to write to")
        weights = find_weights(own.model).path
        files = [weights, weights.with_suffix(".bin")] if weights.suffix == ".param" else [weights]
        files += [file for file in (own.mask, own.decisions) if file is not None and file.exists()]
        excerpt = cut_excerpt(source, plan.parts[index], remote.path)
        plan.check_source(source.path)
        return Supplies(excerpt, weights.name, {file.name: file.read_bytes() for file in files})

    settings = own, replace(job, source=source)
    returned = ray_tasks.run_on_ray(args.ray, settings, make_on_node, remote, plan, supplies, count)
    if returned:
        print(f"{returned} segments were made by nodes without the shared folder", flush=True)


def make_on_node(
    settings: tuple[argparse.Namespace, VideoJob],
    index: int,
    folder: WorkFolder,
    place: Path | None,
    supplies: Supplies | None,
) -> tuple[int, int]:
    """Makes one segment on a node of a cluster; returns its frames and those of the network.

    `supplies` are written to the folder `place` and used instead of the files of the settings.
    """
    args, job = settings
    if supplies is not None and place is not None:
        file = write_supplies(supplies, place)
        found = {name: place / getattr(args, name).name for name in ("mask", "decisions") if getattr(args, name)}
        args = argparse.Namespace(**{**vars(args), **found, "model": place / supplies.weights})
        job = replace(job, source=replace(job.source, location=file, stream=supplies.excerpt.stream))
    frames = [0, 0]

    def count(frame: Frame) -> None:
        frames[0] += 1
        frames[1] += frame.made

    plan = Plan.read(folder.plan_file)
    maker = SegmentMaker(args, job, model_for_job(args, job), plan if supplies is None else None)
    make_segments(folder, plan.parts, [index], maker, lambda index: None, count)
    return frames[0], frames[1]
