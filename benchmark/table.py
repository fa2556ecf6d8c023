"""Scores of many samples: their means, the table for people and the record for programs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

UNITS = {"PSNR": "dB", "Y-PSNR": "dB"}
FINE = ("SSIM", "LPIPS")  # metrics that take a digit more
LOWER_IS_BETTER = ("IE", "LPIPS", "seconds")
SUBSET = "not the whole set, so not comparable with published figures"


class Scores:
    """Every value, one row a prediction: method, group, clip, sample, timestep, and a number for each metric."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.sums: dict[tuple[str, str, str], dict[str, tuple[float, int]]] = {}  # by method, group, metric, then clip

    def add(self, method: str, where: Mapping[str, Any], values: Mapping[str, float]) -> None:
        """One prediction's scores, and where it is from: group, clip, sample, timestep, and whatever tells more."""
        self.rows.append({"method": method, **where, **{metric: finite(value) for metric, value in values.items()}})
        for metric, value in values.items():
            clips = self.sums.setdefault((method, where["group"], metric), {})
            total, count = clips.get(where["clip"], (0.0, 0))
            clips[where["clip"]] = total + value, count + 1

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
        means = [total / count for total, count in self.sums[method, group, metric].values()]
        return sum(means) / len(means)

    def running(self, metrics: Sequence[str]) -> str:
        """The first method's means in the group that is being worked on."""
        method, group = self.rows[0]["method"], self.rows[-1]["group"]
        return " ".join(f"{metric} {self.mean(method, group, metric):.4g}" for metric in metrics)


def finite(value: float) -> float | None:
    """The value, or None where it is infinite, which JSON cannot say."""
    return value if math.isfinite(value) else None


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
                    "value": finite(value),
                    "difference": value - known if known is not None and math.isfinite(value) else None,
                })  # fmt: skip
    return {"rows": rows}


def render(report: Mapping[str, Any]) -> str:
    """The report as lines of text."""
    part = "" if report["samples"] == report["of"] else f" of {report['of']}: {SUBSET}"
    scale = f"flow scale {report['scale']:g}" + (", turned frames averaged in" if report["tta"] else "")
    lines = [f"{report['set']}, protocol {report['protocol']}, {scale}: {report['samples']} samples{part}"]
    width = max(len(row["method"]) for row in report["rows"])
    lines.append(f"{'metric':20} {'method':{width}} {'published':>10} {'here':>10} {'difference':>10}")
    for row in report["rows"]:
        here = shown(row["metric"], row["value"])
        known = "" if row["published"] is None else shown(row["metric"], row["published"])
        difference = "" if row["difference"] is None else shown(row["metric"], row["difference"], "+")
        lines.append(f"{label(row):20} {row['method']:{width}} {known:>10} {here:>10} {difference:>10}".rstrip())
    return "\n".join(lines)


def label(row: Mapping[str, Any]) -> str:
    """Group, metric and unit of a row of the table."""
    return " ".join(filter(None, (row["group"], row["metric"], UNITS.get(row["metric"], ""))))


def shown(metric: str, value: float | None, sign: str = "") -> str:
    """A score as the tables print it; None is an infinite one."""
    return "inf" if value is None else f"{value:{sign}.{4 if metric.startswith(FINE) else 3}f}"


def method_table(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[str]:
    """Returns lines of text with a row for each method and a column for each measure; `rows` are of one group."""
    values = {(row["method"], row["metric"]): row["value"] for row in rows}
    methods = list(dict.fromkeys(method for method, _ in values))
    width = max(map(len, methods))
    heads = {metric: f"{f'{metric} {UNITS.get(metric, str())}'.strip():>9}" for metric in metrics}
    lines = [" ".join([" " * width, *heads.values()])]
    for method in methods:
        cells = [f"{shown(metric, values[method, metric]):>{len(heads[metric])}}" for metric in metrics]
        lines.append(" ".join([f"{method:{width}}", *cells]))
    return lines
