"""Defines the flags of train.py, in groups; checks them without a network; reads files of stages."""

import argparse
import configparser
import difflib
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from commands.arguments import argument_type, ranged
from data.clips import CLIP_ZOOM
from model.errors import UserError
from model.training.recipe import FINE_TUNING, V4, Recipe

LOSSES = ("distillation", "deep", "psnr", "lpips", "lpips_crop", "flow", "mask", "half_flow", "distill_flow",
          "distill_mask", "anneal")  # fmt: skip
PART_FLAGS = {"batch_size", "crop", "mix", "pans", "motion", "gaps", "by_motion", "zoom", "weak", "moved", "exact",
              "views", "epoch_samples", "weight"}  # fmt: skip
STAGE_FLAGS = PART_FLAGS | {field.name for field in fields(Recipe)} | {
    "steps", "epoch", "hours", "blocks", "flow_alone", "coarsest", "inherit"
}  # fmt: skip


COMMON_SECTION = "DEFAULT"  # the section that holds for all stages
SMALLEST_CROP = 48  # px; the coarsest level of the Laplacian loss has a sixteenth of them, and needs 3
LARGEST_SCALE = 64  # of a block: a map at 1/64 of the size
SWITCHES = configparser.ConfigParser.BOOLEAN_STATES  # yes, no, true, false, on, off, 1, 0


class Parser(argparse.ArgumentParser):
    """Raises UserError for wrong values, for those in a file of stages."""

    def error(self, message: str) -> Any:
        """Raises UserError in place of ending the program."""
        raise UserError(message)


def parse_block_pair(text: str) -> tuple[int, int]:
    """Reads FROM:TO as two numbers. Raises ValueError if the text has another form."""
    match = re.fullmatch(r"(\d{1,3}):(\d{1,3})", text)
    if not match:
        raise ValueError(f"{text!r} has no two numbers")
    return int(match[1]), int(match[2])


def parse_block_scale(text: str) -> float:
    """Reads the scale of a block: 0 or a power of two, as all scales of the networks. Raises ValueError for others."""
    if text not in ("0", *(str(2**n) for n in range(LARGEST_SCALE.bit_length()))):
        raise ValueError(f"{text!r} is no scale")
    return float(text)


block_pair = argument_type(parse_block_pair, "FROM:TO, the numbers of two blocks")
block_scale = argument_type(parse_block_scale, f"0 or a power of two from 1 to {LARGEST_SCALE}")
positive, count = ranged(int, 1), ranged(int)
amount, share = ranged(float), ranged(float, 0, 1)
factor = ranged(float, 0.01, 100)


def add_flags(p: argparse.ArgumentParser) -> None:
    """Adds all flags of train.py."""
    _add_data(p)
    _add_network(p)
    _add_length(p)
    _add_output(p)
    losses, optimizer = p.add_argument_group("losses"), p.add_argument_group("optimizer")
    for field in fields(Recipe):
        group = losses if field.name in LOSSES else optimizer
        kind = {"int": int, "float": float, "str": str}[str(getattr(field.type, "__name__", field.type))]
        limits = field.metadata["least"], field.metadata["most"]
        read = kind if kind is str else ranged(kind, *limits)
        assert field.default is not MISSING
        v4 = getattr(V4, field.name)
        default = f"{field.default:g}" if kind is float else str(field.default)
        if v4 != field.default:
            default += f"; v4: {v4:g}"
        if field.name in ("peak", "floor"):
            default += f"; with --init divided by {FINE_TUNING}"
        group.add_argument(f"--{field.name}", type=read, help=f"{field.metadata['help']} (default: {default})")
    old = p.add_argument_group("launcher (taken from torchrun; these are read for old commands)")
    old.add_argument("--local_rank", "--local-rank", type=count, default=0, help="number of the GPU (default: 0)")
    old.add_argument("--world_size", type=int, help="not used: the launcher sets the number of processes")
    for action in p._actions:
        if action.metavar is None and action.type is not None:
            action.metavar = {Path: "DIR", str: "NAME"}.get(action.type, "N")  # type: ignore[call-overload]


# fmt: off
def _add_data(p: argparse.ArgumentParser) -> None:
    add = p.add_argument_group("training data").add_argument
    add("--vimeo", type=Path, help="folder of Vimeo90K triplets or septuplets (default: vimeo_triplet, if no other "
        "data is given)")
    add("--triplets", type=Path, help="folder of triplets in any layout: three pictures in each folder, NAME_1 NAME_2 "
        "NAME_3, or three folders with the same names (default: none)")
    add("--clips", type=Path, help="folder of video files, of each the first 400 frames, which are cut into triplets "
        "(default: none)")
    add("--photos", type=Path, help="folder of pictures, for synthetic scenes and --pans (default: none)")
    add("--cache", type=Path, default=Path("runs/cache"), help="folder for decoded clips, gigabytes (default: "
        "runs/cache)")
    add("--mix", type=amount, nargs=3, default=(1, 1, 1), metavar=("TRIPLETS", "CLIPS", "SCENES"),
        help="weights of Vimeo90K and triplets, of clips, and of synthetic scenes (default: 1 1 1)")
    add("--pans", type=amount, default=0.0, metavar="WEIGHT",
        help="weight of exact camera pans over the photos, for large motion (default: 0)")
    add("--motion", type=amount, nargs=2, default=(2.0, 160.0), metavar=("MIN", "MAX"),
        help="motion of pans in px from first to last frame (default: 2 160)")
    add("--gaps", type=positive, nargs="+", default=(), metavar="G",
        help="frames of a clip from the first to the middle one, drawn from these (default: 1 to 3)")
    add("--by_motion", action="store_true", help="draw clips that move more often (default: by their length)")
    add("--zoom", type=factor, nargs=2, default=CLIP_ZOOM, metavar=("MIN", "MAX"),
        help=f"factor on the size of clips (default: {CLIP_ZOOM[0]} {CLIP_ZOOM[1]})")
    add("--weak", type=share, default=0.0, help="share of clip samples compressed at a low rate (default: 0)")
    add("--moved", type=share, default=0.0, help="share of clip samples shown through a moving camera (default: 0)")
    add("--exact", action="store_true", help="do not estimate the flow of clips for flow losses (default: estimate)")
    add("--crop", type=ranged(int, SMALLEST_CROP), help="side of training crops in px (default: 224; v4: 256)")
    add("--batch_size", type=positive, default=16, help="samples per step of one process (default: 16)")
    add("--views", type=positive, default=1, help="uses of each batch, flipped and rotated anew each time, if loading "
        "is slower than training (default: 1)")
    add("--epoch_samples", type=positive, help="samples of an epoch (default: as many as there are)")
    add("--held_out", type=count, default=10, help="every N-th clip, triplet and photo is used only for validation; "
        "0: none (default: 10)")
    add("--workers", type=count, default=8, help="processes that load data (default: 8)")
    add("--seed", type=count, default=1234, help="seed of all random numbers (default: 1234)")


def _add_network(p: argparse.ArgumentParser) -> None:
    add = p.add_argument_group("network").add_argument
    add("--arch", help="rife, rife_m, v4.25, ... (default: that of --init, else rife)")
    add("--init", type=Path, metavar="MODEL", help="weights to start from, official ones too (default: random)")
    add("--teacher", choices=["gt"], help="v4: train with the paper's teacher, a block that takes the true frame "
        "(default: none)")
    add("--distill", type=Path, metavar="MODEL", help="weights of a teacher network, of any kind, whose flow is learnt "
        "(default: none)")
    add("--sharp", action="store_true", help="v4.22 on: learn the sampling of the last blend (default: as --init)")
    add("--inherit", type=block_pair, nargs="+", default=(), metavar="FROM:TO",
        help="v4: copy what finer blocks have learnt to coarser ones first, as 2:0 3:1 (default: none)")
    add("--blocks", type=count, nargs="+", default=(), metavar="N", help="v4: train these blocks only (default: all)")
    add("--flow_alone", action="store_true", help="run only up to the last of --blocks, and train them by flow losses "
        "alone: --flow 1, --half_flow 16, no other (default: the whole network)")
    add("--coarsest", type=block_scale, default=0.0, metavar="SCALE",
        help="scale of block 0 with --flow_alone; other blocks in proportion (default: 0, the network's)")
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    add("--compile", action="store_true", help="run torch.compile on the network (default: no)")


def _add_length(p: argparse.ArgumentParser) -> None:
    add = p.add_argument_group("length").add_argument
    add("--epoch", type=positive, default=300, help="passes over the data (default: 300)")
    add("--steps", type=positive, help="steps, in place of --epoch (default: by --epoch)")
    add("--hours", type=amount, default=0.0, help="length on the clock, in place of --epoch (default: 0, not used)")
    add("--stages", type=Path, metavar="FILE", help="file of stages, each with flags of its own; see "
        "model/training/recipes (default: one stage)")
    add("--weight", type=factor, default=1.0, help=argparse.SUPPRESS)  # of a part of a stage, in a file of stages


def _add_output(p: argparse.ArgumentParser) -> None:
    add = p.add_argument_group("output").add_argument
    add("--name", help="name of the run, which is written to runs/NAME (default: date and time)")
    add("--output", type=Path, metavar="DIR", help="folder of the run (default: runs/NAME)")
    add("--resume", action="store_true", help="continue the run in that folder, without a name the newest in "
        "runs/ (default: begin a run)")
    add("--train_log", action="store_true", help="at the end write the weights to train_log/flownet.pkl too, where the "
        "other commands find them (default: no)")
    add("--save_every", type=positive, default=1000, help="steps between validations; a checkpoint follows each, and "
        "one is written every ten minutes (default: 1000)")
    add("--log_every", type=positive, default=100, help="steps between lines of the log (default: 100)")
    add("--val_samples", type=positive, help="validation samples at most (default: 200; all of Vimeo90K's)")
# fmt: on


def check_flags(args: argparse.Namespace) -> None:
    """Raises UserError, with the name of the flag, for values that cannot work."""
    for flag in ("vimeo", "triplets", "clips", "photos"):
        folder = getattr(args, flag)
        if folder is not None and not folder.is_dir():
            raise UserError(f"argument --{flag}: {folder}: no such folder")
    if args.hours and "WORLD_SIZE" in os.environ:
        raise UserError("argument --hours: is for one process, the clocks of several do not agree; give --steps")
    if args.pans and args.photos is None:
        raise UserError("argument --pans: needs --photos, the pictures that it pans over")
    if args.flow_alone and not args.blocks:
        raise UserError("argument --flow_alone: needs --blocks, the blocks to train")
    for flag in ("motion", "zoom"):
        least, most = getattr(args, flag)
        if not 0 < least <= most:
            raise UserError(f"argument --{flag}: {least:g} {most:g} is not a range above 0")
    if args.name is not None and args.output is not None:
        raise UserError("argument --name: not together with --output")
    if args.name is not None and (args.name in ("", "..") or Path(args.name).name != args.name):
        raise UserError(f"argument --name: {args.name!r} is not the name of a folder; --output takes a path")
    if args.optimizer not in (None, "adamw", "muon"):
        raise UserError(f"argument --optimizer: unknown optimizer {args.optimizer}; known are adamw and muon")
    if args.amp not in (None, "no", "bf16", "fp16"):
        raise UserError(f"argument --amp: unknown precision {args.amp}; known are no, bf16 and fp16")


def read_stages(file: Path, args: argparse.Namespace) -> list[tuple[str, list[argparse.Namespace]]]:
    """Reads a file of stages: the name of each one and the flags of its parts, one part if the file names none.

    A section [NAME] is a stage, a section [NAME / PART] a part of it; [DEFAULT] holds for all stages. The keys are
    flags of train.py, which replace those of the command line. UserError names the section.
    """
    sections = _read_sections(file)
    stages: dict[str, list[argparse.Namespace]] = {}
    common: dict[str, argparse.Namespace] = {}
    for section, values in sections.items():
        name, slash, _ = (part.strip() for part in section.partition("/"))
        try:
            if section == COMMON_SECTION:
                args = _apply(values, args, STAGE_FLAGS)
            elif not name:
                raise UserError("a stage needs a name")
            elif slash and name not in common:
                raise UserError(f"there is no [{name}] before it")
            elif slash:
                stages[name].append(_apply(values, common[name], PART_FLAGS))
                check_flags(stages[name][-1])
            elif name in common:
                raise UserError("there are two stages of this name")
            else:
                common[name], stages[name] = _apply(values, args, STAGE_FLAGS), []
                check_flags(common[name])
        except UserError as e:
            raise UserError(f"{file}: [{section}]: {e}") from e
    if not stages:
        raise UserError(f"{file}: holds no stage; a stage begins with its [name]")
    return [(name, parts or [common[name]]) for name, parts in stages.items()]


def _read_sections(file: Path) -> dict[str, dict[str, str]]:
    """Reads the keys and values of all sections, [DEFAULT] first; UserError where the file has not that form."""
    reader = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#", ";"), default_section="")
    try:
        with file.open(encoding="utf-8-sig") as lines:
            reader.read_file(lines)
    except (OSError, UnicodeDecodeError, configparser.Error) as e:
        reason = getattr(e, "strerror", None) or " ".join(str(e).split())
        raise UserError(f"{file}: cannot be read as a file of stages ({reason})") from e
    return {name: dict(reader[name]) for name in sorted(reader.sections(), key=lambda name: name != COMMON_SECTION)}


def _apply(values: dict[str, str], args: argparse.Namespace, flags: Collection[str]) -> argparse.Namespace:
    """Returns the flags with some replaced by the values of a section, which are parsed as on the command line.

    Flags that take no value are switched by yes and no.
    """
    parser = Parser(add_help=False)
    add_flags(parser)
    switches = {action.dest for action in parser._actions if action.nargs == 0}
    made, argv = argparse.Namespace(**vars(args)), list[str]()
    for key, value in values.items():
        if key not in flags:
            near = difflib.get_close_matches(key, flags, 1)
            raise UserError(f"{key}: cannot be set here{f'; is it {near[0]}?' if near else ''}")
        if key in switches:
            if value.lower() not in SWITCHES:
                raise UserError(f"{key}: {value!r} is neither yes nor no")
            setattr(made, key, SWITCHES[value.lower()])
        elif "--" in value:
            raise UserError(f"{key}: {value!r} holds another flag; give each a line of its own")
        else:
            argv += [f"--{key}", *value.split()]
    return parser.parse_args(argv, made)


def parse(argv: Sequence[str] | None, description: str) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Parses the command line; returns the parser too, for errors found later."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        usage="train.py [flags]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser)
    args = parser.parse_args(argv)
    try:
        check_flags(args)
    except UserError as e:
        parser.error(str(e))
    return parser, args
