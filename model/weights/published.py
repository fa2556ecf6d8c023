"""Lists the configurations of the published v4 networks; reads a configuration off the shapes of weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from model.contract import FLOW_AND_MASK
from model.errors import WeightsError


@dataclass(frozen=True)
class IFNetConfig:
    """Holds the numbers that define one v4 network; `read_config` reads them from a checkpoint."""

    channels: tuple[int, ...]  # width of each block, coarse to fine
    scales: tuple[int, ...]  # of each block at scale 1
    outputs: int = 13  # of a block's tail: 5, 6 or 13
    shuffle: bool = True  # tails end in a pixel shuffle (4.5 on)
    act: str = "leaky"  # or "prelu" (3.9, 4.0, 4.1)
    residual: bool = True  # ResConv units (4.5 on)
    skip: bool = False  # around the stack of units (3.9, 4.0, 4.1)
    groups: int = 1  # of the ResConv units
    encoder: str = ""  # frame features: "" none, "H1" two layers, "H2" numbered keys, "H3" keys cnn0..cnn3
    encoder_width: int = 0
    encoder_channels: int = 0
    images_again: bool = False  # later blocks also take the unwarped images (3.9)
    replace_mask: bool = True  # each block estimates the whole mask (4.7 on) instead of a change
    auto_scale: bool = False  # scales double if the flow is large (4.0 and 4.1)
    ensemble: bool = False  # blocks can run in both directions (not from 4.21 on)
    refine: bool = False  # with Contextnet and Unet (3.9, full files of 4.0-4.4)
    pad_mode: str = "constant"  # values beyond the frame's edge: upstream's zeros, or "replicate" (this project's)
    sharp: bool = False  # the last block has the gates of networks/sharp.py (this project's)

    @property
    def carried(self) -> int:
        """Returns the number of features that a block passes to the next one."""
        return self.outputs - FLOW_AND_MASK if self.outputs > 6 else 0

    @property
    def inputs(self) -> tuple[int, ...]:
        """Returns the channels of each block's first convolution."""
        later = (18 if self.images_again else 12) + 2 * self.encoder_channels + self.carried
        return (7 + 2 * self.encoder_channels, *[later] * (len(self.channels) - 1))

    @property
    def pad_multiple(self) -> int:
        """Returns the number of which padded sizes are multiples: four times the coarsest scale."""
        return 4 * self.scales[0] * (2 if self.auto_scale else 1)


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

# Keys of the last and the first layer of each kind of encoder; the last one identifies the kind.
_ENCODERS = (("H3", "cnn3", "cnn0"), ("H2", "6", "0"), ("H1", "1", "0"))


def shape_of(state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    """Returns the shape of a convolution's weight, four sizes above zero. Raises WeightsError for any other shape."""
    if key not in state:
        raise WeightsError(f"{key} is missing")
    shape = tuple(state[key].shape)
    if len(shape) != 4 or 0 in shape:
        raise WeightsError(f"{key} has shape {shape}, not that of a convolution")
    return shape


def read_config(state: Mapping[str, Tensor]) -> IFNetConfig:
    """Returns the configuration of a v4 network from the shapes of its weights. WeightsError if they do not agree."""
    count = 0
    while f"block{count}.conv0.0.0.weight" in state:
        count += 1
    if count not in (4, 5):
        raise WeightsError(f"{count} blocks, but v4 networks have 4 or 5 ({_nearest(state)})")
    try:
        config = _read_config(state, count)
    except WeightsError as e:
        raise WeightsError(f"{e} ({_nearest(state)})") from e
    found = tuple(state[f"block{i}.conv0.0.0.weight"].shape[1] for i in range(count))
    if found != config.inputs:
        raise WeightsError(
            f"blocks take {found} channels, but {config.encoder_channels} features a frame and tails of "
            f"{config.outputs} make {config.inputs} ({_nearest(state)})"
        )
    return config


def _read_config(state: Mapping[str, Tensor], count: int) -> IFNetConfig:
    inputs = [shape_of(state, f"block{i}.conv0.0.0.weight")[1] for i in range(count)]
    channels = tuple(shape_of(state, f"block{i}.conv0.1.0.weight")[0] for i in range(count))
    shuffle = "block0.lastconv.0.weight" in state
    residual = "block0.convblock.0.beta" in state
    prelu = "block0.conv0.0.1.weight" in state
    tail = shape_of(state, "block0.lastconv.0.weight" if shuffle else "block0.lastconv.weight")[1]
    unit = shape_of(state, "block0.convblock.0.conv.weight" if residual else "block0.convblock.0.0.weight")
    groups = channels[0] // unit[1]
    if groups < 1 or any(c % groups for c in channels):
        raise WeightsError(f"block0.convblock.0 has shape {unit}, which does not divide widths {channels} into groups")
    outputs = tail // 4 if shuffle else tail
    if outputs not in (5, 6, 13) or (shuffle and tail % 4):
        raise WeightsError(f"tails of {tail} channels; known are 5, and 20, 24 and 52 before their pixel shuffle")
    encoder, width, features = _read_encoder(state)
    scales: tuple[int, ...] = (8, 4, 2, 1) if count == 4 else _FIVE_SCALES
    if channels == PUBLISHED["4.25.lite"].channels:  # the only one whose scales do not follow from its shapes
        scales = PUBLISHED["4.25.lite"].scales
    sharp = "sharp" in state and outputs > 6  # smaller tails have no outputs to spare
    return IFNetConfig(
        channels,
        scales,
        sharp=sharp,
        pad_mode="replicate" if sharp else "constant",  # files with a key "sharp" were trained on replicated edges
        outputs=outputs,
        shuffle=shuffle,
        act="prelu" if prelu else "leaky",
        residual=residual,
        skip=prelu,
        groups=groups,
        encoder=encoder,
        encoder_width=width,
        encoder_channels=features,
        images_again=not encoder and inputs[1] == 18,
        replace_mask=bool(encoder),
        auto_scale=channels == _FOUR and prelu,
        ensemble=outputs <= 6,
    )


def _read_encoder(state: Mapping[str, Tensor]) -> tuple[str, int, int]:
    for kind, last, first in _ENCODERS:
        if f"encode.{last}.weight" in state:
            width = shape_of(state, f"encode.{first}.weight")[0]
            return kind, width, shape_of(state, f"encode.{last}.weight")[1]
    return "", 0, 0


def _nearest(state: Mapping[str, Tensor]) -> str:
    """Returns "nearest known: NAME", the published network with the most similar widths."""
    widths = []
    for i in range(len(state)):
        weight = state.get(f"block{i}.conv0.1.0.weight")
        if weight is None or weight.dim() == 0:
            break
        widths.append(weight.shape[0])

    def distance(name: str) -> tuple[int, int]:
        known = PUBLISHED[name].channels
        gap = sum(abs(a - b) for a, b in zip(known, widths, strict=False))
        return abs(len(known) - len(widths)), gap

    return f"nearest known: {min(PUBLISHED, key=distance)}"
