"""Defines the flags of cuts, repeats, damage and gaps, and turns them into settings of the loop."""

import argparse
from pathlib import Path

from commands.arguments import decimal, seconds
from model.files import read_text
from video.interpolate import Handling
from video.transitions.confidence import FALLBACKS, UNSURE, Fallback
from video.transitions.decisions import GivenDecisions, read_decisions
from video.transitions.hold import AT_CUT
from video.transitions.overlay import Overlays, read_mask
from video.transitions.repair import parse_numbers
from video.transitions.retime import DEDUP, LONGEST_RUN
from video.transitions.scene import CUT_MISMATCH, CUT_RULES, CUT_SSIM, LONGEST_STEP, REPEAT_SSIM, TransitionDetector

FOUND = "found"  # value of --repair without a list


def add_transition_flags(group: argparse._ArgumentGroup) -> None:
    """Adds the flags to a group of a parser."""
    add = group.add_argument
    add("--cuts", choices=CUT_RULES,
        help="find cuts where motion does not explain the change (motion), by the similarity of thumbnails (upstream), "
             "or nowhere (off) (default: motion)")  # fmt: skip
    add("--cut-threshold", type=decimal, default=CUT_MISMATCH, metavar="MISMATCH",
        help="of --cuts motion: a difference above this share of the contrast is a cut "
             f"(default: {CUT_MISMATCH})")  # fmt: skip
    add("--scene-threshold", type=decimal, metavar="SSIM",
        help="of --cuts upstream, which this flag implies: two frames less similar than this are a cut; 0: never "
             f"(default: {CUT_SSIM})")  # fmt: skip
    add("--at-cut", choices=AT_CUT, default=AT_CUT[0],
        help="between the frames of a cut show the earlier one (hold), a dissolve (blend) or the nearer one (nearest) "
             f"(default: {AT_CUT[0]})")  # fmt: skip
    add("--decisions", type=Path, metavar="FILE",
        help="read cuts, repeats and gaps from this JSON file if it exists, write them to it if not "
             "(default: neither)")  # fmt: skip
    add("--dedup", choices=DEDUP, default=DEDUP[0],
        help="a frame that repeats the one before: make it anew (replace), spread the motion over runs of up to "
             f"{LONGEST_RUN} frames, for animation (retime), or keep it (off) (default: {DEDUP[0]})")  # fmt: skip
    add("--static-threshold", type=decimal, metavar="SSIM",
        help="find repeats as upstream: thumbnails more similar than this; 1: never "
             f"(default: off; upstream: {REPEAT_SSIM})")  # fmt: skip
    add("--gap", type=seconds, default=LONGEST_STEP, metavar="SECONDS",
        help="make no frames between two that are further apart than this: the earlier one is shown until the later "
             f"(default: {LONGEST_STEP})")  # fmt: skip
    add("--fallback", choices=FALLBACKS,
        help="where the network is unsure show the earlier frame (hold) or a dissolve (blend) instead of its frame "
             "(default: off)")  # fmt: skip
    add("--unsure", type=decimal, default=UNSURE, metavar="LEVELS",
        help="of --fallback: the two warped frames differ by more than this on average, in levels of 255 "
             f"(default: {UNSURE:g})")  # fmt: skip
    add("--confidence", type=Path, metavar="FILE",
        help="write this difference for each made frame to a CSV file (default: none)")  # fmt: skip
    add("--protect-static", action="store_true",
        help="find and keep logos and captions that stand still while the scene moves (default: off)")  # fmt: skip
    add("--mask", type=Path, metavar="FILE",
        help="keep the pixels at which this picture, of the video's size, is not black (default: none)")  # fmt: skip
    add("--repair", nargs="?", const=FOUND, metavar="FRAMES",
        help="make frames anew from the frames around them, at the same rate: those of a list, as in 10,20-22, or of "
             "a file with such a list, counted from 0; without a list those that repeat or are damaged "
             "(default: off)")  # fmt: skip


def check_transitions(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program by parser.error if these flags exclude each other; turns --repair into the numbers of frames."""
    if args.scene_threshold is not None and args.cuts not in (None, "upstream"):
        parser.error(f"--scene-threshold belongs to --cuts upstream, not to --cuts {args.cuts}")
    if args.mask is not None and args.montage:
        parser.error("--mask is of the whole picture, --montage shows the central half: leave one of them out")
    args.damaged = None
    if args.repair not in (None, FOUND):
        try:
            args.damaged = parse_numbers(
                read_text(Path(args.repair), "utf-8-sig") if Path(args.repair).is_file() else args.repair
            )
        except (ValueError, OSError) as e:
            parser.error(f"--repair {args.repair}: neither a list of frames, as in 10,20-22, nor a file of one ({e})")


def handling(args: argparse.Namespace, size: tuple[int, int], rotation: int = 0) -> Handling:
    """Returns the settings of the loop that the flags give.

    Reads the mask, and the decisions if their file exists. `size` is the width and height of the frames in pixels;
    players turn them by `rotation` degrees.
    """
    mask = None if args.mask is None else read_mask(args.mask, size, rotation)
    return Handling(
        transition_detector(args),
        given=given_decisions(args),
        dedup=args.dedup,
        at_cut=args.at_cut,
        repair=args.repair is not None,
        numbers=args.damaged,
        overlays=Overlays(args.protect_static, mask) if args.protect_static or mask is not None else None,
        fallback=Fallback(args.fallback, args.unsure) if args.fallback or args.confidence else None,
    )


def given_decisions(args: argparse.Namespace) -> GivenDecisions | None:
    """Returns the decisions of the flags' file; None if the file does not exist, and is to be written."""
    return read_decisions(args.decisions) if args.decisions is not None and args.decisions.exists() else None


def transition_detector(args: argparse.Namespace) -> TransitionDetector:
    """Returns the detector of cuts, repeats and gaps that the flags describe."""
    static, scene = args.static_threshold, args.scene_threshold
    searched = args.repair == FOUND or (args.repair is None and args.dedup != "off")
    repeats = "off" if not searched else "same" if static is None else "upstream"
    return TransitionDetector(
        CUT_SSIM if scene is None else scene,
        REPEAT_SSIM if static is None else static,
        repeats,
        args.gap,
        args.cuts or (CUT_RULES[0] if scene is None else "upstream"),
        args.cut_threshold,
    )
