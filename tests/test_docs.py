"""Tests that documentation and program agree: links, files and commands of pages and of usage texts exist."""

import argparse
import ast
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from syntax import syntax_of

import inference_img
import inference_video
from model import versions
from model.weights.checkpoint import find_weights
from model.weights.metadata import read_metadata

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "train_log" / "README.md"]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
SCRIPTS = [
    path
    for folder in (".", "benchmark", "demo", "model", "model/export")
    for path in sorted((ROOT / folder).glob("*.py"))
    if path.name != "__init__.py"
]
PROGRAM = re.compile(r"(?P<name>(?:\w+/)*\w+\.py\b|-m (?:model|benchmark)\.\w+)(?P<arguments>.*)")
CALLER = re.compile(r"python3? $|\"\$PYTHON\" $|torchrun .*$|launch .*$")  # what stands before a program
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


def code_lines(page: Path) -> list[str]:
    """Returns the lines of a page that are code: fenced, indented or inline."""
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    fenced = [line for block in blocks(text) for line in block.splitlines()]
    return (
        fenced
        + re.findall(r"^    (.+)$", prose, re.MULTILINE)
        + [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    )


def usage_lines(script: Path) -> list[str]:
    """Returns the lines of a script's docstring, without the remarks that stand two spaces behind a command."""
    lines = (ast.get_docstring(syntax_of(script)) or "").splitlines()
    starts = (re.search(r"(?:python3|torchrun) .*", line) for line in lines)
    return [re.split(r"  |\)", start[0])[0].replace(" ...", "") for start in starts if start]


def commands(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields (program, arguments) of every command: a script's path, or -m and a module's name."""
    for line in lines:
        line = line.split(" #")[0].split(" > ")[0]
        line = line.replace("$SLURM_ARRAY_TASK_ID", "1").replace("{}", "1")
        line = re.sub(r"^docker run .* rife:latest (\w+)", lambda m: f"python3 {IN_DOCKER[m[1]]}", line)
        found = PROGRAM.search(line)
        if found and CALLER.search(line[: found.start()]):
            yield found["name"], shlex.split(re.split(r" (?:&&|:::|[|]|<)(?: |$)", found["arguments"])[0])


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
    check_commands(code_lines(page), monkeypatch)


@pytest.mark.parametrize("script", SCRIPTS, ids=[str(path.relative_to(ROOT)) for path in SCRIPTS])
def test_usage_texts_are_parsed_by_the_programs(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_commands(usage_lines(script), monkeypatch)


def check_commands(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs every command of these lines until its arguments are parsed; fails if they are refused or unknown."""
    parse = argparse.ArgumentParser.parse_known_args

    def parse_and_stop(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        _, unknown = parse(parser, *args, **kwargs)
        assert not unknown, unknown
        raise _Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
    monkeypatch.chdir(ROOT)
    for program, arguments in commands(lines):
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
    for name in NAMED_FILE.findall(text) + re.findall(r"\btests/[\w/]+\.py\b", text):
        assert (ROOT / name).exists(), name


def test_flags_named_in_sentences_exist() -> None:
    """Flags of whole commands are parsed by another test; those of docker, torchrun and mpv are left out."""
    others = {"--help", "--user", "--secret", "--isolation", "--max-restarts", "--rdzv_endpoint", "--rdzv_conf"}
    others |= {"--local_addr", "--vf"}
    sources = [path for path in ROOT.rglob("*.py") if not {"tests", ".venv"} & {*path.relative_to(ROOT).parts}]
    known = {flag for path in sources for flag in re.findall(r'"(--[a-z][\w-]*)', path.read_text(encoding="utf-8"))}
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for code in re.findall(r"`([^`]+)`", prose):
            if not re.search(r"python3|docker|torchrun|ffmpeg", code):
                assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", code)) <= known | others, (page.name, code)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_goals_of_make_exist(page: Path) -> None:
    goals = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {goal for line in code_lines(page) for goal in re.findall(r"^make ([a-z][\w-]*)", line)}
    assert named <= goals, named - goals


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


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_pages_name_the_default_weights_as_the_commands_do(page: Path) -> None:
    name = read_metadata(find_weights(ROOT / "train_log" / "flownet.safetensors"))["name"]
    assert {*re.findall(r"default, \d{4}-\d\d-\d\d", page.read_text(encoding="utf-8"))} <= {name}


@pytest.mark.slow
def test_the_page_shows_what_model_versions_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(versions, "accelerate", lambda net: net)
    versions.main([str(ROOT / "train_log" / "flownet.safetensors")])
    printed = capsys.readouterr().out.split("; libraries")[0].replace(f"{ROOT}/", "")  # the rest depends on the CPU
    assert printed in (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")


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
