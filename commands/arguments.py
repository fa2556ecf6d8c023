"""Defines types of flags for argparse, whose errors describe the values that a flag takes."""

import argparse
from collections.abc import Callable
from typing import TypeVar

from video.timing.numbers import parse_decimal, parse_number
from video.timing.output_times import parse_rate, parse_seconds

T = TypeVar("T")


def argument_type(parse: Callable[[str], T], form: str) -> Callable[[str], T]:
    """Returns `parse` with errors for users: "'abc' is not FORM" in the place of the name of a function."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as e:
            raise argparse.ArgumentTypeError(f"{text!r} is not {form}") from e

    return read


number = argument_type(parse_number, "a number, such as 3, 0.3 or 60000/1001")
decimal = argument_type(parse_decimal, "a decimal number, such as 0.5")
seconds = argument_type(parse_seconds, "a time above 0 in seconds, such as 5 or 0.5")
rate = argument_type(parse_rate, "a rate above 0 in frames/s, such as 60, 59.94 or 60000/1001")
whole = argument_type(int, "a whole number")
