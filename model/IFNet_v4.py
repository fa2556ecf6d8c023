"""Defines every v4 network, 4.0 to 4.26, and 3.9: one class, and a configuration from the shapes of its weights.

No code here depends on a release's name: weights/published.py holds the configuration of each release.
"""

import torch
from torch import Tensor

from model.contract import BlockOutput, CoarseEstimate, NetworkModule, Prediction, TeacherEstimate, count_coarse
from model.errors import UserError
from model.networks.estimate import Estimate, FrameTensors, Pair, average
from model.networks.head import Head
from model.networks.layers import IFBlock, split_output, timestep_plane
from model.networks.refine import Contextnet, Unet
from model.networks.sharp import GATES
from model.training.loss import distillation_loss
from model.weights.published import IFNetConfig

AUTO_SCALE_FLOW = 32  # px; 4.0 and 4.1 start again at double scales if the largest flow to both images exceeds it


def _block(config: IFNetConfig, inputs: int, width: int) -> IFBlock:
    return IFBlock(
        inputs,
        width,
        act=config.act,
        residual=config.residual,
        skip=config.skip,
        groups=config.groups,
        outputs=config.outputs,
        shuffle=config.shuffle,
    )


def _is_large(flow: Tensor) -> bool:
    """Returns whether a flow (B,4,H,W) px exceeds AUTO_SCALE_FLOW somewhere to img0 and somewhere to img1."""
    return bool(flow[:, :2].abs().max() > AUTO_SCALE_FLOW and flow[:, 2:4].abs().max() > AUTO_SCALE_FLOW)


class IFNet_v4(NetworkModule):
    """Estimates flow and mask by blocks from coarse to fine; each takes both frames warped by the flow so far.

    Unlike in the paper's network, later blocks take only the warped images, and there is no refinement by default.
    """

    arbitrary_time = True

    def __init__(self, config: IFNetConfig, *, teacher: bool = False) -> None:
        super().__init__()
        self.config = config
        self.pad_multiple, self.pad_mode = config.pad_multiple, config.pad_mode
        self.options = frozenset(name for name in ("ensemble", "refine") if getattr(config, name))
        self.fixed_scales = self.has_coarse_stage = not config.auto_scale
        for i, (inputs, width) in enumerate(zip(config.inputs, config.channels, strict=True)):
            self.add_module(f"block{i}", _block(config, inputs, width))
        if teacher:  # for training only: its input is that of the last block and the ground truth
            self.block_tea = _block(config, config.inputs[-1] + 3, config.channels[-1])
        if config.encoder:
            self.encode = Head(config.encoder, config.encoder_width, config.encoder_channels)
        if config.refine:
            self.contextnet = Contextnet(config.act)
            self.unet = Unet(config.act)
        if config.sharp:  # marks a file of weights whose last block has gates for the sharp blend
            self.register_buffer("sharp", torch.ones(GATES))

    def frame_features(self, image: Tensor) -> Tensor | None:
        """Returns the features (B,E,H,W) of an image (B,3,H,W), for every pair of that frame; None if E is 0."""
        return self.encode(image) if self.config.encoder else None

    def forward(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor = 0.5,
        features0: Tensor | None = None,
        features1: Tensor | None = None,
        *,
        scale: float = 1.0,
        ensemble: bool = False,
        refine: bool = False,
        coarse: CoarseEstimate = (),
        gt: Tensor | None = None,
    ) -> Prediction:
        """Estimates the frame at the timestep; images (B,3,H,W) in 0..1, sizes multiples of pad_multiple.

        image = warp(img0, F(t->0)) * mask + warp(img1, F(t->1)) * (1 - mask). `ensemble` averages both directions,
        `refine` adds the residual of the Unet, `coarse` is the result of `estimate_coarse`. `gt`, the true frame
        (B,3,H,W), is for training: the prediction then has the outputs of every block and of the teacher.
        """
        if gt is not None:
            return self.forward_blocks(img0, img1, timestep, scale=scale, gt=gt)
        self._check_options(ensemble, refine)
        pair = self.make_pair(img0, img1, timestep, features0, features1, scale, ensemble=ensemble, keep_warped=refine)
        _, estimates = self._run_blocks(pair, coarse)
        return self._predict(pair, estimates[-1], refine=refine)

    def forward_blocks(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor = 0.5,
        *,
        scale: float = 1.0,
        ensemble: bool = False,
        refine: bool = False,
        gt: Tensor | None = None,
    ) -> Prediction:
        """Returns the prediction of `forward` with each block's flow, blend and mask.

        With `gt`, the true frame (B,3,H,W), also the teacher's estimate, if the network has a teacher.
        """
        self._check_options(ensemble, refine)
        pair = self.make_pair(img0, img1, timestep, None, None, scale, ensemble=ensemble, keep_warped=True)
        pair, estimates = self._run_blocks(pair, (), keep_all=True)
        made = self._predict(pair, estimates[-1], refine=refine)
        last = self._predict(pair, estimates[-1], refine=False).image if refine else made.image
        made = made._replace(
            flows=[estimate.flow for estimate in estimates],
            merged=[*(estimate.blend(pair) for estimate in estimates[:-1]), last],
            masks=[estimate.mask for estimate in estimates],
        )
        if gt is None or not hasattr(self, "block_tea"):
            return made
        return made._replace(teacher_estimate=self._teach(pair, estimates[-1], gt, made))

    @torch.no_grad()
    def estimate_coarse(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor = 0.5,
        features0: Tensor | None = None,
        features1: Tensor | None = None,
        *,
        scale: float = 1.0,
        **options: bool,  # as in `forward`
    ) -> CoarseEstimate:
        """Runs the coarse blocks alone; `forward` continues from the result, or from tiles cut out of it.

        Needs little memory: only flow and mask are kept at the frame's size. Returns () if the scales are not fixed.
        """
        ensemble = options.get("ensemble", False)
        self._check_options(ensemble, options.get("refine", False))
        pair = self.make_pair(img0, img1, timestep, features0, features1, scale, ensemble=ensemble, keep_warped=False)
        outputs: list[BlockOutput] = []
        estimate: Estimate | None = None
        for i in range(count_coarse(pair.scales) if self.fixed_scales else 0):
            outputs.append(self._block_output(i, pair, estimate))
            estimate = self._add(estimate, outputs[-1])
        return tuple(outputs)

    def _check_options(self, ensemble: bool, refine: bool) -> None:
        if ensemble and not self.config.ensemble:
            raise UserError("this network has no ensemble: only 3.9-4.20 and 4.24 do")
        if refine and not self.config.refine:
            raise UserError("these weights hold no refinement: contextnet.* and unet.* are missing")

    def make_pair(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: float | Tensor,
        features0: Tensor | None,
        features1: Tensor | None,
        scale: float,
        *,
        ensemble: bool,
        keep_warped: bool,
    ) -> Pair:
        """Returns the inputs that are the same for every block; features that are None are computed."""
        if self.config.encoder:
            features0 = self.encode(img0) if features0 is None else features0
            features1 = self.encode(img1) if features1 is None else features1
        frames = (
            FrameTensors(img0, img0[:, :0] if features0 is None else features0),
            FrameTensors(img1, img1[:, :0] if features1 is None else features1),
        )
        scales = tuple(s / scale for s in self.config.scales)
        return Pair(frames, timestep_plane(timestep, img0), scales, ensemble, keep_warped)

    def _run_blocks(self, pair: Pair, coarse: CoarseEstimate, *, keep_all: bool = False) -> tuple[Pair, list[Estimate]]:
        """Runs the blocks that follow the coarse estimate; returns the pair with the final scales, and estimates.

        The estimates are those after every block (`keep_all`, without a coarse estimate), or the last one alone.
        """
        estimate: Estimate | None = None
        for output in coarse:
            estimate = self._add(estimate, output)
        estimates = [estimate.with_warped(pair)] if estimate else []
        first = len(coarse)
        if self.config.auto_scale:
            pair, estimates = self._first_blocks(pair)
            first = 2
        for i in range(first, len(pair.scales)):
            estimate = self.run_block(i, pair, estimates[-1] if estimates else None)
            estimates = [*estimates, estimate] if keep_all else [estimate]
        return pair, estimates

    def _first_blocks(self, pair: Pair) -> tuple[Pair, list[Estimate]]:
        """Runs blocks 0 and 1 of 4.0 and 4.1, and once more at double scales if the flow that block 1 adds is large.

        Upstream runs block 0 of the second run in one direction only, also in an ensemble.
        """
        first = self.run_block(0, pair, None)
        output = self._one_direction(1, pair, first)
        if not _is_large(split_output(output)[0]):
            second = self._add(first, self._average_directions(1, pair, first, output)).with_warped(pair)
            return pair, [first, second]
        pair = pair._replace(scales=tuple(2 * scale for scale in pair.scales))
        first = self.run_block(0, pair._replace(ensemble=False), None)
        return pair, [first, self.run_block(1, pair, first)]

    def run_block(self, i: int, pair: Pair, estimate: Estimate | None) -> Estimate:
        """Returns the estimate after block i."""
        return self._add(estimate, self._block_output(i, pair, estimate)).with_warped(pair)

    def _block_output(self, i: int, pair: Pair, estimate: Estimate | None) -> BlockOutput:
        """Runs block i, in both directions for an ensemble."""
        return self._average_directions(i, pair, estimate, self._one_direction(i, pair, estimate))

    def _average_directions(self, i: int, pair: Pair, estimate: Estimate | None, output: BlockOutput) -> BlockOutput:
        """Returns the output of block i; for an ensemble its mean with the output for the exchanged frames."""
        if not pair.ensemble:
            return output
        swapped = pair.swapped()
        if estimate is None:
            return average(output, self._one_direction(i, swapped, None))
        return average(output, self._one_direction(i, swapped, estimate.swapped(), unwarped=pair))

    def _one_direction(
        self, i: int, pair: Pair, estimate: Estimate | None, *, unwarped: Pair | None = None
    ) -> BlockOutput:
        block: IFBlock = self.get_submodule(f"block{i}")  # type: ignore[assignment]
        inputs = self._inputs(pair, estimate, pair.scales[i], unwarped or pair)
        output: BlockOutput = block(inputs, estimate and estimate.flow, pair.scales[i])
        return output

    def _inputs(self, pair: Pair, estimate: Estimate | None, scale: float, unwarped: Pair) -> list[Tensor]:
        """Returns the inputs of a block besides the flow: 7+2E channels at first, then 8+2E and the carried features.

        Later blocks of 3.9 also take both images unwarped, those of `unwarped`: its published graph does not exchange
        them in an ensemble (found by recorded results of 3.9 at timestep 0.5, where t and 1 - t are equal).
        """
        (image0, features0), (image1, features1) = pair.frames
        if estimate is None:
            parts = [image0, image1, features0, features1, pair.timestep]
            return [part for part in parts if part.shape[1]]
        warped = estimate.warped_frames(pair, scale)
        if self.config.images_again:
            return [unwarped.frames[0].image, unwarped.frames[1].image, pair.timestep, *warped, estimate.mask]
        carried = [] if estimate.carried is None else [estimate.carried]
        return [*warped, pair.timestep, estimate.mask, *carried]

    def _add(self, estimate: Estimate | None, output: BlockOutput) -> Estimate:
        """Returns the estimate after a block's output, without warped images."""
        flow, mask, carried = split_output(output)
        if estimate is not None:
            flow = estimate.flow + flow
            mask = mask if self.config.replace_mask else estimate.mask + mask
        return Estimate(flow, mask, carried)

    def _predict(self, pair: Pair, estimate: Estimate, *, refine: bool) -> Prediction:
        image = estimate.sharp_blend(pair) if self.config.sharp else estimate.blend(pair)  # (B,3,H,W)
        if refine:
            image = (image + self._residual(pair, estimate)).clamp(0, 1)
        return Prediction(image, estimate.flow, torch.sigmoid(estimate.mask))

    def _residual(self, pair: Pair, estimate: Estimate) -> Tensor:
        img0, img1 = (frame.image for frame in pair.frames)
        context0 = self.contextnet(img0, estimate.flow[:, :2])
        context1 = self.contextnet(img1, estimate.flow[:, 2:4])
        assert estimate.warped is not None
        inputs = img0, img1, *estimate.warped, estimate.mask, estimate.flow, context0, context1
        return self.unet(*inputs) * 2 - 1  # (B,3,H,W)

    def _teach(self, pair: Pair, estimate: Estimate, gt: Tensor, made: Prediction) -> TeacherEstimate:
        """Returns the estimate of the teacher: one more block, which takes the ground truth (paper section 3.3)."""
        scale = pair.scales[-1]
        output = self.block_tea((*self._inputs(pair, estimate, scale, pair), gt), estimate.flow, scale)
        teacher = self._add(estimate, output)
        merged = teacher.blend(pair)
        distillation = distillation_loss(teacher.flow, merged, made.flows, made.merged, gt)
        return TeacherEstimate(teacher.flow, torch.sigmoid(teacher.mask), merged, distillation)
