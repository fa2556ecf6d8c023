"""Shows what a run would do, by a trial of its first frames that leaves nothing behind."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import av
import torch

from commands.batch import InputName, is_to_be_made, report_path
from commands.errors import FAILED_STATUS, error_line
from commands.progress import format_seconds
from commands.record import RunRecord, check_report_and_preview
from commands.resize_flags import divide
from commands.segment_plan import describe_plan, is_long_work
from commands.side_files import files_read
from commands.space import check_space, format_bytes, free_bytes
from commands.video_job import VideoJob, open_writer, plan_job
from commands.video_steps import PROGRAM, interpolated_frames, model_for_job
from model import RIFE
from model.inference.memory import available_bytes, peak_resident_bytes
from model.inference.tile_engine import describe_tiles
from segments.worker import Hold
from video.interpolate import Report
from video.prefetch import prefetch
from video.reading.container import open_container
from video.safe_file import check_folder, check_output
from video.writing.picture_writer import check_pictures

TRIAL_MADE_FRAMES = 4  # frames that a trial makes; the first waits for compilers and caches and is not measured
TRIAL_FRAMES = 400  # frames of the output in a trial
KEYFRAME_INTERVAL = 250  # frames of the output, as most encoders have it


@dataclass
class Trial:
    """Holds what a trial of the first frames measured."""

    network: float | None  # seconds that one made frame takes; None if no frame was made
    encoding: float  # seconds that the encoder takes for one frame
    key: float  # bytes of a keyframe
    other: float | None  # bytes of another frame; None if all are keyframes
    share: float  # of made frames
    notes: list[str]


def run_dry(args: argparse.Namespace, inputs: Sequence[InputName], held: Hold) -> int:
    """Prints what would be done with each input; returns 1 if any would be refused, else 0.

    The files of trials are written in the context of `held`.
    """
    networks: list[RIFE] = []
    outputs: dict[Path, InputName] = {}
    total, status = 0.0, 0
    is_new = args.inputs and args.output is not None and not args.output.exists()  # the folder, which the run makes
    report = report_path(args) if args.inputs and not is_new else args.report
    check_report_and_preview(argparse.Namespace(**{**vars(args), "batch": inputs}), RunRecord(args, report))
    for location in inputs:
        one = {"inputs": [], "batch": inputs, "video": location, "output": None, "output_folder": args.output}
        file_args = argparse.Namespace(**{**vars(args), **(one if args.inputs else {})})
        try:
            total += sum(describe(settings, networks, outputs, held) for settings in divide(file_args))
        except Exception as e:
            line = error_line(e)
            if line is None:
                raise
            print(f"{PROGRAM}: {line}", file=sys.stderr)
            status = FAILED_STATUS
    if len(inputs) > 1:
        print(f"all {len(inputs)} inputs: about {format_seconds(total)}")
    print("This was a dry run: nothing was written.", flush=True)
    return status


def describe(args: argparse.Namespace, networks: list[RIFE], outputs: dict[Path, InputName], held: Hold) -> float:
    """Prints what a run would do; returns about how many seconds it takes. Raises what the run would be refused with.

    `networks` holds the loaded network, as in `model_for_job`; `outputs` those of a batch, as in `is_to_be_made`.
    """
    job = plan_job(args)
    source = job.source
    if args.batch and not is_to_be_made(args.video, job.path, outputs, overwrite=args.overwrite):
        print(f"{source.path}: done already, {job.path} exists")
        return 0.0
    folder: Path | None = args.output_folder  # of several inputs; the run makes it
    if not job.is_video:
        check_pictures(job.path, files_read(args))
    elif folder is not None and not folder.exists():
        check_folder(folder)
    else:
        check_output(job.path, files_read(args), overwrite=args.overwrite)
    plan = describe_plan(args, job) if is_long_work(args, job) else []
    if not plan:
        check_space(args, job)
    model = model_for_job(args, job, networks)
    trial = run_trial(args, job, model, held)
    frames = job.count if job.count is not None else "unknown"
    made = _made_frames(args, job, trial)
    print(f"{source.path}: {source.size[0]}x{source.size[1]}, {source.count or 'unknown'} frames at "
          f"{float(source.rate):g} frames/s")  # fmt: skip
    print(f"  result: {job.path}, {frames} frames at {float(job.rate):g} frames/s, {made or 0:.0f} of them made")
    print(f"  network: {model}{describe_tiles(model, source.size[1], source.size[0], args.scale)}")
    print(f"  memory: {_describe_memory(model.device)}")
    size = None if job.count is None else _total_bytes(trial, job.count) + _sound_bytes(args, job)
    free = free_bytes(job.path)
    print(f"  disk: about {'unknown' if size is None else format_bytes(size)}"
          f"{'' if free is None else f', {format_bytes(free)} free'}")  # fmt: skip
    seconds = None if job.count is None or made is None else _total_seconds(trial, job.count, made, model.device)
    rates = f"{trial.network or 0:.3g} s for a made frame, {trial.encoding:.3g} s for encoding a frame"
    print(f"  time: about {'unknown' if seconds is None else format_seconds(seconds)} ({rates})", flush=True)
    for note in [*plan, *trial.notes]:
        print(f"  {note}")
    return seconds or 0.0


def run_trial(args: argparse.Namespace, job: VideoJob, model: RIFE, held: Hold) -> Trial:
    """Runs the first frames through decoder, network and encoder into a temporary file, and measures them."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="rife-trial-") as folder:
        path = Path(folder) / (job.path.name if job.is_video else "pictures")
        with ExitStack() as stack:
            with held():
                writer = open_writer(args, replace(job, path=path))
                stack.enter_context(writer)
            notes = [*writer.notes]
            frames, marks = 0, list[float]()
            with closing(prefetch(interpolated_frames(args, job, model, report))) as made:
                for frame in made:
                    with held():
                        writer.write(frame)
                    frames += 1
                    if frame.made:
                        marks.append(time.perf_counter())
                    if len(marks) >= TRIAL_MADE_FRAMES or frames >= TRIAL_FRAMES:
                        break
            start = time.perf_counter()
        encoding = (time.perf_counter() - start) / frames
        keys, others = _frame_bytes(path)
    network = (marks[-1] - marks[0]) / (len(marks) - 1) if len(marks) > 1 else None
    mean = sum(others) / len(others) if others else None
    return Trial(network, encoding, sum(keys) / max(len(keys), 1), mean, len(marks) / frames, notes)


def _frame_bytes(path: Path) -> tuple[list[int], list[int]]:
    """Returns the sizes of the keyframes and of the other frames of a video, or of the pictures of a folder."""
    if path.is_dir():
        return [picture.stat().st_size for picture in path.iterdir()], []
    keys, others = list[int](), list[int]()
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size:
                (keys if packet.is_keyframe else others).append(packet.size)
    return keys, others


def _made_frames(args: argparse.Namespace, job: VideoJob, trial: Trial) -> float | None:
    """Returns how many frames the network makes at most; None if the number of frames is unknown."""
    if job.count is None or job.source.count is None:
        return None
    return job.count * trial.share if args.target_fps else float(job.count - job.source.count)


def _total_bytes(trial: Trial, count: int) -> float:
    if trial.other is None:
        return trial.key * count
    keys = 1 + count // KEYFRAME_INTERVAL
    return trial.key * keys + trial.other * (count - keys)


def _sound_bytes(args: argparse.Namespace, job: VideoJob) -> float:
    """Returns about how many bytes the sound takes, as in the source; 0 if the file does not state it."""
    source = job.source
    if not (job.is_video and source.is_video and source.count) or args.fps or args.no_audio:
        return 0.0
    with open_container(source.location) as container:
        rate = sum(stream.bit_rate or 0 for stream in container.streams.audio)
    return float(source.count / source.rate * rate / 8)


def _total_seconds(trial: Trial, count: int, made: float, device: torch.device) -> float:
    """Returns the seconds of the whole run: a CPU makes and encodes in turn, a GPU makes while the CPU encodes."""
    network, encoding = made * (trial.network or 0.0), count * trial.encoding
    return network + encoding if device.type == "cpu" else max(network, encoding)


def _describe_memory(device: torch.device) -> str:
    free = available_bytes(device)
    rest = "" if free is None else f", {format_bytes(free)} more are free"
    if device.type == "cuda":
        return f"{format_bytes(torch.cuda.max_memory_allocated(device))} of the GPU in the trial{rest}"
    peak = peak_resident_bytes()
    return "unknown" if peak is None else f"{format_bytes(peak)} in the trial{rest}"
