#if defined(__aarch64__)
#include "../simd/neon.h"
#include "weights_body.h"
#pragma clang attribute pop
#endif
