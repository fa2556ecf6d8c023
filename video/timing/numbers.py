"""Reads numbers from text: exact ones and decimal ones, always finite."""

import math
import re
from fractions import Fraction

LARGE_EXPONENT = re.compile(r"[eE][+-]?0*[1-9]_?\d_?\d")


def parse_number(text: str) -> Fraction:
    """Reads an exact number, as 0.3, 59.94 or 60000/1001. Raises ValueError if it is none, also for 1/0.

    An exponent with more than two digits is refused: the number of 1e999999999 takes all memory.
    """
    if LARGE_EXPONENT.search(text):
        raise ValueError(f"{text!r} is too large or too small")
    try:
        return Fraction(text)
    except ZeroDivisionError as e:
        raise ValueError(f"{text!r} divides by 0") from e


def parse_decimal(text: str) -> float:
    """Reads a decimal number. Raises ValueError if it is none, or not finite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not finite")
    return value
