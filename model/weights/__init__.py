"""Reads weight files: checkpoints, ncnn models, and the configurations of the published networks."""
