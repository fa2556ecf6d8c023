"""Tests that networks are recognised by their shapes, and that others are refused with what does not fit."""

import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from model import load_model
from model.contract import NetworkModule
from model.errors import WeightsError
from model.IFNet import IFNet
from model.IFNet_HD import IFNet_HD, IFNet_HDv2, IFNet_HDv3
from model.IFNet_v4 import IFNet_v4
from model.inference import kernels
from model.inference.memory import peak_bytes
from model.loading import HD_VERSIONS, build_network, detect_version, known_names, load_network
from model.versions import main
from model.weights.published import PUBLISHED, IFNetConfig, read_config

State = dict[str, Tensor]
TINY = IFNetConfig((8, 8, 4, 4, 4), (16, 8, 4, 2, 1), encoder="H3", encoder_width=4, encoder_channels=4)


def shapes(net_of: type[nn.Module], *args: object, **options: object) -> State:
    """Returns the state dict of a network without its numbers."""
    with torch.device("meta"):
        return net_of(*args, **options).state_dict()


def zeros(state: State) -> State:
    """Returns the same with numbers, which take no memory."""
    return {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_determine_every_v4_network(name: str) -> None:
    state = zeros(shapes(IFNet_v4, PUBLISHED[name]))
    assert read_config(state) == PUBLISHED[name]
    version = detect_version(state)
    assert version.name == name
    net = build_network(version, state)
    assert isinstance(net, IFNet_v4)
    assert net.pad_multiple == {"4.0, 4.1": 64, "4.25.lite": 128}.get(name, 16 * 2 ** (len(net.config.channels) - 3))


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (shapes(IFNet), "RIFE"),
        (shapes(IFNet, timed=True), "RIFE_m"),
        (shapes(IFNet_HD), "HD 1.x"),
        (shapes(IFNet_HDv2), "HD 2.x"),
        (shapes(IFNet_HDv2, paired=True), "HD 3.0, 3.1"),
        (shapes(IFNet_HDv3), "HD 3.2-3.8"),
    ],
    ids=lambda x: x.replace(" ", "_") if isinstance(x, str) else "",
)
def test_shapes_determine_the_other_networks(state: State, name: str) -> None:
    version = detect_version(zeros(state))
    assert version.name == name
    build_network(version, zeros(state))
    assert name in known_names()


def test_2r_must_be_named() -> None:
    paper = zeros(shapes(IFNet))
    assert detect_version(paper).name == detect_version(paper, "rife").name == "RIFE"
    assert detect_version(paper, "rife_2r").name == "RIFE 2R"
    with pytest.raises(WeightsError, match="architecture rife_2r does not fit these weights, which are RIFE_m"):
        detect_version(zeros(shapes(IFNet, timed=True)), "rife_2r")
    with pytest.raises(WeightsError, match="architecture rife_2r does not fit these weights; name none: their shapes"):
        detect_version(zeros(shapes(IFNet_v4, TINY)), "rife_2r")


def test_training_only_and_unused_keys_are_left_out() -> None:
    state = zeros(shapes(IFNet_v4, TINY))
    extra = {"teacher.a": torch.zeros(1), "caltime.0.weight": torch.zeros(1), "unet.conv.weight": torch.zeros(1)}
    build_network(detect_version(state | extra), state | extra)
    paper = {key: value for key, value in zeros(shapes(IFNet)).items() if not key.startswith("block_tea.")}
    assert build_network(detect_version(paper), paper).state_dict().keys() > paper.keys()  # with an empty teacher


def without(state: State, *keys: str) -> State:
    return {key: value for key, value in state.items() if key not in keys}


V46, V425, HD = (zeros(s) for s in (shapes(IFNet_v4, PUBLISHED["4.6"]), shapes(IFNet_v4, TINY), shapes(IFNet_HDv3)))
MISFITS = {
    "nothing like it": (
        {"a.weight": torch.zeros(1)},
        "an unknown network, its keys begin with a.weight; known are RIFE",
    ),
    "empty": ({}, "an unknown network, its keys begin with nothing"),
    "a block less": (
        {k: v for k, v in V46.items() if not k.startswith("block3.")},
        "3 blocks, but v4 networks have 4 or 5 (nearest known: 4.0, 4.1)",
    ),
    "a layer less": (
        without(V46, "block2.conv0.1.0.weight"),
        "block2.conv0.1.0.weight is missing (nearest known: 4.0, 4.1)",
    ),
    "a bias less": (
        without(V46, "block2.conv0.1.0.bias"),
        "nearest known: 4.6; the tensors do not fit this network: 1 missing (block2.conv0.1.0.bias)",
    ),
    "a layer more": (
        V46 | {"block2.more.weight": torch.zeros(1)},
        "nearest known: 4.6; the tensors do not fit this network: 1 unexpected (block2.more.weight)",
    ),
    "a name that would break the line": (
        V46 | {"\x1b[31m\nblock2": torch.zeros(1)},
        "nearest known: 4.6; the tensors do not fit this network: 1 unexpected (?[31m?block2)",
    ),
    "one misshapen": (
        V46 | {"block2.convblock.3.beta": torch.zeros(1, 95, 1, 1)},
        "1 misshapen (block2.convblock.3.beta is (1, 95, 1, 1) instead of (1, 96, 1, 1))",
    ),
    "no convolution": (
        V46 | {"block1.conv0.0.0.weight": torch.zeros(7)},
        "block1.conv0.0.0.weight has shape (7,), not that of a convolution (nearest known: 4.0, 4.1)",
    ),
    "inputs that do not agree": (
        V46 | {"block1.conv0.0.0.weight": torch.zeros(64, 13, 3, 3)},
        "blocks take (7, 13, 12, 12) channels, but 0 features a frame and tails of 6 make (7, 12, 12, 12) (nearest",
    ),
    "an unknown tail": (
        V46 | {"block0.lastconv.0.weight": torch.zeros(192, 28, 4, 4)},
        "tails of 28 channels; known are 5, and 20, 24 and 52 before their pixel shuffle (nearest known: 4.0, 4.1)",
    ),
    "groups that do not divide": (
        V46 | {"block0.convblock.0.conv.weight": torch.zeros(192, 500, 3, 3)},
        "block0.convblock.0 has shape (192, 500, 3, 3), which does not divide widths (192, 128, 96, 64) into groups",
    ),
    "a paper network with other inputs": (
        zeros(shapes(IFNet)) | {"block0.conv0.0.0.weight": torch.zeros(120, 9, 3, 3)},
        "block0 takes 9 channels; nearest known: the paper's RIFE takes 6, RIFE_m 7",
    ),
    "an HD network without a block": (
        {k: v for k, v in HD.items() if not k.startswith("block1.")},
        "nearest known: HD 3.2-3.8; the tensors do not fit this network: 40 missing (block1.conv0.0.0.weight,",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_the_error_names_the_difference(case: str) -> None:
    state, message = MISFITS[case]
    with pytest.raises(WeightsError) as caught:
        build_network(detect_version(state), state)
    assert message in str(caught.value)


@pytest.mark.parametrize("seed", range(4))
def test_random_tensors_are_refused_as_weights(seed: int) -> None:
    """Keys deleted, renamed and reshaped at random: never a KeyError, an IndexError or the like."""
    generator = torch.Generator().manual_seed(seed)

    def pick(count: int) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    sources = [V46, V425, HD, zeros(shapes(IFNet)), zeros(shapes(IFNet_v4, PUBLISHED["3.9"]))]
    for _ in range(60):
        state = dict(sources[pick(len(sources))])
        keys = list(state)
        for _ in range(1 + pick(3)):
            key = keys[pick(len(keys))] if pick(2) else keys[pick(8)]
            value = state.pop(key, None)
            change = pick(4)
            if change and value is not None:
                shape = [[pick(9) for _ in range(pick(6))], list(value.shape[:-1]), [n + 1 for n in value.shape]]
                state[key if change < 3 else f"block{pick(7)}.conv0.0.0.weight"] = torch.zeros(()).expand(
                    shape[pick(3)]
                )
        try:
            build_network(detect_version(state), state)
        except WeightsError as e:
            message = str(e)
        else:
            message = ""
        assert "\n" not in message


def test_memory_counts_what_is_alive_at_once() -> None:
    class Doubler(NetworkModule):
        pad_multiple = 8
        pad_mode = "constant"
        weight: nn.Parameter

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1000))

        def frame_features(self, image: Tensor) -> None:
            return None

        def forward(self, img0: Tensor, img1: Tensor, timestep: float, *features: None, scale: float) -> Tensor:
            for _ in range(5):  # each sum replaces the one before: two more planes at once, not five
                img0 = img0 + img1
            return img0

    plane = 3 * 64 * 64 * 4
    assert peak_bytes(Doubler(), 64, 64) == 4000 + 4 * plane


@pytest.mark.slow
def test_memory_can_be_computed_for_every_network() -> None:
    for version in HD_VERSIONS.values():
        with torch.device("meta"):
            net = version.build()
        assert 1e7 < peak_bytes(net, 128, 192) < 2e8
    with torch.device("meta"):
        restarts = IFNet_v4(PUBLISHED["4.0, 4.1"])
    assert restarts.config.auto_scale
    assert 1e7 < peak_bytes(restarts, 100, 100) < 2e8


def write_tiny(folder: Path) -> Path:
    path = folder / "flownet.pkl"
    torch.save({f"module.{key}": value for key, value in IFNet_v4(TINY).state_dict().items()}, path)
    return path


@pytest.mark.slow
def test_the_command_line_describes_a_file(tmp_path: Path) -> None:
    path = write_tiny(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "model.versions", str(path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["network"] == "v4 (not a published one; widths 8, 8, 4, 4, 4)"
    assert lines["file"] == str(path)
    assert lines["parameters"] == "0.04 M"
    assert lines["blocks"] == "5: 8, 8, 4, 4, 4 channels wide"
    assert lines["timestep"] == "any between 0 and 1"
    assert lines["padding"] == "to multiples of 64 (divided by the scale if that is below 1), zeros"
    assert " MB at 1920x1080 in float32, computed; libraries take more" in lines["memory"]
    assert done.stderr == "" or (not kernels.available() and "the CPU kernels were not built" in done.stderr)


ROOT = Path(__file__).parents[1]


def test_convert_writes_the_same_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tiny(tmp_path)
    out = tmp_path / "made.safetensors"
    main([str(path), "--convert", str(out)])
    assert f"written     {out}, 0.2 MB" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flownet.pkl", "made.safetensors"]
    read, written = load_network(path)[0].state_dict(), safetensors.torch.load_file(out)
    assert read.keys() == written.keys()
    assert all(torch.equal(read[key], written[key]) for key in read)
    assert load_network(out)[1] == load_network(path)[1]


def test_name_in_the_metadata_is_the_name_of_the_network(tmp_path: Path) -> None:
    """It is kept when the file is converted again; control characters do not reach the terminal."""
    path, out, again = write_tiny(tmp_path), tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    main([str(path), "--convert", str(out), "--name", "mine, 2026-11"])
    main([str(out), "--convert", str(again)])
    for file in (out, again):
        model = load_model(file)
        assert model.name == "mine, 2026-11"
        assert str(model).startswith(f"Loaded mine, 2026-11 from {file}: ")
    safetensors.torch.save_file(safetensors.torch.load_file(out), out, {"name": "a\x1b[2J\nb"})
    assert load_network(out)[1] == "a?[2J?b"


def test_convert_of_a_file_without_teacher_writes_none(tmp_path: Path) -> None:
    paper = {k: torch.zeros(v.shape) for k, v in shapes(IFNet).items() if not k.startswith("block_tea.")}
    torch.save(paper, tmp_path / "a.pth")
    main([str(tmp_path / "a.pth"), "--convert", str(tmp_path / "b.safetensors"), "--arch", "rife_2r"])
    assert safetensors.torch.load_file(tmp_path / "b.safetensors").keys() == paper.keys()


def test_command_line_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"model.versions: {tmp_path}: no flownet.pkl")
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--convert", "out.pkl"])
    assert "--convert out.pkl: the name must end in .safetensors" in capsys.readouterr().err


def test_convert_replaces_no_file_by_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, taken = tmp_path / "flownet.safetensors", tmp_path / "taken.safetensors"
    assert main([str(write_tiny(tmp_path)), "--convert", str(source)]) == 0
    (tmp_path / "flownet.pkl").unlink()
    taken.write_bytes(b"mine")
    before = source.read_bytes()
    assert main([str(tmp_path), "--convert", str(source), "--name", "new", "--overwrite"]) == 1
    assert source.read_bytes() == before
    assert "flownet.safetensors: is the input" in capsys.readouterr().err
    assert main([str(source), "--convert", str(taken)]) == 1
    assert taken.read_bytes() == b"mine"
    assert "taken.safetensors: exists already" in capsys.readouterr().err
    assert main([str(source), "--convert", str(taken), "--overwrite"]) == 0
    assert load_network(taken)[1] == load_network(source)[1]
