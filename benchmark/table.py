"""Scores of many samples: their means, the table for people and the record for programs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

UNITS = {"PSNR": "dB", "Y-PSNR": "dB"}
SUBSET = "not the whole set, so not comparable with published figures"


class Scores:
    """Every value, one row a prediction: method, group, clip, sample, timestep, and a number for each metric."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(
        self, method: str, group: str, clip: str, sample: str, timestep: float, values: Mapping[str, float]
    ) -> None:
        """One prediction's scores; those that are not finite become None, since JSON has no infinity."""
        finite = {metric: value if math.isfinite(value) else None for metric, value in values.items()}
        where = {"group": group, "clip": clip, "sample": sample, "timestep": timestep}
        self.rows.append({"method": method, **where, **finite})

    @property
    def methods(self) -> list[str]:
        """In order of appearance."""
        return list(dict.fromkeys(row["method"] for row in self.rows))

    @property
    def groups(self) -> list[str]:
        """In order of appearance."""
        return list(dict.fromkeys(row["group"] for row in self.rows))

    @property
    def samples(self) -> int:
        """How many samples there were, each of one or more timesteps."""
        return len({(row["group"], row["clip"], row["sample"]) for row in self.rows})

    def mean(self, method: str, group: str, metric: str) -> float:
        """Over each clip, then over the clips: infinite where a prediction was exact and PSNR has no value."""
        clips: dict[str, list[float]] = {}
        for row in self.rows:
            if (row["method"], row["group"]) == (method, group):
                clips.setdefault(row["clip"], []).append(math.inf if row[metric] is None else row[metric])
        means = [sum(values) / len(values) for values in clips.values()]
        return sum(means) / len(means)

    def running(self, metrics: Sequence[str]) -> str:
        """The first method's means in the group that is being worked on."""
        group = self.rows[-1]["group"]
        return " ".join(f"{metric} {self.mean(self.methods[0], group, metric):.4g}" for metric in metrics)


def summary(
    scores: Scores, metrics: Sequence[str], published: Mapping[tuple[str, str], float], network: str | None
) -> dict[str, Any]:
    """Rows of the table; published figures are the network's to meet, so they stand beside it alone."""
    rows = []
    for group in scores.groups:
        for metric in metrics:
            for method in scores.methods:
                value = scores.mean(method, group, metric)
                known = published.get((group, metric)) if method == network else None
                rows.append({
                    "group": group,
                    "metric": metric,
                    "method": method,
                    "published": known,
                    "value": value if math.isfinite(value) else None,
                    "difference": value - known if known is not None and math.isfinite(value) else None,
                })  # fmt: skip
    return {"rows": rows}


def render(report: Mapping[str, Any]) -> str:
    """The report as lines of text."""
    part = "" if report["samples"] == report["of"] else f" of {report['of']}: {SUBSET}"
    scale = f"flow scale {report['scale']:g}" + (", turned frames averaged in" if report["tta"] else "")
    lines = [f"{report['set']}, protocol {report['protocol']}, {scale}: {report['samples']} samples{part}"]
    lines.append(f"{'metric':20} {'method':16} {'published':>10} {'here':>10} {'difference':>10}")
    for row in report["rows"]:
        digits = 4 if row["metric"].startswith("SSIM") else 3
        unit = UNITS.get(row["metric"], "")
        label = " ".join(filter(None, (row["group"], row["metric"], unit)))
        here = "inf" if row["value"] is None else f"{row['value']:.{digits}f}"
        known = "" if row["published"] is None else f"{row['published']:.{digits}f}"
        difference = "" if row["difference"] is None else f"{row['difference']:+.{digits}f}"
        lines.append(f"{label:20} {row['method']:16} {known:>10} {here:>10} {difference:>10}".rstrip())
    return "\n".join(lines)
