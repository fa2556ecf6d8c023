"""Draws benchmark results by matplotlib: an optional dependency, used without its global state."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmark.baselines import BASELINES
from benchmark.table import LOWER_IS_BETTER, MEASURE_UNITS, format_score, ranking_measure, with_unit
from benchmark.worst import Case
from model import UserError
from video.safe_file import write_file

FIGURE_WIDTH = 9.6  # inches, of 100 px
NARROW = 4.8  # inches: legible on a telephone 390 px wide
LABEL_SHARE = 0.4  # of a figure's width, for the labels of bars
LETTERS = 12.5  # characters of a legend in an inch
TILE = 4.8  # inches a picture is wide in a comparison
TITLE = 60  # characters that fit above it


def new_figure(height: float, width: float = FIGURE_WIDTH) -> Any:
    """Returns an empty matplotlib Figure, sizes in inches; UserError with the remedy where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure  # an optional dependency
    except ImportError as e:
        raise UserError("plots need matplotlib: python3 -m pip install matplotlib") from e
    return Figure(figsize=(width, height), layout="constrained")


def to_png(figure: Any) -> bytes:
    """Returns the figure as the bytes of a PNG file, 100 px an inch."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=100)
    return data.getvalue()


def check_plot(path: Path) -> None:
    """Raises UserError, before a measurement, where matplotlib is missing or cannot write a file of that name."""
    kinds = new_figure(1).canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise UserError(f"{path}: no plot format is called {path.suffix!r}; use .png, .svg or .pdf")


def save(figure: Any, path: Path) -> None:
    """Writes the figure in the format of the path's suffix; the file appears when it is complete."""
    data = io.BytesIO()
    figure.savefig(data, format=path.suffix[1:].lower())
    write_file(path, data.getvalue())


def to_svg(figure: Any) -> str:
    """Returns the figure as a transparent SVG that keeps texts as texts."""
    import matplotlib  # new_figure has raised an error if it is missing

    data = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(data, format="svg", transparent=True)
    return data.getvalue()


def over_time(
    rows: Sequence[Mapping[str, Any]],
    metrics: Sequence[str],
    left_out: Sequence[Mapping[str, Any]],
    width: float = FIGURE_WIDTH,
) -> Any:
    """Draws each measure of each method against the time of a clip; lines break where frames were left out."""
    figure = new_figure(2.6 * len(metrics), width)
    panels = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for panel, metric in zip(panels, metrics, strict=True):
        for i, (method, own) in enumerate(by_method(rows).items()):
            times: list[float] = []
            values: list[float] = []
            for before, row in zip([None, *own], own, strict=False):
                if before and row["frame"] - before["frame"] > 2:
                    times.append(row["time"])
                    values.append(math.nan)
                times.append(row["time"])
                values.append(math.nan if row[metric] is None else row[metric])
            panel.plot(times, values, label=method, marker=".", **style(method, i))
        for cut in (entry["time"] for entry in left_out if entry["why"] == "cut"):
            panel.axvline(cut, color="grey", linewidth=0.8, linestyle=":")
        panel.set_ylabel(with_unit(metric))
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel("time in s" + (", cuts dotted" if any(e["why"] == "cut" for e in left_out) else ""))
    add_legend(figure, panels[0])
    return figure


def by_sample(rows: Sequence[Mapping[str, Any]], metric: str, width: float = FIGURE_WIDTH) -> Any:
    """Draws the measure of each prediction by each method, sorted by the first method's values."""
    figure = new_figure(3.2, width)
    panel = figure.subplots()
    methods = by_method(rows)
    first = [row[metric] for row in next(iter(methods.values()))]
    order = sorted(range(len(first)), key=lambda i: math.inf if first[i] is None else first[i])
    for i, (method, own) in enumerate(methods.items()):
        values = [math.nan if own[k][metric] is None else own[k][metric] for k in order]
        panel.plot(range(1, len(values) + 1), values, label=method, marker=".", **style(method, i))
    panel.set_ylabel(with_unit(metric))
    panel.set_xlabel(fold(f"predictions, by the {metric} of {next(iter(methods))}", width))
    panel.grid(alpha=0.3)
    add_legend(figure, panel)
    return figure


def bars(labels: Sequence[str], values: Sequence[float], unit: str, width: float = FIGURE_WIDTH) -> Any:
    """Draws horizontal bars with their values at their ends."""
    labels = [plain(fold(label, LABEL_SHARE * width)) for label in labels]
    lines = sum(label.count("\n") + 1 for label in labels)
    figure = new_figure(0.8 + 0.15 * len(labels) + 0.2 * lines, width)
    panel = figure.subplots()
    drawn = panel.barh(range(len(labels)), values, color="C0")
    panel.bar_label(drawn, fmt="%.1f", padding=3)
    panel.set_yticks(range(len(labels)), labels)
    panel.invert_yaxis()
    panel.margins(x=0.12)
    panel.set_xlabel(unit)
    return figure


def by_motion(report: Mapping[str, Any], *, stacked: bool = False) -> Any:
    """Draws quality against the camera's motion from the record of pans.py.

    Each measure is a row of panels and each kind of motion a column; `stacked`: the decisive measure alone, with one
    panel below the other, for narrow pages.
    """
    kinds, metrics = report["motions"], report["metrics"]
    places = (
        [(kind, ranking_measure(metrics)) for kind in kinds] if stacked else [(k, m) for m in metrics for k in kinds]
    )
    columns = 1 if stacked else len(kinds)
    rows = len(places) // columns
    figure = new_figure(2.4 * rows + 0.6, NARROW if stacked else FIGURE_WIDTH)
    panels = figure.subplots(rows, columns, sharey="row", squeeze=False)
    values = {(row["method"], row["group"], row["metric"]): row["value"] for row in report["rows"]}
    methods = list(dict.fromkeys(method for method, _, _ in values))
    for (kind, metric), panel in zip(places, panels.ravel(), strict=True):
        motion = kinds[kind]
        for i, method in enumerate(methods):
            own = [values[method, group, metric] for group in motion["groups"]]
            heights = [math.nan if value is None else value for value in own]
            panel.plot(motion["amounts"], heights, label=method, marker=".", **style(method, i))
        panel.grid(alpha=0.3)
        panel.set_ylabel(with_unit(metric))
        panel.set_xlabel(f"{kind} ({motion['unit']})")
    add_legend(figure, panels[0, 0])
    return figure


def quality_against_time(panels: Mapping[str, tuple[str, Mapping[str, tuple[float, float]]]], width: float) -> Any:
    """Draws one panel for each benchmark: its measure and, by method, seconds a frame and quality; better is higher."""
    figure = new_figure(2.6 * len(panels) + 0.6, width)
    drawn = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    names = list(dict.fromkeys(name for _, points in panels.values() for name in points))
    names.sort(key=lambda name: name in BASELINES)  # networks first
    for panel, (title, (metric, points)) in zip(drawn, panels.items(), strict=True):
        for name, (seconds, value) in points.items():
            own = style(name, names.index(name))
            marker = {"color": own["color"], "marker": "o" if name not in BASELINES else "x"}
            panel.plot([seconds], [value], linestyle="none", **marker)
        panel.set_xscale("log")
        if metric in LOWER_IS_BETTER:
            panel.invert_yaxis()
        panel.set_title(plain(fold(title, width)), fontsize=10)
        panel.set_ylabel(with_unit(metric))
        panel.grid(alpha=0.3)
    drawn[-1].set_xlabel("seconds a frame; better is higher and further left")
    for name in names:  # every method once, whichever panels it is in
        own = style(name, names.index(name))
        drawn[0].plot(
            [], [], linestyle="none", color=own["color"], marker="x" if name in BASELINES else "o", label=name
        )
    add_legend(figure, drawn[0])
    return figure


def cost(records: Sequence[Mapping[str, Any]]) -> Any:
    """Draws milliseconds a frame and peak memory of each setting against the size of a frame, all axes logarithmic."""
    figure = new_figure(4.6)
    from matplotlib.ticker import LogLocator  # new_figure has raised an error if it is missing

    panels = figure.subplots(1, 2)
    sizes = {r["width"] * r["height"]: f"{r['width']}x{r['height']}" for r in records}
    for panel, key, label in zip(panels, ("median_ms", "peak_memory_mib"), ("ms a frame", "peak MiB"), strict=True):
        for setting in dict.fromkeys(r["setting"] for r in records):
            own = sorted((r["width"] * r["height"], r[key]) for r in records if r["setting"] == setting)
            panel.loglog(*zip(*own, strict=True), "o-", label=setting, markersize=4)
        shown_range = panel.get_ylim()
        largest = max(sizes)
        end = max(r[key] for r in records if r["width"] * r["height"] == largest)
        proportional = [end * pixels / largest for pixels in sizes]
        panel.loglog(list(sizes), proportional, ":", color="grey", label="in proportion to the pixels")
        panel.set_ylim(shown_range)
        panel.minorticks_off()
        panel.set_xticks(list(sizes), list(sizes.values()), rotation=45, ha="right")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
    add_legend(figure, panels[0])
    return figure


def side_by_side(case: Case, metric: str) -> Any:
    """Draws every picture of a case, with the score of those that a method made."""
    height, width = case.pictures["truth"].shape[:2]
    columns = 3
    rows = -(-len(case.pictures) // columns)
    figure = new_figure(rows * (TILE * height / width + 0.5), columns * TILE)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels:
        panel.axis("off")
    for panel, (title, picture) in zip(panels, case.pictures.items(), strict=False):
        scored = case.scores.get(title)
        score = f": {format_score(metric, scored[metric])} {MEASURE_UNITS.get(metric, '')}".rstrip() if scored else ""
        panel.imshow(picture)
        panel.set_title(plain(textwrap.fill(title + score, TITLE)), fontsize=10)
    return figure


def by_method(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Returns the rows of each method, methods in order of appearance."""
    order = list(dict.fromkeys(row["method"] for row in rows))
    ordered = sorted(rows, key=lambda row: order.index(row["method"]))
    return {method: list(own) for method, own in groupby(ordered, lambda row: row["method"])}


def style(method: str, index: int) -> dict[str, Any]:
    """Returns how a method is drawn: networks in colour; baselines thin, grey and each with its own dashes."""
    if method not in BASELINES:
        return {"color": f"C{index}", "linewidth": 1.5, "markersize": 4}
    dashes = (":", "--", "-.")[list(BASELINES).index(method)]
    return {"color": "grey", "linewidth": 1, "linestyle": dashes, "markersize": 2}


def add_legend(figure: Any, panel: Any) -> None:
    """Adds the panel's legend above all panels, in as many columns as its texts and the figure's width allow."""
    handles, labels = panel.get_legend_handles_labels()
    width = figure.get_figwidth()
    labels = [plain(fold(text, width, reserved=8)) for text in labels]
    longest = max(len(line) for text in labels for line in text.splitlines())
    columns = max(1, int(LETTERS * width) // (longest + 8))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def fold(text: str, width: float, reserved: int = 0) -> str:
    """Returns the text broken into lines that fit into a figure `width` inches wide, less `reserved` characters."""
    return textwrap.fill(text, int(LETTERS * width) - reserved)


def plain(text: str) -> str:
    """Returns the text so escaped that matplotlib does not read it as a formula."""
    return text.replace("$", r"\$")
