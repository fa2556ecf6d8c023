"""Exports a network to the file formats of other programs: python3 -m model.export, and the graphs of the engines."""
