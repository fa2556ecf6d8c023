"""Tests the wrappers that the image installs, run as its entry point runs them, and the files that it copies."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from clips import Clip, make_clip
from syntax import syntax_of

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_names_with_spaces_and_shell_signs_reach_the_command(tmp_path: Path, tiny_weights: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    name = 'my "clip" $HOME `x` ; 1.mp4'
    make_clip(tmp_path / name, 2)
    environment = os.environ | {
        "RIFE_HOME": str(ROOT),
        "PATH": f"{tmp_path / 'bin'}:{ROOT / 'docker'}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(p for p in sys.path if "site-packages" in p),
    }
    command = ["/bin/bash", "inference_video", f"--video={name}", f"--model={tiny_weights}", "--output=out 1.mp4"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert len(Clip(tmp_path / "out 1.mp4").pictures) == 3


def imported_files(path: Path) -> set[Path]:
    """Returns the files of the project that a Python file imports."""
    modules: set[str] = set()
    for node in ast.walk(syntax_of(path)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    places = [ROOT.joinpath(*module.split(".")) for module in modules]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return {file for file in files if file.exists()}


def test_the_image_gets_every_file_the_commands_import() -> None:
    """Follows the imports from both commands; every file of the project among them must be copied."""
    text = (ROOT / "docker" / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()]
    reached: set[Path] = set()
    waiting = {ROOT / name for name in ("inference_img.py", "inference_video.py", "train.py")}
    while waiting:
        file = waiting.pop()
        reached.add(file)
        waiting |= imported_files(file) - reached
    tops = {file.relative_to(ROOT).parts[0] for file in reached}
    assert {"model", "video", "commands"} <= tops
    assert tops <= set(copied)
    assert {"requirements.txt", "train_log"} <= set(copied)  # read, not imported
