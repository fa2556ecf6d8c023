"""One training step: losses, optimizer, learning rate."""
