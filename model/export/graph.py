"""Turns a network into functions of tensors alone, in operations that the formats of other programs have.

Each class here is an nn.Module around a network, for one arrangement of inputs and outputs. Tracing it gives a graph in
which height and width stay variable. The steps and their results are those of the network's own forward, to rounding.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from model.contract import CoarseEstimate
from model.image import pad_multiple
from model.networks.warp import warp

V2_CHANNELS, V1_CHANNELS = 7, 11  # of the single input of these layouts
TENSOR = object()  # marks the place of a tensor among the arguments of a call


class Planes(NamedTuple):
    """Holds the coordinates of the pixels of a frame in the form of layout v1; each (B,1,H,W)."""

    x: Tensor  # -1 at the centre of the first column, 1 at that of the last one
    y: Tensor
    step_x: Tensor  # 2 / (W - 1), what one pixel is in these coordinates
    step_y: Tensor


def single(x: Tensor) -> Tensor:
    """Returns a tensor in float32, without a node in the graph if it is in float32 already.

    Such a node returns its own input: the tracer then records every later use of the input as a use of the node's
    output, and a node within the layer rife.Warp would become a second output of that layer.
    """
    return x if x.dtype == torch.float32 else x.float()


def sample(
    image: Tensor, flow: Tensor, mode: str = "bilinear", *, factor: int = 1, planes: Planes | None = None
) -> Tensor:
    """Returns what `warp` returns, by operations that a graph with variable sizes can hold.

    The coordinates come from `planes` if these have the size of the flow. Coordinates are float32.
    """
    if planes is not None and planes.x.shape[2:] == flow.shape[2:]:
        x, y = planes.x + flow[:, :1] * planes.step_x, planes.y + flow[:, 1:] * planes.step_y
    else:
        h, w = image.shape[2:]
        columns, rows = (torch.arange(n, device=flow.device).float() for n in (w, h))
        # a frame of one column or row: its coordinate is -1 whatever the flow, and the border is repeated
        x = (columns + flow[:, :1]) * (2 / columns[-1:].clamp(min=1)) - 1
        y = (rows[:, None] + flow[:, 1:]) * (2 / rows[-1:].clamp(min=1)) - 1
    grid = torch.cat((x, y), 1).permute(0, 2, 3, 1)  # (B,H,W,2)
    if factor == 1:
        return F.grid_sample(single(image), grid, mode, "border", align_corners=True).to(image.dtype)
    first = factor // 2 - 1  # the mean of the four pixels in the middle of each square is the resized image
    parts = [grid[:, first + i :: factor, first + j :: factor] for i in (0, 1) for j in (0, 1)]
    samples = [F.grid_sample(single(image), part, mode, "border", align_corners=True) for part in parts]
    return ((samples[0] + samples[1] + samples[2] + samples[3]) / 4).to(image.dtype)


def resized(sampler: Callable[[Tensor, Tensor, str], Tensor]) -> Callable[..., Tensor]:
    """Returns `warp` by a function without the parameter `factor`, then resizes the result."""

    def whole(image: Tensor, flow: Tensor, mode: str = "bilinear", *, factor: int = 1) -> Tensor:
        warped = sampler(image, flow, mode)
        if factor == 1:
            return warped
        return F.interpolate(warped, scale_factor=1 / factor, mode="bilinear", align_corners=False)

    return whole


class StandardOperations(TorchFunctionMode):
    """Replaces, within a `with` block, warps by `sampler` and a few operations by equal ones that all formats have."""

    def __init__(self, sampler: Callable[..., Tensor] = sample) -> None:
        super().__init__()
        self.sampler = sampler

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls `func`, or what replaces it."""
        kwargs = dict(kwargs or {})
        if func is warp:
            return self.sampler(*args, **kwargs)
        if func is torch.lerp:
            start, end, weight = args
            return start + weight * (end - start)
        if func is torch.addcmul and not kwargs:
            x, first, second = args
            return first * second + x
        if func is F.interpolate and isinstance(kwargs["scale_factor"], Tensor):
            kwargs["scale_factor"] = float(kwargs["scale_factor"])  # computed from sizes, but the same for every size
        return func(*args, **kwargs)


class Graph(nn.Module):
    """Runs a network with the settings of its calls: the base class of the graphs."""

    def __init__(self, net: Any, *, scale: float = 1.0, **options: bool) -> None:
        super().__init__()
        self.net, self.scale, self.options = net, scale, options

    def image(
        self, img0: Tensor, img1: Tensor, timestep: Tensor, operations: StandardOperations | None = None
    ) -> Tensor:
        """Runs the network on padded images and returns its image (B,3,H,W)."""
        with operations or StandardOperations():
            made = self.net(img0, img1, timestep, None, None, scale=self.scale, **self.options)
        image: Tensor = made.image
        return image


class Plain(Graph):
    """Takes img0, img1 (B,3,H,W) of any size and timestep (B,1,1,1) or (B,1,H,W); returns the image (B,3,H,W)."""

    def forward(self, img0: Tensor, img1: Tensor, timestep: Tensor) -> Tensor:
        """Pads the images, runs the network and crops its image, in 0..1."""
        height, width = img0.shape[2:]
        multiple = pad_multiple(self.net, self.scale)
        padding = (0, -width % multiple, 0, -height % multiple)
        first, second = (F.pad(image, padding, self.net.pad_mode) for image in (img0, img1))  # (B,3,H',W')
        plane = timestep.expand(img0.shape[0], -1, height, width)  # (B,1,H,W)
        made = self.image(first, second, F.pad(plane, padding, "replicate"))  # (B,3,H',W')
        return made[:, :, :height, :width].clamp(0, 1)  # (B,3,H,W)


class Padded(Graph):
    """Takes the inputs of `Plain` in sizes that are multiples of the padding; returns the same image."""

    def forward(self, img0: Tensor, img1: Tensor, timestep: Tensor) -> Tensor:
        """Runs the network; warps at full size, whose sizes torch.export can compare for all images at once."""
        return self.image(img0, img1, timestep, StandardOperations(resized(sample))).clamp(0, 1)


class LayoutV2(Plain):
    """Takes one input (B,7,H,W) of any size: img0, img1 and a plane of the timestep; returns (B,3,H,W)."""

    def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        """Runs the network as `Plain` does."""
        return super().forward(*inputs.split((3, 3, 1), 1))


class LayoutV1(Graph):
    """Takes one input (B,11,H,W) of padded size: img0, img1, timestep, and `Planes`; returns (B,3,H,W)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Runs the network with the coordinates that the input holds."""
        img0, img1, timestep, *planes = inputs.split((3, 3, 1, 1, 1, 1, 1), 1)
        operations = StandardOperations(partial(sample, planes=Planes(*planes)))
        return self.image(img0, img1, timestep, operations).clamp(0, 1)


class Between(Graph):
    """Takes the tensors of `form`; returns image (B,3,H,W), flow (B,4,H,W) px and mask (B,1,H,W).

    `form` is the tree of (img0, img1, timestep, features0, features1, coarse), and `values` its leaves, TENSOR in
    the place of each tensor; numbers become a part of the graph.
    """

    def __init__(self, net: Any, form: TreeSpec, values: Sequence[Any], *, scale: float = 1.0, **options: bool) -> None:
        super().__init__(net, scale=scale, **options)
        self.form, self.values = form, list(values)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Runs the network on prepared frames."""
        remaining = iter(tensors)
        filled = [next(remaining) if value is TENSOR else value for value in self.values]
        img0, img1, timestep, features0, features1, coarse = tree_unflatten(filled, self.form)
        more: dict[str, Any] = {"coarse": coarse} if coarse else {}
        with StandardOperations():
            made = self.net(img0, img1, timestep, features0, features1, scale=self.scale, **self.options, **more)
        return made.image, made.flow, made.mask


def flatten_call(
    img0: Tensor, img1: Tensor, timestep: Tensor, features0: Any, features1: Any, coarse: CoarseEstimate = ()
) -> tuple[list[Tensor], list[Any], TreeSpec]:
    """Returns the tensors of a call, its leaves with TENSOR in their places, and its tree: arguments of `Between`."""
    leaves, form = tree_flatten((img0, img1, timestep, features0, features1, coarse))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return tensors, [TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves], form
