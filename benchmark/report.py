"""One HTML page of benchmark results: tables, plots, and the worst cases with a slider and the motion that was seen.

python3 benchmark/UCF101.py --json ucf101.json --save-frames frames
python3 benchmark/clip.py video.mp4
python3 benchmark/testtime.py > speed.txt
python3 benchmark/report.py ucf101.json benchmark_video/results.json speed.txt --output report.html

A result is what --json wrote or what a script printed, whose last line is the same without single scores. Pictures
are there where the script was asked for them: clip.py always writes them, a test set does so with --save-frames. The
page holds everything itself and asks nothing of any network.
"""

import argparse
import base64
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

# run as a script, this folder is on the path, not the repository's root
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from benchmark.baselines import BASELINES
from benchmark.plots import bars, by_sample, over_time, to_svg
from benchmark.table import SUBSET, UNITS, label, shown
from benchmark.worst import FIRST, LAST, TRUTH
from model import UserError
from video.picture import read_picture, with_channels
from video.safe_file import write_file

WIDEST = 1280  # px of a picture in the page; larger ones are reduced, which the page says
QUALITY = 90  # of WebP: about 1 bit a pixel, without visible change
# Should a name ever get past the escaping, the browser still fetches nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
Result = Mapping[str, Any]


def tag(name: str, /, *children: ET.Element | str, **attributes: str) -> ET.Element:
    """An element; `class_` and the like stand for names that Python reserves. Text is escaped when it is written."""
    element = ET.Element(name, {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()})
    for child in children:
        if not isinstance(child, str):
            element.append(child)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + child
        else:
            element.text = (element.text or "") + child
    return element


def read_result(path: Path) -> Result:
    """The JSON object of a file, or of its last line. UserError if it holds no result of a benchmark."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not a text file; give what --json wrote") from e
    for candidate in (text, text.rpartition("\n")[2]):
        try:
            found = json.loads(candidate)
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict) and ("rows" in found or "results" in found):
            return found
    raise UserError(f"{path}: not the result of a benchmark; give what --json wrote, or what a script printed")


def title(result: Result) -> str:
    """What was measured."""
    if "results" in result:
        return f"Speed of {result.get('model', 'a network')}"
    return result["clip"] if "clip" in result else f"{result['set']}, protocol {result['protocol']}"


def quality_table(results: Sequence[Result]) -> ET.Element:
    """A line for each network and metric: published, ours, their difference, the baselines."""
    heads = ("benchmark", "network", "metric", "published", "ours", "difference", *BASELINES)
    body = [line for result in results for line in quality_lines(result)]
    return table(heads, body)


def quality_lines(result: Result) -> list[list[ET.Element | str]]:
    """The lines of one result; where no network ran, the baselines stand alone."""
    rows = {(row["group"], row["metric"], row["method"]): row for row in result["rows"]}
    networks = list(dict.fromkeys(method for _, _, method in rows if method not in BASELINES)) or [""]
    lines: list[list[ET.Element | str]] = []
    for group, metric in dict.fromkeys(key[:2] for key in rows):
        for network in networks:
            ours: Mapping[str, Any] = rows.get((group, metric, network), {})
            sample = next(row for key, row in rows.items() if key[:2] == (group, metric))
            line = [title(result), network, label(sample)]
            others = [rows.get((group, metric, name), {}) for name in BASELINES]
            known = [("published", ours), ("value", ours), ("difference", ours), *(("value", row) for row in others)]
            lines.append([*line, *(number(metric, key, row) for key, row in known)])
    return lines


def number(metric: str, key: str, row: Mapping[str, Any]) -> ET.Element | str:
    """A figure as it is printed, with its exact value for programs; nothing where there is none."""
    value = row.get(key)
    if value is None:
        return "inf" if key == "value" and row else ""
    return tag("data", shown(metric, value, "+" if key == "difference" else ""), value=repr(value))


def table(heads: Sequence[str], lines: Sequence[Sequence[ET.Element | str]]) -> ET.Element:
    """A table whose columns of text stand left."""
    texts = [all(isinstance(line[i], str) and line[i] != "inf" for line in lines) for i in range(len(heads))]
    kinds = ["text" if text else "number" for text in texts]
    head = tag("tr", *(tag("th", name, scope="col", class_=kind) for name, kind in zip(heads, kinds, strict=True)))
    body = (
        tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(line, kinds, strict=True))) for line in lines
    )
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="wide")


def plot(figure: Any, what: str) -> ET.Element:
    """A matplotlib figure as an element of the page, without the namespaces and notes of a file of its own."""
    svg = ET.fromstring(to_svg(figure))
    for parent in svg.iter():
        parent.tag = parent.tag.rpartition("}")[2]
        parent.attrib = {key.rpartition("}")[2]: value for key, value in parent.attrib.items()}
        if parent.tag == "g":
            parent.attrib.pop("id", None)  # nothing refers to it, and every figure has the same
    for metadata in svg.findall("metadata"):
        svg.remove(metadata)
    svg.attrib = {"viewBox": svg.attrib["viewBox"], "role": "img", "aria-label": what}
    return tag("div", svg, class_="wide")


def picture(path: Path, alt: str) -> ET.Element:
    """A picture inside the page, as WebP, no wider than WIDEST."""
    rgb = with_channels(read_picture(path), 3)[:, :, :3]
    if rgb.shape[1] > WIDEST:
        rgb = cv2.resize(rgb, (WIDEST, round(rgb.shape[0] * WIDEST / rgb.shape[1])), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".webp", np.ascontiguousarray(rgb[:, :, ::-1]), [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return tag("img", src=f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode()}", alt=alt)


def case_article(case: Mapping[str, Any], folder: Path, metric: str) -> ET.Element:
    """One bad prediction: a slider over any two of its pictures, and all of them below; `folder` is the result's."""
    place = f"{case['time']:.2f} s" if "time" in case else f"timestep {case['timestep']:g}"
    where = f"One of the worst: {case['group']} {case['sample']}, {place}"
    captions = []
    for name in case["pictures"]:
        scored = case["scores"].get(name)
        score = f": {shown(metric, scored[metric])} {UNITS.get(metric, metric)}" if scored else ""
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
    """Settings, plot and worst cases of a test set or a clip."""
    parts = []
    metric = result["rows"][0]["metric"]
    if "clip" in result:
        size = "{}x{}, {:.6g} frames/s".format(*result["size"], result["rate"])
        reasons = [entry["why"] for entry in result["left_out"]]
        left = "".join(f"; left out: {reasons.count(why)} for a {why}" for why in dict.fromkeys(reasons))
        parts.append(f"{size}: {result['samples']} frames made anew{left}.")
        parts.append(f"Weights: {', '.join(dict.fromkeys(choice['weights'] for choice in result['choices']))}.")
    else:
        subset = "" if result["samples"] == result["of"] else f" of {result['of']}: {SUBSET}"
        tta = ", turned frames averaged in" if result["tta"] else ""
        network = f"{result['model']} from {result['weights']}, " if result["model"] else ""
        parts.append(f"{network}flow scale {result['scale']:g}{tta}; {result['samples']} samples{subset}.")
    found = [tag("p", text, class_="faint") for text in parts]
    if result.get("each"):
        if "clip" in result:
            metrics = tuple(dict.fromkeys(row["metric"] for row in result["rows"]))
            figure = over_time(result["each"], metrics, result["left_out"])
        else:
            figure = by_sample(result["each"], metric)
        found.append(plot(figure, f"{title(result)}: {metric} of every prediction"))
    return found + [case_article(case, folder, metric) for case in result.get("worst", ())]


def speed_section(result: Result) -> list[ET.Element]:
    """Settings, table and bars of testtime.py: every measurement is a line, each of its figures a column."""
    setting = (f"{key} {value}" for key, value in result.items() if isinstance(value, str | int | float))
    lines = result["results"]
    heads = [key for key, value in lines[0].items() if isinstance(value, str | int | float)]
    body = [[str(v) if isinstance(v := line.get(head, ""), str) else tag("data", f"{v:g}", value=repr(v))
             for head in heads] for line in lines]  # fmt: skip
    found = [tag("p", ", ".join(setting), class_="faint"), table([head.replace("_", " ") for head in heads], body)]
    if all("median_ms" in line for line in lines):
        names = [" ".join([f"{line['width']}x{line['height']}", *(v for v in line.values() if isinstance(v, str))])
                 for line in lines]  # fmt: skip
        figure = bars(names, [line["median_ms"] for line in lines], "median, ms a frame")
        found.append(plot(figure, f"{title(result)}: milliseconds a frame"))
    return found


def page(results: Mapping[Path, Result]) -> str:
    """The whole document. UserError naming the result that lacks something."""
    quality = [result for result in results.values() if "rows" in result]
    body = [tag("h1", "Benchmark results")]
    path = None
    try:
        for path, result in results.items():
            section = quality_section(result, path.parent) if "rows" in result else speed_section(result)
            body.append(tag("section", tag("h2", title(result)), *section))
        if quality:
            note = "Published figures are RIFE's; figures of a part of a test set cannot be compared with them. "
            note += f"Pictures wider than {WIDEST} px are reduced."
            body[1:1] = [quality_table(quality), tag("p", note, class_="faint")]
    except (KeyError, TypeError, IndexError) as e:
        raise UserError(f"{path}: not as benchmarks write it ({e!r}); run the benchmark again") from e
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
    document = tag("html", head, tag("body", tag("main", *body), script), lang="en")
    return "<!DOCTYPE html>\n" + ET.tostring(document, encoding="unicode", method="html") + "\n"


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 after one line on stderr."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("results", type=Path, nargs="+", help="what --json wrote, or what a benchmark printed")
    p.add_argument("--output", type=Path, default=Path("report.html"), help="the page (default: %(default)s)")
    p.add_argument("--overwrite", action="store_true", help="replace the page if it exists")
    args = p.parse_args(argv)
    try:
        if args.output.exists() and not args.overwrite:
            raise UserError(f"{args.output}: exists already; give --overwrite to replace it, or another --output")
        html = page({path: read_result(path) for path in args.results})
        write_file(args.output, html.encode())
    except (UserError, OSError) as e:
        print(f"report.py: {e}", file=sys.stderr)
        return 1
    print(f"Wrote {args.output}: {len(args.results)} results, {len(html) / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
