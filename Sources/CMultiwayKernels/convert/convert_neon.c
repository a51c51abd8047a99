#if defined(__aarch64__)
#include "../simd/neon.h"
#include "convert_body.h"
#pragma clang attribute pop
#endif
