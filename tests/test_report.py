"""Tests benchmark/report.py: one well-formed page that needs nothing from outside and holds every figure."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scored import Evaluate, Recording, pictures, write

from benchmark import clip, methods, report, testtime
from model import RIFE
from video.pictures.picture import read_picture

VOID = ("meta", "img", "input")
EVIL = 'net <b>&amp;</b> "1" $x$ </script><script>alert(1)</script>'
SPEED: dict[str, Any] = {
    "model": "4.25",
    "device": "cpu",
    "results": [
        {"width": 448, "height": 256, "median_ms": 126.4, "peak_memory_mib": 389.25},
        {"width": 640, "height": 480, "median_ms": 342.5, "peak_memory_mib": 618.0},
    ],
}


class Page(HTMLParser):
    """Parses the page and fails where an element is not closed in its place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []  # the innermost element, and its text
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def texts_in(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.fixture
def ucf101(tmp_path: Path, evaluate: Evaluate) -> Path:
    """Returns the results file of a test set, with pictures."""
    for i in range(2):
        names = "frame_00.png", "frame_01_gt.png", "frame_02.png"
        write({tmp_path / "data" / str(i) / name: p for name, p in zip(names, pictures(i), strict=True)})
    options = "--json", str(tmp_path / "ucf101.json"), "--save-frames", str(tmp_path / "frames")
    evaluate("UCF101", Recording(), tmp_path / "data", *options)
    return tmp_path / "ucf101.json"


@pytest.fixture
def video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the results file of clip.py: two scales, five frames scored."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(methods, "load_model", lambda *_, **__: RIFE(Recording(), name="fake"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write({tmp_path / "shot" / f"{i}.png": p for i, p in enumerate(pictures(3, 11))})
    options = ["--scene-threshold", "0", "--device", "cpu", "--scale", "1", "--scale", "0.5"]
    assert clip.main([str(tmp_path / "shot"), *options]) == 0
    return tmp_path / "benchmark_shot" / "results.json"


@pytest.fixture
def speed(tmp_path: Path) -> Path:
    """Returns a file with output of testtime.py."""
    path = tmp_path / "speed.txt"
    path.write_text(f"Loaded 4.25\n   size\n{json.dumps(SPEED)}\n")
    return path


Make = Callable[..., Page]


@pytest.fixture
def make(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Make:
    def call(*results: Path) -> Page:
        output = tmp_path / "report.html"
        status = report.main([*map(str, results), "--output", str(output), "--overwrite"])
        assert status == 0, capsys.readouterr().err
        html = output.read_text(encoding="utf-8")
        assert html.startswith('<!DOCTYPE html>\n<html lang="en">')
        return Page(html)

    return call


def figures(path: Path) -> list[float]:
    """Returns every finite value of a result's tables."""
    return [row["value"] for row in json.loads(path.read_text())["rows"] if row["value"] is not None]


def test_every_figure_is_in_a_table(ucf101: Path, video: Path, speed: Path, make: Make) -> None:
    page = make(ucf101, video, speed)
    shown = [float(data["value"]) for data in page.all("data")]
    measured = [line[key] for line in SPEED["results"] for key in line]
    assert sorted(shown) == sorted([*figures(ucf101), 35.282, 0.9688, *figures(video), *measured])
    assert len(figures(ucf101)) == 4 * 3
    assert page.texts_in("h2") == ["UCF101, protocol rife", "shot", "Speed of 4.25"]
    assert page.texts_in("th")[:8] == ["method", "PSNR dB", "SSIM", "s"] * 2
    names = ["fake", "first frame", "average", "DIS flow"]
    clip_names = ["fake, scale 1", "fake, scale 0.5", *names[1:]]
    assert page.texts_in("td") == ["published (RIFE)", *names, *clip_names]
    assert any("2 samples of 379: not the whole set" in text for text in page.texts_in("p"))


def test_figures_are_in_the_row_and_column_of_their_method_and_measure(tmp_path: Path, make: Make) -> None:
    """Two networks from two files share a table; the better value of each measure is strong, times never are."""
    setting = {"set": "UCF101", "protocol": "rife", "weights": "w", "scale": 1.0, "tta": False, "samples": 9, "of": 9}
    values = {"ours": (35.0, 0.12, 0.5), "official": (34.5, 0.08, 0.25), "average": (30.0, 0.3, 0.01)}
    paths = []
    for name in ("ours", "official"):
        rows = [
            {"group": "", "metric": metric, "method": method, "published": None, "value": value, "difference": None}
            for method in (name, "average")
            for metric, value in zip(("PSNR", "LPIPS", "seconds"), values[method], strict=True)
        ]
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps({**setting, "model": name, "rows": rows}))
    page = make(*paths)
    assert page.texts_in("td") == ["ours", "official", "average"]
    numbers = [float(data["value"]) for data in page.all("data")]
    assert numbers == [*values["ours"], *values["official"], *values["average"]]
    assert page.texts_in("strong") == ["35.000", "0.0800"]
    assert len(page.all("svg")) == 1  # quality against time
    assert [text for text in page.texts_in("text") if text in values] == ["ours", "official", "average"]


def test_camera_motion_is_a_table_and_a_plot(tmp_path: Path, make: Make) -> None:
    groups = ["shift 10", "shift 20"]
    rows = [{"group": g, "metric": m, "method": name, "published": None, "value": i + 0.5, "difference": None}
            for i, g in enumerate(groups) for m in ("PSNR", "SSIM") for name in ("net", "average")]  # fmt: skip
    motions = {"shift": {"unit": "px", "amounts": [10, 20], "groups": groups}}
    path = tmp_path / "pans.json"
    record = {"set": "camera motion", "pictures": ["a"], "metrics": ["PSNR", "SSIM"], "motions": motions, "rows": rows}
    path.write_text(json.dumps(record))
    page = make(path)
    assert page.texts_in("caption") == ["PSNR dB by shift (px)", "SSIM by shift (px)"]
    assert page.texts_in("th") == ["method", "10", "20"] * 2
    assert [float(data["value"]) for data in page.all("data")] == [0.5, 1.5] * 4
    assert len(page.all("svg")) == 1


def test_nothing_comes_from_outside(ucf101: Path, video: Path, speed: Path, make: Make, tmp_path: Path) -> None:
    page = make(ucf101, video, speed)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\((?!#)|@import|<link|xmlns|file:", html)
    references = [
        value for _, attributes in page.elements for key, value in attributes.items() if key in ("src", "href")
    ]
    assert references
    assert all(reference.startswith(("data:image/webp;base64,", "#")) for reference in references)
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {reference[1:] for reference in references if reference[0] == "#"} <= ids  # markers of the plots
    assert {"http-equiv": "Content-Security-Policy", "content": report.POLICY} in page.all("meta")
    assert len(page.all("svg")) == 4
    assert all(svg["aria-label"] for svg in page.all("svg"))


def test_pictures_of_the_worst_cases(ucf101: Path, make: Make) -> None:
    page = make(ucf101)
    worst = json.loads(ucf101.read_text())["worst"]
    images = [image for image in page.all("img") if "src" in image]
    assert [image["alt"] for image in images] == [title for case in worst for title in case["pictures"]]
    assert len(images) == 2 * 7
    for image, path in zip(images, (path for case in worst for path in case["pictures"].values()), strict=True):
        data = np.frombuffer(base64.b64decode(image["src"].partition(",")[2]), np.uint8)
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None
        difference = decoded[:, :, ::-1].astype(float) - read_picture(path)
        assert abs(difference.mean()) < 3  # WebP of noise: its mean colour stays
        assert decoded.shape == (32, 48, 3)
    # a slider for each case: from the prediction on the left to the truth on the right
    assert [(r["type"], r["min"], r["max"]) for r in page.all("input")] == [("range", "0", "100")] * 2
    assert all("0, timestep 0.5" in r["aria-label"] or "1, timestep 0.5" in r["aria-label"] for r in page.all("input"))
    options = page.texts_in("option")
    score = worst[0]["scores"]["fake"]["PSNR"]
    assert options[:4] == options[7:11] == ["first frame: {:.3f} dB".format(worst[0]["scores"]["first frame"]["PSNR"]),
                                            "last frame", "truth", f"fake: {score:.3f} dB"]  # fmt: skip
    chosen = [i for i, option in enumerate(page.all("option")) if "selected" in option]
    assert chosen[:2] == [3, 7 + 2]


def test_large_pictures_are_reduced(tmp_path: Path) -> None:
    write({tmp_path / "wide.png": np.zeros((100, 2 * report.WIDEST, 3), np.uint8)})
    data = report.picture(tmp_path / "wide.png", "").attrib["src"].partition(",")[2]
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (50, report.WIDEST, 3)


def test_text_is_escaped(ucf101: Path, speed: Path, make: Make, tmp_path: Path) -> None:
    evil = tmp_path / "evil.json"
    evil.write_text(ucf101.read_text().replace('"fake"', json.dumps(EVIL)).replace("seen by fake", "seen by <i>"))
    slow = tmp_path / "evil.txt"
    slow.write_text(speed.read_text().replace('"4.25"', json.dumps(EVIL)))
    page = make(evil, slow)
    tags = {tag for tag, _ in page.elements}
    assert not {"b", "i"} & tags
    assert len(page.all("script")) == 1
    assert EVIL in page.texts_in("td")
    assert f"Speed of {EVIL}" in page.texts_in("h2")
    assert any(EVIL in text for text in page.texts_in("option"))
    assert any("<b>" in text for text in page.texts_in("text"))  # of the plot


def test_baselines_alone_and_infinite_scores(tmp_path: Path, make: Make) -> None:
    row = {"group": "4K", "metric": "PSNR", "published": None, "difference": None}
    rows = [{**row, "method": "first frame", "value": None}, {**row, "method": "average", "value": 31.25}]
    setting = {"set": "Xiph", "protocol": "rife", "model": None, "weights": None, "scale": 1.0, "tta": False}
    path = tmp_path / "xiph.json"
    path.write_text(json.dumps({**setting, "samples": 8, "of": 8, "rows": rows}))
    page = make(path)
    assert page.texts_in("h2") == ["Xiph, protocol rife"]
    assert page.texts_in("caption") == ["4K"]
    assert page.texts_in("th") == ["method", "PSNR dB"]
    assert page.texts_in("td") == ["first frame", "inf", "average"]
    assert page.texts_in("data") == ["31.250"]


@pytest.mark.slow
def test_output_of_testtime_is_read(
    tiny_weights: Path, make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--compare", f"model={tiny_weights}", "--device", "cpu", "--size", "64x48", "--runs", "1"]
    assert testtime.main(options) == 0
    printed = capsys.readouterr().out
    (tmp_path / "speed.txt").write_text(printed)
    (line,) = json.loads(printed.splitlines()[-1])["results"]
    shown = [float(data["value"]) for data in make(tmp_path / "speed.txt").all("data")]
    assert line["median_ms"] in shown


def test_errors(ucf101: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(text: str) -> str:
        path = tmp_path / "bad.json"
        path.write_text(text)
        assert report.main([str(path), "--output", str(tmp_path / "bad.html")]) == 1
        assert not (tmp_path / "bad.html").exists()
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "bad.json: holds no result; the page shows results of test sets" in fails("hello")
    assert "bad.json: holds no result" in fails('{"a": 1}')
    assert "bad.json: another result, or an incomplete one (KeyError('metric'))" in fails('{"rows": [{}]}')
    worst: dict[str, Any] = json.loads(ucf101.read_text())
    worst["worst"][0]["pictures"]["truth"] = "gone.png"
    assert f"{tmp_path}/gone.png: cannot be read" in fails(json.dumps(worst))
    taken = tmp_path / "taken.html"
    taken.write_text("mine")
    assert report.main([str(ucf101), "--output", str(taken)]) == 1
    assert "taken.html: exists already; give --overwrite" in capsys.readouterr().err
    assert taken.read_text() == "mine"
    assert report.main(["nowhere.json"]) == 1
    assert "nowhere.json" in capsys.readouterr().err


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no chromium here to look at the page with")
@pytest.mark.slow
def test_the_slider_in_a_browser(ucf101: Path, make: Make, tmp_path: Path) -> None:
    """The loaded page shows the slider with two pictures; moving it changes the style, a choice changes a picture."""
    make(ucf101)
    moves = """<script>
      const range = document.querySelector("input");
      range.value = 20;
      range.dispatchEvent(new Event("input"));
      const left = document.querySelector("select.left");
      left.selectedIndex = 1;
      left.dispatchEvent(new Event("change"));
      const image = document.querySelector("img.left");
      const show = () => document.title = getComputedStyle(image).clipPath + " of " + image.naturalWidth;
      image.complete ? show() : image.onload = show;
    </script></body>"""
    page = tmp_path / "moved.html"
    page.write_text((tmp_path / "report.html").read_text().replace("</body>", moves))
    switches = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", "--virtual-time-budget=10000")  # fmt: skip
    command = [str(BROWSER), *switches, f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seen = Page(done.stdout.strip().removeprefix("<!DOCTYPE html>"))
    assert seen.texts_in("title") == ["inset(0px 80% 0px 0px) of 48"]
    assert [a.get("hidden") for a in seen.all("div") if a.get("class") == "slider"] == [None, None]
    sides = [image for image in seen.all("img") if image.get("class") in ("left", "right")]
    assert [image["alt"] for image in sides] == ["truth", "last frame", "truth", "fake"]
    assert all(image["src"].startswith("data:image/webp") for image in sides)
