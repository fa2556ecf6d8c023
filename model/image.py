"""Converts pictures, arrays (H,W,C), to images, float tensors (B,C,H,W) in 0..1, and back; pads and crops images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.errors import NotFiniteError
from model.inference import kernels

PAD_MODES = {"constant": "zeros", "replicate": "the edge repeated"}  # names of pad_mode for the user
BACKDROP = 0.5  # grey behind a transparent picture, for the network: black and white shapes both contrast with it
OPAQUE = 1 - 1e-5  # alpha above this counts as 1: the difference is less than one 16-bit step


def to_tensor(picture: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Converts (H,W,C) uint8 or uint16 to (1,C,H,W) float32 in 0..1; values of float pictures (EXR) stay."""
    if picture.dtype == np.uint16:  # torch has few uint16 operations; float32 represents every value exactly
        picture = picture.astype(np.float32)
        limit = 65535.0
    else:
        limit = 255.0 if picture.dtype == np.uint8 else 1.0
    image = torch.from_numpy(np.ascontiguousarray(picture))
    cuda = torch.device(device).type == "cuda"
    image = (image.pin_memory() if cuda else image).to(device, non_blocking=cuda)  # pinned memory: an asynchronous copy
    return image.permute(2, 0, 1)[None].div(limit).float()  # one pass over bytes


def to_picture(image: Tensor, dtype: type[Any] = np.uint8) -> np.ndarray:
    """Converts (1,C,H,W) float in 0..1 to (H,W,C) of dtype: for uint8 and uint16 clamped and rounded to nearest.

    upstream: video frames are truncated, half a level darker than the frames around them; here every interpolated
    frame is rounded, in this one place. Raises NotFiniteError if an integer picture is wanted and the image holds NaN.
    """
    return send_picture(image, dtype)()


def send_picture(image: Tensor, dtype: type[Any] = np.uint8) -> Callable[[], np.ndarray]:
    """Starts the copy of an image to main memory; returns a function that returns the picture, as `to_picture`.

    On CUDA the copy is asynchronous: the device continues to compute until the function is called, which blocks until
    the copy is complete.
    """
    image = image[0].float()  # (C,H,W)
    total = None  # sum of the values, to check that all are finite; pictures of floats may contain NaN
    if not np.issubdtype(dtype, np.floating):
        total = image.sum()
        if dtype == np.uint8 and image.device.type == "cpu" and kernels.available():
            _check_finite(total)
            bytes_ = kernels.to_bytes(image)
            return lambda: bytes_.numpy()
        image = levels(image, np.iinfo(dtype).max)
        image = image.byte() if dtype == np.uint8 else image  # before the copy: a quarter of the bytes
    if image.device.type == "cuda":
        return _send_from_cuda(image, total, dtype)
    _check_finite(total)
    picture = torch.stack(image.cpu().unbind(0), 2)  # (H,W,C); faster than a permuted copy
    return lambda: picture.numpy().astype(dtype, copy=False)


def _send_from_cuda(image: Tensor, total: Tensor | None, dtype: type[Any]) -> Callable[[], np.ndarray]:
    """Starts the copy of (C,H,W) and the sum of its values from a CUDA device to main memory; as `send_picture`."""
    sources = [image.permute(1, 2, 0).contiguous(), *([] if total is None else [total])]
    pinned = [torch.empty(source.shape, dtype=source.dtype, pin_memory=True) for source in sources]
    for target, source in zip(pinned, sources, strict=True):
        target.copy_(source, non_blocking=True)
    arrived = torch.cuda.Event(blocking=True)
    arrived.record(torch.cuda.current_stream(image.device))

    def receive() -> np.ndarray:
        arrived.synchronize()
        _check_finite(None if total is None else pinned[1])
        return pinned[0].numpy().astype(dtype, copy=False)

    return receive


def _check_finite(total: Tensor | None) -> None:
    """Raises NotFiniteError if the sum of an image's values is NaN or infinite: the picture would be black."""
    if total is not None and not bool(total.isfinite()):
        raise NotFiniteError(
            "the network computed values that are no numbers (NaN or infinity): its weights are damaged, or overflow "
            "in half precision; use other weights or full precision"
        )


def levels(image: Tensor, limit: int = 255) -> Tensor:
    """Returns an image in 0..1 as whole numbers 0..limit, float, on the same device: the values of its picture."""
    return image.clamp(0, 1).mul_(limit).round_()


def to_layers(picture: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Converts (H,W,C), C=1 grey, 3 RGB, 4 RGBA, to (1,3+K,H,W): 3 channels for the network, K that are only warped.

    Grey is repeated to RGB. A picture with alpha (straight in integers, premultiplied in floats, as in EXR) is blended
    over BACKDROP for the network, and premultiplied colour and alpha are warped: so the arbitrary colours of
    transparent pixels change neither the flow nor the edges. Of floats, the network gets values
    clipped to 0..1; the unclipped values are warped.
    """
    image = to_tensor(picture, device)
    colour, alpha = image[:, :3], image[:, 3:]
    colour = colour.expand(-1, 3, -1, -1)
    is_float = bool(np.issubdtype(picture.dtype, np.floating))
    if not is_float and not alpha.shape[1]:
        return colour
    if alpha.shape[1]:
        warped = torch.cat((colour if is_float else colour * alpha, alpha), 1)  # (1,4,H,W)
        visible = warped[:, :3] + BACKDROP * (1 - alpha)
    else:
        warped = visible = colour
    return torch.cat((visible.nan_to_num(0).clamp(0, 1), warped), 1)  # (1,6 or 7,H,W)


def from_layers(image: Tensor, channels: int, dtype: type[Any]) -> np.ndarray:
    """Converts an image interpolated between two of `to_layers` to its picture (H,W,channels) of dtype."""
    return send_layers(image, channels, dtype)()


def send_layers(image: Tensor, channels: int, dtype: type[Any]) -> Callable[[], np.ndarray]:
    """Starts the copy of an image to main memory; returns a function that returns the picture, as `from_layers`."""
    colour, warped = image[:, :3], image[:, 3:]
    if np.issubdtype(dtype, np.floating):
        limit = float(np.finfo(dtype).max)  # values beyond half float become its largest
        colour = warped.clamp(-limit, limit)
    elif channels == 4:
        alpha = warped[:, 3:]
        straight = torch.where(alpha > OPAQUE, colour, warped[:, :3] / alpha.clamp(min=1 - OPAQUE))
        colour = torch.cat((straight, alpha), 1)  # (1,4,H,W)
    return send_picture(colour.mean(1, True) if channels == 1 else colour, dtype)


class Padder:
    """Pads (B,C,H,W) tensors of one size to multiples, at the right and bottom or `centred`, and crops them back."""

    def __init__(
        self, height: int, width: int, multiple: int, mode: str = "constant", *, centred: bool = False
    ) -> None:
        down, right = -height % multiple, -width % multiple
        top, left = (down // 2, right // 2) if centred else (0, 0)
        self.padding = (left, right - left, top, down - top)
        self.window = (slice(top, top + height), slice(left, left + width))
        self.mode = mode  # of torch.nn.functional.pad: "constant" (zeros, as upstream) or "replicate"

    def pad(self, image: Tensor, mode: str | None = None) -> Tensor:
        """Pads (B,C,H,W) to (B,C,H',W'), both multiples; `mode` replaces that of the padder."""
        mode = mode or self.mode
        if not any(self.padding):
            return image
        if not image.is_contiguous(memory_format=torch.channels_last):
            return F.pad(image, self.padding, mode)
        # F.pad is slow for channels-last tensors
        if mode == "constant":
            return F.pad(image.permute(0, 2, 3, 1), (0, 0, *self.padding)).permute(0, 3, 1, 2)
        left, right, top, bottom = self.padding
        return _extend(_extend(image.permute(0, 2, 3, 1), 2, left, right), 1, top, bottom).permute(0, 3, 1, 2)

    def unpad(self, image: Tensor) -> Tensor:
        """Crops (B,C,H',W') to (B,C,H,W)."""
        return image[..., self.window[0], self.window[1]]


def pad_multiple(net: Any, scale: float = 1.0) -> int:
    """Returns the number that height and width are padded to multiples of, for a network at a flow scale."""
    return max(net.pad_multiple, int(net.pad_multiple / scale))


def padder_for(net: Any, height: int, width: int, scale: float = 1.0) -> Padder:
    """Returns the padder for images of that size: with the pad_mode of the network, to `pad_multiple`."""
    return Padder(height, width, pad_multiple(net, scale), net.pad_mode)


def _extend(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Returns x with its first slice along `axis` repeated `before` more times, and its last slice `after` times."""
    if not before + after:
        return x
    parts = ((0, before), (x.shape[axis] - 1, after))
    first, last = (x.narrow(axis, at, 1).repeat_interleave(n, axis) for at, n in parts)
    return torch.cat((first, x, last), axis)
