"""Interpolates between two images with a loaded network.

`load_model` returns a `RIFE`. `Model` is upstream's Python interface under upstream's names.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from model.contract import Network, Prediction
from model.errors import UserError
from model.frames import FrameInput, PreparedFrame, check_pair, prepare, time_input
from model.halving import HALVING_TOLERANCE, halve, reachable
from model.IFNet import BLOCK_SCALES, IFNet
from model.image import pad_multiple
from model.inference.engines import accelerate, with_engine
from model.loading import TRAIN_LOG, AnyNetwork, load_network
from model.predict import predict
from model.training.loss import LapLoss
from model.weights.checkpoint import DDP_PREFIX

BATCH_PIXELS = 2**20  # px; a GPU runs several timesteps of a pair in one call up to this many; not measured
DISTILLATION = 0.01  # weight of that loss in Model.update; upstream advises 0.005 or 0.002 for RIFE_m


class RIFE:
    """Interpolates between two images, at any time between them, with a loaded network.

    Images are (B,C,H,W) in 0..1, RGB, any H and W from 16 up; channels beyond the third (alpha, depth) are warped and
    blended by the flow and mask found from the first three.
    """

    def __init__(self, net: Network, *, name: str, source: str = "memory", engine: Network | None = None) -> None:
        """Takes a network, and an `engine` that runs it; by default the CPU kernels run it where they support it."""
        self.net = net  # holds the weights; calls go to `engine`
        self.engine = engine or accelerate(net)
        self.name, self.source = name, source
        weight = next(net.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.batch_pixels = 0 if self.device.type == "cpu" else BATCH_PIXELS  # 0: one timestep at a time

    def __str__(self) -> str:
        millions = sum(p.numel() for p in self.net.parameters()) / 1e6
        time = "any timestep" if self.arbitrary_time else "midpoint only, other times by halving"
        title = getattr(self.engine, "title", "")
        place = f"{str(self.dtype).removeprefix('torch.')} on {self.device}{title and f' by {title}'}"
        return f"Loaded {self.name} from {self.source}: {millions:.2f} M parameters, {time}, {place}"

    @property
    def arbitrary_time(self) -> bool:
        """Returns whether the network estimates any timestep between 0 and 1, or only 0.5."""
        return self.engine.arbitrary_time

    def multiple(self, scale: float = 1.0) -> int:
        """Returns the number that height and width are padded to multiples of."""
        return pad_multiple(self.engine, scale)

    @torch.no_grad()
    def prepare(self, image: Tensor, *, scale: float = 1.0) -> PreparedFrame:
        """Returns an image (B,C,H,W) in 0..1, C >= 3, as a frame padded on the device, with its features."""
        return prepare(self.engine, image, self.device, scale)

    def inference(
        self,
        img0: FrameInput,
        img1: FrameInput,
        *,
        timestep: float | Fraction | Tensor = 0.5,
        scale: float = 1.0,
        tta: bool = False,
        ensemble: bool = False,
        refine: bool = False,
    ) -> Tensor:
        """Returns the image at `timestep`, (B,C,H,W) float32 on the device, the size of the images given.

        `timestep` is a number between 0 and 1 or, where the network takes any time, a map (B,1,H,W) of them. `scale`
        below 1 estimates flow on smaller images (large frames, large motion), above 1 on larger ones. `tta` averages
        with the result of the images rotated by 180 degrees (the paper's 2T), `ensemble` runs each block in both
        directions (3.9-4.20, 4.24), `refine` adds the residual that the full files of 3.9 and 4.0-4.4 have (the
        paper's and the HD networks always refine). Raises ValueError where the network has no such option.
        """
        options = self._options(ensemble=ensemble, refine=refine)
        if not isinstance(timestep, Tensor):
            return next(self.between(img0, img1, (timestep,), scale=scale, tta=tta, **options))
        if not self.arbitrary_time:
            raise UserError(f"RIFE {self.name} estimates the middle alone: it takes no map of timesteps")
        frame0, frame1 = self._pair(img0, img1, scale)
        made = predict(self.engine, frame0, frame1, frame0.pad_time(timestep), tta=tta, **options)
        return frame0.padder.unpad(made)

    def between(
        self,
        img0: FrameInput,
        img1: FrameInput,
        timesteps: Sequence[float | Fraction],
        *,
        scale: float = 1.0,
        tta: bool = False,
        ensemble: bool = False,
        refine: bool = False,
        tolerance: float | Fraction = HALVING_TOLERANCE,
        disagreement: bool = False,
    ) -> Iterator[Tensor]:
        """Yields the images at rising `timesteps`, one after the other; arguments and images as in `inference`.

        `disagreement` adds a last channel: how much the two warped images differ, the mean over their colours. Where
        they differ, the flow of at least one is wrong or shows what the other image hides.

        Networks for any time run once for each timestep, or once for several timesteps of small frames on a GPU.
        Networks for the middle reach k/2^n exactly, by halving, and other timesteps within `tolerance`; ValueError
        where that is impossible, for example at 1/3 with tolerance 0.
        """
        if not all(0 < t < 1 for t in timesteps) or list(timesteps) != sorted(timesteps):
            raise ValueError(f"timesteps must rise between 0 and 1, got {', '.join(map(str, timesteps))}")
        options = self._options(ensemble=ensemble, refine=refine)
        frame0, frame1 = self._pair(img0, img1, scale)
        if self.arbitrary_time:
            count = self._timesteps_at_once(frame0)
            for some in (timesteps[i : i + count] for i in range(0, len(timesteps), count)):
                time = time_input(some, self.device)
                made = predict(self.engine, frame0, frame1, time, tta=tta, disagreement=disagreement, **options)
                yield from frame0.padder.unpad(made).chunk(len(some))
            return

        def middle(first: PreparedFrame, second: PreparedFrame, reused: bool) -> PreparedFrame:
            made = predict(self.engine, first, second, 0.5, tta=tta, disagreement=disagreement, **options)
            if not disagreement:
                return first.with_image(made, self.engine if reused else None)
            made, apart = made[:, :-1], made[:, -1:]
            return first.with_image(made, self.engine if reused else None)._replace(disagreement=apart)

        for frame in halve(frame0, frame1, [reachable(t, tolerance) for t in timesteps], middle):
            parts = frame.whole(), *([] if frame.disagreement is None else [frame.disagreement])
            yield frame.padder.unpad(torch.cat(parts, 1))

    @torch.no_grad()
    def flow(
        self,
        img0: FrameInput,
        img1: FrameInput,
        *,
        timestep: float | Fraction | Tensor = 0.5,
        scale: float = 1.0,
    ) -> Tensor:
        """Returns the flow (B,4,H,W) px of the frame at `timestep`: F(t->0), (x, y) to img0, then F(t->1), to img1.

        x points right, y down. At timesteps 0 and 1, for which no network is trained, the flow is not reliable.
        Networks for the middle estimate only 0.5; ValueError for others. `timestep` may be a map as in `inference`.
        """
        if not self.arbitrary_time and (isinstance(timestep, Tensor) or timestep != 0.5):
            raise UserError(f"RIFE {self.name} estimates only the flow of the middle, not at timestep {timestep}")
        frame0, frame1 = self._pair(img0, img1, scale)
        time = frame0.pad_time(timestep) if isinstance(timestep, Tensor) else float(timestep)
        images, features = (frame0.image, frame1.image), (frame0.features, frame1.features)
        return frame0.padder.unpad(self.engine(*images, time, *features, scale=scale).flow)

    def _timesteps_at_once(self, frame: PreparedFrame) -> int:
        """Returns how many timesteps of a pair go into one call."""
        b, _, h, w = frame.image.shape
        return max(self.batch_pixels // (h * w), 1) if b == 1 and self.engine.fixed_scales else 1

    def _options(self, *, ensemble: bool, refine: bool) -> dict[str, bool]:
        """Returns the options that are on. Raises UserError for one that the network does not have."""
        chosen = {name: True for name, on in (("ensemble", ensemble), ("refine", refine)) if on}
        for name in chosen.keys() - self.engine.options:
            options = ", ".join(sorted(self.engine.options)) or "none"
            raise UserError(f"RIFE {self.name} has no option {name!r} (it has: {options})")
        return chosen

    def _pair(self, img0: FrameInput, img1: FrameInput, scale: float) -> tuple[PreparedFrame, PreparedFrame]:
        """Returns both frames prepared. Raises ValueError if sizes or scales differ."""
        pair = [x if isinstance(x, PreparedFrame) else self.prepare(x, scale=scale) for x in (img0, img1)]
        check_pair(pair[0], pair[1], scale)
        return pair[0], pair[1]


def load_model(
    path: Path | str = TRAIN_LOG,
    *,
    arch: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    engine: str | None = None,
) -> RIFE:
    """Returns the network whose weights are in `path`, a folder or a file, ready to interpolate on `device`.

    The architecture follows from keys and shapes; `arch` is needed for "rife_2r" alone. `dtype` is that of the
    convolutions; flows and images stay float32. `engine`, one of engines.ENGINES, runs the network in another way.
    Raises WeightsError naming the file, the cause and the remedy. str() of the result describes it in one line.
    """
    net, name, file = load_network(path, arch)
    net = net.to(device, dtype).eval()
    return RIFE(net, name=name, source=str(file), engine=with_engine(net, engine) if engine else None)


class Model:
    """Provides upstream's Python interface (model/RIFE.py): the same names, arguments and return values.

    Images are (B,3,H,W) in 0..1, any size. `arbitrary` builds RIFE_m. Unlike upstream's method, `update`
    takes a timestep, which RIFE_m needs.
    """

    def __init__(self, local_rank: int = -1, arbitrary: bool = False) -> None:
        self.flownet: AnyNetwork = IFNet(timed=arbitrary)
        self.name = "RIFE_m" if arbitrary else "RIFE"
        self.optimG = torch.optim.AdamW(self.flownet.parameters(), lr=1e-6, weight_decay=1e-3)
        self.lap, self.local_rank = LapLoss(), local_rank
        self._rife: RIFE | None = None  # made once for a network: it converts the weights to another form

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
        """Returns the image between two, (B,3,H,W). The third argument is the scale, as in the paper's repository."""
        if tuple(scale_list) != tuple(s * scale_list[-1] for s in BLOCK_SCALES):
            raise ValueError(f"scale_list {tuple(scale_list)} is not a multiple of {BLOCK_SCALES}")
        scale = scale / scale_list[-1]
        weight = next(self.flownet.parameters())
        rife = self._rife  # the network or its weights may have been replaced or moved
        if rife is None or (rife.net, rife.device, rife.dtype) != (self.flownet, weight.device, weight.dtype):
            rife = self._rife = RIFE(self.flownet, name=self.name)
        return rife.inference(img0, img1, timestep=timestep, scale=scale, tta=TTA)

    def update(
        self,
        imgs: Tensor,  # (B,6,H,W), both images
        gt: Tensor,  # (B,3,H,W)
        learning_rate: float = 0,
        mul: float = 1,  # unused, as upstream
        training: bool = True,
        flow_gt: Tensor | None = None,  # unused, as upstream
        timestep: float | Tensor = 0.5,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Runs a training step of the paper, or computes only its losses; returns image (B,3,H,W) and log."""
        for group in self.optimG.param_groups:
            group["lr"] = learning_rate
        self.flownet.train(training)
        with torch.set_grad_enabled(training):
            out: Prediction = self.flownet(imgs[:, :3], imgs[:, 3:], timestep, gt=gt)
            teacher = out.teacher_estimate
            if teacher is None:
                raise ValueError(f"RIFE {self.name} has no teacher: update trains the paper's networks")
            loss_l1 = self.lap(out.image, gt).mean()
            loss_tea = self.lap(teacher.merged, gt).mean()
        if training:
            self.optimG.zero_grad()
            (loss_l1 + loss_tea + DISTILLATION * teacher.distillation).backward()
            self.optimG.step()
        log = {"merged_tea": teacher.merged, "mask": out.mask, "mask_tea": teacher.mask, "flow": out.flow[:, :2]}
        log |= {"flow_tea": teacher.flow, "loss_l1": loss_l1, "loss_tea": loss_tea}
        return out.image, log | {"loss_distill": teacher.distillation}
