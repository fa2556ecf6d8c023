"""Exports a network to the file formats of other programs.

python3 -m model.export train_log --to onnx                          rife-default.onnx, in the current folder
python3 -m model.export train_log --to onnx --layout v2 --fp16       for vs-mlrt
python3 -m model.export flownet.pkl --to ncnn --name mine            the folder rife-v4.25-mine
python3 -m model.export train_log --to pkl --output flownet_v4.25.pkl   for vs-rife

docs/export.md shows where each file goes and what each network can be exported to.
"""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from commands.errors import run_command
from model.errors import UserError
from model.export.forms import FORMS, LAYOUTS, Settings, export
from model.export.metadata import LoadedNetwork, as_json, read_source
from model.frames import FLOW_SCALES
from model.versions import ARCHS
from video.safe_file import check_output, write_file

PROGRAM = "model.export"
BESIDE, METADATA = ("pkl", "comfy"), ".json"  # forms that hold no texts: a file NAME.pkl.json beside has the metadata


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    p = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path, help="file, folder or zip of weights")
    titles = "; ".join(f"{name}: {form.title}" for name, form in FORMS.items())
    p.add_argument("--to", choices=FORMS, required=True, metavar="FORM", help=titles)
    p.add_argument("--output", type=Path, metavar="PATH", help="file, for ncnn folder (default: made from the name)")
    p.add_argument("--layout", choices=LAYOUTS, default="plain", help="inputs of an ONNX graph: plain: img0, img1, "
        "timestep; v2, v1: the one input of vs-mlrt's rife_v2 and rife (default: plain)")  # fmt: skip
    p.add_argument("--fp16", action="store_true", help="convolutions in float16, all else in float32 (default: off)")
    p.add_argument("--scale", type=float, choices=FLOW_SCALES, default=1.0, metavar="SCALE",
        help="size at which flow is estimated: 0.25 0.5 1 2 4 (default: 1)")  # fmt: skip
    p.add_argument("--ensemble", action="store_true", help="run each block both ways, 3.9-4.20, 4.24 (default: off)")
    p.add_argument("--arch", choices=ARCHS, help="name of the network, needed only for rife_2r (default: found)")
    p.add_argument("--name", help="name of the weights in the metadata and in the file name (default: the file's)")
    p.add_argument("--licence", help="licence of the weights, for the metadata (default: the file's)")
    p.add_argument("--overwrite", action="store_true", help="replace files that exist (default: refuse)")
    return p


def default_path(source: LoadedNetwork, form: str, settings: Settings) -> Path:
    """Returns the name of the output from the name of the weights."""
    name = re.sub(r"[^\w.]+", "-", source.name.split(",")[0]).strip("-.").lower() or "network"
    if FORMS[form].folder:  # the programs read from the folder's name how to call the network and pad frames
        number = re.match(r"4\.\d+", source.version)
        return Path(f"rife-v{number[0] if number else 4}-{name}")
    layout = "" if settings.layout == "plain" else f"-{settings.layout}"
    return Path(f"rife-{name}{layout}{'-fp16' if settings.half else ''}")


def name_files(path: Path, form: str) -> dict[str, Path]:
    """Returns the paths of a form's files: in a folder, or with the name of `path` and their own suffixes.

    Raises UserError if `path` is a folder in place of a file.
    """
    files = FORMS[form].files
    names = files + ((files[0] + METADATA,) if form in BESIDE else ())
    if FORMS[form].folder:
        return {name: path / name for name in names}
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file as the output")
    suffixes = (*names, ".safetensors") if form == "comfy" else names
    stem = path.with_suffix("") if path.suffix in suffixes else path
    return {suffix: stem.with_name(stem.name + suffix) for suffix in names}


def check_files(paths: Iterable[Path], folder: Path | None, source: Path, *, overwrite: bool) -> None:
    """Raises UserError unless all files can be written, in a new `folder` if it does not exist yet."""
    if folder is not None and folder.is_file():
        raise UserError(f"{folder}: is a file; give the name of a folder for this form")
    if folder is not None and not folder.is_dir():
        paths = [folder]
    for path in paths:
        check_output(path, [source], overwrite=overwrite)


def run(args: argparse.Namespace) -> int:
    """Exports one network and prints what was written."""
    settings = Settings(layout=args.layout, half=args.fp16, scale=args.scale, ensemble=args.ensemble)
    for flag, name in (("--layout", "layout"), ("--fp16", "half"), ("--scale", "scale"), ("--ensemble", "ensemble")):
        if getattr(settings, name) != getattr(Settings(), name) and name not in FORMS[args.to].settings:
            raise UserError(f"{flag}: the form {args.to} has no such setting; leave it out")
    source = read_source(args.model, args.arch, name=args.name, licence=args.licence)
    path = args.output or default_path(source, args.to, settings)
    named, folder = name_files(path, args.to), path if FORMS[args.to].folder else None
    check_files(named.values(), folder, source.file.path, overwrite=args.overwrite)
    files = export(source, args.to, settings)
    if args.to in BESIDE:
        files[FORMS[args.to].files[0] + METADATA] = as_json(source.texts())
    if folder is not None:
        folder.mkdir(exist_ok=True)
    for name, target in named.items():
        write_file(target, files[name], [source.file.path], overwrite=args.overwrite)
        print(f"{target}, {len(files[name]) / 2**20:.1f} MB")
    if source.sharp and args.to in ("pkl", "comfy", "ncnn"):
        print("Exported without the sharp blend, which those programs do not have: docs/export.md shows the difference")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    args = build_parser().parse_args(argv)
    return run_command(PROGRAM, lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
