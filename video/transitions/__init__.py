"""What a frame is to the one before it, a repeat, motion or a cut, and what is shown there."""
