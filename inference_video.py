"""Makes a video, or a folder of pictures, smoother or slower by the frames between its frames.

    python3 inference_video.py --exp=1 --video=video.mp4                    2X: 24 to 48 frames/s, sound kept
    python3 inference_video.py --multi=3 --video=video.mp4 --output=out.mkv 3X, true thirds
    python3 inference_video.py --target-fps=60 --video=video.mp4            any rate to 60 frames/s
    python3 inference_video.py --exp=2 --fps=24 --video=video.mp4           slow motion: 4X the frames, played at 24
    python3 inference_video.py --exp=2 --img=frames/                        pictures in, vid_out/0000000.png ... out
    python3 inference_video.py --exp=1 --video=video.mp4 --scale=0.5        flow at half size: 4K, large motion
    python3 inference_video.py --exp=1 --video=video.mp4 --montage          original and result side by side
    python3 inference_video.py --stitch left.mp4 right.mp4                  two views blended into one, left to right

Exit status: 0 done; 1 an error, told in one line; 3 done, but the source was damaged or cut off; 130 interrupted.
"""

import argparse
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from tqdm import tqdm

from commands.network_flags import add_network_flags, load_tiled, options, pick_scale
from model import UserError
from model.inference.memory import keep_freed_memory
from model.inference.tiling import TiledRIFE
from video.container import parse_location
from video.devices import SEGMENT
from video.encoding import Encoding
from video.frame import Frame
from video.interpolate import Report, interpolate
from video.montage import montage, montage_size
from video.picture_writer import PictureWriter
from video.prefetch import prefetch
from video.reader import Source, open_frames
from video.scene import CUT_SSIM, REPEAT_SSIM, TransitionDetector
from video.stitch import stitch_frames
from video.timing import multiply, parse_rate, resample
from video.writer import VideoWriter

DAMAGED = 3  # exit status
INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """Every flag: upstream's with their meaning, Practical-RIFE's --multi, and ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--video", type=parse_location, metavar="FILE", help="the video to interpolate, a file or a network address")
    add("--img", type=Path, metavar="DIR", help="a folder of pictures instead, taken in natural order; implies --png")
    add(
        "--stitch",
        nargs=2,
        type=parse_location,
        metavar=("LEFT", "RIGHT"),
        help="two synchronised videos of one scene, blended "
        "frame by frame from the left view to the right one; no frames are added",
    )
    add("--output", type=Path, help="name of the result (default: {video}_{multi}X_{fps}fps.{ext} beside it)")
    add_network_flags(parser)
    add("--devices", metavar="A,B", help="several instead of --device, which take turns: cuda:0,cuda:1")
    add("--UHD", action="store_true", help="same as --scale 0.5")
    add("--exp", type=int, help="2^exp times the frames (1); 0 only mends repeated frames")
    add("--multi", type=int, help="that many times the frames, any whole number")
    add("--target-fps", type=parse_rate, metavar="RATE", help="resample to this rate instead, e.g. 60 or 60000/1001")
    add("--fps", type=parse_rate, help="play the frames at this rate: slow motion, no sound; 24, 59.94, 60000/1001")
    add("--input-fps", type=parse_rate, default=Fraction(24), help="rate of the pictures of --img (24)")
    add(
        "--scene-threshold",
        type=float,
        default=CUT_SSIM,
        help=f"similarity below which it is a cut ({CUT_SSIM}); 0: never",
    )
    add(
        "--static-threshold",
        type=float,
        default=REPEAT_SSIM,
        help=f"similarity above which a frame repeats the last and is replaced ({REPEAT_SSIM}); 1: never",
    )
    add("--montage", action="store_true", help="original and result side by side, the central half of each")
    add("--png", action="store_true", help="write pictures to vid_out/ (or --output) instead of a video")
    add("--ext", default="mp4", help="container: mp4 mkv mov webm gif (mp4)")
    add("--codec", help="encoder (libx264; webm: libvpx-vp9), e.g. libx265, libsvtav1, prores_ks, ffv1, h264_nvenc")
    add("--crf", type=int, help="constant quality of the encoder, lower is better (18 for H.264)")
    add("--preset", help="speed of the encoder (medium)")
    add("--pix-fmt", help="pixel format of the result (the source's, if the encoder has it)")
    add("--overwrite", action="store_true", help="replace the result if it exists")
    add("--skip", action="store_true", help="abandoned upstream, does nothing")
    return parser


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The settings, with `multi` resolved and `scale` None if the size is to decide; impossible pairs end here."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if [args.video, args.img, args.stitch].count(None) != 2:
        parser.error("give --video FILE or --img DIR, one of them (or --stitch LEFT RIGHT)")
    if args.stitch and (args.montage or args.exp or args.multi or args.target_fps or args.fps):
        parser.error("--stitch adds no frames: leave out --exp, --multi, --target-fps, --fps and --montage")
    if args.stitch:
        args.multi = 1
    if args.devices and (args.device or args.stitch):
        parser.error("--devices replaces --device, and does not go with --stitch")
    if args.UHD and args.scale in (1.0, None):
        args.scale = 0.5
    if args.exp is not None and args.exp < 0:
        parser.error(f"--exp {args.exp}: must be 0 or more")
    if args.exp is not None and args.multi is not None and args.multi != 2**args.exp:
        parser.error(f"--exp {args.exp} means --multi {2**args.exp}, but --multi is {args.multi}; give one of them")
    if args.multi is None:
        args.multi = 2 ** (1 if args.exp is None else args.exp)
    if args.multi < 1:
        parser.error(f"--multi {args.multi}: must be 1 or more")
    if args.target_fps and args.fps:
        parser.error("--target-fps keeps the duration, --fps changes it; give one of them")
    return args


def output_rate(args: argparse.Namespace, source: Source) -> Fraction:
    """Frames/s of the result."""
    return args.fps or args.target_fps or source.rate * args.multi


def output_path(args: argparse.Namespace, source: Source) -> Path | None:
    """Where the video goes, upstream's name by default; None if pictures are to be written."""
    video_named = args.output is not None and args.output.suffix != ""
    if args.png or (args.img is not None and not video_named):
        return None
    if args.output is not None:
        return args.output
    if args.stitch:
        return source.path.with_name(f"{source.path.stem}_stitched.{args.ext}")
    fps = int(np.round(float(output_rate(args, source))))  # half to even, as upstream names files
    factor = f"{args.multi}X_" if not args.target_fps else ""
    return source.path.with_name(f"{source.path.stem}_{factor}{fps}fps.{args.ext}")


def output_count(args: argparse.Namespace, source: Source) -> int | None:
    """How many frames will come out, if the container tells how many go in."""
    if source.count is None:
        return None
    if args.target_fps:
        return int((source.count - 1) / source.rate * args.target_fps) + 1
    return (source.count - 1) * args.multi + 1


def announce(args: argparse.Namespace, source: Source, models: list[TiledRIFE], path: Path | None) -> None:
    """The first lines: input, rates, sound, weights, device, size."""
    rate = output_rate(args, source)
    count = source.count if source.count is not None else "unknown"
    print(f"{source.path.name}, {count} frames in total, {float(source.rate):g}FPS to {float(rate):g}FPS")
    if path is None or args.fps:
        print("Will not merge audio because using png or fps flag!")
    else:
        print("The audio will be merged in the same pass")
    model = models[0]
    print(model)
    if models[1:]:
        print(
            f"The same on {', '.join(str(other.device) for other in models[1:])}, {SEGMENT} pairs of frames at a time"
        )
    width, height = source.size
    tiles = model.describe(height, width, args.scale)
    print(f"{width}x{height}, flow at scale {args.scale:g}{tiles}, to {path or picture_folder(args)}")
    if not model.arbitrary_time and args.multi & (args.multi - 1):
        print(f"This network only halves: each of the {args.multi - 1} times is reached to within 0.01 of a frame")


def picture_folder(args: argparse.Namespace) -> Path:
    """Where --png writes."""
    return args.output or Path("vid_out")


def partner(args: argparse.Namespace, left: Source) -> Source:
    """The right view of --stitch, which must match the left one."""
    right = open_frames(args.stitch[1])
    if (right.size, right.rate) != (left.size, left.rate):
        sizes = " and ".join(f"{s.path} is {s.size[0]}x{s.size[1]} at {float(s.rate):g} fps" for s in (left, right))
        raise UserError(f"{sizes}; bring both views to one size and rate")
    return right


def frames_out(
    args: argparse.Namespace, source: Source, right: Source | None, models: list[TiledRIFE], report: Report
) -> Generator[Frame, None, None]:
    """The whole pipeline up to the encoder: decoding and the network each on a thread of their own."""
    timing = resample(args.target_fps) if args.target_fps else multiply(args.multi)
    detector = TransitionDetector(args.scene_threshold, args.static_threshold)

    def run(frames: Iterable[Frame]) -> Iterator[Frame]:
        return interpolate(
            frames,
            models[0],
            timing,
            others=models[1:],
            scale=args.scale,
            options=options(args),
            detector=detector,
            report=report,
        )

    if right is not None:
        return prefetch(stitch_frames(prefetch(source), prefetch(right), models[0], args.scale))
    made = montage(source, source.rotation, run) if args.montage else run(source)
    if args.fps:
        made = (replace(frame, time=i / args.fps) for i, frame in enumerate(made))
    return prefetch(made)


def open_output(args: argparse.Namespace, source: Source, path: Path | None) -> VideoWriter | PictureWriter:
    """The writer, ready for the first frame: whatever the encoder or the container refuses is refused here."""
    if args.montage:
        source = replace(source, size=montage_size(source.size, source.rotation), rotation=0, display_matrix=None)
    if path is None:
        return PictureWriter(picture_folder(args), source)
    rate = output_rate(args, source)
    time_base = 1 / rate if args.fps or args.target_fps else source.time_base / args.multi
    encoding = Encoding(args.codec, args.crf, args.preset, args.pix_fmt)
    return VideoWriter(path, source, rate, time_base, encoding=encoding, tracks=not args.fps, overwrite=args.overwrite)


def load_models(args: argparse.Namespace, source: Source) -> list[TiledRIFE]:
    """The network on every device asked for, in tiles where it must be."""
    width, height = source.size
    mapped = args.stitch is not None
    devices = args.devices.split(",") if args.devices else [args.device]
    return [load_tiled(args, device, height, width, mapped=mapped, tell=tqdm.write) for device in devices]


def run(args: argparse.Namespace) -> int:
    """Interpolates as told; the exit status."""
    if args.skip:
        print("skip flag is abandoned, please refer to issue #207.")
    source = open_frames(args.video or args.img or args.stitch[0], args.input_fps)
    if args.scale is None:
        args.scale = pick_scale(source.size[1], source.size[0])
    right = partner(args, source) if args.stitch else None  # refused before anything is loaded
    path = output_path(args, source)
    models = load_models(args, source)
    writer = open_output(args, source, path)
    report = Report()
    try:
        with writer, closing(frames_out(args, source, right, models, report)) as frames:
            announce(args, source, models, path)
            pause = 0.1 if sys.stderr.isatty() else 10  # seconds between lines of progress: a log wants few
            for frame in tqdm(frames, total=output_count(args, source), unit="frame", mininterval=pause):
                writer.write(frame)
    except KeyboardInterrupt:
        print("\n".join(writer.notes) or "interrupted: nothing was written", file=sys.stderr)
        return INTERRUPTED
    except BaseException:
        print("\n".join(writer.notes), file=sys.stderr)
        raise
    for note in writer.notes:
        print(note)
    rate = f"{float(output_rate(args, source)):g} fps"
    done = f"{report.made} made, {report.cuts} cuts held, {report.repeats} repeats replaced"
    print(f"Wrote {writer.path}: {writer.frames} frames at {rate}, {done}")
    for note in source.notes:
        print(f"{source.path}: {note}")
    for complaint in (complaints := [*source.complaints, *writer.complaints]):
        print(f"inference_video.py: {source.path}: {complaint}; what could be decoded was used", file=sys.stderr)
    return DAMAGED if complaints else 0


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    keep_freed_memory()
    try:
        return run(parse_arguments(argv))
    except (UserError, OSError) as e:
        print(f"inference_video.py: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
