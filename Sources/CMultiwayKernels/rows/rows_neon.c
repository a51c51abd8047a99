#if defined(__aarch64__)
#include "../simd/neon.h"
#include "rows_body.h"
#pragma clang attribute pop
#endif
