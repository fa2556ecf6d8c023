"""Defines the parts of which every network is built: convolutions, warping, refinement, frame features."""
