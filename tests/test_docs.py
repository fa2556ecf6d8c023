"""Tests that documentation and program agree: links, files and commands of README.md and docs/ exist."""

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import inference_img
import inference_video

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "train_log" / "README.md"]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
PROGRAM = re.compile(r"(?P<name>(?:\w+/)*\w+\.py\b|-m model\.\w+)(?P<arguments>.*)")
NAMED_FILE = re.compile(
    r"`((?:model|video|segments|data|commands|benchmark|demo|tests|docs)/[\w/.]+\.(?:py|cpp|ini|md))`"
)
CODE_SUFFIXES = (".py", ".cpp", ".h", ".css", ".js", ".ini")
CODE_FOLDERS = ("model", "video", "segments", "data", "commands", "benchmark")
IN_DOCKER = {"inference_video": "inference_video.py", "inference_img": "inference_img.py"}
LONGEST = 200  # lines of README.md


class _Parsed(Exception):
    """Ends a command as soon as its arguments are parsed."""


def anchors(page: Path) -> set[str]:
    """Returns the names to which links can point: the headings, as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def blocks(text: str) -> list[str]:
    """Returns the contents of the fenced code blocks."""
    return re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields (program, arguments) of every command in code: a script's path, or -m and a module's name."""
    text = page.read_text(encoding="utf-8")
    fenced = blocks(text)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    lines = [line for block in fenced for line in block.splitlines()] + [" ".join(code.split()) for code in inline]
    for line in lines:
        line = line.split(" #")[0].split(" > ")[0]
        line = re.sub(r"^docker run .* rife:latest (\w+)", lambda m: f"python3 {IN_DOCKER[m[1]]}", line)
        found = PROGRAM.search(line)
        if found and re.search(r"python3? $|torchrun .*$|launch .*$", line[: found.start()]):
            yield found["name"], shlex.split(re.split(r" (?:&&|[|]|<)(?: |$)", found["arguments"])[0])


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_relative_links_point_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_are_parsed_by_the_programs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_known_args

    def parse_and_stop(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        _, unknown = parse(parser, *args, **kwargs)
        assert not unknown, unknown
        raise _Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
    monkeypatch.chdir(ROOT)
    for program, arguments in commands(page):
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        try:
            if program.startswith("-m "):
                runpy.run_module(program.removeprefix("-m "), run_name="__main__", alter_sys=False)
            else:
                runpy.run_path(program, run_name="__main__")
            pytest.fail(f"{program} {arguments}: does not parse arguments")
        except _Parsed:
            pass
        except SystemExit as e:
            if arguments == ["--help"]:
                continue
            pytest.fail(f"{program} {arguments}: exit status {e.code}")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_files_named_in_code_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in NAMED_FILE.findall(text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_tests_named_in_pages_exist(page: Path) -> None:
    written = {
        name
        for path in Path("tests").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    named = set(re.findall(r"\btest_\w+\b(?!\.py)", page.read_text(encoding="utf-8")))
    assert named <= written, named - written


def test_the_tree_lists_every_file_of_the_program() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for folder in CODE_FOLDERS:
        section = text.split(f"### {folder}/", 1)[1].split("###", 1)[0]
        listed = set(re.findall(r"(?<![\w/.])(?:[a-z]+/)*\w+\.(?:py|cpp|h|css|js|ini)\b", "".join(blocks(section))))
        files = [path for path in (ROOT / folder).rglob("*") if path.suffix in CODE_SUFFIXES]
        expected = {str(path.relative_to(ROOT / folder)) for path in files if path.name != "__init__.py"}
        assert listed - {"__init__.py"} == expected, f"list the files of {folder}/ in docs/architecture.md"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_every_ask_has_an_answer_and_a_test() -> None:
    """docs/asks.md has 30 rows; every flag and file that they name exists, and every row names a test of its own."""
    text = (ROOT / "docs" / "asks.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == [str(n) for n in range(1, 31)]
    parsers = inference_video.build_parser(), inference_img.build_parser()
    flags = {flag for parser in parsers for flag in re.findall(r"--[a-z][\w-]*", parser.format_help())}
    for _, request, answer, tests in rows[2:]:
        assert request
        assert answer
        assert {*re.findall(r"(?<![\w-])--[a-z][\w-]*", answer)} <= flags, answer
        assert re.search(r"\btest_\w+", tests), tests
