"""Defines the flags of the commands, and the steps, messages and signals that surround their work."""
