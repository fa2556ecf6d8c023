"""Scores networks on test sets and measures time; each script runs from the root of the repository."""
