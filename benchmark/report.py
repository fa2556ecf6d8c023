"""Makes one HTML page of benchmark results: a summary chart, tables, plots, and the worst cases with a slider.

python3 benchmark/UCF101.py --json ucf101.json --save-frames frames
python3 benchmark/clip.py video.mp4
python3 benchmark/pans.py picture.png --json pans.json
python3 benchmark/testtime.py > speed.txt
python3 benchmark/report.py ucf101.json benchmark_video/results.json pans.json speed.txt --output report.html

A result is a file that --json of a test set, clip.py, gaps.py or pans.py wrote, or the output of one of these or of
testtime.py, whose last line is the same without single scores. Results of one benchmark for several networks share a
table: one row a network, one column a measure. Pictures are shown where the script wrote them: clip.py always does, a
test set with --save-frames. The page needs no network.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.baselines import BASELINES
from benchmark.html_elements import WIDEST, Cell, picture, plot, table, tag
from benchmark.plots import NARROW, bars, by_motion, by_sample, over_time, quality_against_time
from benchmark.report_tables import Result, quality_tables, setting, title
from benchmark.table import MEASURE_UNITS, SECONDS_KEY, SUBSET, format_score, ranking_measure
from benchmark.worst import FIRST, LAST, TRUTH
from commands.errors import run_command
from model import UserError
from video.pictures.picture import read_picture
from video.safe_file import write_file

SHOWN = "the page shows results of test sets, clip.py, gaps.py, pans.py (without --blocks) and testtime.py"
# The browser fetches nothing, even if some text were not escaped.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def read_result(path: Path) -> Result:
    """Returns the JSON object of a file, or of its last line; UserError if it holds no result of a benchmark."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not a text file; {SHOWN}") from e
    for candidate in (text, text.rpartition("\n")[2]):
        try:
            found = json.loads(candidate)
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict) and ("rows" in found or "results" in found):
            return found
    raise UserError(f"{path}: holds no result; {SHOWN}")


def case_article(case: Mapping[str, Any], folder: Path, metric: str) -> ET.Element:
    """Returns one of the worst predictions: a slider over two of its pictures, and all of them."""
    place = f"{case['time']:.2f} s" if "time" in case else f"timestep {case['timestep']:g}"
    where = f"One of the worst: {case['group']} {case['sample']}, {place}"
    captions = []
    for name in case["pictures"]:
        scored = case["scores"].get(name)
        score = f": {format_score(metric, scored[metric])} {MEASURE_UNITS.get(metric, metric)}" if scored else ""
        captions.append(name + score)
    made = [i for i, name in enumerate(case["pictures"]) if name in case["scores"] and name not in BASELINES]
    given = [list(case["pictures"]).index(name) for name in (TRUTH, FIRST, LAST)]
    chosen = {"left": made[0] if made else given[1], "right": given[0]}
    choose = (
        tag("label", f"{side}: ", tag("select", *(
            tag("option", caption, **({"selected": "selected"} if i == default else {}))
            for i, caption in enumerate(captions)), class_=side))
        for side, default in chosen.items()
    )  # fmt: skip
    handle = tag("input", type="range", min="0", max="100", value="50", step="1", aria_label=f"{where}: how much of "
                 "the left picture is shown, in percent")  # fmt: skip
    height, width = read_picture(folder / case["pictures"][TRUTH]).shape[:2]
    widest = f"max-width: min({2 * width}px, {width / height:.4f} * 85vh)"  # the whole of it on the screen
    sides = (tag("img", class_=side, alt="") for side in ("right", "left"))
    stage = tag("div", *sides, handle, class_="stage", style=widest)
    slider = tag("div", stage, tag("div", *choose, class_="choose"), class_="slider", hidden="hidden")
    strip = (
        tag("li", tag("figure", picture(folder / path, name), tag("figcaption", caption)))
        for (name, path), caption in zip(case["pictures"].items(), captions, strict=True)
    )
    return tag("article", tag("h3", where), slider, tag("ul", *strip, class_="strip"), class_="case")


def quality_section(result: Result, folder: Path) -> list[ET.Element]:
    """Returns the settings, plot and worst cases of one result."""
    metrics = list(dict.fromkeys(row["metric"] for row in result["rows"]))
    metric = ranking_measure(metrics)
    found: list[ET.Element] = [tag("p", text, class_="faint") for text in describe(result)]
    if "motions" in result:
        found.append(plot(by_motion(result, stacked=True), f"{title(result)}: {metric} against motion"))
    elif result.get("each"):
        if "clip" in result:
            figure = over_time(result["each"], metrics, result["left_out"], NARROW)
        else:
            figure = by_sample(result["each"], metric, NARROW)
        found.append(plot(figure, f"{title(result)}: {metric} of every prediction"))
    return found + [case_article(case, folder, metric) for case in result.get("worst", ())]


def describe(result: Result) -> list[str]:
    """Returns sentences about what was measured, and how."""
    if "clip" in result:
        size = "{}x{}, {:.6g} frames/s".format(*result["size"], result["rate"])
        reasons = [entry["why"] for entry in result["left_out"]]
        left = "".join(f"; left out: {reasons.count(why)} for a {why}" for why in dict.fromkeys(reasons))
        weights = ", ".join(dict.fromkeys(choice["weights"] for choice in result["choices"]))
        return [f"{size}: {result['samples']} frames made anew{left}.", f"Weights: {weights}."]
    if "motions" in result:
        return [f"Views by a moving camera; pictures: {len(result['pictures'])}."]
    if "clips" in result:
        return [f"{result['samples']} triplets of {', '.join(result['clips'])}."]
    subset = "" if result["samples"] == result["of"] else f" of {result['of']}: {SUBSET}"
    network = f"{result['model']} from {result['weights']}{setting(result)}, " if result["model"] else ""
    return [f"{network}{result['samples']} samples{subset}."]


def speed_section(result: Result) -> list[ET.Element]:
    """Returns the settings, table and bars of testtime.py: one row a measurement, one column a figure."""
    settings = [f"{key} {v}" for key, v in result.items() if isinstance(v, str | int | float) and key != "cpu_time"]
    settings += ["processor time"] if result.get("cpu_time") else []
    lines = result["results"]
    heads = [key for key, value in lines[0].items() if isinstance(value, str | int | float)]
    body: list[list[Cell]] = [
        [str(v) if isinstance(v := line.get(head, ""), str) else tag("data", f"{v:g}", value=repr(v)) for head in heads]
        for line in lines
    ]
    found = [tag("p", ", ".join(settings), class_="faint"), table([head.replace("_", " ") for head in heads], body)]
    if all("median_ms" in line for line in lines):
        names = [" ".join([f"{line['width']}x{line['height']}", *(v for v in line.values() if isinstance(v, str))])
                 for line in lines]  # fmt: skip
        figure = bars(names, [line["median_ms"] for line in lines], "median, ms a frame", NARROW)
        found.append(plot(figure, f"{title(result)}: milliseconds a frame"))
    return found


def overview(results: Sequence[Result]) -> list[ET.Element]:
    """Returns the chart of quality against time over all results that hold both; nothing where none does."""
    panels: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {}
    for result in results:
        metrics = [row["metric"] for row in result["rows"]]
        if SECONDS_KEY not in metrics:
            continue
        metric = ranking_measure(metrics)
        _, points = panels.setdefault(title(result), (metric, {}))
        for method in dict.fromkeys(row["method"] for row in result["rows"]):
            seconds, quality = (
                [row["value"] for row in result["rows"] if (row["method"], row["metric"]) == (method, measure)]
                for measure in (SECONDS_KEY, metric)
            )
            if quality and None not in quality:
                name = method if method in BASELINES else method + setting(result)
                points[name] = statistics.mean(seconds), statistics.mean(quality)
    panels = {name: panel for name, panel in panels.items() if panel[1]}
    return [plot(quality_against_time(panels, NARROW), "Quality against time of every method")] if panels else []


def page(results: Mapping[Path, Result]) -> str:
    """Returns the whole document. UserError naming the result that lacks something."""
    sections: dict[str, list[ET.Element]] = {}
    quality: dict[str, list[Result]] = {}
    path = None
    try:
        for path, result in results.items():
            own = quality_section(result, path.parent) if "rows" in result else speed_section(result)
            sections.setdefault(title(result), []).extend(own)
            if "rows" in result:
                quality.setdefault(title(result), []).append(result)
        body = [tag("h1", "Benchmark results"), *overview([result for own in quality.values() for result in own])]
        for name, parts in sections.items():
            tables = quality_tables(quality[name]) if name in quality else []
            body.append(tag("section", tag("h2", name), *tables, *parts))
    except (KeyError, TypeError, IndexError) as e:
        raise UserError(f"{path}: another result, or an incomplete one ({e!r}); {SHOWN}") from e
    note = "Published figures are RIFE's; figures of a part of a test set cannot be compared with them. "
    body.append(tag("p", f"{note}Pictures wider than {WIDEST} px are reduced.", class_="faint"))
    return document(body)


def document(body: Sequence[ET.Element]) -> str:
    """Returns the HTML text of a page with these elements, its style and its script inside."""
    here = Path(__file__)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", "Benchmark results"),
        tag("style", here.with_suffix(".css").read_text(encoding="utf-8")),
    )
    script = tag("script", here.with_suffix(".js").read_text(encoding="utf-8"))
    whole = tag("html", head, tag("body", tag("main", *body), script), lang="en")
    return "<!DOCTYPE html>\n" + ET.tostring(whole, encoding="unicode", method="html") + "\n"


def run(args: argparse.Namespace) -> None:
    """Writes the page and prints its name."""
    if args.output.exists() and not args.overwrite:
        raise UserError(f"{args.output}: exists already; give --overwrite to replace it, or another --output")
    html = page({path: read_result(path) for path in args.results})
    write_file(args.output, html.encode())
    print(f"Wrote {args.output}: {len(args.results)} results, {len(html) / 2**20:.1f} MiB")


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 after one line on stderr."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("results", type=Path, nargs="+", help="files that --json wrote, or with the output of a benchmark")
    p.add_argument("--output", type=Path, default=Path("report.html"), help="the page (default: %(default)s)")
    p.add_argument("--overwrite", action="store_true", help="replace the page if it exists (default: refuse)")
    args = p.parse_args(argv)
    return run_command("report.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
