"""Makes long videos in segments: each is a complete small file, a plan lists them, and at the end they are joined."""
