"""The times of the output frames."""
