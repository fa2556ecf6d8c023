"""Frames: reading, timing, interpolating and writing them as streams."""
