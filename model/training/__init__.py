"""Training: the network, losses, steps, stages, checkpoints and the log of a run."""
