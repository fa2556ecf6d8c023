"""Which network a checkpoint is, found from its keys and shapes alone, and loading it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.checkpoint import find_weights, read_state
from model.errors import WeightsError
from model.IFNet import IFNet
from model.IFNet_v4 import IFNet_v4, IFNetConfig

State = dict[str, Tensor]
# Found in official files, needed for training only (Practical-RIFE 4.x).
TRAINING_ONLY = ("teacher.", "caltime.", "block_tea.")
REFINEMENT = ("contextnet.", "unet.")

_FOUR = (192, 128, 96, 64)
_LITE = (128, 96, 64, 48)
_FIVE = (192, 128, 96, 64, 32)


def _v4(channels: tuple[int, ...], scales: tuple[int, ...] = (8, 4, 2, 1), **numbers: Any) -> IFNetConfig:
    return IFNetConfig(channels, scales, **numbers)


def _head(kind: str, width: int, channels: int) -> dict[str, Any]:
    return {"encoder": kind, "encoder_width": width, "encoder_channels": channels}


_PLAIN: dict[str, Any] = {"outputs": 5, "shuffle": False, "residual": False, "replace_mask": False, "ensemble": True}
_FIVE_SCALES = (16, 8, 4, 2, 1)
# Every published v4 network (and 3.9): release numbers with the same graph share one row.
PUBLISHED: dict[str, IFNetConfig] = {
    "3.9": _v4((100,) * 4, **_PLAIN, act="prelu", skip=True, images_again=True),
    "4.0, 4.1": _v4(_FOUR, **_PLAIN, act="prelu", skip=True, auto_scale=True),
    "4.2, 4.3, 4.4": _v4(_FOUR, **_PLAIN),
    "4.5": _v4(_FOUR, outputs=5, replace_mask=False, ensemble=True),
    "4.6": _v4(_FOUR, outputs=6, replace_mask=False, ensemble=True),
    "4.7, 4.8, 4.9": _v4(_FOUR, outputs=6, ensemble=True, **_head("H1", 16, 4)),
    "4.10, 4.11, 4.12": _v4(_FOUR, outputs=6, ensemble=True, **_head("H2", 32, 8)),
    "4.12.lite, 4.13.lite": _v4(_LITE, outputs=6, ensemble=True, **_head("H2", 32, 4)),
    "4.13-4.15, 4.17-4.19, 4.24": _v4(_FOUR, outputs=6, ensemble=True, **_head("H3", 32, 8)),
    "4.14.lite": _v4(_FOUR, outputs=6, ensemble=True, groups=2, **_head("H3", 32, 8)),
    "4.15.lite, 4.16.lite, 4.17.lite": _v4(_LITE, outputs=6, ensemble=True, **_head("H3", 16, 4)),
    "4.20": _v4((384, 192, 96, 48), outputs=6, ensemble=True, **_head("H3", 32, 8)),
    "4.21, 4.22, 4.23": _v4((256, 192, 96, 48), **_head("H3", 32, 8)),
    "4.22.lite": _v4((192, 128, 64, 32), **_head("H3", 16, 4)),
    "4.25, 4.26": _v4(_FIVE, _FIVE_SCALES, **_head("H3", 16, 4)),
    "4.25.lite": _v4((192, 128, 96, 64, 24), (32, 16, 8, 4, 1), **_head("H3", 16, 4)),
    "4.25.heavy": _v4((384, 256, 192, 128, 64), _FIVE_SCALES, **_head("H3", 16, 4)),
    "4.26.heavy": _v4(_FIVE, _FIVE_SCALES, **_head("H3", 16, 16)),
}


@dataclass(frozen=True)
class Version:
    """One network as published: its name, how to build it, and which keys of a file it takes."""

    name: str
    build: Callable[[], nn.Module]
    ignored: tuple[str, ...] = ()  # key prefixes that inference does not need


def detect_version(state: State, arch: str | None = None) -> Version:
    """The network that a state dict (keys without `module.`) belongs to.

    `arch="rife_2r"` names the one network that shapes cannot tell from another. Raises WeightsError with what does not
    add up and the nearest known network.
    """
    if "block0.lastconv.weight" in state and "block3.conv0.0.0.weight" not in state:
        return _paper_version(state, arch)
    if arch is not None:
        raise WeightsError(f"--arch {arch} does not fit these weights; leave it out, shapes tell what they are")
    if "block0.lastconv.weight" in state or "block0.lastconv.0.weight" in state:
        return _v4_version(state)
    raise WeightsError(f"an unknown network, its keys begin {_some(state)}; known: {known_names()}")


def known_names() -> str:
    """The networks that can be loaded, in one line."""
    return "RIFE, RIFE_m, " + ", ".join(PUBLISHED)


def _some(keys: Iterable[str]) -> str:
    return ", ".join(list(keys)[:3])


def _paper_version(state: State, arch: str | None) -> Version:
    inputs = state["block0.conv0.0.0.weight"].shape[1]
    if inputs not in (6, 7):
        raise WeightsError(f"block0 takes {inputs} channels; the paper's RIFE takes 6, RIFE_m 7")
    timed = inputs == 7
    if arch == "rife_2r" and not timed:
        return Version("RIFE 2R", lambda: IFNet(half_stride=True))
    if arch not in (None, "rife_m" if timed else "rife"):
        raise WeightsError(f"--arch {arch} does not fit these weights, which are {'RIFE_m' if timed else 'RIFE'}")
    return Version("RIFE_m" if timed else "RIFE", lambda: IFNet(timed=timed))


def _v4_version(state: State) -> Version:
    config = read_config(state)
    refine = "unet.conv.weight" in state and not config.shuffle
    config = replace(config, refine=refine)
    name = next((n for n, known in PUBLISHED.items() if replace(known, refine=refine) == config), None)
    if name is None:
        name = f"v4 (not a published one; widths {', '.join(map(str, config.channels))})"
    ignored = TRAINING_ONLY if refine else TRAINING_ONLY + REFINEMENT
    return Version(name, lambda: IFNet_v4(config), ignored)


def read_config(state: State) -> IFNetConfig:
    """The configuration of a v4 network, from the shapes of its weights; WeightsError where they do not add up."""
    count = 0
    while f"block{count}.conv0.0.0.weight" in state:
        count += 1
    first = state["block0.conv0.0.0.weight"]
    shuffle = "block0.lastconv.0.weight" in state
    residual = "block0.convblock.0.beta" in state
    prelu = "block0.conv0.0.1.weight" in state
    channels = tuple(state[f"block{i}.conv0.1.0.weight"].shape[0] for i in range(count))
    outputs = state["block0.lastconv.0.weight"].shape[1] // 4 if shuffle else state["block0.lastconv.weight"].shape[1]
    encoder, width, features = _read_encoder(state)
    unit = state["block0.convblock.0.conv.weight" if residual else "block0.convblock.0.0.weight"]
    scales = {4: (8, 4, 2, 1), 5: (16, 8, 4, 2, 1)}.get(count)
    if scales is None:
        raise WeightsError(f"{count} blocks; v4 networks have 4 or 5 (nearest known: {_nearest(channels)})")
    if channels == PUBLISHED["4.25.lite"].channels:  # the only one whose scales its shape does not imply
        scales = PUBLISHED["4.25.lite"].scales
    found = tuple(state[f"block{i}.conv0.0.0.weight"].shape[1] for i in range(count))
    config = IFNetConfig(
        channels,
        scales,
        outputs=outputs,
        shuffle=shuffle,
        act="prelu" if prelu else "leaky",
        residual=residual,
        skip=prelu,
        groups=channels[0] // unit.shape[1],
        encoder=encoder,
        encoder_width=width,
        encoder_channels=features,
        images_again=not encoder and found[1] == 18,
        replace_mask=bool(encoder),
        auto_scale=channels == _FOUR and prelu,
        ensemble=outputs <= 6,
    )
    if found != config.inputs or outputs not in (5, 6, 13) or first.dim() != 4:
        raise WeightsError(
            f"blocks take {found} channels, but {features} features a frame and tails of {outputs} make {config.inputs}"
            f" (nearest known: {_nearest(channels)})"
        )
    return config


def _read_encoder(state: State) -> tuple[str, int, int]:
    for kind, first, last in (("H3", "cnn0", "cnn3"), ("H2", "0", "6"), ("H1", "0", "1")):
        if f"encode.{last}.weight" in state:
            return kind, state[f"encode.{first}.weight"].shape[0], state[f"encode.{last}.weight"].shape[1]
    return "", 0, 0


def _nearest(channels: tuple[int, ...]) -> str:
    def distance(known: IFNetConfig) -> tuple[int, int]:
        gap = sum(abs(a - b) for a, b in zip(known.channels, channels, strict=False))
        return abs(len(known.channels) - len(channels)), gap

    return min(PUBLISHED, key=lambda name: distance(PUBLISHED[name]))


def load_network(path: Path | str, arch: str | None = None) -> tuple[nn.Module, str, Path]:
    """The network whose weights are in `path` (a folder or a file), in float32 on the CPU, its name, and the file.

    Raises WeightsError naming the file, the cause and the remedy.
    """
    file = find_weights(path)
    state = read_state(file)
    try:
        version = detect_version(state, arch)
        state = {key: value for key, value in state.items() if not key.startswith(version.ignored)}
        with torch.device("meta"):
            net = version.build()
        fill(net, state)
    except WeightsError as e:
        raise WeightsError(f"{file}: {e}") from e
    return net, version.name, file


def fill(net: nn.Module, state: State) -> None:
    """Puts the tensors into the network (float32), refusing missing, surplus and misshapen ones.

    The paper's teacher may be missing: re-hosted files leave it out, and inference does not need it.
    """
    wanted = net.state_dict()
    missing = [k for k in wanted if k not in state and not k.startswith("block_tea.")]
    surplus = [k for k in state if k not in wanted]
    wrong = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    if missing or surplus or wrong:
        parts = [
            f"{len(keys)} {what} ({_some(keys)})"
            for what, keys in (("missing", missing), ("unexpected", surplus), ("misshapen", wrong))
            if keys
        ]
        raise WeightsError("does not add up: " + "; ".join(parts) + " tensors")
    full = {k: state[k].float() if k in state else torch.zeros(v.shape) for k, v in wanted.items()}
    net.load_state_dict(full, assign=True)
