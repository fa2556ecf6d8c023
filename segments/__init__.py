"""Long work in segments: each is a complete small file, a plan says what they are, finishing is joining them."""
