"""Scores on test sets, and timing; each script runs from the root of the repository."""
