"""Reads the texts that a .safetensors file holds beside its tensors, such as the name of the weights."""

import json

from model.errors import printable
from model.weights.checkpoint import WeightFile


def read_metadata(file: WeightFile) -> dict[str, str]:
    """Returns the texts that a .safetensors file holds beside its tensors; {} for files of other kinds.

    The file is one that `read_weights` accepted.
    """
    if file.name.suffix != ".safetensors":
        return {}
    content = file.read()
    size = int.from_bytes(content[:8], "little")  # of the header, JSON
    metadata: dict[str, str] = json.loads(content[8 : 8 + size]).get("__metadata__", {})
    return {key: printable(value) for key, value in metadata.items()}
