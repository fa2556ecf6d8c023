"""Computes the times of the output frames."""
