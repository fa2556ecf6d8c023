"""Pictures (H,W,C) as numpy arrays <-> images (B,C,H,W) as float tensors in 0..1; padding to a multiple and back."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.inference import kernels

BACKDROP = 0.5  # what lies behind a transparent picture for the network: black and white shapes both stand out
OPAQUE = 1 - 1e-5  # alpha above this is full: less than one 16-bit step below 1


def to_tensor(picture: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """(H,W,C) uint8 or uint16 -> (1,C,H,W) float32 in 0..1; floating-point pictures (EXR) keep their values."""
    if picture.dtype == np.uint16:  # torch has few uint16 operations; float32 holds every value exactly
        picture = picture.astype(np.float32)
        limit = 65535.0
    else:
        limit = 255.0 if picture.dtype == np.uint8 else 1.0
    image = torch.from_numpy(np.ascontiguousarray(picture))
    cuda = torch.device(device).type == "cuda"
    image = (image.pin_memory() if cuda else image).to(device, non_blocking=cuda)  # nothing waits for pinned memory
    return image.permute(2, 0, 1)[None].div(limit).float()  # bytes in one pass


def to_picture(image: Tensor, dtype: type[Any] = np.uint8) -> np.ndarray:
    """(1,C,H,W) float in 0..1 -> (H,W,C) of dtype: clamped and rounded to nearest for uint8 and uint16.

    upstream: video frames are truncated, half a level darker than the frames around them; here every frame that went
    through the network is rounded, in this one place.
    """
    return send_picture(image, dtype)()


def send_picture(image: Tensor, dtype: type[Any] = np.uint8) -> Callable[[], np.ndarray]:
    """What waits for the picture of `to_picture` and gives it: a CUDA device goes on with its next work meanwhile."""
    image = image[0].float()
    if not np.issubdtype(dtype, np.floating):
        if dtype == np.uint8 and image.device.type == "cpu" and kernels.available():
            made = kernels.to_bytes(image)
            return lambda: made.numpy()
        image = levels(image, np.iinfo(dtype).max)
        image = image.byte() if dtype == np.uint8 else image  # before it leaves the device: a quarter of the bytes
    if image.device.type != "cuda":
        picture = torch.stack(image.cpu().unbind(0), 2)  # faster than a permuted copy
        return lambda: picture.numpy().astype(dtype, copy=False)
    image = image.permute(1, 2, 0).contiguous()
    pinned = torch.empty(image.shape, dtype=image.dtype, pin_memory=True)
    pinned.copy_(image, non_blocking=True)
    arrived = torch.cuda.Event(blocking=True)
    arrived.record(torch.cuda.current_stream(image.device))

    def wait() -> np.ndarray:
        arrived.synchronize()
        return pinned.numpy().astype(dtype, copy=False)

    return wait


def levels(image: Tensor, limit: int = 255) -> Tensor:
    """An image in 0..1 -> the same shape in whole steps of 0..limit: what its picture will hold, wherever it is."""
    return image.clamp(0, 1).mul_(limit).round_()


def to_layers(picture: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """(H,W,C), C=1 grey, 3 RGB, 4 RGBA -> (1,3+K,H,W): what a network looks at, then what only follows its flow.

    Grey is shown as RGB. With alpha (straight in integers, premultiplied in floats, as EXR has it) the network sees
    the picture on BACKDROP, and premultiplied colour and alpha follow: colours hidden under full transparency are
    arbitrary, so they neither shape the flow nor bleed into edges. Light (floats) is seen clipped to 0..1 and follows
    as it is.
    """
    image = to_tensor(picture, device)
    colour, alpha = image[:, :3], image[:, 3:]
    colour = colour.expand(-1, 3, -1, -1)
    light = bool(np.issubdtype(picture.dtype, np.floating))
    if not light and not alpha.shape[1]:
        return colour
    if alpha.shape[1]:
        follows = torch.cat((colour if light else colour * alpha, alpha), 1)
        seen = follows[:, :3] + BACKDROP * (1 - alpha)
    else:
        follows = seen = colour
    return torch.cat((seen.nan_to_num(0).clamp(0, 1), follows), 1)


def from_layers(image: Tensor, channels: int, dtype: type[Any]) -> np.ndarray:
    """An image made from two of `to_layers` -> the picture (H,W,channels) of dtype, in the same convention."""
    return send_layers(image, channels, dtype)()


def send_layers(image: Tensor, channels: int, dtype: type[Any]) -> Callable[[], np.ndarray]:
    """What waits for the picture of `from_layers`, as `send_picture`."""
    seen, follows = image[:, :3], image[:, 3:]
    if np.issubdtype(dtype, np.floating):
        limit = float(np.finfo(dtype).max)  # light too strong for half float stays the strongest there is
        seen = follows.clamp(-limit, limit)
    elif channels == 4:
        alpha = follows[:, 3:]
        colour = torch.where(alpha > OPAQUE, seen, follows[:, :3] / alpha.clamp(min=1 - OPAQUE))
        seen = torch.cat((colour, alpha), 1)
    return send_picture(seen.mean(1, True) if channels == 1 else seen, dtype)


class Padder:
    """Pads (B,C,H,W) tensors of one size to multiples, at the right and bottom unless `centred`, and undoes it."""

    def __init__(
        self, height: int, width: int, multiple: int, mode: str = "constant", *, centred: bool = False
    ) -> None:
        down, right = -height % multiple, -width % multiple
        top, left = (down // 2, right // 2) if centred else (0, 0)
        self.padding = (left, right - left, top, down - top)
        self.window = (slice(top, top + height), slice(left, left + width))
        self.mode = mode  # of torch.nn.functional.pad: "constant" is zeros, as upstream; or "replicate"

    def pad(self, image: Tensor, mode: str | None = None) -> Tensor:
        """(B,C,H,W) -> (B,C,H',W'), multiples of what was asked for."""
        mode = mode or self.mode
        if not any(self.padding):
            return image
        if not image.is_contiguous(memory_format=torch.channels_last):
            return F.pad(image, self.padding, mode)
        # F.pad is slow at these
        if mode == "constant":
            return F.pad(image.permute(0, 2, 3, 1), (0, 0, *self.padding)).permute(0, 3, 1, 2)
        left, right, top, bottom = self.padding
        return _extend(_extend(image.permute(0, 2, 3, 1), 2, left, right), 1, top, bottom).permute(0, 3, 1, 2)

    def unpad(self, image: Tensor) -> Tensor:
        """(B,C,H',W') -> (B,C,H,W)"""
        return image[..., self.window[0], self.window[1]]


def pad_multiple(net: Any, scale: float = 1.0) -> int:
    """What height and width are padded to multiples of, for a network at a scale of its flow."""
    return max(net.pad_multiple, int(net.pad_multiple / scale))


def padder_for(net: Any, height: int, width: int, scale: float = 1.0) -> Padder:
    """For images of that size, as a network wants them padded: by its pad_mode, to `pad_multiple`."""
    return Padder(height, width, pad_multiple(net, scale), net.pad_mode)


def _extend(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Its first and last slices along an axis repeated that often."""
    if not before + after:
        return x
    parts = ((0, before), (x.shape[axis] - 1, after))
    first, last = (x.narrow(axis, at, 1).repeat_interleave(n, axis) for at, n in parts)
    return torch.cat((first, x, last), axis)
