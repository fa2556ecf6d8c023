"""Tests that files get their final name when they are complete, and that no file of the user is replaced."""

import errno
import io
import os
from pathlib import Path

import pytest
import torch

from model.errors import UserError
from video import safe_file
from video.safe_file import SafeFile, check_output, part_path, write_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_final_name_appears_when_the_file_is_complete(tmp_path: Path) -> None:
    with SafeFile(tmp_path / "a.bin") as file:
        file.write(b"one two")
        file.seek(4)
        file.write(b"TWO")
        assert file.tell() == 7
        assert names(tmp_path) == ["a.part.bin"]
    assert names(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"one TWO"


def test_file_rename_and_folder_are_synced_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(file: int | SafeFile) -> None:
        steps.append(
            "sync " + os.path.basename(os.readlink(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}"))
        )
        real_fsync(file)

    def replace(source: Path, target: Path) -> None:
        steps.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_file(tmp_path / "a.bin", b"data")
    assert steps == ["sync a.part.bin", "rename", f"sync {tmp_path.name}"]


def test_a_slow_file_is_synced_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file.fileno()).st_size))
    clock = iter([0.0, 1.0, 6.0, 6.0, 7.0])
    monkeypatch.setattr(safe_file.time, "monotonic", lambda: next(clock))
    file = SafeFile(tmp_path / "a.bin")
    for _ in range(3):
        file.write(b"1234")  # at 1, 6 and 7 seconds
    file.discard()
    assert synced == [8]


def test_an_error_keeps_the_old_file_and_leaves_no_part(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")

    def fail() -> None:
        with SafeFile(tmp_path / "a.bin", overwrite=True) as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"old"


@pytest.mark.parametrize("make", ["same", "symlink", "hardlink", "folder link", "dots"])
def test_an_input_is_never_an_output(tmp_path: Path, make: str) -> None:
    source = tmp_path / "in" / "a.bin"
    source.parent.mkdir()
    source.write_bytes(b"precious")
    output = tmp_path / "out.bin"
    if make == "same":
        output = source
    elif make == "symlink":
        output.symlink_to(source)
    elif make == "hardlink":
        os.link(source, output)
    elif make == "folder link":
        (tmp_path / "link").symlink_to(source.parent)
        output = tmp_path / "link" / "a.bin"
    else:
        output = tmp_path / "in" / ".." / "in" / "a.bin"
    with pytest.raises(UserError, match=r"is the input .*a\.bin itself; choose another name"):
        write_file(output, b"new", [source])
    assert source.read_bytes() == b"precious"


def test_the_part_is_never_an_input_nor_written_through_a_link(tmp_path: Path) -> None:
    source, victim = tmp_path / "z.part.bin", tmp_path / "victim"
    source.write_bytes(b"precious")
    victim.write_bytes(b"not ours")
    with pytest.raises(UserError, match=r"z\.part\.bin: is the input"):
        write_file(tmp_path / "z.bin", b"new", [source])
    (tmp_path / "y.part.bin").symlink_to(victim)
    with pytest.raises(UserError, match=r"y\.part\.bin: exists already"):
        write_file(tmp_path / "y.bin", b"new", overwrite=False)
    write_file(tmp_path / "y.bin", b"new")
    assert (source.read_bytes(), victim.read_bytes()) == (b"precious", b"not ours")
    assert not (tmp_path / "y.bin").is_symlink()
    assert names(tmp_path) == ["victim", "y.bin", "z.part.bin"]


def test_a_name_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    file = SafeFile(tmp_path / "a.bin")
    file.write(b"ours")
    (tmp_path / "a.bin").write_bytes(b"theirs")
    with pytest.raises(
        UserError, match=r"a\.bin: was made by another program meanwhile; the whole result is in .*part"
    ):
        file.commit()
    assert (tmp_path / "a.bin").read_bytes() == b"theirs"
    assert (tmp_path / "a.part.bin").read_bytes() == b"ours"


def test_without_hard_links_a_name_is_still_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    write_file(tmp_path / "a.bin", b"ours", overwrite=False)
    file = SafeFile(tmp_path / "b.bin")
    (tmp_path / "b.bin").write_bytes(b"theirs")
    with pytest.raises(UserError, match="was made by another program meanwhile"):
        file.commit()
    assert (tmp_path / "a.bin").read_bytes() == b"ours"
    assert (tmp_path / "b.bin").read_bytes() == b"theirs"


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_writers_do_not_share_a_part(tmp_path: Path, overwrite: bool) -> None:
    first = SafeFile(tmp_path / "a.bin", overwrite=overwrite)
    first.write(b"first")
    with pytest.raises(UserError, match="another run writes it now"):
        SafeFile(tmp_path / "a.bin", overwrite=overwrite)
    first.commit()
    assert (tmp_path / "a.bin").read_bytes() == b"first"


def test_a_part_that_was_replaced_is_not_renamed(tmp_path: Path) -> None:
    file = SafeFile(tmp_path / "a.bin")
    file.part.unlink()
    file.part.write_bytes(b"of another program")
    with pytest.raises(UserError, match="was removed or replaced while it was written"):
        file.commit()
    assert names(tmp_path) == ["a.part.bin"]


def test_names_that_cannot_be_written_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "old.bin").write_bytes(b"")
    for name, message in [
        ("folder", "is a folder; give the name of a file"),
        ("pipe", "is not a plain file"),
        ("old.bin", "exists already; choose another name for the output, or overwrite it"),
        ("none/a.bin", "its folder does not exist"),
        ("x" * 256, "longer than 255 bytes"),
    ]:
        with pytest.raises(UserError, match=message):
            check_output(tmp_path / name)
    check_output(tmp_path / "old.bin", overwrite=True)


@pytest.mark.parametrize("name", ["あ" * 83 + ".mp4", "n" * 251 + ".mp4", os.fsdecode(b"\xff" * 250) + ".mp4"])
def test_the_longest_names_can_be_written(tmp_path: Path, name: str) -> None:
    assert len(os.fsencode(part_path(Path(name)).name)) <= 255
    write_file(tmp_path / name, b"data")
    assert names(tmp_path) == [name]


def test_a_full_disk_is_one_error_and_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = SafeFile(tmp_path / "a.bin")
    file.write(b"before")
    monkeypatch.setattr(os, "fsync", full)  # where a delayed allocation fails
    monkeypatch.setattr(safe_file, "SYNC_SECONDS", -1)
    with pytest.raises(OSError, match="No space left"):
        file.write(b"after")
    assert file.error is not None
    assert file.error.errno == errno.ENOSPC
    file.keep()
    assert (tmp_path / "a.part.bin").read_bytes() == b"before"
    with pytest.raises(UserError, match=r"b\.bin: cannot be written \(No space left on device\)"):
        write_file(tmp_path / "b.bin", b"data")
    assert names(tmp_path) == ["a.part.bin"]


def test_torch_saves_into_it(tmp_path: Path) -> None:
    with SafeFile(tmp_path / "a.pt") as file:
        torch.save({"weight": torch.arange(5)}, file)
    assert torch.equal(torch.load(io.BytesIO((tmp_path / "a.pt").read_bytes()))["weight"], torch.arange(5))
