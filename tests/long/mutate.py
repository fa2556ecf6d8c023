"""Damages the bytes of a file in the ways that disks, networks and attackers do."""

import zlib
from collections.abc import Callable

import numpy as np

HEADER = 200  # bytes; half of all damage is done here, where sizes and types are


def mutate(rng: np.random.Generator, data: bytes) -> bytes:
    """Returns the data with one to four kinds of damage; the same for the same state of `rng`."""
    for _ in range(1 + min(int(rng.geometric(0.5)) - 1, 3)):
        if data:
            data = MUTATIONS[int(rng.integers(len(MUTATIONS)))](rng, data)
    return repair_png(data) if data.startswith(b"\x89PNG") and rng.random() < 0.5 else data


def place(rng: np.random.Generator, data: bytes) -> int:
    """Returns an offset, in the header half of the time."""
    return int(rng.integers(min(len(data), HEADER) if rng.random() < 0.5 else len(data)))


def stretch(rng: np.random.Generator, data: bytes) -> tuple[int, int]:
    """Returns start and end of a part, mostly short."""
    start = place(rng, data)
    return start, min(start + int(rng.geometric(0.02)), len(data))


def flip_bits(rng: np.random.Generator, data: bytes) -> bytes:
    """Flips single bits."""
    out = bytearray(data)
    for _ in range(int(rng.geometric(0.2))):
        out[place(rng, data)] ^= 1 << int(rng.integers(8))
    return bytes(out)


def set_number(rng: np.random.Generator, data: bytes) -> bytes:
    """Replaces 1, 2, 4 or 8 bytes by a number at the edge of what they hold."""
    length = int(rng.choice([1, 2, 4, 8]))
    top = 2 ** (8 * length) - 1
    value = int(rng.choice(np.array([0, 1, 255, top // 2, top // 2 + 1, top, top - 1], object)))
    at = place(rng, data)
    number = min(value, top).to_bytes(length, "big" if rng.random() < 0.5 else "little")
    return data[:at] + number + data[at + length :]


def randomise(rng: np.random.Generator, data: bytes) -> bytes:
    """Replaces a part by random bytes."""
    start, end = stretch(rng, data)
    return data[:start] + rng.bytes(end - start) + data[end:]


def clear(rng: np.random.Generator, data: bytes) -> bytes:
    """Replaces a part by zeros, as an unwritten sector."""
    start, end = stretch(rng, data)
    return data[:start] + bytes(end - start) + data[end:]


def remove(rng: np.random.Generator, data: bytes) -> bytes:
    """Removes a part."""
    start, end = stretch(rng, data)
    return data[:start] + data[end:]


def repeat(rng: np.random.Generator, data: bytes) -> bytes:
    """Repeats a part."""
    start, end = stretch(rng, data)
    return data[:end] + data[start:end] + data[end:]


def exchange(rng: np.random.Generator, data: bytes) -> bytes:
    """Copies a part over another place."""
    start, end = stretch(rng, data)
    at = place(rng, data)
    return data[:at] + data[start:end] + data[at + end - start :]


def cut(rng: np.random.Generator, data: bytes) -> bytes:
    """Cuts the end off."""
    return data[: int(rng.integers(len(data)))]


MUTATIONS: tuple[Callable[[np.random.Generator, bytes], bytes], ...] = (
    flip_bits,
    flip_bits,
    set_number,
    set_number,
    randomise,
    clear,
    remove,
    repeat,
    exchange,
    cut,
)


def repair_png(data: bytes) -> bytes:
    """Returns a PNG with right checksums, so that the damage behind them is met."""
    out, at = data[:8], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        if at + 12 + length > len(data):
            break
        out += data[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + length
    return out + data[at:]
