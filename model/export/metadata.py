"""Collects the texts of an exported file: which weights it holds, how frames are padded, the licence."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.IFNet_v4 import IFNet_v4
from model.image import PAD_MODES, pad_multiple
from model.loading import AnyNetwork, build_network, detect_version
from model.weights.checkpoint import WeightFile, find_weights, read_weights
from model.weights.metadata import read_metadata

LICENCE = "MIT for the code that made this file; the licence of the weights is that of their source"


@dataclass(frozen=True)
class LoadedNetwork:
    """Holds a loaded network and the facts about its weights."""

    net: AnyNetwork
    name: str  # of the weights, "default, 2026-11"
    version: str  # of the network, "4.25, 4.26"
    file: WeightFile
    sha256: str  # of the file
    licence: str = LICENCE

    @property
    def sharp(self) -> bool:
        """Returns whether the network has the sharp blend of this project's weights."""
        return isinstance(self.net, IFNet_v4) and self.net.config.sharp

    def texts(self, **more: str) -> dict[str, str]:
        """Returns the metadata of an exported file."""
        padding = f"multiples of {pad_multiple(self.net)}, {PAD_MODES[str(self.net.pad_mode)]}"
        known = {"name": self.name, "version": self.version, "padding": padding}
        return known | {"source": self.file.name.name, "source_sha256": self.sha256, "licence": self.licence} | more


def read_source(
    path: Path | str, arch: str | None = None, *, name: str | None = None, licence: str | None = None
) -> LoadedNetwork:
    """Returns the network whose weights are in `path` (a file, folder or zip), in float32 on the CPU, for inference.

    `name` and `licence` replace those of the file. Raises WeightsError.
    """
    file = find_weights(path)
    state = read_weights(file)
    version = detect_version(state, arch)
    texts = read_metadata(file)
    digest = hashlib.sha256(file.read()).hexdigest()
    known = licence or texts.get("licence") or texts.get("license") or LICENCE
    net = build_network(version, state).eval().requires_grad_(False)
    return LoadedNetwork(net, name or texts.get("name") or version.name, version.name, file, digest, known)


def without_sharp(source: LoadedNetwork) -> LoadedNetwork:
    """Returns the same network with the bilinear blend of the published networks, and zeros beyond the frame's edge."""
    if not source.sharp:
        return source
    assert isinstance(source.net, IFNet_v4)
    plain = IFNet_v4(replace(source.net.config, sharp=False, pad_mode="constant"))
    plain.load_state_dict({key: value for key, value in source.net.state_dict().items() if key != "sharp"})
    return replace(source, net=plain.eval().requires_grad_(False))


def as_json(texts: dict[str, Any]) -> bytes:
    """Returns the texts as a JSON file, for formats that hold no texts themselves."""
    return (json.dumps(texts, indent=1, ensure_ascii=False) + "\n").encode()
