"""Builds the network that is trained, by name or from a file of weights, with blocks that start from other blocks."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from model.contract import FLOW_AND_MASK, Prediction
from model.errors import UserError, WeightsError
from model.IFNet import IFNet
from model.IFNet_v4 import IFNet_v4
from model.loading import REFINEMENT, TRAINING_ONLY, detect_version, fill
from model.networks.sharp import GATES
from model.training.recipe import PAPER, PAPER_TIMED, V4, Recipe
from model.weights import State
from model.weights.published import PUBLISHED, IFNetConfig, read_config

Trainable = IFNet | IFNet_v4
NEW_CHANNELS = 0.1  # factor on the weights from a block's new channels to its inherited channels
TEACHER = "block_tea."  # prefix of the keys of the block that takes the ground truth


def build_trainable(arch: str, *, teacher: bool = False, sharp: bool = False) -> Trainable:
    """Returns a network with random weights by its name: rife, rife_m, or v4 and later releases such as v4.25.

    `teacher` adds the block that takes the ground truth (the paper's networks always have it). `sharp` adds the learned
    sampling of the last blend. UserError for an unknown name.
    """
    if arch in ("rife", "rife_m"):
        return IFNet(timed=arch == "rife_m")
    config = next((c for names, c in PUBLISHED.items() if _includes(names, arch.removeprefix("v"))), None)
    if config is None:
        raise UserError(f"unknown network {arch}; known are rife, rife_m, and v before one of {', '.join(PUBLISHED)}")
    return _v4(config, arch, teacher=teacher, sharp=sharp)


def _v4(config: IFNetConfig, name: str, *, teacher: bool, sharp: bool) -> IFNet_v4:
    if sharp and config.carried < GATES:
        raise UserError(f"the last block of {name} has no spare outputs for a sharp blend; v4.22 and later have them")
    if sharp:
        config = replace(config, sharp=True, pad_mode="replicate")
    return IFNet_v4(config, teacher=teacher)


def _includes(names: str, name: str) -> bool:
    """Returns whether a list of release names such as "4.13-4.15, 4.24" includes a name."""
    for part in names.split(", "):
        first, _, last = (v.removeprefix("4.") for v in part.partition("-"))
        minor = name.removeprefix("4.")
        if name == part or (last and minor.isdigit() and int(first) <= int(minor) <= int(last)):
            return True
    return False


def build_from(
    state: State, arch: str | None = None, *, teacher: bool = False, sharp: bool = False
) -> tuple[Trainable, str]:
    """Returns a network that starts from the weights of a file, and one sentence about weights that were not used.

    Without `arch` the network follows from the weights. Weights that only training uses, and that this network does not
    have, are left out. `sharp` is switched on if the file has the sharp blend. WeightsError if weights and network do
    not match.
    """
    sharp = sharp or "sharp" in state
    net = (
        build_trainable(arch, teacher=teacher, sharp=sharp)
        if arch
        else _build_like(state, teacher=teacher, sharp=sharp)
    )
    if isinstance(net, IFNet_v4) and sharp:
        state = add_gates(state, len(net.config.channels))
    fresh = net.state_dict()
    optional = (*TRAINING_ONLY, *REFINEMENT)
    unused = [k for k, v in state.items() if k.startswith(optional) and (k not in fresh or fresh[k].shape != v.shape)]
    kept = {key: value for key, value in state.items() if key not in unused}
    new_teacher = {k: v for k, v in fresh.items() if k.startswith(TEACHER) and k not in kept}
    fill(net, kept | new_teacher)
    prefixes = sorted({key.partition(".")[0] for key in unused})
    notes = [f"left out of the file: {', '.join(f'{name}.*' for name in prefixes)}"] if prefixes else []
    if new_teacher:
        notes.append(f"{TEACHER}* starts from random weights")
    return net, "; ".join(notes)


def _build_like(state: State, *, teacher: bool, sharp: bool) -> Trainable:
    name = detect_version(state).name
    if name in ("RIFE", "RIFE_m"):
        return IFNet(timed=name == "RIFE_m")
    if name.startswith("HD"):
        raise WeightsError(f"{name} networks cannot be trained here, they can only teach")
    return _v4(read_config(state), name, teacher=teacher, sharp=sharp)


def recipe_for(net: Trainable) -> Recipe:
    """Returns the default numbers for training a network."""
    if isinstance(net, IFNet):
        return PAPER_TIMED if net.timed else PAPER
    return V4


def crop_for(net: Trainable) -> int:
    """Returns the default side of training crops in px.

    v4 networks get 256: on 128 px their coarsest block has a map of 2x2, learns its border only, and fails on frames.
    """
    return 224 if isinstance(net, IFNet) else 256


def check_inheritance(net: nn.Module, source: int, target: int) -> IFNet_v4:
    """Returns the network if block `target` can take over the weights of block `source`; UserError if it cannot."""
    if not isinstance(net, IFNet_v4):
        raise UserError("blocks of the paper's networks cannot inherit, those of v4 networks can")
    count = len(net.config.channels)
    if not (0 < source < count and 0 <= target < count and net.config.channels[source] <= net.config.channels[target]):
        raise UserError(
            f"block {target} cannot inherit from block {source} of {count}: "
            "only from one that is not the first, to one that is as wide or wider"
        )
    return net


@torch.no_grad()
def inherit(net: nn.Module, source: int, target: int) -> None:
    """Copies the weights of the narrower block `source` into block `target`; its other channels are random.

    All blocks solve the same task at different scales, and coarse blocks learn it last: their small inputs are mostly
    aliasing, and while motion is small their flow stays 0. UserError if the widths of the blocks do not allow it.
    """
    net = check_inheritance(net, source, target)
    learnt = net.get_submodule(f"block{source}").state_dict()
    fresh = IFNet_v4(net.config).get_submodule(f"block{target}").state_dict()
    for key, new in fresh.items():
        old = learnt[key]
        if new.dim() == 4 and "beta" not in key:
            # dimensions of inputs and outputs; the first block has no mask, features and flow, which enter last
            inputs, outputs = (0, 1) if "lastconv" in key else (1, 0)
            known, rest = min(old.shape[inputs], new.shape[inputs]), new.shape[inputs]
            new.narrow(outputs, 0, old.shape[outputs]).narrow(inputs, known, rest - known).mul_(NEW_CHANNELS)
            old = old.narrow(inputs, 0, known)
        new[tuple(slice(size) for size in old.shape)] = old
    net.get_submodule(f"block{target}").load_state_dict(fresh)


def add_gates(state: State, blocks: int) -> State:
    """Returns weights with all gates of the sharp blend; new gates are neutral: cubic sampling, no smoothing."""
    known = len(state["sharp"]) if "sharp" in state else 0
    state = {**state, "sharp": torch.ones(GATES)}
    rows = slice(4 * (FLOW_AND_MASK + known), 4 * (FLOW_AND_MASK + GATES))  # of the tail before its pixel shuffle
    for key, index in (("weight", (slice(None), rows)), ("bias", (rows,))):
        name = f"block{blocks - 1}.lastconv.0.{key}"
        state[name] = state[name].clone()
        state[name][index] = 0
    return state


def select_blocks(net: nn.Module, blocks: Sequence[int]) -> None:
    """Makes only these blocks trainable; the whole network if `blocks` is empty. UserError for an unknown block."""
    chosen = tuple(f"block{i}." for i in blocks)
    for name in chosen:
        if not any(key.startswith(name) for key, _ in net.named_parameters()):
            raise UserError(f"this network has no {name[:-1]}")
    for key, parameter in net.named_parameters():
        parameter.requires_grad_(not chosen or key.startswith(chosen))


class CoarseBlocks(nn.Module):
    """Runs the first blocks of a v4 network alone, without full-size warps: they are trained by flow."""

    def __init__(self, net: IFNet_v4, count: int, coarsest: float = 0) -> None:
        """Runs `count` blocks; `coarsest` replaces the scale of the first block, the others change in proportion."""
        super().__init__()
        self.net, self.count = net, count
        self.scale = net.config.scales[0] / coarsest if coarsest else 1.0

    def forward(self, img0: Tensor, img1: Tensor, timestep: Tensor, *, gt: Tensor | None = None) -> Prediction:
        """Returns every block's flow and mask logits for images (B,3,H,W) in 0..1; `image` of the result is empty."""
        with torch.no_grad():
            pair = self.net.make_pair(img0, img1, timestep, None, None, self.scale, ensemble=False, keep_warped=False)
        state, flows, masks = None, [], []
        for i in range(self.count):
            state = self.net.run_block(i, pair, state)
            flows.append(state.flow)
            masks.append(state.mask)
        return Prediction(img0[:0], flows[-1], masks[-1].sigmoid(), flows, (), masks)
