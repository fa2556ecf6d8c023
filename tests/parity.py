"""Runs this project's networks and operations on the parity fixtures: recorded upstream inputs and outputs.

`load(name, spec, weights)` gives a function of (case, inputs), or None for what is not supported. The tests use it,
and so can the fixtures' own check.py: python check.py --adapter tests/parity.py --strict
"""

import io
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmark.yuv import read_yuv420, to_rgb
from model.IFNet import IFNet
from model.IFNet_v4 import IFNet_v4
from model.image import Padder
from model.loading import AnyNetwork, build_network, detect_version
from model.metrics import ssim_map
from model.networks.warp import warp
from model.RIFE import RIFE
from model.training.loss import EPE, SOBEL, LapLoss, Ternary, gauss_kernel, laplacian_pyramid
from model.training.recipe import Recipe
from model.training.step import training_step

Outputs = dict[str, Any]
Run = Callable[[dict[str, Any], dict[str, np.ndarray]], Outputs | None]


def load(name: str, spec: dict[str, Any], weights: dict[str, dict[str, np.ndarray]]) -> Run | None:
    if spec["family"] == "ops":
        return run_op
    if spec["family"] == "train":
        return lambda case, inputs: run_training(spec, weights["flownet"], case, inputs)
    if spec["family"] not in ("paper", "v4", "hd"):
        return None
    state = {
        ("" if stem == "flownet" else f"{stem}.") + key: torch.from_numpy(value)
        for stem, table in weights.items()
        for key, value in table.items()
    }
    version = detect_version(state, name if name == "rife_2r" else None)
    net = build_network(version, state)
    return lambda case, inputs: run_network(net.eval(), case, inputs)


@torch.no_grad()
def run_network(net: AnyNetwork, case: dict[str, Any], inputs: dict[str, np.ndarray]) -> Outputs:
    images = [torch.from_numpy(inputs[key]) for key in ("img0", "img1")]
    padder = Padder(images[0].shape[2], images[0].shape[3], case["pad_modulus"])
    padded = [padder.pad(image) for image in images]
    if case.get("tta"):
        model = RIFE(net, name="parity")
        frame = model.inference(padded[0], padded[1], timestep=case["timestep"], scale=case["scale"], tta=True)
        return {"frame": padder.unpad(frame)}
    options: dict[str, Any] = {key: True for key in ("ensemble", "refine") if case.get(key)}
    if case.get("gt"):
        options["gt"] = padder.pad(torch.from_numpy(inputs["gt"]))
    run: Any = net.forward_blocks if isinstance(net, IFNet_v4) else net
    out = run(*padded, case["timestep"], scale=case["scale"], **options)
    named = {"frame": out.image, "flow": out.flow, "mask": out.mask}
    if not isinstance(net, IFNet | IFNet_v4) and out.flows:  # HD: at half size, not a step on the way
        half = out.flows[0][..., : images[0].shape[2] // 2, : images[0].shape[3] // 2]
        return {key: padder.unpad(value) for key, value in named.items()} | {
            "merged": padder.unpad(out.merged[0]),
            "flow_half": half[:, : net.flow_channels],
        }
    for i, flow in enumerate(out.flows):
        named |= {f"flow{i}": flow, f"flow_block{i}": flow}
    for i, merged in enumerate(out.merged):
        named[f"merged{i}"] = merged
    if out.teacher_estimate is not None:
        named |= {"flow_teacher": out.teacher_estimate.flow, "merged_teacher": out.teacher_estimate.merged}
    outputs = {key: padder.unpad(value) for key, value in named.items()}
    if out.teacher_estimate is not None:
        outputs["loss_distill"] = out.teacher_estimate.distillation
    return outputs


def run_training(
    spec: dict[str, Any], weights: dict[str, np.ndarray], case: dict[str, Any], inputs: dict[str, np.ndarray]
) -> Outputs:
    """Runs two optimiser steps on the recorded batch; returns gradients and changes of the first, by parameter.

    Warped by PyTorch, as recorded: one activation of `train_rife_m` (unet.up3, before its PReLU) is 3e-7 from zero, and
    on which side rounding leaves it makes a tenth of one sum of gradients. In float64 it is where PyTorch has it.
    """
    with patch("model.inference.kernels.available", return_value=False):
        return _two_steps(spec, weights, case, inputs)


def _two_steps(
    spec: dict[str, Any], weights: dict[str, np.ndarray], case: dict[str, Any], inputs: dict[str, np.ndarray]
) -> Outputs:
    state = {key: torch.from_numpy(value) for key, value in weights.items()}
    net = build_network(detect_version(state), {key: value.clone() for key, value in state.items()}).train()
    recipe = Recipe(weight_decay=case["weight_decay"])
    optimizer = torch.optim.AdamW(net.parameters(), lr=case["lr"], weight_decay=recipe.weight_decay)
    batch = {key: torch.from_numpy(inputs[key]) for key in ("img0", "img1", "gt")}
    batch["timestep"] = torch.full((len(batch["gt"]), 1, 1, 1), case["timestep"])
    first = training_step(net, batch, optimizer, recipe, rate=case["lr"])
    parameters = dict(net.named_parameters())
    keys = list(spec["state_dicts"]["flownet"])
    gradients = [parameters[key].grad for key in keys]
    outputs: Outputs = {
        "grad_norm": torch.stack([g.norm() for g in gradients if g is not None]),
        "grad_sum": torch.stack([g.sum() for g in gradients if g is not None]),
        "weight_change": torch.stack([(parameters[key].detach() - state[key]).norm() for key in keys]),
    }
    second = training_step(net, batch, optimizer, recipe, rate=case["lr"])
    for prefix, made in (("", first), ("second_", second)):
        outputs |= {
            f"{prefix}loss_{n}": v for n, v in (("l1", made.l1), ("tea", made.teacher), ("distill", made.distillation))
        }
    return outputs


def run_op(case: dict[str, Any], inputs: dict[str, np.ndarray]) -> Outputs | None:
    tensors: list[Tensor] = [torch.from_numpy(inputs[key]) for key in case["inputs"] if case["op"] != "yuv420_read"]
    match case["op"]:
        case "warp":
            return {"out": warp(tensors[0], tensors[1])}
        case "laplacian_pyramid":
            bands = laplacian_pyramid(tensors[0], gauss_kernel(tensors[0].shape[1]), case["levels"])
            return {f"level{i}": band for i, band in enumerate(bands)}
        case "gauss_kernel":
            return {"kernel": gauss_kernel(case["channels"])}
        case "lap_loss":
            return {"loss": LapLoss(case["levels"])(*tensors)}
        case "ssim_matlab":
            each = ssim_map(*tensors)
            return {"mean": each.mean(), "each": each.mean((1, 2))}
        case "ssim":
            return {"mean": ssim_map(*tensors, volume=False).mean()}
        case "ternary":
            return {"map": Ternary()(*tensors)}
        case "sobel":
            return {"map": SOBEL()(*tensors)}
        case "epe":
            return {"map": EPE()(*tensors)}
        case "yuv420_read":
            stream = io.BytesIO(inputs["bytes"].tobytes())
            first, second = read_yuv420(stream, case["width"], case["height"])  # a third read gives no frame
            return {"rgb0": to_rgb(first), "rgb1": to_rgb(second), "yuv1": second}
    return None
