#if defined(__x86_64__)
#include "../simd/avx2.h"
#include "gemm_f32_body.h"
#pragma clang attribute pop
#endif
