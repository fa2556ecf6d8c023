"""Interpolates a VapourSynth clip: `rife(clip)` returns the clip at twice the frame rate.

    import sys
    sys.path.insert(0, "/path/to/this/repository")
    from vapoursynth_rife import rife

    clip = rife(clip.resize.Bicubic(format=vs.RGBS, matrix_in_s="709"))

Needs the package vapoursynth. docs/vapoursynth.md has whole scripts for vspipe and for mpv.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
import vapoursynth as vs

from model import RIFE, load_model, pick_device
from model.devices import half_precision
from model.frames import FLOW_SCALES, PreparedFrame
from model.image import to_tensor
from model.loading import TRAIN_LOG

SMALLEST_SIDE = 16  # px, of the networks
FINEST = 50_000  # numerator of a factor: numbers in a list that VapourSynth takes some seconds to copy
KEPT_FRAMES = 4  # prepared frames: a pair, and the pair of a frame that another thread computes
CUT_DIFFERENCE = "PlaneStatsDiff"  # property set by std.PlaneStats: mean difference of two frames, in 0..1
CUT_NEXT = "_SceneChangeNext"  # property of the last frame before a cut, set by filters that find cuts


def rife(
    clip: Any,
    model: Path | str = TRAIN_LOG,
    device: str | None = None,
    factor_num: int = 2,
    factor_den: int = 1,
    fps_num: int | None = None,
    fps_den: int | None = None,
    scale: float = 1.0,
    ensemble: bool = False,
    sc: bool = False,
    sc_threshold: float | None = 0.15,
    fp16: bool = False,
    engine: str | None = None,
) -> Any:
    """Returns `clip`, RGBS or RGBH, with factor_num / factor_den times the frames, of the same format.

    Output frame n is the picture at the source frame n * factor_den / factor_num, an exact fraction; source frames are
    kept unchanged, and the last one is held. `fps_num` / `fps_den` gives the frame rate of the output in place of the
    factor. The durations of frames are divided exactly, those of variable rate too. `model` is a folder or a file of
    weights, `device` cuda, cuda:1, mps or cpu (default: the best there is). `scale` is the size at which flow is
    estimated, `ensemble` runs each block in both directions. `sc` holds the frame before a cut: between two frames
    whose mean difference of grey, in 0..1, is above `sc_threshold`, or, if that is None, after frames with the
    property _SceneChangeNext. `fp16` computes convolutions in half precision; `engine` is one of engines.ENGINES.
    Raises vapoursynth.Error for clips and settings that are not possible.
    """
    _check_clip(clip)
    factor = _factor(clip, factor_num, factor_den, fps_num, fps_den)
    if scale not in FLOW_SCALES:
        raise vs.Error(f"rife: scale {scale} is not one of {', '.join(f'{s:g}' for s in FLOW_SCALES)}")
    try:
        place = pick_device(device)
        dtype = half_precision(place) if fp16 else torch.float32
        network = load_model(model, device=place, dtype=dtype, engine=engine)
    except ValueError as e:  # UserError, or an engine of another name
        raise vs.Error(f"rife: {e}") from e
    if ensemble and "ensemble" not in network.engine.options:
        raise vs.Error(f"rife: the network {network.name} has no option ensemble; leave ensemble out")
    maker = FrameMaker(network, factor, scale, {"ensemble": True} if ensemble else {}, sc, sc_threshold)
    return interpolate_clip(clip, maker)


def interpolate_clip(clip: Any, maker: "FrameMaker") -> Any:
    """Returns the clip whose frames `maker` makes from each two consecutive frames of `clip`."""
    following = clip[1:] + clip[-1] if len(clip) > 1 else clip
    if maker.finds_cuts:
        grey, next_grey = (c.resize.Bilinear(format=vs.GRAY8, matrix_s="709") for c in (clip, following))
        clip = clip.std.CopyFrameProps(grey.std.PlaneStats(next_grey), props=[CUT_DIFFERENCE])
    first, second = (_resampled(c, maker.factor) for c in (clip, following))
    rate = clip.fps * maker.factor
    target = first.std.AssumeFPS(fpsnum=rate.numerator, fpsden=rate.denominator) if rate else first
    return target.std.ModifyFrame(clips=[first, second], selector=partial(maker, last=len(clip) - 1))


@dataclass
class FrameMaker:
    """Makes the frames of the output, from any thread and in any order; prepares each source frame once."""

    network: RIFE
    factor: Fraction  # frames of the output for each one of the source, 1 or more
    scale: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)  # of RIFE.between
    sc: bool = False  # frames are held before a cut
    threshold: float | None = 0.15  # mean difference of grey in 0..1; above: a cut. None: cuts by frame property
    _prepared: OrderedDict[int, PreparedFrame] = field(default_factory=OrderedDict)  # by number in the source
    _lock: Lock = field(default_factory=Lock)

    @property
    def finds_cuts(self) -> bool:
        """Returns whether cuts are found here by the difference of frames."""
        return self.sc and self.threshold is not None

    def __call__(self, n: int, f: list[Any], *, last: int) -> Any:
        """Returns frame n of the output; `f` holds the source frames before and after it, `last` is the last number."""
        position = n / self.factor
        number = int(position)
        timestep = position - number
        out = f[0].copy()
        self._set_duration(out, timestep, *f)
        if CUT_DIFFERENCE in out.props and self.finds_cuts:
            del out.props[CUT_DIFFERENCE]
        if timestep and number < last and not self._is_cut(f[0]):
            made = self._interpolate(number, timestep, *f)
            for plane, values in enumerate(made):
                np.copyto(np.asarray(out[plane]), values, casting="same_kind")
        return out

    def _interpolate(self, number: int, timestep: Fraction, first: Any, second: Any) -> np.ndarray:
        """Returns the picture (3,H,W) float32 between source frames `number` and `number` + 1."""
        with self._lock:
            pair = self._prepare(number, first), self._prepare(number + 1, second)
            image = next(self.network.between(*pair, (timestep,), scale=self.scale, **self.options))
        return image[0].float().cpu().numpy()

    def _prepare(self, number: int, frame: Any) -> PreparedFrame:
        """Returns a source frame on the device with its features; keeps the KEPT_FRAMES newest."""
        if number not in self._prepared:
            picture = np.stack([np.asarray(frame[plane]) for plane in range(3)], axis=2)  # (H,W,3)
            image = to_tensor(picture, self.network.device)
            self._prepared[number] = self.network.prepare(image, scale=self.scale)
        self._prepared.move_to_end(number)
        while len(self._prepared) > KEPT_FRAMES:
            self._prepared.popitem(last=False)
        return self._prepared[number]

    def _is_cut(self, first: Any) -> bool:
        """Returns whether the frame after `first` belongs to another scene."""
        if not self.sc:
            return False
        if self.threshold is None:
            return bool(first.props.get(CUT_NEXT, 0))
        return float(first.props[CUT_DIFFERENCE]) > self.threshold

    def _set_duration(self, out: Any, timestep: Fraction, first: Any, second: Any) -> None:
        """Sets the duration to the time that a frame covers of both source frames, if they have durations."""
        durations = _duration(first), _duration(second)
        if durations[0] is None:
            return
        within = min(1 / self.factor, 1 - timestep)  # share of the first frame; the rest lies in the second
        duration = within * durations[0] + (1 / self.factor - within) * (durations[1] or durations[0])
        out.props["_DurationNum"], out.props["_DurationDen"] = duration.numerator, duration.denominator


def _check_clip(clip: Any) -> None:
    """Raises vapoursynth.Error unless the clip can be interpolated."""
    if not isinstance(clip, vs.VideoNode):
        raise vs.Error(f"rife: the first argument is a video clip, got {type(clip).__name__}")
    if clip.format is None or clip.format.id not in (vs.RGBS, vs.RGBH):
        name = "of variable format" if clip.format is None else clip.format.name
        convert = 'clip.resize.Bicubic(format=vs.RGBS, matrix_in_s="709")'
        if clip.format is not None and clip.format.color_family == vs.RGB:
            convert = "clip.resize.Bicubic(format=vs.RGBS)"
        raise vs.Error(f"rife: the clip is {name}, RGBS or RGBH is needed; convert it by {convert}")
    if not clip.width:
        raise vs.Error("rife: the clip is of variable size; give one size to all frames, by clip.resize.Bicubic(w, h)")
    if min(clip.width, clip.height) < SMALLEST_SIDE:
        raise vs.Error(f"rife: the clip is {clip.width}x{clip.height}, each side has to be {SMALLEST_SIDE} or more")


def _factor(clip: Any, num: int, den: int, fps_num: int | None, fps_den: int | None) -> Fraction:
    """Returns the frames of the output for each one of the clip. Raises vapoursynth.Error if it is not 1 or more."""
    given = [n for n in (num, den, fps_num, fps_den) if n is not None]
    if not all(isinstance(n, int) and n >= 1 for n in given):
        raise vs.Error("rife: factor_num, factor_den, fps_num and fps_den are whole numbers from 1")
    factor = Fraction(num, den)
    if fps_num is not None or fps_den is not None:
        if fps_num is None or not clip.fps:
            cause = "fps_den without fps_num" if fps_num is None else "fps_num for a clip of variable rate"
            raise vs.Error(f"rife: {cause}; give factor_num and factor_den instead")
        factor = Fraction(fps_num, fps_den or 1) / clip.fps
    if factor.numerator > FINEST:
        raise vs.Error(f"rife: the factor {factor} is too fine; give another rate, or factor_num up to {FINEST}")
    if factor < 1:
        raise vs.Error(f"rife: {factor} times the frames are fewer than the clip has; give a factor of 1 or more")
    return factor


def _resampled(clip: Any, factor: Fraction) -> Any:
    """Returns the clip whose frame n is frame floor(n / factor) of `clip`, with the properties of that frame."""
    num, den = factor.as_integer_ratio()
    if den == 1:  # SelectEvery has cycles of two or more frames
        num, den = 2 * num, 2
    return clip.std.SelectEvery(cycle=den, offsets=[n * den // num for n in range(num)], modify_duration=False)


def _duration(frame: Any) -> Fraction | None:
    """Returns the duration of a frame in seconds, None if it has none."""
    num, den = frame.props.get("_DurationNum"), frame.props.get("_DurationDen")
    return Fraction(num, den) if num is not None and den else None
