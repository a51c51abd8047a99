// Included once per instruction set, after its vector header.
#include "../core/families.h"

/// The smallest magnitudes that round to infinity.
#define MWK_F16_OVERFLOW 65520.0f
#define MWK_BF16_OVERFLOW 0x1.ffp+127f

#define MWK_DECODE(name, load)                                              \
  static void name(size_t n, const void *x, float *y) {                     \
    const char *bytes = x;                                                  \
    size_t i = 0;                                                           \
    for (; i + MWK_LANES <= n; i += MWK_LANES) v_store(y + i, load(bytes + 2 * i)); \
    if (i < n) {                                                            \
      uint16_t tail[MWK_LANES] = {0};                                       \
      memcpy(tail, bytes + 2 * i, 2 * (n - i));                             \
      v_storen(y + i, load(tail), n - i);                                   \
    }                                                                       \
  }
#define MWK_ENCODE(name, store, limit)                            \
  static size_t name(size_t n, const float *x, void *y) {         \
    char *bytes = y;                                              \
    size_t overflows = 0;                                         \
    for (size_t i = 0; i < n; i += MWK_LANES) {                   \
      size_t left = mwk_min(n - i, MWK_LANES);                    \
      v16 a = v_loadn(x + i, left, 0.0f);                         \
      uint16_t block[MWK_LANES];                                  \
      store(block, a);                                            \
      memcpy(bytes + 2 * i, block, 2 * left);                     \
      overflows += (size_t)v_count_finite_from(a, limit);         \
    }                                                             \
    return overflows;                                             \
  }

MWK_DECODE(from_f16, v_load_f16)
MWK_DECODE(from_bf16, v_load_bf16)
MWK_ENCODE(to_f16, v_store_f16, MWK_F16_OVERFLOW)
MWK_ENCODE(to_bf16, v_store_bf16, MWK_BF16_OVERFLOW)

const mwk_convert MWK_JOIN(mwk_convert, MWK_ISA_SUFFIX);
const mwk_convert MWK_JOIN(mwk_convert, MWK_ISA_SUFFIX) = {
    .from_f16 = from_f16,
    .from_bf16 = from_bf16,
    .to_f16 = to_f16,
    .to_bf16 = to_bf16,
};
