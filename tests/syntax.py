"""Reads the syntax of Python files for tests of the code itself."""

import ast
import gc
from pathlib import Path


def syntax_of(path: Path) -> ast.Module:
    """Returns the syntax tree of a Python file.

    Garbage is not collected meanwhile: code that a collection runs can end `ast.parse` in a SystemError about its
    recursion depth (python/cpython issue 106905, in 3.11).
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        if enabled:
            gc.enable()
