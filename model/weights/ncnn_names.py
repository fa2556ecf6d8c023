"""Assigns the state-dict keys of PyTorch to the convolutions of an ncnn graph, by their order and shapes.

The layer names of an ncnn graph differ from PyTorch's. Networks of IFBlocks (the paper's, 3.9, 4.x) are recognised by
the shape of a block. For the HD networks each generation is tried in turn.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from model.errors import WeightsError
from model.IFNet_HD import IFNet_HD, IFNet_HDv2, IFNet_HDv3
from model.weights import State
from model.weights.ncnn import Weights, read_convolutions
from model.weights.published import PUBLISHED

LayerShape = tuple[bool, bool, tuple[int, ...]]  # transposed, with a bias, shape of the weight
BLOCK_LENGTH = 11  # convolutions in an IFBlock: two of stride 2, eight units, and the last one (transposed)
BLOCK_UNITS = 8
PAIRS = 4  # pairs of convolutions in Contextnet, and in the downward half of Unet
HD_NETWORKS: tuple[Callable[[], nn.Module], ...] = (
    IFNet_HD,
    IFNet_HDv2,
    lambda: IFNet_HDv2(paired=True),
    IFNet_HDv3,
)


def read_graphs(pairs: Sequence[tuple[bytes, bytes]]) -> State:
    """Returns {key: tensor} of one network.

    `pairs` are the contents of .param and .bin: of flownet, or of flownet, contextnet and fusionnet in this order.
    Raises WeightsError if the graph fits no known network.
    """
    convs = [conv for param, weights in pairs for conv in read_convolutions(param, weights)]
    for build in HD_NETWORKS:
        state = _match(build, convs)
        if state is not None:
            return state
    state = dict(_if_blocks(convs))
    if len(pairs) > 1 or not state:
        shapes = ", ".join(str(conv.weight.shape) for conv in convs[:3])
        raise WeightsError(f"a graph of {len(convs)} convolutions that fits no known network; its first are {shapes}")
    return state


def _put(conv: Weights, key: str, slope: str | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yields (key, tensor) of a convolution, and of the PReLU after it.

    A leaky ReLU, which has one slope for all channels, has no key.
    """
    yield f"{key}.weight", torch.from_numpy(np.ascontiguousarray(conv.weight))
    if conv.bias is not None:
        yield f"{key}.bias", torch.from_numpy(conv.bias)
    if slope and conv.slopes and conv.slopes[0].size > 1:
        yield f"{slope}.weight", torch.from_numpy(conv.slopes[0])


def _if_blocks(convs: Sequence[Weights]) -> Iterator[tuple[str, Tensor]]:
    """Yields (key, tensor) of the encoder if there is one, the blocks, and the context and refinement networks.

    Yields nothing if the graph has no IFBlock.
    """
    start = 0
    if convs and convs[0].weight.shape[1] == 3:  # one frame: an encoder, which ends transposed
        start = next((i + 1 for i, conv in enumerate(convs) if conv.transposed), len(convs))
    blocks: list[Sequence[Weights]] = []
    while _is_block(convs[start + len(blocks) * BLOCK_LENGTH :][:BLOCK_LENGTH]):
        blocks.append(convs[start + len(blocks) * BLOCK_LENGTH :][:BLOCK_LENGTH])
    if not blocks:
        return
    yield from _encoder(convs[:start], tuple(block[1].weight.shape[0] for block in blocks))
    for i, block in enumerate(blocks):
        yield from _block(block, f"block{i}")
    rest = convs[start + len(blocks) * BLOCK_LENGTH :]
    if rest:
        yield from _refinement(rest)


def _is_block(convs: Sequence[Weights]) -> bool:
    """Returns whether these convolutions have the shapes of one IFBlock."""
    if len(convs) < BLOCK_LENGTH or [c.transposed for c in convs] != [False] * (BLOCK_LENGTH - 1) + [True]:
        return False
    width = convs[1].weight.shape[0]
    joined = convs[1].weight.shape[1] == convs[0].weight.shape[0]
    return joined and all(
        c.weight.shape[0] == width for c in convs[2:]
    )  # of the last one, transposed, these are the input channels


def _block(convs: Sequence[Weights], name: str) -> Iterator[tuple[str, Tensor]]:
    """Yields (key, tensor) of one IFBlock."""
    yield from _put(convs[0], f"{name}.conv0.0.0", f"{name}.conv0.0.1")
    yield from _put(convs[1], f"{name}.conv0.1.0", f"{name}.conv0.1.1")
    shuffle = convs[-1].weight.shape[1] > 6  # 4.5 and later: pixel shuffle after the last one, residual units
    for j, conv in enumerate(convs[2 : 2 + BLOCK_UNITS]):
        key = f"{name}.convblock.{j}"
        if shuffle:
            # ncnn's optimizer multiplies the beta into the weights of the convolution; the beta is 1 then
            beta = np.ones(conv.weight.shape[0], np.float32) if conv.beta is None else conv.beta
            yield f"{key}.beta", torch.from_numpy(beta).view(1, -1, 1, 1)
            yield from _put(conv, f"{key}.conv")
        else:
            yield from _put(conv, f"{key}.0", f"{key}.1")
    yield from _put(convs[-1], f"{name}.lastconv.0" if shuffle else f"{name}.lastconv")


def _encoder(convs: Sequence[Weights], widths: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    """Yields (key, tensor) of the encoder.

    H1 has two convolutions. H2 and H3 have the same four under different keys: H3's are used unless only a network
    with H2 was published in these widths.
    """
    if not convs:
        return
    names = {2: ("0", "1"), 4: ("cnn0", "cnn1", "cnn2", "cnn3")}.get(len(convs))
    if names is None:
        raise WeightsError(f"an encoder of {len(convs)} convolutions; known are 2 and 4")
    shape = widths, convs[0].weight.shape[0], convs[-1].weight.shape[1]
    known = {c.encoder for c in PUBLISHED.values() if (c.channels, c.encoder_width, c.encoder_channels) == shape}
    if len(convs) == 4 and known == {"H2"}:
        names = ("0", "2", "4", "6")
    for name, conv in zip(names, convs, strict=True):
        yield from _put(conv, f"encode.{name}")


def _refinement(convs: Sequence[Weights]) -> Iterator[tuple[str, Tensor]]:
    """Yields (key, tensor) of Contextnet and Unet. Raises WeightsError if the number of convolutions is another."""
    pairs = [("contextnet", f"conv{i + 1}") for i in range(PAIRS)] + [("unet", f"down{i}") for i in range(PAIRS)]
    names = [f"{net}.{stage}.{half}" for net, stage in pairs for half in ("conv1", "conv2")]
    names += [f"unet.up{i}" for i in range(4)]
    if len(convs) != len(names) + 1:
        raise WeightsError(f"{len(convs)} convolutions after the blocks; contextnet and unet have {len(names) + 1}")
    for name, conv in zip(names, convs, strict=False):
        yield from _put(conv, f"{name}.0", f"{name}.1")
    yield from _put(convs[-1], "unet.conv")


def _match(build: Callable[[], nn.Module], convs: Sequence[Weights]) -> State | None:
    """Returns the state dict of a network: each layer, in order, gets the first unused convolution of its shape.

    Returns None if there is none for a layer, or if a convolution or slope is left over.
    """
    with torch.device("meta"):
        net = build()
    pool: dict[LayerShape, list[Weights]] = defaultdict(list)
    slopes: dict[int, list[np.ndarray]] = defaultdict(list)
    for conv in convs:
        pool[(conv.transposed, conv.bias is not None, conv.weight.shape)].append(conv)
        for slope in conv.slopes:
            slopes[slope.size].append(slope)
    norms = {key: module for key, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    state: State = {}
    try:
        for key, module in net.named_modules():
            if isinstance(module, nn.PReLU):
                state[f"{key}.weight"] = torch.from_numpy(slopes[module.num_parameters].pop(0))
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                norm = f"{key[:-1]}1"  # conv.0 is followed by its normalisation, conv.1
                has_bias = norm in norms or module.bias is not None
                shape = tuple(module.weight.shape)
                state |= _put(pool[(isinstance(module, nn.ConvTranspose2d), has_bias, shape)].pop(0), key)
                if norm in norms:
                    state |= _identity(norm, norms[norm], state.pop(f"{key}.bias"))
    except IndexError:  # no convolution of this shape is left
        return None
    return None if any(pool.values()) or any(slopes.values()) else state


def _identity(key: str, norm: nn.BatchNorm2d, bias: Tensor) -> State:
    """Returns the state of a batch normalisation that only adds `bias`.

    Converters have folded its other factors into the convolution.
    """
    ones, zeros = torch.ones_like(bias), torch.zeros_like(bias)
    return {
        f"{key}.weight": ones,
        f"{key}.bias": bias,
        f"{key}.running_mean": zeros,
        f"{key}.running_var": ones - norm.eps,
    }
