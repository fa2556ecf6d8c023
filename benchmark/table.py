"""Collects the scores of many samples: their means, the tables for people and the record for programs."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MEASURE_UNITS = {"PSNR": "dB", "Y-PSNR": "dB"}
FINE = ("SSIM", "LPIPS")  # metrics that are shown with one more digit
SECONDS_KEY = "seconds"  # a frame, of the method alone
LOWER_IS_BETTER = ("IE", "LPIPS", SECONDS_KEY)
PUBLISHED_ROW = "published (RIFE)"  # in the place of a method's name
SUBSET = "not the whole set, so not comparable with published figures"


class Scores:
    """Collects the scores of all predictions: method, group, clip, sample, timestep and measures."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.sums: dict[tuple[str, str, str], dict[str, tuple[float, int]]] = {}  # by method, group, metric, then clip

    def add(self, method: str, where: Mapping[str, Any], values: Mapping[str, float]) -> None:
        """Adds the scores of one prediction; `where` holds its group, clip, sample, timestep and more."""
        self.rows.append({"method": method, **where, **{metric: finite(value) for metric, value in values.items()}})
        for metric, value in values.items():
            clips = self.sums.setdefault((method, where["group"], metric), {})
            total, count = clips.get(where["clip"], (0.0, 0))
            clips[where["clip"]] = total + value, count + 1

    @property
    def methods(self) -> list[str]:
        """Returns the methods in order of appearance."""
        return list(dict.fromkeys(row["method"] for row in self.rows))

    @property
    def groups(self) -> list[str]:
        """Returns the groups in order of appearance."""
        return list(dict.fromkeys(row["group"] for row in self.rows))

    @property
    def samples(self) -> int:
        """Returns the number of samples; a sample has one or more timesteps."""
        return len({(row["group"], row["clip"], row["sample"]) for row in self.rows})

    def mean(self, method: str, group: str, metric: str) -> float:
        """Returns the mean over the clips of each clip's mean; infinite where the PSNR of a prediction is.

        For seconds it returns the median over all predictions: the first calls of a network take longer, and so does a
        call that the system interrupts.
        """
        if metric == SECONDS_KEY:
            rows = (row for row in self.rows if row["method"] == method and row["group"] == group)
            return statistics.median(row[SECONDS_KEY] for row in rows)
        means = [total / count for total, count in self.sums[method, group, metric].values()]
        return sum(means) / len(means)

    def running(self, metrics: Sequence[str]) -> str:
        """Returns the first method's means in the group of the latest prediction, as text."""
        method, group = self.rows[0]["method"], self.rows[-1]["group"]
        return " ".join(f"{metric} {self.mean(method, group, metric):.4g}" for metric in metrics)


def finite(value: float) -> float | None:
    """Returns the value, or None where it is infinite, for which JSON has no number."""
    return value if math.isfinite(value) else None


def summary(
    scores: Scores, metrics: Sequence[str], published: Mapping[tuple[str, str], float], network: str | None
) -> dict[str, Any]:
    """Returns the rows of the table; a published figure belongs to the network, so baselines have none."""
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


def ranking_measure(metrics: Iterable[str]) -> str:
    """Returns the measure that ranks methods: LPIPS, which agrees with viewers more often, else the first one."""
    metrics = list(metrics)
    return "LPIPS" if "LPIPS" in metrics else metrics[0]


def render(report: Mapping[str, Any]) -> str:
    """Returns the report as lines of text."""
    part = "" if report["samples"] == report["of"] else f" of {report['of']}: {SUBSET}"
    scale = f"flow scale {report['scale']:g}" + (", turned frames averaged in" if report["tta"] else "")
    lines = [f"{report['set']}, protocol {report['protocol']}, {scale}: {report['samples']} samples{part}"]
    for group in dict.fromkeys(row["group"] for row in report["rows"]):
        lines += [group] if group else []
        lines += method_table([row for row in report["rows"] if row["group"] == group])
    return "\n".join(lines)


def format_score(metric: str, value: float | None) -> str:
    """Returns a score as tables show it; None is an infinite one."""
    return "inf" if value is None else f"{value:.{4 if metric.startswith(FINE) else 3}f}"


def with_unit(metric: str) -> str:
    """Returns the name of a measure with its unit, for the head of a column or an axis."""
    return f"{metric} {MEASURE_UNITS.get(metric, '')}".strip()


def method_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns lines of text: a row for the published figures, if any, and for each method; a column for each measure.

    `rows` are of one group.
    """
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["published"] is not None:
            lines.setdefault(PUBLISHED_ROW, {})[row["metric"]] = format_score(row["metric"], row["published"])
    for row in rows:
        lines.setdefault(row["method"], {})[row["metric"]] = format_score(row["metric"], row["value"])
    width = max(map(len, lines))
    heads = {metric: f"{with_unit(metric):>9}" for metric in dict.fromkeys(row["metric"] for row in rows)}
    table = [" ".join([" " * width, *heads.values()])]
    for name, cells in lines.items():
        shown = (f"{cells.get(metric, ''):>{len(head)}}" for metric, head in heads.items())
        table.append(" ".join([f"{name:{width}}", *shown]).rstrip())
    return table
