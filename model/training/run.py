"""Runs a training: its stages one after the other, the log, validation, checkpoints, and resuming."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from model.errors import UserError
from model.IFNet_v4 import IFNet_v4
from model.training.checkpoint import BEST, STATE, WEIGHTS, read_run_state, write_run
from model.training.log import Log, duration
from model.training.meter import LossMeter
from model.training.network import CoarseBlocks, inherit, select_blocks
from model.training.recipe import learning_rate
from model.training.stages import Stage, check_stage, stage_batches
from model.training.step import (
    NO_LOSS_NETWORKS,
    LossNetworks,
    open_optimizer,
    to_device,
    training_step,
    update_average,
)
from model.training.validation import flow_scores, picture_scores
from model.weights.checkpoint import DDP_PREFIX

SAVE_SECONDS = 600  # at most between two checkpoints; those between the steps of `save_every` have no validation


@dataclass(frozen=True)
class RunSettings:
    """Holds the settings of a run that are the same in all stages."""

    seed: int = 1234
    workers: int = 8
    log_every: int = 100  # steps
    save_every: int = 1000  # steps
    compile: bool = False


class Run:
    """Runs a training: holds the network, its optimizer, the progress so far, and the folder of its files."""

    def __init__(
        self,
        net: nn.Module,
        stages: Sequence[Stage],
        folder: Path,
        device: torch.device,
        settings: RunSettings,
        loss_networks: LossNetworks = NO_LOSS_NETWORKS,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepares the run; `stop()` is True if the run is to end after the present step."""
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.net, self.stages, self.folder, self.device = net.to(device), stages, folder, device
        self.settings, self.loss_networks, self.stop = settings, loss_networks, stop
        for stage in stages:
            check_stage(stage, net, self.world)
        self.log = Log(folder, active=self.rank == 0)
        self.steps_before = 0  # of the stages before this one
        self.saved = time.monotonic()  # time of the last checkpoint
        self.average: Any = self.net
        self._begin(0)

    def _begin(self, index: int, *, fresh: bool = True) -> None:
        """Prepares network, optimizer and averaged weights for a stage; `fresh` is False if the stage is resumed."""
        stage = self.stages[index]
        self.index, self.stage, self.step, self.seconds, self.best = index, stage, 0, 0.0, -math.inf
        self.shown: set[str] = set()  # losses in the table: those that were above 0 in this stage
        if self.average is not self.net:
            self.net.load_state_dict(self.average.state_dict())
        for source, target in stage.inherit if fresh else ():
            inherit(self.net, source, target)
        select_blocks(self.net, stage.blocks)
        self.average = copy.deepcopy(self.net) if stage.recipe.ema else self.net
        self.optimizer = open_optimizer(self.net, stage.recipe)
        self.scaler = torch.amp.GradScaler(self.device.type) if stage.recipe.amp == "fp16" else None

    @property
    def steps(self) -> int:
        """Returns the steps of all stages so far."""
        return self.steps_before + self.step

    def resume(self) -> None:
        """Continues from state.pt: weights, optimizer, stage and step, from which rate and data order follow."""
        path = self.folder / STATE
        state = read_run_state(path)
        progress = state["progress"]
        names = [stage.name for stage in self.stages]
        if progress["stages"] != names:
            raise UserError(f"{path}: of a run with the stages {progress['stages']}, not {names}")
        self._begin(progress["stage"], fresh=False)
        if progress["optimizer"] != self.stage.recipe.optimizer:
            raise UserError(f"{path}: of a run with the optimizer {progress['optimizer']}")
        try:
            if self.average is not self.net:
                self.average.load_state_dict(state["average"])
            self.net.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as e:
            raise UserError(f"{path}: of another network; resume with the settings that the run began with") from e
        self._print_changes(progress.get("facts", {}))
        if self.scaler and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.steps_before, self.seconds, self.best = (
            progress[key] for key in ("step", "before", "seconds", "best")
        )

    def _result_settings(self) -> dict[str, dict[str, Any]]:
        """Returns the settings on which the result depends, by stage."""
        return {"": {"seed": self.settings.seed}} | {stage.name: stage.plain_settings() for stage in self.stages}

    def _print_changes(self, before: dict[str, dict[str, Any]]) -> None:
        """Prints the settings that differ from those `before` the run was resumed."""
        for name, settings in self._result_settings().items():
            old = before.get(name, settings)
            changed = [f"{key} {old.get(key)} -> {value}" for key, value in settings.items() if old.get(key) != value]
            if changed:
                self.log.print_line(f"resumed with other settings: {f'[{name}] ' if name else ''}{', '.join(changed)}")

    def save(self, score: float) -> bool:
        """Writes the weights and the state; returns whether the score is the best of the stage."""
        better = score > self.best
        self.best, self.saved = max(score, self.best), time.monotonic()
        if self.rank:
            return better
        weights = {DDP_PREFIX + key: value for key, value in self.average.state_dict().items()}
        best: dict[Path, Any] = {BEST: weights} if better else {}
        write_run(self.folder, {**best, Path(WEIGHTS): weights, Path(STATE): self._state()})
        return better

    def _state(self) -> dict[str, Any]:
        """Returns what a run needs to continue."""
        progress = {
            "stages": [stage.name for stage in self.stages],
            "stage": self.index,
            "step": self.step,
            "before": self.steps_before,
            "seconds": self.seconds,
            "best": self.best,
            "optimizer": self.stage.recipe.optimizer,
            "facts": self._result_settings(),
        }
        return {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else {},
            "progress": progress,
        }

    def train(self) -> None:
        """Trains all stages from where the run is. A stop saves the state and raises KeyboardInterrupt.

        Raises UserError if a process that loads data is killed; torch then raises its error wherever the run is.
        """
        try:
            while True:
                self._train_stage()
                if self.index + 1 == len(self.stages):
                    return
                self.steps_before += self.step
                self._begin(self.index + 1)
        except RuntimeError as e:
            if "DataLoader worker" not in str(e):
                raise
            raise UserError(
                "a process that loads data was ended by the system, perhaps for lack of memory; use fewer such "
                f"processes, or smaller crops or batches; {self._last_checkpoint()}"
            ) from e

    def _train_stage(self) -> None:
        stage, recipe, settings = self.stage, self.stage.recipe, self.settings
        seed = settings.seed + 1000 * self.index
        batches = stage_batches(
            stage, seed, step=self.step, rank=self.rank, world=self.world, workers=settings.workers, device=self.device
        )
        net = parallel(self._trained(self.net), self.device, settings.compile)
        if len(self.stages) > 1:
            self.log.print_line(f"stage {self.index + 1} of {len(self.stages)}: {stage.name}")
        meter = LossMeter()
        began = time.monotonic() - self.seconds
        while not stage.finished(self.step, self.seconds):
            total = stage.total(self.step, self.seconds)
            rate = learning_rate(self.step, total, recipe, self.world)
            batch = to_device(next(batches), self.device)
            torch.manual_seed(hash((seed, self.step, self.rank)))  # so that a resumed run draws the same numbers
            try:
                losses = training_step(
                    net,
                    batch,
                    self.optimizer,
                    recipe,
                    rate=rate,
                    progress=self.step / max(total, 1),
                    scaler=self.scaler,
                    loss_networks=self.loss_networks,
                )
            except FloatingPointError as e:
                raise UserError(f"step {self.steps}: {e}; {self._last_checkpoint()}") from e
            self.step, self.seconds = self.step + 1, time.monotonic() - began
            if recipe.ema:
                update_average(self.average, self.net, recipe.ema, self.step)
            meter.add(losses, len(batch["gt"]) * self.world)
            if self.step % settings.log_every == 0:
                self._report(meter, rate, total)
            if self.step % settings.save_every == 0:
                self._checkpoint()
            elif self.stop():
                self._save_and_stop()
            elif time.monotonic() - self.saved > SAVE_SECONDS:
                self.save(-math.inf)
            if self.stop():
                raise KeyboardInterrupt
        if self.step % settings.save_every:
            self._checkpoint()

    def _save_and_stop(self) -> None:
        """Saves the state without a validation and raises KeyboardInterrupt."""
        if self.step:
            self.save(-math.inf)
            self.log.print_line(f"step {self.step}: stopped; saved")
        raise KeyboardInterrupt

    def _trained(self, net: nn.Module) -> nn.Module:
        """Returns the network, or its coarse blocks alone, as this stage runs it."""
        if not self.stage.flow_alone:
            return net
        assert isinstance(net, IFNet_v4)  # check_stage
        return CoarseBlocks(net, max(self.stage.blocks) + 1, self.stage.coarsest)

    def _last_checkpoint(self) -> str:
        kept = self.folder / STATE
        return f"the last good checkpoint is {kept}, resume there" if kept.is_file() else "no checkpoint exists yet"

    def _report(self, meter: LossMeter, rate: float, total: int) -> None:
        """Writes the mean losses since the last report to the log and the table."""
        means, speed = meter.means(self.world), meter.speed()
        values: dict[str, Any] = {"stage": self.stage.name, "seconds": round(self.seconds, 1)}
        values |= {"learning_rate": rate, "total_steps": total}
        self.log.write(self.steps, **values, **{f"loss/{name}": mean for name, mean in means.items()})
        left = self.seconds / self.step * (total - self.step)
        if self.stage.hours:
            left = self.stage.hours * 3600 - self.seconds
        cells = {"step": f"{self.step}/{total}", "left": duration(max(left, 0))}
        cells |= {"samples/s": f"{speed:.2f}", "rate": f"{rate:.1e}"}
        self.shown |= {name for name, mean in means.items() if mean}
        self.log.print_row(cells | {name: f"{mean:.4f}" for name, mean in means.items() if name in self.shown})

    def _checkpoint(self) -> None:
        """Validates, and writes weights and state."""
        scores = self.validate()
        score = scores["psnr"] if "psnr" in scores else -scores["flow_error"]
        better = self.save(score)
        self.log.write(self.steps, seconds=round(self.seconds, 1), **scores)
        words = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        self.log.print_line(f"step {self.step}: validation {words}{', the best so far' if better else ''}; saved")

    def _until_stop(self, indices: Iterable[int]) -> Iterator[int]:
        """Yields the indices of samples; a stop between two of them saves the state and raises KeyboardInterrupt."""
        for index in indices:
            if self.stop():
                self._save_and_stop()
            yield index

    def validate(self) -> dict[str, float]:
        """Returns the mean scores of the validation samples, which are divided among the processes."""
        self.average.eval()
        net = self._trained(self.average)
        indices = self._until_stop(range(self.rank, len(self.stage.validation), self.world))
        if isinstance(net, CoarseBlocks):
            scores = flow_scores(net, self.stage.validation, indices, self.device)
        else:
            lpips = self.loss_networks.lpips if self.stage.recipe.lpips else None
            scores = picture_scores(net, self.stage.validation, indices, self.device, lpips, self.log, self.steps)
        self.average.train()
        return scores


def parallel(net: nn.Module, device: torch.device, compiled: bool) -> nn.Module:
    """Returns the network with the same weights, compiled if `compiled`, and wrapped for several processes if any."""
    wrapped: Any = torch.compile(net) if compiled else net
    if dist.is_initialized() and dist.get_world_size() > 1:
        wrapped = nn.parallel.DistributedDataParallel(wrapped, device_ids=[device] if device.type == "cuda" else None)
    wrapped.train()
    return wrapped
