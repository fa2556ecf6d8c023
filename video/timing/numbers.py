"""Reads numbers from text: exact ones and decimal ones, always finite."""

import math
from fractions import Fraction


def parse_number(text: str) -> Fraction:
    """Reads an exact number, as 0.3, 59.94 or 60000/1001. Raises ValueError if it is none, also for 1/0."""
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
