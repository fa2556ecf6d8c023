"""Runs networks: by CPU kernels, CUDA graphs, compilation, on tiles; computes the memory that each way needs."""
