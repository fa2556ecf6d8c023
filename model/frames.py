"""Prepares frames for a network: moves them to its device, pads them and computes their features once."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.contract import Network
from model.image import Padder, padder_for

FLOW_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # sizes at which flow is estimated, relative to the frame


class PreparedFrame(NamedTuple):
    """Holds a padded frame on the device with its features, made once and used in both pairs of the frame."""

    image: Tensor  # (B,3,H',W') float32
    extra: Tensor | None  # (B,K,H',W') float32, channels that are warped but do not influence the flow: alpha, depth
    features: Any  # returned by the network's frame_features
    padder: Padder
    scale: float
    disagreement: Tensor | None = None  # (B,1,H',W'), of a frame that a network made; see RIFE.between

    def whole(self) -> Tensor:
        """Returns the image with its extra channels, (B,3+K,H',W')."""
        return self.image if self.extra is None else torch.cat((self.image, self.extra), 1)

    @torch.no_grad()
    def with_image(self, whole: Tensor, engine: Network | None) -> "PreparedFrame":
        """Returns the frame with another image and extra channels (B,3+K,H',W'); no features if `engine` is None."""
        image, extra = whole[:, :3], whole[:, 3:] if whole.shape[1] > 3 else None
        return self._replace(image=image, extra=extra, features=engine and engine.frame_features(image))

    def pad_time(self, timestep: Tensor) -> Tensor:
        """Returns a map of timesteps (B,1,H,W) padded like the frame; numbers (B,1,1,1) are returned unchanged."""
        if timestep.shape[-1] == 1:
            return timestep
        return self.padder.pad(timestep.to(self.image.device, torch.float32), "replicate")


FrameInput = Tensor | PreparedFrame  # an image (B,C,H,W) in 0..1, or the same prepared


def prepare(engine: Network, image: Tensor, device: torch.device, scale: float) -> PreparedFrame:
    """Returns an image (B,C,H,W) in 0..1, C >= 3, as a frame padded on the device, with its features."""
    if scale not in FLOW_SCALES:
        raise ValueError(f"scale {scale} is not one of {', '.join(f'{s:g}' for s in FLOW_SCALES)}")
    if image.dim() != 4 or image.shape[1] < 3:
        raise ValueError(f"an image has shape (B,C,H,W) with 3 channels or more, got {tuple(image.shape)}")
    padder = padder_for(engine, image.shape[2], image.shape[3], scale)
    image = image.to(device, torch.float32)
    rgb = padder.pad(image[:, :3])  # (B,3,H',W')
    # "replicate" for every network: zeros would make an opaque edge transparent
    extra = padder.pad(image[:, 3:], "replicate") if image.shape[1] > 3 else None
    return PreparedFrame(rgb, extra, engine.frame_features(rgb), padder, scale)


def check_pair(frame0: PreparedFrame, frame1: PreparedFrame, scale: float) -> None:
    """Raises ValueError unless both frames have the same size and were prepared for this scale."""
    for frame in (frame0, frame1):
        if frame.scale != scale:
            raise ValueError(f"a frame prepared for scale {frame.scale:g} was used at scale {scale:g}")
    sizes = [(*f.image.shape, 0 if f.extra is None else f.extra.shape[1]) for f in (frame0, frame1)]
    if sizes[0] != sizes[1] or frame0.padder.window != frame1.padder.window:
        raise ValueError(f"two images of different shape: {sizes[0][:4]} and {sizes[1][:4]} (padded)")


def time_input(timesteps: Sequence[float | Fraction], device: torch.device) -> float | Tensor:
    """Returns one timestep as a number, several as (N,1,1,1) on the device."""
    if len(timesteps) == 1:
        return float(timesteps[0])
    return torch.tensor([float(t) for t in timesteps], device=device)[:, None, None, None]


def rotate(image: Tensor) -> Tensor:
    """Returns images (B,C,H,W) rotated by 180 degrees."""
    return image.flip(2, 3)
