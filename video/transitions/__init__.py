"""Classifies the transition to each frame, a repeat, motion or a cut, and chooses what is shown there."""
