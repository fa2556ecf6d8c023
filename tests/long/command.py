"""Runs the command line that the long tests share: numbers as flags, a JSON line at the end, the exit status."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch


def read_flags(doc: str | None, numbers: Mapping[str, tuple[float, str]], argv: Sequence[str] | None,
               **others: dict[str, Any]) -> argparse.Namespace:  # fmt: skip
    """Returns the flags of a command line, and lets PyTorch use one thread.

    `numbers`: the default and the help text of each flag; `others`: settings of argparse for flags of other kinds.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (default, text) in numbers.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} (default: {default:g})")
    for name, settings in others.items():
        parser.add_argument(f"--{name}", **settings)
    torch.set_num_threads(1)
    return parser.parse_args(argv)


def finish(failed: int, **counts: object) -> int:
    """Prints the counts as a JSON line; returns the exit status: 1 if a case failed."""
    print(json.dumps({**counts, "failed": failed}), flush=True)
    return int(failed > 0)
