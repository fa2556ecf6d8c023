// Defines the CPU kernels that kernels.py compiles on first use: float32, memory order (B,H,W,C), any batch.
//
// No intrinsics: the compiler turns the vector types into AVX-512, AVX2 or NEON instructions (-march=native).

#include "blend.h"
#include "block_inputs.h"
#include "warp.h"
#include "winograd.h"
