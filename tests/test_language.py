"""Tests the texts of the program: docstrings begin with verbs, no module is a person, flags state their default."""

import argparse
import ast
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from syntax import syntax_of

ROOT = Path(__file__).parents[1]
FOLDERS = ("model", "video", "segments", "data", "commands", "benchmark", "demo")
CODE = sorted([*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))])
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "train_log" / "README.md"]
VERBS = re.findall(
    r"\w+",
    """Adds Appends Applies Assigns Attaches Averages Begins Blends Blocks Blurs Builds Calls Carries Checks Chooses
    Classifies Closes Collects Compares Compiles Completes Compresses Computes Continues Converts Convolves Copies
    Corrects Counts Crops Cuts Decides Decodes Defines Delays Deletes Derives Describes Detects Distinguishes Distorts
    Divides Doubles Downloads Draws Drops Empties Encodes Ends Estimates Expects Exports Filters Finds Finishes Flushes
    Folds Gives Handles Holds Ignores Interpolates Joins Keeps Leaves Limits Lists Loads Locks Makes Manages Maps Marks
    Measures Moves Names Notes Opens Packs Pads Parses Passes Plays Prepares Prints Provides Puts Raises Reads Records
    Redirects Refines Refuses Releases Removes Renders Replaces Reports Resizes Returns Runs Samples Saves Scores Sends
    Serves Sets Shows Starts Stores Sums Switches Takes Trains Tries Turns Updates Validates Waits Warps Writes
    Yields""",
)
PERSONS = re.compile(
    r"\b(?:goes|go|going|went) on\b|\b(?:says?|said|speaks?|hears?|knows?|wants?|thinks?|believes?|tells|told|"
    r"complain\w*)\b",
    re.IGNORECASE,
)
PROGRAMS = [
    *("inference_video.py", "inference_img.py", "train.py", "app.py", "demo/gif.py", "demo/render.py"),
    *(f"benchmark/{path.name}" for path in sorted((ROOT / "benchmark").glob("*.py")) if "__main__" in path.read_text()),
    *("model.download", "model.export", "model.versions"),
]

WITHOUT_DEFAULT = (
    *("video", "img", "stitch"),  # inputs, of which one is given
    *("skip", "world_size"),  # accepted without an effect
)


class _Parsed(Exception):
    """Ends a program as soon as its parser is complete."""


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the name and the docstring of a module and of its classes and functions that have one."""
    for node in ast.walk(syntax_of(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "module"), text


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_begin_with_a_verb(path: Path) -> None:
    wrong = [(name, text[:60]) for name, text in docstrings(path) if text.split()[0].rstrip(",:") not in VERBS]
    assert not wrong, "begin with a verb, and add a new one to VERBS"


@pytest.mark.parametrize("path", [*CODE, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_objects_are_no_persons(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert not [line.strip() for line in lines if PERSONS.search(line)]


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_flag_has_a_text_with_its_default(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[argparse.ArgumentParser] = []

    def keep(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        found.append(parser)
        raise _Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", keep)
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.chdir(ROOT)
    run = runpy.run_path if program.endswith(".py") else runpy.run_module
    with pytest.raises(_Parsed):
        run(program, run_name="__main__")
    (parser,) = found
    for action in parser._actions:
        if action.help in (argparse.SUPPRESS, "show this help message and exit"):
            continue
        assert action.help, action.dest
        if action.option_strings and not action.required and action.dest not in WITHOUT_DEFAULT:
            assert "default" in action.help, f"{action.option_strings[0]}: {action.help}"
