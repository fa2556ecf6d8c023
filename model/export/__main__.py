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
from pathlib import Path

from commands.errors import run_command
from model.errors import UserError
from model.export.forms import FORMS, LAYOUTS, Files, Settings, export
from model.export.metadata import LoadedNetwork, as_json, read_source
from model.frames import FLOW_SCALES
from model.versions import ARCHS
from video.safe_file import check_output, write_file

PROGRAM = "model.export"
BESIDE = ("pkl", "comfy")  # forms that hold no texts: the metadata is a JSON file beside


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


def name_files(files: Files, path: Path, form: str) -> dict[Path, bytes]:
    """Returns the contents by their paths: in a folder, or with the name of `path` and their own suffixes."""
    if FORMS[form].folder:
        return {path / name: content for name, content in files.items()}
    suffixes = {*files, ".safetensors"} if form == "comfy" else set(files)
    stem = path.with_suffix("") if path.suffix in suffixes else path
    return {stem.with_name(stem.name + suffix): content for suffix, content in files.items()}


def run(args: argparse.Namespace) -> int:
    """Exports one network and prints what was written."""
    settings = Settings(layout=args.layout, half=args.fp16, scale=args.scale, ensemble=args.ensemble)
    for flag, name in (("--layout", "layout"), ("--fp16", "half"), ("--scale", "scale"), ("--ensemble", "ensemble")):
        if getattr(settings, name) != getattr(Settings(), name) and name not in FORMS[args.to].settings:
            raise UserError(f"{flag}: the form {args.to} has no such setting; leave it out")
    source = read_source(args.model, args.arch, name=args.name, licence=args.licence)
    path = args.output or default_path(source, args.to, settings)
    files = export(source, args.to, settings)
    if args.to in BESIDE:
        files[".json"] = as_json(source.texts())
    named = name_files(files, path, args.to)
    if FORMS[args.to].folder:
        path.mkdir(parents=True, exist_ok=True)
    for target in named:
        check_output(target, [source.file.path], overwrite=args.overwrite)
    for target, content in named.items():
        write_file(target, content, [source.file.path], overwrite=args.overwrite)
        print(f"{target}, {len(content) / 2**20:.1f} MB")
    if source.sharp and args.to in ("pkl", "comfy", "ncnn"):
        print("Exported without the sharp blend, which those programs do not have: docs/export.md shows the difference")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    args = build_parser().parse_args(argv)
    return run_command(PROGRAM, lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
