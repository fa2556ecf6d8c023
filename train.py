"""Trains a network: the paper's RIFE and RIFE_m, or any v4 network, from scratch, from weights, or from a teacher.

Fine-tune on triplets:   python3 train.py --init flownet.pkl --triplets DIR --batch_size 4 --hours 1
A smaller network:       python3 train.py --arch v4.22.lite --distill flownet.pkl --clips DIR --batch_size 4
From scratch, as upstream: python3 train.py --vimeo vimeo_triplet
The default weights:     see docs/training.md (--stages model/training/recipes/default.ini)
Four GPUs:               torchrun --nproc_per_node=4 train.py ...
Two machines, on each:   torchrun --nnodes=2 --nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=HOST train.py ...
After a stop:            the same command with --resume

A run writes to runs/NAME: flownet.pkl (the latest weights, to interpolate with: --model runs/NAME), best/flownet.pkl
(the best at validation), state.pt (for --resume), log.jsonl (settings, losses, scores), pictures/ (frame 0, truth,
result, frame 1 of validation samples) and, if tensorboard is installed, tensorboard/. No run is ever replaced.
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch
import torch.distributed as dist

from commands.errors import run_command
from commands.stop import StopRequest
from commands.training_data import TrainingData
from commands.training_flags import parse, read_stages
from model.devices import pick_device
from model.errors import UserError, printable
from model.inference.memory import keep_freed_memory
from model.loading import TRAIN_LOG, load_network
from model.metrics import load_lpips
from model.training.checkpoint import STATE, WEIGHTS, check_no_run, check_run_folder, lock_run_folder, write_tensors
from model.training.distillation import TeacherNetwork
from model.training.log import print_line
from model.training.network import Trainable, build_from, build_trainable, crop_for, recipe_for
from model.training.recipe import Recipe, by_flow_alone, for_fine_tuning
from model.training.run import Run, RunSettings
from model.training.stages import Stage, StagePart, check_stage
from model.training.step import LossNetworks
from model.weights.checkpoint import DDP_PREFIX, find_weights, read_weights
from video.safe_file import check_output, same_file

RUNS = Path("runs")
INTERRUPTED = "interrupted; a run that has a checkpoint continues from it by --resume"
OUT_OF_MEMORY = "out of memory; make --batch_size or --crop smaller, --accumulate larger, or --workers fewer"


def open_network(args: argparse.Namespace) -> Trainable:
    """Returns the network to train: fresh, or from --init."""
    teacher = args.teacher == "gt"
    if args.init is None:
        return build_trainable(args.arch or "rife", teacher=teacher, sharp=args.sharp)
    file = find_weights(args.init)
    try:
        net, note = build_from(read_weights(file), args.arch, teacher=teacher, sharp=args.sharp)
    except UserError as e:
        raise UserError(f"argument --init: {file}: {e}") from e
    if note and first_process():
        print_line(f"{file}: {note}")
    return net


def first_process() -> bool:
    """Returns whether this is the only process, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def open_stages(args: argparse.Namespace, net: Trainable) -> list[Stage]:
    """Returns the stages of the run with their data; the whole run is one stage without --stages."""
    data = TrainingData(args, print_line if first_process() else lambda line: None)
    named = read_stages(args.stages, args) if args.stages else [("train", [args])]
    stages = []
    for number, (name, parts) in enumerate(named):
        try:
            stages.append(open_stage(name, parts, net, data, args.seed + 1000 * number))
        except UserError as e:
            raise UserError(f"{args.stages}: [{name}]: {e}" if args.stages else str(e)) from e
    return stages


def open_stage(name: str, parts: Sequence[argparse.Namespace], net: Trainable, data: TrainingData, seed: int) -> Stage:
    """Returns a stage from the flags of its parts."""
    args = parts[0]
    chosen = {f.name: getattr(args, f.name) for f in fields(Recipe) if getattr(args, f.name) is not None}
    recipe = recipe_for(net)
    if args.flow_alone:  # blocks learn anew, also in weights that are trained already
        recipe = by_flow_alone(recipe)
    elif args.init is not None:
        recipe = for_fine_tuning(recipe)
    recipe = replace(recipe, **chosen)
    crops = [part.crop or crop_for(net) for part in parts]
    for crop in crops:
        if crop % net.pad_multiple:
            raise UserError(f"argument --crop: {crop}: this network needs a multiple of {net.pad_multiple}")
        if args.coarsest and crop % (4 * args.coarsest):
            raise UserError(f"argument --coarsest: {args.coarsest:g}: --crop {crop} is no multiple of four times that")
    opened = [
        StagePart(
            data.training(part, crop, seed + 10 * i, flow=recipe.flow > 0), part.batch_size, part.weight, part.views
        )
        for i, (part, crop) in enumerate(zip(parts, crops, strict=True))
    ]
    held_seed = data.args.seed + 1
    validation = (
        data.flow_validation(args, crops[0], held_seed) if args.flow_alone else data.validation(crops[0], held_seed)
    )
    world = int(os.environ.get("WORLD_SIZE", 1))
    stage = Stage(
        name=name,
        recipe=recipe,
        parts=opened,
        validation=validation,
        steps=args.steps or args.epoch * (len(opened[0].data) // (parts[0].batch_size * world)),
        hours=args.hours,
        blocks=tuple(args.blocks),
        flow_alone=args.flow_alone,
        coarsest=args.coarsest,
        inherit=tuple(args.inherit),
    )
    check_stage(stage, net, world)
    return stage


def open_loss_networks(args: argparse.Namespace, stages: Sequence[Stage], device: torch.device) -> LossNetworks:
    """Returns the teacher of --distill and the network of LPIPS, each if the flags name it."""
    teacher = None
    if args.distill is not None:
        teacher = TeacherNetwork(load_network(args.distill)[0].to(device))
    lpips = load_lpips(device) if any(stage.recipe.lpips for stage in stages) else None
    return LossNetworks(teacher, lpips)


def may_be_restarted() -> bool:
    """Returns whether torchrun may have started this process again after a failure.

    On several nodes, torchrun counts a restart only on the node of the process that failed: wherever it may restart, a
    run that exists is taken for one that was interrupted.
    """
    restarts, most = (int(os.environ.get(f"TORCHELASTIC_{name}", 0)) for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    return restarts > 0 or (most > 0 and int(os.environ.get("GROUP_WORLD_SIZE", 1)) > 1)


def run_folder(args: argparse.Namespace) -> tuple[Path, bool]:
    """Returns the folder of the run, and whether a run in it is resumed.

    torchrun starts the processes again when one fails; they resume by themselves then. UserError if a run would be
    replaced.
    """
    if args.output is not None or args.name is not None:
        folder = args.output if args.output is not None else RUNS / args.name
    elif args.resume:
        states = sorted(RUNS.glob(f"*/{STATE}"), key=lambda path: path.stat().st_mtime)
        if not states:
            raise UserError(f"argument --resume: {RUNS}: holds no run to resume; give --name or --output")
        folder = states[-1].parent
    else:
        folder = RUNS / time.strftime("%Y-%m-%d_%H-%M-%S")
    if args.resume and not (folder / STATE).is_file():
        raise UserError(f"argument --resume: {folder}: holds no {STATE}, so there is no run to resume")
    resumed = args.resume or (may_be_restarted() and (folder / STATE).is_file())
    check_run_folder(folder)
    check_not_data(folder, args)
    if not resumed:
        check_no_run(folder)
    if args.train_log:
        try:
            check_run_folder(TRAIN_LOG)
            if (TRAIN_LOG / WEIGHTS).exists():
                raise UserError(f"{TRAIN_LOG / WEIGHTS}: exists already; move it to another folder, or delete it")
            if TRAIN_LOG.is_dir():
                check_output(TRAIN_LOG / WEIGHTS)
        except UserError as e:
            raise UserError(f"argument --train_log: {e}") from e
    return folder, resumed


def check_not_data(folder: Path, args: argparse.Namespace) -> None:
    """Raises UserError if the pictures that the run writes would become training data."""
    for flag in ("vimeo", "triplets", "clips", "photos"):
        data = getattr(args, flag)
        if data is not None and same_file(folder, data):
            raise UserError(f"{folder}: is the folder of --{flag} itself; choose another folder for the run")
    if args.triplets is not None and args.triplets.resolve() in folder.resolve().parents:
        raise UserError(f"{folder}: lies in the folder of --triplets, which is read with all folders in it; "
                        "choose another folder for the run")  # fmt: skip


def start_group(device: torch.device, folder: Path) -> Path:
    """Joins the other processes, if there are any; returns the folder that the first one chose."""
    if "WORLD_SIZE" not in os.environ:
        return folder
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    chosen = [folder]
    dist.broadcast_object_list(chosen)
    return chosen[0]


def leave_group() -> None:
    """Ends the process group, if there is one, after the copies of the network in it are freed.

    DistributedDataParallel refers to itself; until it is freed, gloo's threads run on after the group has ended, and
    some exits abort.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser, args = parse(argv, __doc__ or "")
    keep_freed_memory()
    rank, local = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_RANK", args.local_rank))
    torch.manual_seed(args.seed + rank)
    try:
        device = pick_device(args.device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", local)
        folder, resumed = run_folder(args)
        net = open_network(args)
        stages = open_stages(args, net)
        loss_networks = open_loss_networks(args, stages, device)
    except UserError as e:
        parser.error(printable(str(e)))
    settings = RunSettings(args.seed, args.workers, args.log_every, args.save_every, args.compile)
    folder = start_group(device, folder)
    with lock_run_folder(folder) if rank == 0 else nullcontext(), StopRequest() as stop:
        if rank == 0 and not resumed:
            check_no_run(folder)  # again: another run may have ended there meanwhile
        train_stages(Run(net, stages, folder, device, settings, loss_networks, stop), args, resumed=resumed)
    leave_group()


def train_stages(run: Run, args: argparse.Namespace, *, resumed: bool) -> None:
    """Trains a run to its end, from its last checkpoint if it is resumed, and prints what was written."""
    if resumed:
        run.resume()
    recipes = {stage.name: asdict(stage.recipe) for stage in run.stages}
    run.log.write(run.steps, settings={k: str(v) for k, v in vars(args).items()}, recipes=recipes)
    named = args.name is not None or args.output is not None
    flags = "--resume" if named else f"--output {run.folder} --resume"
    run.log.print_line(
        f"{run.folder}: {'resumed' if resumed else 'begun'} on {run.device}; after a stop the same command with "
        f"{flags} continues from the last checkpoint"
    )
    run.train()
    if run.rank == 0:
        weights = {DDP_PREFIX + key: value for key, value in run.average.state_dict().items()}
        if args.train_log:
            write_tensors(TRAIN_LOG / WEIGHTS, weights, overwrite=False)
        best = f"{-run.best:.3f} px of flow error" if run.stage.flow_alone else f"{run.best:.3f} dB"
        print_line(f"{run.folder / WEIGHTS}: {run.steps} steps, best validation {best}", result=True)


def run(command: Callable[[], None] = main) -> int:
    """Runs a command and returns its exit status; errors of the user, the memory and the disk end in one line."""
    return run_command("train.py", command, interrupted=INTERRUPTED, out_of_memory=OUT_OF_MEMORY)


if __name__ == "__main__":
    sys.exit(run())
