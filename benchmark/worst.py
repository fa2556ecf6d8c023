"""Keeps the worst predictions of a network while a benchmark runs, and writes them with pictures that explain them."""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.table import LOWER_IS_BETTER, finite
from model import RIFE
from model.image import to_tensor
from video.pictures.flow import flow_picture
from video.pictures.picture import write_picture

WORST_KEPT = 3  # predictions kept
FIRST, LAST, TRUTH = "first frame", "last frame", "truth"  # pictures that every case has; "first frame" is a method too


@dataclass(frozen=True)
class Case:
    """Holds one prediction: its sample, the score of each method, and pictures (H,W,3) uint8 by their titles."""

    where: Mapping[str, Any]  # group, clip, sample, timestep
    scores: Mapping[str, Mapping[str, float]]  # by method and metric
    pictures: dict[str, np.ndarray]  # FIRST, LAST, TRUTH, then what each method made

    def badness(self, networks: list[str], metric: str) -> float:
        """Returns the networks' mean score with its sign changed where a higher score is better."""
        mean = sum(self.scores[name][metric] for name in networks) / len(networks)
        return mean if metric in LOWER_IS_BETTER else -mean

    def add_motion(self, model: RIFE, name: str, *, scale: float, bgr: bool = False) -> None:
        """Adds a picture of the motion from the first frame to the last, as the network estimated it.

        The colours are Middlebury's. A network that halves has an estimate at timestep 1/2 only: at other timesteps no
        picture is added.
        """
        timestep = self.where["timestep"]
        if not model.arbitrary_time and timestep != 0.5:
            return
        first, last = (to_tensor(self.pictures[title], model.device) for title in (FIRST, LAST))
        if bgr:
            first, last = first.flip(1), last.flip(1)
        flow = model.flow(first, last, timestep=timestep, scale=scale)[0]
        motion = (flow[2:] - flow[:2]).permute(1, 2, 0).cpu().numpy()  # F(t->1) - F(t->0), px
        largest = float(np.hypot(motion[..., 0], motion[..., 1]).max())
        self.pictures[f"motion seen by {name}, up to {largest:.1f} px"] = flow_picture(motion)


class WorstCases:
    """Collects the worst prediction of each of the WORST_KEPT worst places; a place is a sample or a second of a clip.

    Memory holds no more than their pictures.
    """

    def __init__(self, networks: list[str], metric: str) -> None:
        self.networks, self.metric = networks, metric
        self.places: dict[Hashable, tuple[float, Case]] = {}

    def add(self, place: Hashable, case: Case) -> None:
        """Keeps the case if it is among the worst so far."""
        badness = case.badness(self.networks, self.metric)
        if place not in self.places or self.places[place][0] < badness:
            self.places[place] = badness, case
        if len(self.places) > WORST_KEPT:
            del self.places[min(self.places, key=lambda kept: self.places[kept][0])]

    @property
    def cases(self) -> list[Case]:
        """Returns the cases, the worst one first."""
        return [case for _, case in sorted(self.places.values(), key=lambda kept: -kept[0])]


def write_case(folder: Path, number: int, case: Case) -> dict[str, Any]:
    """Writes the pictures to folder/NUMBER/ and returns the JSON record, with their paths relative to the folder."""
    (folder / str(number)).mkdir(parents=True, exist_ok=True)
    files = {title: f"{number}/{i}_{file_name(title)}.png" for i, title in enumerate(case.pictures)}
    for title, picture in case.pictures.items():
        write_picture(folder / files[title], picture)
    scores = {
        method: {metric: finite(value) for metric, value in values.items()} for method, values in case.scores.items()
    }
    return {**case.where, "scores": scores, "pictures": files}


def with_folder(records: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Returns the records of `write_case` with `folder` before the paths of their pictures."""
    return [{**r, "pictures": {title: str(folder / name) for title, name in r["pictures"].items()}} for r in records]


def file_name(title: str) -> str:
    """Returns the title with only characters that every system allows in a file's name."""
    return re.sub(r"[^\w.-]+", "_", title)
