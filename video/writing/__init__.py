"""Writes videos and numbered pictures: encoders, containers, and the tracks beside the picture."""
