"""Makes elements of an HTML page that needs nothing from outside: tables, plots and pictures are inside the page."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np

from benchmark.plots import to_svg
from video.pictures.picture import read_picture, with_channels

WIDEST = 1280  # px of a picture in the page; larger ones are reduced, and the page names their size
QUALITY = 90  # of WebP: about 1 bit a pixel, without visible change
Cell = ET.Element | str


def tag(name: str, /, *children: Cell, **attributes: str) -> ET.Element:
    """Returns an element; `class_` and the like are for names that Python reserves. Text is escaped on writing."""
    element = ET.Element(name, {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()})
    for child in children:
        if not isinstance(child, str):
            element.append(child)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + child
        else:
            element.text = (element.text or "") + child
    return element


def table(heads: Sequence[str], lines: Sequence[Sequence[Cell]], caption: str = "") -> ET.Element:
    """Returns a table whose columns of text are aligned to the left and columns of numbers to the right."""
    texts = [all(isinstance(line[i], str) and line[i] not in ("inf", "") for line in lines) for i in range(len(heads))]
    kinds = ["text" if text else "number" for text in texts]
    head = tag("tr", *(tag("th", name, scope="col", class_=kind) for name, kind in zip(heads, kinds, strict=True)))
    body = (
        tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(line, kinds, strict=True))) for line in lines
    )
    title = [tag("caption", caption)] if caption else []
    return tag("div", tag("table", *title, tag("thead", head), tag("tbody", *body)), class_="wide")


def plot(figure: Any, description: str) -> ET.Element:
    """Returns a matplotlib figure as an SVG element, without the namespaces and notes that a file of its own has."""
    svg = ET.fromstring(to_svg(figure))
    for parent in svg.iter():
        parent.tag = parent.tag.rpartition("}")[2]
        parent.attrib = {key.rpartition("}")[2]: value for key, value in parent.attrib.items()}
        if parent.tag == "g":
            parent.attrib.pop("id", None)  # nothing refers to it, and every figure has the same
    for metadata in svg.findall("metadata"):
        svg.remove(metadata)
    svg.attrib = {"viewBox": svg.attrib["viewBox"], "role": "img", "aria-label": description}
    return tag("div", svg, class_="plot")


def picture(path: Path, alt: str) -> ET.Element:
    """Returns a picture as WebP inside the page, at most WIDEST px wide."""
    rgb = with_channels(read_picture(path), 3)[:, :, :3]
    if rgb.shape[1] > WIDEST:
        rgb = cv2.resize(rgb, (WIDEST, round(rgb.shape[0] * WIDEST / rgb.shape[1])), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".webp", np.ascontiguousarray(rgb[:, :, ::-1]), [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return tag("img", src=f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode()}", alt=alt)
