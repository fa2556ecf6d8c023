"""The predictions that a network made worst, with all that tells why: kept while a benchmark runs, then written."""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.table import LOWER_IS_BETTER, finite
from model import RIFE
from model.image import to_tensor
from video.flow import flow_picture
from video.picture import write_picture

SHOWN = 3  # predictions kept
FIRST, LAST, TRUTH = "first frame", "last frame", "truth"  # pictures that every case has; "first frame" is a method too


@dataclass(frozen=True)
class Case:
    """One prediction: where it is from, how each method scored, and (H,W,3) uint8 pictures by what they show."""

    where: Mapping[str, Any]  # group, clip, sample, timestep
    scores: Mapping[str, Mapping[str, float]]  # by method and metric
    pictures: dict[str, np.ndarray]  # FIRST, LAST, TRUTH, then what each method made

    def badness(self, networks: list[str], metric: str) -> float:
        """The networks' mean score, so turned that more is worse."""
        mean = sum(self.scores[name][metric] for name in networks) / len(networks)
        return mean if metric in LOWER_IS_BETTER else -mean

    def add_motion(self, model: RIFE, name: str, *, scale: float, bgr: bool = False) -> None:
        """Adds a picture of the motion from the first frame to the last one that the network saw, in Middlebury's
        colours; none where it cannot tell: halving, away from the middle.
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


class Worst:
    """The worst prediction of each of the SHOWN worst places, a place being a sample or a second of a clip.

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
        if len(self.places) > SHOWN:
            del self.places[min(self.places, key=lambda kept: self.places[kept][0])]

    @property
    def cases(self) -> list[Case]:
        """The worst first."""
        return [case for _, case in sorted(self.places.values(), key=lambda kept: -kept[0])]


def write_case(folder: Path, number: int, case: Case) -> dict[str, Any]:
    """Writes the pictures to folder/NUMBER/ -> the case's JSON record, which names them as seen from the folder."""
    (folder / str(number)).mkdir(parents=True, exist_ok=True)
    files = {title: f"{number}/{i}_{file_name(title)}.png" for i, title in enumerate(case.pictures)}
    for title, picture in case.pictures.items():
        write_picture(folder / files[title], picture)
    scores = {
        method: {metric: finite(value) for metric, value in values.items()} for method, values in case.scores.items()
    }
    return {**case.where, "scores": scores, "pictures": files}


def located(records: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """The records of `write_case`, their pictures named as seen from where `folder` is."""
    return [{**r, "pictures": {title: str(folder / name) for title, name in r["pictures"].items()}} for r in records]


def file_name(title: str) -> str:
    """What is safe in a file's name on every system."""
    return re.sub(r"[^\w.-]+", "_", title)
