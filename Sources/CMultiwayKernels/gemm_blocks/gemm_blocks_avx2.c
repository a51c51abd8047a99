#if defined(__x86_64__)
#include "../simd/avx2.h"
#include "gemm_blocks_body.h"
#pragma clang attribute pop
#endif
