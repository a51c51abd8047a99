#include "../simd/scalar.h"
#include "gemm_blocks_body.h"
