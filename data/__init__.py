"""Makes training samples: clips, synthetic scenes, textures, re-coding and augmentation."""
