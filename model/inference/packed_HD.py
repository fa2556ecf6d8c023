"""Runs a block of the networks HD 3.2-3.8 with its weights in the form of the kernels."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.contract import FLOW_AND_MASK
from model.IFNet_HD import BlockV3
from model.inference import kernels
from model.inference.kernels import Winograd
from model.inference.packed import NHWC, Conv, MakeRows, Tail, make_unit, of_sub_pixels, slopes

# With the images exchanged: the channels of a block's input (both warped images, mask, flow) and of its output (flow,
# mask), and their signs.
INPUTS, INPUT_SIGNS = (3, 4, 5, 0, 1, 2, 6, 9, 10, 7, 8), (1, 1, 1, 1, 1, 1, -1, 1, 1, 1, 1)
OUTPUTS, OUTPUT_SIGNS = (2, 3, 0, 1, 4), (1, 1, 1, 1, -1)
IMAGES = 6  # channels of both images: the input of the first block, whose mask and flow are zeros


class PackedBlockHD:
    """Runs a BlockV3 in both orders of the images and averages the two outputs.

    Both orders read the same input: the exchange is in the weights of the first convolution and of the last one. The
    two heads, of flow and mask, are channels of the same convolutions.
    """

    remaining = 1  # the output has the size of the block's input

    def __init__(self, block: BlockV3, *, first: bool) -> None:
        """Packs the weights; `first`: of the block whose input has only both images."""
        (conv0, activation0), (conv1, activation1) = (list(layer.children()) for layer in block.conv0.children())
        self.first, self.second = _in_both_orders(conv0, activation0, first), Conv(conv1, activation1)
        pairs: list[Any] = [block.get_submodule(f"convblock{i}") for i in range(4)]
        self.pairs = [tuple(make_unit(conv, activation) for conv, activation in pair) for pair in pairs]
        heads: list[Any] = [block.conv1, block.conv2]
        weight = torch.cat([head[0].weight.detach() for head in heads], 1)
        bias = torch.cat([head[0].bias.detach() for head in heads])
        slope = torch.cat([slopes(head[1], head[0].bias) for head in heads])
        missing = -len(bias) % kernels.lanes()  # channels of zeros
        weight, bias, slope = (
            F.pad(weight, (0, 0, 0, 0, 0, missing)),
            F.pad(bias, (0, missing)),
            F.pad(slope, (0, missing)),
        )
        self.heads = Winograd(of_sub_pixels(weight).flatten(0, 2), bias.repeat(4), slope.repeat(4), step=2)
        self.tails = _make_tails([head[2] for head in heads], len(bias))
        self.packed = self.tails[0].packed

    def __call__(self, make_rows: MakeRows, height: int, width: int) -> Tensor:
        """Returns the output for an input of a size, whose rows `make_rows` returns, in the form of a Tail's result."""
        halves = [self.second(x) for x in self.first.strips(make_rows, height, width).chunk(2, 1)]
        outputs = []
        for x, tail in zip(halves, self.tails, strict=True):
            for one, two in self.pairs:
                x = two(one(x), x, after=True)
            outputs.append(tail(self.heads(x)))
        return outputs[0].add_(outputs[1])


def _in_both_orders(conv: Any, activation: Any, first: bool) -> Conv:
    """Returns a first convolution, the second half of whose outputs are those for the exchanged images."""
    both = Conv(conv, activation)
    weight = conv.weight.detach()
    exchanged = weight[:, INPUTS] * weight.new_tensor(INPUT_SIGNS).view(-1, 1, 1)
    inputs = IMAGES if first else len(INPUTS)
    both.weight = torch.cat((weight, exchanged))[:, :inputs].contiguous(memory_format=NHWC)
    both.bias, both.slope = conv.bias.detach().repeat(2), slopes(activation, weight).repeat(2)
    return both


def _make_tails(layers: list[Any], inputs: int) -> list[Tail]:
    """Returns the last layers of the heads as one, with half the weights, for each order of the images."""
    flow, mask = (layer.weight.detach() for layer in layers)
    weight = flow.new_zeros(inputs, FLOW_AND_MASK, 4, 4)
    weight[: len(flow), : flow.shape[1]] = flow / 2
    weight[len(flow) : len(flow) + len(mask), flow.shape[1] :] = mask / 2
    bias = torch.cat([layer.bias.detach() for layer in layers]) / 2
    signs = bias.new_tensor(OUTPUT_SIGNS)
    exchanged = weight[:, OUTPUTS] * signs.view(-1, 1, 1), bias[list(OUTPUTS)] * signs
    return [Tail(*tensors, FLOW_AND_MASK, shuffle=False) for tensors in ((weight, bias), exchanged)]
