"""Long work in segments: each is a complete small file, a plan lists them, and the end is to join them."""
