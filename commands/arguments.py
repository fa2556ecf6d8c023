"""Defines types of flags for argparse, whose errors describe the values that a flag takes."""

import argparse
import math
from collections.abc import Callable
from typing import Any, TypeVar

from model.errors import UserError
from video.timing.numbers import parse_decimal, parse_number
from video.timing.output_times import parse_rate, parse_seconds

T = TypeVar("T")
LARGEST_NUMBER = 2**53  # of a number: above, floats do not hold every whole number


def argument_type(parse: Callable[[str], T], form: str) -> Callable[[str], T]:
    """Returns `parse` as the type of a flag: its ValueError becomes "'abc' is not FORM", its UserError stays."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except UserError as e:
            raise argparse.ArgumentTypeError(str(e)) from e
        except ValueError as e:
            raise argparse.ArgumentTypeError(f"{text!r} is not {form}") from e

    return read


def ranged(kind: type[int | float], least: float = 0, most: float = math.inf) -> Callable[[str], Any]:
    """Returns the type of a flag: a whole number or a finite number, as `kind` is, from `least` to `most`."""

    def parse(text: str) -> int | float:
        value = kind(text)
        if not least <= value <= min(most, LARGEST_NUMBER):
            raise ValueError(f"{text!r} is out of range")
        return value

    limits = f"of {least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
    return argument_type(parse, f"a {'whole ' if kind is int else ''}number {limits}")


def parse_name_value(text: str) -> tuple[str, str]:
    """Reads a name and a value, as in tune=film. Raises ValueError if one of them is missing."""
    name, _, value = text.partition("=")
    if not (name and value):
        raise ValueError(f"no name and value: {text!r}")
    return name, value


number = argument_type(parse_number, "a number, such as 3, 0.3 or 60000/1001")
decimal = argument_type(parse_decimal, "a decimal number, such as 0.5")
seconds = argument_type(parse_seconds, "a time above 0 in seconds, such as 5 or 0.5")
rate = argument_type(parse_rate, "a rate above 0 in frames/s, such as 60, 59.94 or 60000/1001")
whole = argument_type(int, "a whole number")
setting = argument_type(parse_name_value, "NAME=VALUE, such as tune=film")
