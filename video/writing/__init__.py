"""Writes videos: encoders, containers, and the tracks beside the picture."""
