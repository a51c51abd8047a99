#if defined(__aarch64__)
#include "../simd/neon.h"
#include "gemm_f32_body.h"
#pragma clang attribute pop
#endif
