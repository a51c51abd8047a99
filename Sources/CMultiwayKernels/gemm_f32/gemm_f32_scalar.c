#include "../simd/scalar.h"
#include "gemm_f32_body.h"
