"""RIFE: a loaded network as a function from two images and a time to the image between them.

`load_model` gives a `RIFE`. `Model` is upstream's Python interface under upstream's names.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from model.errors import UserError
from model.IFNet import BLOCK_SCALES, IFNet
from model.IFNet_v4 import IFNet_v4, chooses_scales
from model.image import Padder, pad_multiple, padder_for
from model.inference.engines import with_engine
from model.inference.fast import accelerate
from model.loading import TRAIN_LOG, load_network
from model.networks.layers import Prediction, blend
from model.networks.warp import warp_both
from model.training.loss import LapLoss
from model.weights.checkpoint import DDP_PREFIX

FLOW_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the flow estimate, relative to the frame
BATCH_PIXELS = 2**20  # of the frames that a GPU makes at once where one is too small to fill it; not measured yet
HALVING_TOLERANCE = Fraction(1, 100)  # half of upstream's --rthreshold: how near a halving network comes to a timestep
DISTILLATION = 0.01  # weight of that loss; upstream advises 0.005 or 0.002 for RIFE_m


class PreparedFrame(NamedTuple):
    """A frame on the device: padded, its features computed. Made once, used by both pairs it takes part in."""

    image: Tensor  # (B,3,H',W') float32
    extra: Tensor | None  # (B,K,H',W') float32, channels that follow the flow without shaping it: alpha, depth
    features: object  # whatever the network's frame_features gives
    padder: Padder
    scale: float


class RIFE:
    """A loaded network as a function from two images and a time to the image between them.

    Images are (B,C,H,W) in 0..1, RGB, any H and W from 16 up; channels beyond the third (alpha, depth) are warped and
    blended by the flow and mask found from the first three.
    """

    def __init__(self, net: nn.Module, *, name: str, source: str = "memory", fast: Any = None) -> None:
        self.net: Any = net  # arbitrary_time, pad_multiple, pad_mode, frame_features(image) and forward, see IFNet.py
        self.fast = fast or accelerate(net)  # what is called: the network, or the same by kernels or another engine
        self.name = name
        self.source = source
        weight = next(net.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.batch_pixels = 0 if self.device.type == "cpu" else BATCH_PIXELS  # the kernels of a CPU take one

    def __str__(self) -> str:
        millions = sum(p.numel() for p in self.net.parameters()) / 1e6
        time = "any timestep" if self.arbitrary_time else "midpoint only, other times by halving"
        kind = str(self.dtype).removeprefix("torch.")
        what = f"{millions:.2f} M parameters, {time}, {kind} on {self.device}"
        return f"Loaded {self.name} from {self.source}: {what}"

    @property
    def arbitrary_time(self) -> bool:
        """Whether the network takes any timestep itself."""
        return bool(self.net.arbitrary_time)

    def multiple(self, scale: float = 1.0) -> int:
        """What height and width are padded to multiples of."""
        return pad_multiple(self.net, scale)

    @torch.no_grad()
    def prepare(self, image: Tensor, *, scale: float = 1.0) -> PreparedFrame:
        """(B,C,H,W) in 0..1, C of at least 3 -> the frame padded on the device, with its features."""
        if scale not in FLOW_SCALES:
            raise ValueError(f"scale {scale} is not one of {', '.join(f'{s:g}' for s in FLOW_SCALES)}")
        if image.dim() != 4 or image.shape[1] < 3:
            raise ValueError(f"an image has shape (B,C,H,W) with 3 channels or more, got {tuple(image.shape)}")
        padder = padder_for(self.net, image.shape[2], image.shape[3], scale)
        image = image.to(self.device, torch.float32)
        rgb = padder.pad(image[:, :3])
        # No network sees these, so nothing asks for upstream's zeros, which would make an opaque edge transparent.
        extra = padder.pad(image[:, 3:], "replicate") if image.shape[1] > 3 else None
        return PreparedFrame(rgb, extra, self._features(rgb), padder, scale)

    def inference(
        self,
        img0: Tensor | PreparedFrame,
        img1: Tensor | PreparedFrame,
        *,
        timestep: float | Fraction | Tensor = 0.5,
        scale: float = 1.0,
        tta: bool = False,
        ensemble: bool = False,
        refine: bool = False,
    ) -> Tensor:
        """The image at `timestep`, (B,C,H,W) float32 on the device, the size of the images given.

        `timestep` is a number between 0 and 1 or, where the network takes any time, a map (B,1,H,W) of them. `scale`
        below 1 estimates flow on smaller images (large frames, large motion), above 1 on larger ones. `tta` averages
        with the pass over the images turned by 180 degrees (the paper's 2T), `ensemble` runs each block both ways
        (3.9-4.20, 4.24), `refine` adds the residual that the full files of 3.9 and 4.0-4.4 have (the paper's and the
        HD networks always refine). ValueError where the network has no such option.
        """
        options = self._options(ensemble=ensemble, refine=refine)
        if isinstance(timestep, Tensor):
            if not self.arbitrary_time:
                raise UserError(f"RIFE {self.name} knows only the middle: it takes no map of timesteps")
            frame0, frame1 = self._pair(img0, img1, scale)
            return self._finish(self._predict(frame0, frame1, timestep, tta=tta, **options), frame0)
        return next(self.between(img0, img1, (timestep,), scale=scale, tta=tta, **options))

    def between(
        self,
        img0: Tensor | PreparedFrame,
        img1: Tensor | PreparedFrame,
        timesteps: Sequence[float | Fraction],
        *,
        scale: float = 1.0,
        tta: bool = False,
        ensemble: bool = False,
        refine: bool = False,
        tolerance: float | Fraction = HALVING_TOLERANCE,
    ) -> Iterator[Tensor]:
        """The images at rising `timesteps`, one after the other; as `inference`.

        Networks that take any time run once a timestep, or, on a GPU and for small frames, once for several. Midpoint
        networks halve: exact for k/2^n, within `tolerance`
        otherwise (ValueError if that cannot be, as with tolerance 0 and 1/3).
        """
        if not all(0 < t < 1 for t in timesteps) or list(timesteps) != sorted(timesteps):
            raise ValueError(f"timesteps must rise between 0 and 1, got {', '.join(map(str, timesteps))}")
        options = self._options(ensemble=ensemble, refine=refine)
        frame0, frame1 = self._pair(img0, img1, scale)
        if self.arbitrary_time:
            count = self._at_once(frame0)
            for some in (timesteps[i : i + count] for i in range(0, len(timesteps), count)):
                time = self._stack_times(some)
                made = self._finish(self._predict(frame0, frame1, time, tta=tta, **options), frame0)
                yield from made.chunk(len(some))
            return
        targets = [reachable(t, tolerance) for t in timesteps]
        for image in self._halve(frame0, frame1, Fraction(0), Fraction(1), targets, tta=tta, **options):
            yield self._finish(image, frame0)

    @torch.no_grad()
    def flow(
        self,
        img0: Tensor | PreparedFrame,
        img1: Tensor | PreparedFrame,
        *,
        timestep: float | Fraction | Tensor = 0.5,
        scale: float = 1.0,
    ) -> Tensor:
        """Where each pixel of the frame at `timestep` comes from: (B,4,H,W) px, (x, y) in img0, then (x, y) in img1.

        x points right, y down; F(t->0), F(t->1). At timestep 0 the last two channels are the flow from img0 to img1,
        at 1 the first two that from img1 to img0: networks are trained between, and near the ends the other flow is
        close to zero, not exactly. Midpoint networks know 0.5 alone, ValueError otherwise. A map (B,1,H,W) as in
        `inference`.
        """
        if not self.arbitrary_time and (isinstance(timestep, Tensor) or timestep != 0.5):
            raise UserError(f"RIFE {self.name} knows only the flow of the middle, not at timestep {timestep}")
        frame0, frame1 = self._pair(img0, img1, scale)
        time = self._pad_time(timestep if isinstance(timestep, Tensor) else float(timestep), frame0)
        return frame0.padder.unpad(self._estimate(frame0, frame1, time).flow)

    def _at_once(self, frame: PreparedFrame) -> int:
        """How many timesteps of a pair go into one call."""
        b, _, h, w = frame.image.shape
        return 1 if b > 1 or chooses_scales(self.net) else max(self.batch_pixels // (h * w), 1)

    def _stack_times(self, timesteps: Sequence[float | Fraction]) -> float | Tensor:
        """A number, or (N,1,1,1) on the device."""
        if len(timesteps) == 1:
            return float(timesteps[0])
        return torch.tensor([float(t) for t in timesteps], device=self.device)[:, None, None, None]

    def _options(self, *, ensemble: bool, refine: bool) -> dict[str, bool]:
        """What to give the network beyond images and time; only what is on, since most networks know none of it."""
        if refine and not isinstance(self.net, IFNet_v4):
            raise UserError(f"RIFE {self.name} has no refinement to choose: that is for 3.9 and 4.0-4.4")
        return {name: True for name, on in (("ensemble", ensemble), ("refine", refine)) if on}

    def _pair(
        self, img0: Tensor | PreparedFrame, img1: Tensor | PreparedFrame, scale: float
    ) -> tuple[PreparedFrame, PreparedFrame]:
        frame0, frame1 = (
            img if isinstance(img, PreparedFrame) else self.prepare(img, scale=scale) for img in (img0, img1)
        )
        for frame in (frame0, frame1):
            if frame.scale != scale:
                raise ValueError(f"a frame prepared for scale {frame.scale:g} was used at scale {scale:g}")
        sizes = [(*f.image.shape, 0 if f.extra is None else f.extra.shape[1]) for f in (frame0, frame1)]
        if sizes[0] != sizes[1] or frame0.padder.window != frame1.padder.window:
            raise ValueError(f"two images of different shape: {sizes[0][:4]} and {sizes[1][:4]} (padded)")
        return frame0, frame1

    def _halve(
        self,
        frame0: PreparedFrame,
        frame1: PreparedFrame,
        low: Fraction,
        high: Fraction,
        targets: Sequence[Fraction],  # within (low, high), rising
        **options: bool,
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        if not targets:
            return
        middle = (low + high) / 2
        made = self._predict(frame0, frame1, 0.5, **options)
        earlier, later = [t for t in targets if t < middle], [t for t in targets if t > middle]
        frame = self._between_frame(made, frame0) if earlier or later else frame0
        yield from self._halve(frame0, frame, low, middle, earlier, **options)
        for _ in range(targets.count(middle)):
            yield made
        yield from self._halve(frame, frame1, middle, high, later, **options)

    @torch.no_grad()
    def _between_frame(self, made: tuple[Tensor, Tensor | None], like: PreparedFrame) -> PreparedFrame:
        return like._replace(image=made[0], extra=made[1], features=self._features(made[0]))

    @torch.no_grad()
    def _predict(
        self, frame0: PreparedFrame, frame1: PreparedFrame, timestep: float | Tensor, *, tta: bool, **options: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The padded image and the padded extra channels at the timestep."""
        timestep = self._pad_time(timestep, frame0)
        image, extra = self._run(frame0, frame1, timestep, **options)
        if not tta:
            return image, extra
        turned0, turned1 = (
            f._replace(
                image=_turn(f.image),
                extra=None if f.extra is None else _turn(f.extra),
                features=self._features(_turn(f.image)),
            )
            for f in (frame0, frame1)
        )
        turned_time = _turn(timestep) if isinstance(timestep, Tensor) else timestep
        image2, extra2 = self._run(turned0, turned1, turned_time, **options)
        return (image + _turn(image2)) / 2, None if extra is None or extra2 is None else (extra + _turn(extra2)) / 2

    def _pad_time(self, timestep: float | Tensor, frame: PreparedFrame) -> float | Tensor:
        """A map of timesteps on the device, as large as the padded frame."""
        if not isinstance(timestep, Tensor) or timestep.shape[-1] == 1:
            return timestep
        return frame.padder.pad(timestep.to(self.device, torch.float32), "replicate")

    def _features(self, image: Tensor) -> object:
        return self.fast.frame_features(image)

    def _estimate(
        self, frame0: PreparedFrame, frame1: PreparedFrame, timestep: float | Tensor, **options: bool
    ) -> Prediction:
        images, features = (frame0.image, frame1.image), (frame0.features, frame1.features)
        out: Prediction = self._call(images, features, timestep, scale=frame0.scale, **options)
        return out

    def _call(
        self,
        images: tuple[Tensor, Tensor],
        features: tuple[Any, Any],
        timestep: float | Tensor,
        *,
        by: Any = None,
        scale: float,
        **options: Any,
    ) -> Any:
        """The network's prediction, or what it gives `by` another method, of images (B,3,H,W) and their features; of
        one pair at N timesteps (N,1,1,1) N of them.
        """
        if isinstance(timestep, Tensor) and timestep.shape[0] > images[0].shape[0]:
            count = timestep.shape[0]
            images, features = tree_map_only(Tensor, lambda x: x.expand(count, *x.shape[1:]), (images, features))
        return (by or self.fast)(*images, timestep, *features, scale=scale, **options)

    def _run(
        self, frame0: PreparedFrame, frame1: PreparedFrame, timestep: float | Tensor, **options: bool
    ) -> tuple[Tensor, Tensor | None]:
        out = self._estimate(frame0, frame1, timestep, **options)
        if frame0.extra is None or frame1.extra is None:
            return out.image, None
        extra0, extra1 = (extra.expand(len(out.flow), -1, -1, -1) for extra in (frame0.extra, frame1.extra))
        return out.image, blend(*warp_both(extra0, extra1, out.flow), out.mask)

    def _finish(self, made: tuple[Tensor, Tensor | None], frame: PreparedFrame) -> Tensor:
        image, extra = made
        return frame.padder.unpad(image if extra is None else torch.cat((image, extra), 1))


def reachable(timestep: float | Fraction, tolerance: float | Fraction) -> Fraction:
    """The timestep k/2^n with the smallest n that is within `tolerance`; ValueError if there is none for n up to 16."""
    exact = Fraction(timestep)
    for n in range(1, 17):
        k = min(max(round(exact * 2**n), 1), 2**n - 1)
        if abs(Fraction(k, 2**n) - exact) <= tolerance:
            return Fraction(k, 2**n)
    raise ValueError(f"halving reaches k/2^n only: no such timestep within {float(tolerance):g} of {timestep}")


def _turn(image: Tensor) -> Tensor:
    """Turned by 180 degrees."""
    return image.flip(2, 3)


def load_model(
    path: Path | str = TRAIN_LOG,
    *,
    arch: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    engine: str | None = None,
) -> RIFE:
    """The network whose weights are in `path`, a folder or a file, ready to interpolate on `device`.

    The architecture follows from keys and shapes; `arch` is needed for "rife_2r" alone. `dtype` is that of the
    convolutions; flows and images stay float32. `engine`, one of engines.ENGINES, runs the network in another way.
    Raises WeightsError naming the file, the cause and the remedy. str() of the result says in one line what was loaded.
    """
    net, name, file = load_network(path, arch)
    net = net.to(device, dtype).eval()
    return RIFE(net, name=name, source=str(file), fast=with_engine(net, engine) if engine else None)


class Model:
    """Upstream's Python interface (ECCV2022-RIFE model/RIFE.py): the same names, arguments and return values.

    Images are (B,3,H,W) in 0..1, any size. `arbitrary` makes a RIFE_m, which upstream could not train for want of a
    timestep in `update`; here it is an argument.
    """

    def __init__(self, local_rank: int = -1, arbitrary: bool = False) -> None:
        self.flownet: nn.Module = IFNet(timed=arbitrary)
        self.name = "RIFE_m" if arbitrary else "RIFE"
        self.optimG = torch.optim.AdamW(self.flownet.parameters(), lr=1e-6, weight_decay=1e-3)
        self.lap = LapLoss()
        self.local_rank = local_rank
        self._rife: RIFE | None = None  # made once a network: it brings the weights into another form

    def train(self) -> None:
        """Puts the network in training mode."""
        self.flownet.train()

    def eval(self) -> None:
        """Puts the network in evaluation mode."""
        self.flownet.eval()

    def device(self) -> None:
        """Moves the network to the GPU if there is one."""
        self.flownet.to("cuda" if torch.cuda.is_available() else "cpu")

    def load_model(self, path: Path | str, rank: int = 0) -> None:
        """Loads the weights found in a folder (or file); any network of loading.py, not only the paper's."""
        if rank <= 0:
            self.flownet, self.name, _ = load_network(path)
            self.optimG = torch.optim.AdamW(self.flownet.parameters(), lr=1e-6, weight_decay=1e-3)

    def save_model(self, path: Path | str, rank: int = 0) -> None:
        """Writes `path`/flownet.pkl with the keys of an official file."""
        if rank == 0:
            state = {DDP_PREFIX + key: value for key, value in self.flownet.state_dict().items()}
            torch.save(state, Path(path) / "flownet.pkl")

    def inference(
        self,
        img0: Tensor,
        img1: Tensor,
        scale: float = 1,
        scale_list: Sequence[float] = BLOCK_SCALES,
        TTA: bool = False,
        timestep: float = 0.5,
    ) -> Tensor:
        """The image between two, (B,3,H,W). The third argument is the scale, as in the paper's repository."""
        if tuple(scale_list) != BLOCK_SCALES:
            scale = scale * BLOCK_SCALES[-1] / scale_list[-1]
            if tuple(s * scale_list[-1] for s in BLOCK_SCALES) != tuple(scale_list):
                raise ValueError(f"scale_list {tuple(scale_list)} is not a multiple of {BLOCK_SCALES}")
        weight = next(self.flownet.parameters())
        rife = self._rife
        if rife is None or rife.net is not self.flownet or (rife.device, rife.dtype) != (weight.device, weight.dtype):
            rife = self._rife = RIFE(self.flownet, name=self.name)
        return rife.inference(img0, img1, timestep=timestep, scale=scale, tta=TTA)

    def update(
        self,
        imgs: Tensor,  # (B,6,H,W), both images
        gt: Tensor,  # (B,3,H,W)
        learning_rate: float = 0,
        mul: float = 1,  # upstream takes it and does not use it
        training: bool = True,
        flow_gt: Tensor | None = None,  # likewise
        timestep: float | Tensor = 0.5,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One optimiser step of the paper's recipe (or, not `training`, its losses) -> the frame and what to log."""
        for group in self.optimG.param_groups:
            group["lr"] = learning_rate
        self.flownet.train(training)
        with torch.set_grad_enabled(training):
            out: Prediction = self.flownet(imgs[:, :3], imgs[:, 3:], timestep, gt=gt)
            if out.teaching is None:
                raise ValueError(f"RIFE {self.name} has no teacher: update trains the paper's networks")
            loss_l1 = self.lap(out.image, gt).mean()
            loss_tea = self.lap(out.teaching.merged, gt).mean()
        if training:
            self.optimG.zero_grad()
            (loss_l1 + loss_tea + DISTILLATION * out.teaching.distillation).backward()
            self.optimG.step()
        return out.image, {
            "merged_tea": out.teaching.merged,
            "mask": out.mask,
            "mask_tea": out.teaching.mask,
            "flow": out.flow[:, :2],
            "flow_tea": out.teaching.flow,
            "loss_l1": loss_l1,
            "loss_tea": loss_tea,
            "loss_distill": out.teaching.distillation,
        }
