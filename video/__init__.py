"""Reads frames, computes their times, interpolates and writes them, as streams."""
