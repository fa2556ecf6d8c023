"""Defines the plan of a long work: source, settings, weights and versions, and the segments of its output, as JSON."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

from model.errors import UserError
from model.files import read_text
from model.weights.checkpoint import find_weights
from video.reading.source_part import SourcePart

ENDS = 1 << 20  # bytes of the first and of the last part of a file that are hashed
CODE = ("model", "video", "segments", "commands")  # folders of this project that shape the frames


@dataclass(frozen=True)
class Plan:
    """Holds the source, settings, weights and versions that the frames of an output depend on, and its segments."""

    source: Mapping[str, str]
    weights: str  # hash
    settings: Mapping[str, str]
    versions: Mapping[str, str]
    output: str  # name of the file or folder
    parts: tuple[SourcePart, ...] = ()  # of the source, one a segment
    errors: tuple[str, ...] = ()  # damage of the source that the parts do not show

    def check_same(self, other: "Plan", place: Path) -> None:
        """Raises UserError that names what differs, if this plan, made now, does not continue the one in `place`."""
        changed = self.differences(other)
        if changed:
            raise UserError(f"{place}: was begun differently: {'; '.join(changed)}; restore that, or overwrite it")

    def differences(self, other: "Plan") -> list[str]:
        """Returns a text for each thing in which this plan, made now, does not continue another one."""
        return [
            *_differences("source", other.source, self.source),
            *_differences("", {"weights": other.weights[:12]}, {"weights": self.weights[:12]}),
            *_differences("", other.settings, self.settings),
            *_differences("", other.versions, self.versions),
            *_differences("", {"output": other.output}, {"output": self.output}),
        ]

    def check_source(self, path: Path) -> None:
        """Raises UserError if the source, which is at `path` now, has changed since this plan was made."""
        try:
            changed = _differences("", self.source, {**identify_source(path), "name": self.source["name"]})
        except OSError as e:
            raise UserError(f"{path}: cannot be read any more ({e.strerror}); restore it, and continue") from e
        if changed:
            raise UserError(f"{path}: has changed since the work began: {'; '.join(changed)}; restore it, and continue")

    def to_json(self) -> bytes:
        """Returns the plan as text; times are exact, as fractions in seconds."""
        content = asdict(self)
        content["parts"] = [
            {name: None if value is None else str(value) for name, value in part.items()} for part in content["parts"]
        ]
        return json.dumps(content, indent=1).encode()

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Reads a plan. Raises UserError if the file is none."""
        try:
            content: dict[str, Any] = json.loads(read_text(path))
            parts = tuple(_read_part(part) for part in content.pop("parts"))
            errors = tuple(content.pop("errors"))
            plan = cls(**content, parts=parts, errors=errors)
            for table in (plan.source, plan.settings, plan.versions):
                table.items()
            return replace(plan, weights=str(plan.weights))
        except (ValueError, ZeroDivisionError, TypeError, KeyError, AttributeError) as e:
            names = ", ".join(field.name for field in fields(cls))
            raise UserError(f"{path}: is no plan with {names}; remove its folder, or overwrite it") from e
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror}); check the folder") from e


def _read_part(times: Mapping[str, str | None]) -> SourcePart:
    exact: dict[str, Any] = {name: None if time is None else Fraction(time) for name, time in times.items()}
    return SourcePart(**{**exact, "number": int(exact["number"])})


def _differences(group: str, then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Returns a text for each entry that is not the same."""
    found, absent = [], "not there"
    for name in sorted({*then, *now}):
        before, after = then.get(name, absent), now.get(name, absent)
        if before != after:
            found.append(f"{group} {name} was {before}, is {after}".strip())
    return found


def identify_source(path: Path) -> dict[str, str]:
    """Returns the size, the date and the hash of the first and last megabyte of a file, or of a folder's names."""
    if path.is_dir():
        listing = "\n".join(f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in sorted(path.iterdir()))
        return {"name": path.name, "listing": hashlib.sha256(listing.encode()).hexdigest()[:16]}
    state, digest = path.stat(), hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(ENDS))
        file.seek(max(state.st_size - ENDS, 0))
        digest.update(file.read(ENDS))
    return {
        "name": path.name,
        "size": str(state.st_size),
        "date": str(state.st_mtime_ns),
        "ends": digest.hexdigest()[:16],
    }


def hash_weights(path: Path) -> str:
    """Returns the hash of the weights in a file, a folder or an archive. Raises WeightsError."""
    file = find_weights(path)
    digest = hashlib.sha256(file.read())
    if file.name.suffix == ".param" and not file.member:  # ncnn keeps the numbers in a second file
        digest.update(file.path.with_suffix(".bin").read_bytes())
    return digest.hexdigest()


def current_versions() -> dict[str, str]:
    """Returns the versions of torch, PyAV and this project, which is known by a hash of its code."""
    root = Path(__file__).resolve().parents[1]
    files = sorted(p for name in CODE for p in (root / name).rglob("*") if p.suffix in (".py", ".h", ".cpp"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return {"torch": version("torch"), "PyAV": version("av"), "project": digest.hexdigest()[:12]}
