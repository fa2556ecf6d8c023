"""Defines the flags of inference_video.py, in groups, and checks which exclude each other."""

import argparse
from fractions import Fraction
from pathlib import Path

from commands.arguments import number, rate, setting, whole
from commands.network_flags import add_network_flags
from commands.pipes import add_pipe_flags, check_pipes
from commands.resize_flags import add_resize_flag, check_resize
from commands.segment_flags import add_segment_flags, check_segment_flags
from commands.speed_flags import add_speed_flags, changes_speed, check_speed
from commands.transition_flags import add_transition_flags, check_transitions
from video.reading.container import parse_location
from video.timing.ending import MATCH_DURATION
from video.writing.audio import AUDIO, COPY, NONE

MAX_EXP = 10
MAX_MULTI = 2**MAX_EXP  # frames of the output for each of the input
MAX_RATE = 10_000  # frames/s of the output


def build_parser(description: str = "") -> argparse.ArgumentParser:
    """Returns the parser of all flags: upstream's, Practical-RIFE's --multi, and those that only this project has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_input(parser.add_argument_group("input (one of the first four)"))
    _add_output(parser.add_argument_group("output"))
    _add_encoder(parser.add_argument_group("encoder"))
    _add_timing(parser.add_argument_group("timing"))
    add_transition_flags(parser.add_argument_group("cuts, repeats, damage and gaps"))
    add_segment_flags(parser.add_argument_group("long work"))
    network = parser.add_argument_group("network")
    add_network_flags(network)
    network.add_argument("--devices", metavar="A,B",
        help="use several devices at once, as in cuda:0,cuda:1 (default: the one of --device)")  # fmt: skip
    network.add_argument("--UHD", action="store_true", help="set --scale to 0.5 (default: off)")
    return parser


def _add_input(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("inputs", nargs="*", type=parse_location, metavar="INPUT",
        help="interpolate these, one after the other: videos, folders (the videos in them), lists (.txt, one name a "
             "line)")  # fmt: skip
    add("--video", type=parse_location, metavar="FILE",
        help="interpolate this video: a file, a network address, or - for standard input")  # fmt: skip
    add_pipe_flags(group)
    add(
        "--img", type=Path, metavar="DIR", help="interpolate the pictures of this folder, in the order of their numbers"
    )
    add("--stitch", nargs=2, type=parse_location, metavar=("LEFT", "RIGHT"),
        help="blend two synchronised videos of one scene, from left to right; no frames are added")  # fmt: skip
    add("--stream", type=whole, metavar="N",
        help="the video stream to use, by its number in ffprobe (default: a moving one in colour)")  # fmt: skip
    add("--deinterlace", nargs="?", const="frame", choices=("frame", "field", "off"),
        help="make whole frames of interlaced ones: one for each frame, or for each field (double rate); off: take "
             "frames as they are (default: refuse interlaced video)")  # fmt: skip
    add(
        "--inverse-telecine",
        action="store_true",
        help="find the 24 frames/s of film in a telecined video (default: off)",
    )
    add("--input-fps", type=rate, default=Fraction(24), metavar="RATE",
        help="frames/s of the pictures of --img (default: 24)")  # fmt: skip
    add_resize_flag(group)


def _add_output(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--output", type=Path, metavar="FILE",
        help="name of the result, or - for standard output (default: {video}_{multi}X_{fps}fps.{ext} beside the "
             "video); for several inputs, their folder")  # fmt: skip
    group.set_defaults(output_folder=None, batch=())
    add("--ext", help="container of the result: mp4, mkv, mov, webm, gif; mkv, nut or y4m for standard output "
        "(default: mp4; mkv with FFV1 for standard output)")  # fmt: skip
    add("--png", action="store_true",
        help="write pictures to the folder --output, not a video (default: for --img; folder vid_out)")  # fmt: skip
    add("--montage", action="store_true",
        help="show the original beside the result, the central half of each (default: off)")  # fmt: skip
    add("--audio", choices=tuple(AUDIO), default=COPY,
        help="copy the sound, encode all of it as aac, opus or flac, or leave it out (none) (default: copy; what the "
             "container does not take is encoded)")  # fmt: skip
    add("--no-audio", action="store_true", help="the same as --audio none (default: off)")
    add("--overwrite", action="store_true", help="replace the result if it exists (default: refuse)")
    add("--report", type=Path, metavar="FILE",
        help="write settings, source, result, counts, losses and versions as this .json (default: none; report.json in "
             "the folder of --output, or in this one, for several inputs)")  # fmt: skip
    add("--preview", type=Path, metavar="FILE",
        help="keep the newest made frame, between its neighbours, as this .jpg or .png (default: none)")  # fmt: skip
    add("--dry-run", action="store_true",
        help="only show what would be done, with time, memory and disk space by a trial of a few frames "
             "(default: off)")  # fmt: skip


def _add_encoder(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--codec", help="encoder, as in libx265, libsvtav1, prores_ks, ffv1, h264_nvenc "
        "(default: libx264; libvpx-vp9 for webm)")  # fmt: skip
    add("--crf", type=whole, help="constant quality of the encoder, lower is better (default: 18 for libx264)")
    add("--preset", help="speed of the encoder (default: medium for libx264)")
    add("--pix-fmt", metavar="FORMAT", help="pixel format (default: the nearest to the source's)")
    add("--encoder-option", type=setting, action="append", default=[], metavar="NAME=VALUE",
        help="any setting of the encoder, as FFmpeg names it: tune=film, g=48, b=4M, x264-params=ref=5; may be given "
             "several times (default: none)")  # fmt: skip


def _add_timing(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--exp", type=whole, help=f"make 2^EXP times the frames, 0 to {MAX_EXP}; 0 only replaces repeats (default: 1)")
    add("--multi", type=number, help=f"make MULTI times as many frames, as in 3 or 2.5, 1 to {MAX_MULTI} "
        "(default: by --exp; 1 with --slow, --speed and --blur)")  # fmt: skip
    add("--target-fps", type=rate, metavar="RATE",
        help="resample to this rate, as in 60 or 60000/1001 (default: off)")  # fmt: skip
    add("--fps", type=rate, metavar="RATE",
        help="play the frames at this rate, without sound: slow motion (default: MULTI times the rate)")  # fmt: skip
    add("--match-duration", choices=MATCH_DURATION,
        help="fill the time after the last frame up to the source's length: show that frame (hold), or move it on by "
             "its motion (extrapolate) (default: its duration is kept where the container has durations)")  # fmt: skip
    add(
        "--loop",
        action="store_true",
        help="make frames from the last one to the first, for GIFs that repeat without a seam (default: off)",
    )
    add_speed_flags(group)
    add("--skip", action="store_true", help="does nothing; upstream abandoned it")


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program by parser.error if arguments are out of range or exclude each other; sets `multi`, `scale`."""
    if [args.inputs or None, args.video, args.img, args.stitch].count(None) != 3:
        parser.error("give INPUT, --video FILE or --img DIR, one of them (or --stitch LEFT RIGHT)")
    if args.stitch and (args.montage or args.exp or args.multi or args.target_fps or args.fps):
        parser.error("--stitch adds no frames: leave out --exp, --multi, --target-fps, --fps and --montage")
    if args.dry_run and args.stitch:
        parser.error("--dry-run excludes --stitch; leave one out")
    if args.devices and (args.device or args.stitch):
        parser.error("--devices replaces --device and excludes --stitch; leave them out")
    if args.loop and (args.match_duration or args.stitch):
        parser.error("--loop ends where the source begins: leave out --match-duration and --stitch")
    if args.match_duration and (args.fps or args.stitch):
        parser.error("--match-duration keeps the source's length, which --fps changes and --stitch has already")
    if args.target_fps and args.fps:
        parser.error("--target-fps keeps the duration, --fps changes it; give one of them")
    for name, given in (("--target-fps", args.target_fps), ("--fps", args.fps), ("--input-fps", args.input_fps)):
        if given is not None and given > MAX_RATE:
            parser.error(f"{name} {float(given):g}: at most {MAX_RATE} frames/s")
    if args.deinterlace and args.inverse_telecine:
        parser.error("--deinterlace and --inverse-telecine both make whole frames: give one of them")
    check_segment_flags(parser, args)
    args.multi = _multi(parser, args)
    args.audio = NONE if args.no_audio else args.audio
    check_transitions(parser, args)
    check_speed(parser, args)
    check_resize(parser, args)
    check_pipes(parser, args)
    if args.UHD and args.scale in (1.0, None):
        args.scale = 0.5


def _multi(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int | Fraction:
    """Returns how many frames of the output there are for each of the input; a whole number is an int."""
    if args.stitch:
        return 1
    if args.repair is not None:
        if args.exp or args.multi not in (None, 1) or args.target_fps:
            parser.error("--repair keeps the frames of the source: leave out --exp, --multi and --target-fps")
        return 1
    if args.exp is not None and not 0 <= args.exp <= MAX_EXP:
        parser.error(f"--exp {args.exp}: must be 0 or more, and {MAX_EXP} at most")
    if args.multi is not None and not 1 <= args.multi <= MAX_MULTI:
        parser.error(f"--multi {float(args.multi):g}: must be 1 or more, and {MAX_MULTI} at most")
    if None not in (args.exp, args.multi) and args.multi != 2**args.exp:
        parser.error(
            f"--exp {args.exp} means --multi {2**args.exp}, but --multi is {float(args.multi):g}; give one of them"
        )
    if args.multi is not None:
        return int(args.multi) if args.multi.denominator == 1 else args.multi
    return 2 ** ((0 if changes_speed(args) else 1) if args.exp is None else args.exp)
