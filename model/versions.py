"""Describes a file of weights, and converts it to .safetensors: the command line of loading.py.

python3 -m model.versions train_log                                    describes the weights in a folder
python3 -m model.versions RIFE.zip --convert flownet.safetensors       the same, and converts them
python3 -m model.versions flownet.pkl --arch rife_2r                   only 2R needs its name
"""

import argparse
import sys
from pathlib import Path

import safetensors.torch
from torch import nn

from commands.errors import run_command
from model.image import PAD_MODES
from model.inference.engines import accelerate
from model.inference.memory import peak_bytes
from model.loading import AnyNetwork, build_network, detect_version, load_network
from model.weights.checkpoint import WeightFile, find_weights, read_weights
from model.weights.metadata import read_metadata
from video.safe_file import check_output, write_file

PROGRAM = "model.versions"
MEMORY_SIZE = (1080, 1920)  # height and width of the frames whose memory is stated
MEASURED = "1.5 times as much in all was measured on a CPU"  # 4.25: 1451 MB resident where 962 are computed
ARCHS = ("rife", "rife_m", "rife_2r")  # names for --arch; only the last is ever needed


def describe(net: AnyNetwork, name: str, file: WeightFile | Path | str) -> str:
    """Returns a description of a network and its needs, in a few lines."""
    beyond = PAD_MODES[str(net.pad_mode)]
    blocks = [child for key, child in net.named_children() if key.startswith("block") and key != "block_tea"]
    widths = [[m for m in block.get_submodule("conv0").modules() if isinstance(m, nn.Conv2d)][-1] for block in blocks]
    time = "any between 0 and 1" if net.arbitrary_time else "0.5 only, other times by halving"
    height, width = MEMORY_SIZE
    own, kernels = (peak_bytes(called, height, width) / 2**20 for called in (net, accelerate(net)))
    needed = f"{own:.0f} MB at {width}x{height} in float32, computed; libraries take more ({MEASURED})"
    if kernels != own:
        needed += f"; {kernels:.0f} MB by the kernels of this CPU"
    lines = {
        "network": name,
        "file": str(file),
        "parameters": f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} M",
        "blocks": f"{len(blocks)}: {', '.join(str(conv.out_channels) for conv in widths)} channels wide",
        "timestep": time,
        "padding": f"to multiples of {net.pad_multiple} (divided by the scale if that is below 1), {beyond}",
        "options": _options(net),
        "memory": needed,
    }
    return "\n".join(f"{key:<11} {value}" for key, value in lines.items())


def _options(net: AnyNetwork) -> str:
    """Returns the options of RIFE.inference that this network has, besides timestep and scale."""
    return ", ".join(["tta", *sorted(net.options)])


def convert(
    path: Path | str, out: Path, arch: str | None = None, name: str | None = None, *, overwrite: bool = False
) -> None:
    """Writes the weights at `path` as one .safetensors file in float32, keys without prefix, for inference only.

    `name` is what RIFE.name returns for the new file; without it the name in the old file, if there is one, is kept.
    Raises UserError if `out` is the file that is read, or exists and is not to be overwritten.
    """
    file = find_weights(path)
    state = read_weights(file)
    version = detect_version(state, arch)
    full = build_network(version, state).state_dict()
    kept = {key: value.contiguous() for key, value in full.items() if key in state}
    metadata = read_metadata(file) | {"format": "pt", "network": version.name}
    if name:
        metadata["name"] = name
    write_file(out, safetensors.torch.save(kept, metadata), [file.path], overwrite=overwrite)


def run(args: argparse.Namespace) -> None:
    """Prints the description of one file, and converts it if the arguments name an output."""
    if args.convert:
        check_output(args.convert, [find_weights(args.path).path], overwrite=args.overwrite)
    net, name, file = load_network(args.path, args.arch)
    print(describe(net, name, file))
    if args.convert:
        convert(args.path, args.convert, args.arch, args.name, overwrite=args.overwrite)
        print(f"{'written':<11} {args.convert}, {args.convert.stat().st_size / 2**20:.1f} MB")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, help="file, folder or zip of weights")
    parser.add_argument("--arch", choices=ARCHS, help="name of the network, needed only for rife_2r (default: found)")
    parser.add_argument("--convert", type=Path, metavar="OUT", help="write this .safetensors file (default: none)")
    parser.add_argument(
        "--name",
        help='write this name of the weights into the file, e.g. "mine, 2026-11" (default: that of the old file)',
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists (default: refuse)")
    args = parser.parse_args(argv)
    if args.name and not args.convert:
        parser.error("--name: only together with --convert")
    if args.convert and args.convert.suffix != ".safetensors":
        parser.error(f"--convert {args.convert}: the name must end in .safetensors")
    return run_command(PROGRAM, lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
