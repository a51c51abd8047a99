#if defined(__aarch64__)
#include "../simd/neon.h"
#include "gemm_blocks_body.h"
#pragma clang attribute pop
#endif
