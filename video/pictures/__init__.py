"""Reads, checks and writes picture files: single ones, folders, and pictures made from several."""
