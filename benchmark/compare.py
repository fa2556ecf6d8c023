"""Compares settings for testtime.py: time, FLOPs, parameters, memory and frames a second of each."""

import argparse
import copy
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmark.baseline import Baseline, load_baseline
from benchmark.device import interleaved, peak_memory, synchronise
from benchmark.loop import measure_loop
from benchmark.memory import render
from benchmark.operators import operators
from model import RIFE, UserError, load_model
from model.frames import FLOW_SCALES
from model.IFNet_v4 import IFNet_v4
from model.inference.engines import ENGINES
from model.inference.memory import keep_freed_memory
from model.inference.tile_engine import tiled
from model.loading import TRAIN_LOG
from segments.pool import end_with_parent
from video.reading.reader import open_frames

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SMOOTH = 16  # px between the points of the noise that is shown
PAIR_MOTION = (5, 3)  # px, right and down
LIMIT_CHANNELS, LIMIT_SIDE = 128, 256  # of the convolution whose speed is the limit
Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Setting:
    """Holds a model and how it is run, written as "model=DIR,scale=0.5,fp16,stream"."""

    text: str
    model: Path = TRAIN_LOG
    arch: str | None = None
    scale: float = 1.0
    dtype: str = "fp32"
    tile: int = 0  # px, 0: whole frames
    tta: bool = False
    stream: bool = False  # each frame is prepared once, as in a video; otherwise both frames of each pair are
    engine: str | None = None  # model/inference/engines.py
    baseline: bool = False  # upstream's way of running a network

    def load(self, device: torch.device) -> RIFE:
        """Returns the model of this setting."""
        model = load_model(self.model, arch=self.arch, device=device, dtype=DTYPES[self.dtype], engine=self.engine)
        return tiled(model, self.tile) if self.tile else model

    def call(self, model: RIFE, img0: Tensor, img1: Tensor) -> Callable[[], Tensor]:
        """Returns the call that is measured: one frame between two, the images already on the device."""
        if self.baseline:
            plain: Baseline = load_baseline(model)
            return lambda: plain.inference(img0, img1, scale=self.scale)
        if not self.stream:
            return lambda: model.inference(img0, img1, scale=self.scale, tta=self.tta)
        before = model.prepare(img0, scale=self.scale)
        return lambda: model.inference(before, model.prepare(img1, scale=self.scale), scale=self.scale, tta=self.tta)


def parse_setting(text: str) -> Setting:
    """Returns the setting that a text describes, for argparse."""
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            if part in ("baseline", "stream", "tta"):
                found[part] = True
            elif part in ENGINES:
                found["engine"] = part
            elif part in DTYPES:
                found["dtype"] = part
            elif name in ("model", "arch") and value:
                found[name] = Path(value) if name == "model" else value
            elif name == "scale" and float(value) in FLOW_SCALES:
                found[name] = float(value)
            elif name == "tile":
                found[name] = int(value)
            else:
                raise ValueError
        except ValueError as e:
            raise argparse.ArgumentTypeError(
                f"{part!r} in {text!r} is none of model=DIR, arch=NAME, scale=0.5, tile=PX, {', '.join(DTYPES)}, "
                f"tta, stream, {', '.join(ENGINES)}, baseline"
            ) from e
    setting = Setting(text, **found)
    whole = replace(setting, text="", model=TRAIN_LOG, arch=None, scale=1.0, baseline=False)
    if setting.baseline and whole != Setting(""):
        raise argparse.ArgumentTypeError(f"{text!r}: baseline runs whole frames, pair by pair in fp32")
    return setting


def pair(size: Size, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Returns smooth noise and the same noise moved by PAIR_MOTION, (1,3,H,W) in 0..1.

    The flow is that of a video, so warps read memory as in a video; two unrelated pictures take a tenth longer.
    """
    generator = torch.Generator().manual_seed(0)
    (right, down), (width, height) = PAIR_MOTION, size
    noise = torch.rand(1, 3, -(-(height + down) // SMOOTH), -(-(width + right) // SMOOTH), generator=generator)
    whole = F.interpolate(noise, (height + down, width + right), mode="bilinear", align_corners=False).to(device)
    return whole[:, :, down:, right:].contiguous(), whole[:, :, :height, :width].contiguous()


def flops(setting: Setting, model: RIFE, size: Size) -> int:
    """Returns the floating-point operations of the convolutions of one call; a multiplication and an addition are two.

    They are counted on tensors without data. For an engine they are those of the network that it runs.
    """
    module: Any = model.net
    net = copy.deepcopy(module).to("meta")
    if isinstance(net, IFNet_v4):  # a second run of its first blocks depends on the flow, which has no values here
        net.config = replace(net.config, auto_scale=False)
    bare = RIFE(net, name=model.name)
    call = setting.call(tiled(bare, setting.tile) if setting.tile else bare, *pair(size, "meta"))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


def convolution_limit(device: torch.device, dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Returns GFLOP/s of a large 3x3 convolution in the better layout: the limit of a network of convolutions."""
    c, side = LIMIT_CHANNELS, LIMIT_SIDE
    x = torch.rand(1, c, side, side, device=device, dtype=dtype)
    weight = torch.rand(c, c, 3, 3, device=device, dtype=dtype)
    layouts = {
        str(layout): partial(F.conv2d, x.to(memory_format=layout), weight.to(memory_format=layout), stride=1, padding=1)
        for layout in (torch.contiguous_format, torch.channels_last)
    }
    with torch.no_grad():
        times = interleaved(layouts, device, 5, clock)
    return 2 * 9 * c * c * side * side / min(map(min, times.values())) / 1e6


def peak_of(setting: Setting, size: Size, device: str) -> float:
    """Returns the peak memory in MiB of loading and calling a model: of its tensors on CUDA, else of the process."""
    keep_freed_memory()  # as the commands do
    place = torch.device(device)
    before = 0
    if place.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(place)
        before = torch.cuda.memory_allocated(place)
    model = setting.load(place)
    call = setting.call(model, *pair(size, place))
    with torch.no_grad():
        for _ in range(3):  # memory kept from one call may not fit the next
            call()
    synchronise(place)
    return peak_memory(place) - before / 2**20


def fresh_peak(setting: Setting, size: Size, device: torch.device) -> float:
    """Returns `peak_of`, measured in a process of its own where it counts resident memory, which only rises."""
    if device.type == "cuda":
        return peak_of(setting, size, str(device))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent) as process:
        return process.submit(peak_of, setting, size, str(device)).result()


def loop_rate(model: RIFE, size: Size, frames: int, scale: float) -> float:
    """Returns frames a second that the whole video loop writes at twice the rate, decoding and encoding included."""
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        render(clip, 1, frames, size)
        return measure_loop(open_frames(clip), model, frames, scale)["frames_per_second"]


def compare(
    settings: Sequence[Setting],
    size: Size,
    device: torch.device,
    *,
    runs: int,
    seconds: float = math.inf,
    loop: int = 0,
    cpu_time: bool = False,
    profile: bool = False,
) -> list[dict[str, Any]]:
    """Returns one record a setting; "ratio" is the first setting's time over its own, so above 1 is faster.

    `loop`: frames of a clip that the whole loop also runs on; `profile`: also the time of every operator of a call.
    """
    clock = time.process_time if cpu_time else time.perf_counter
    if cpu_time and device.type != "cpu":
        raise UserError("--cpu-time measures the processor; leave it out on other devices")
    models = {setting.text: setting.load(device) for setting in settings}
    images = pair(size, device)
    with torch.no_grad():
        calls = {setting.text: setting.call(models[setting.text], *images) for setting in settings}
        times = interleaved(calls, device, runs, clock, seconds)
        parts = {text: operators(call, device) for text, call in calls.items()} if profile else {}
    limits = {dtype: convolution_limit(device, DTYPES[dtype], clock) for dtype in {s.dtype for s in settings}}
    first = times[settings[0].text]
    records = []
    for setting in settings:
        model, each = models[setting.text], times[setting.text]
        median = statistics.median(each)
        gflop = flops(setting, model, size) / 1e9
        records.append({
            "setting": setting.text,
            "model": model.name,
            "width": size[0],
            "height": size[1],
            "runs": len(each),
            "median_ms": median,
            "fastest_ms": min(each),
            "slowest_ms": max(each),
            "ratio": statistics.median(a / b for a, b in zip(first, each, strict=True)),
            "gflop": gflop,
            "parameters": sum(p.numel() for p in model.net.parameters()),
            "limit_gflop_s": limits[setting.dtype],
            "share_of_limit": gflop / median * 1000 / limits[setting.dtype],
            "peak_memory_mib": fresh_peak(setting, size, device),
            "loop_fps": loop_rate(model, size, loop, setting.scale) if loop > 1 and not setting.baseline else None,
            "operators": [part._asdict() for part in parts.get(setting.text, [])],
        })  # fmt: skip
    return records
