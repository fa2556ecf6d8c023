"""Ways to run a network: CPU kernels, CUDA graphs, compilation, tiles, and how much memory each needs."""
