"""Trains networks: losses, steps, stages, checkpoints and the log of a run."""
