"""The wrappers that the image installs, run as its entry point runs them; there is no Docker engine here."""

import os
import subprocess
import sys
from pathlib import Path

from clips import Clip, make_clip

ROOT = Path(__file__).parents[1]


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


def test_the_image_gets_every_file_the_commands_import() -> None:
    copied = (ROOT / "docker" / "Dockerfile").read_text()
    for needed in ("model", "video", "train_log", "inference_img.py inference_video.py", "requirements.txt"):
        assert f"COPY {needed}" in copied, needed
