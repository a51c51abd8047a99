#if defined(__aarch64__)
#include "../simd/neon_bytes.h"
#include "../core/families.h"

// The products of two unsigned bytes fit in 16 bits; UADALP adds pairs of them to 32-bit sums, two for an output. Two rows by
// sixteen outputs: 16 sums, 4 registers of weights.
MWK_INLINE void tile_of(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel,
                        const uint32_t *bias, int32_t *acc) {
  uint32x4_t sum[2][8];
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 8; v++) sum[r][v] = vdupq_n_u32(0);
  for (size_t k = 0; k < quads; k++, panel += MWK_PANEL * 4) {
    uint8x16_t w[4];
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 4; v++) w[v] = biased_weights(panel + 16 * v);
#pragma clang loop unroll(full)
    for (size_t r = 0; r < rows; r++) {
      uint8x16_t x = broadcast_quad(q + r * q_stride + 4 * k);
#pragma clang loop unroll(full)
      for (size_t v = 0; v < 4; v++) {
        sum[r][2 * v] = vpadalq_u16(sum[r][2 * v], vmull_u8(vget_low_u8(x), vget_low_u8(w[v])));
        sum[r][2 * v + 1] = vpadalq_u16(sum[r][2 * v + 1], vmull_high_u8(x, w[v]));
      }
    }
  }
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 4; v++) {
      uint32x4_t outputs = vsubq_u32(vpaddq_u32(sum[r][2 * v], sum[r][2 * v + 1]), vdupq_n_u32(bias[r]));
      vst1q_s32(acc + r * MWK_PANEL + 4 * v, vreinterpretq_s32_u32(outputs));
    }
}

static void tile_2(size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, const uint32_t *bias,
                   int32_t *acc) {
  tile_of(2, quads, q, q_stride, panel, bias, acc);
}
static void tile_1(size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, const uint32_t *bias,
                   int32_t *acc) {
  tile_of(1, quads, q, q_stride, panel, bias, acc);
}

static void tile(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, size_t vectors,
                 int32_t *acc) {
  uint32_t bias[MWK_TILE_ROWS];
  for (size_t r = 0; r < rows; r++) bias[r] = weight_bias(quads, q + r * q_stride);
  for (size_t c = 0; c < vectors * MWK_LANES; c += MWK_LANES) {
    size_t r = 0;
    for (; r + 2 <= rows; r += 2)
      tile_2(quads, q + r * q_stride, q_stride, panel + 4 * c, bias + r, acc + r * MWK_PANEL + c);
    if (r < rows) tile_1(quads, q + r * q_stride, q_stride, panel + 4 * c, bias + r, acc + r * MWK_PANEL + c);
  }
}

#include "gemm_i8_finish.h"
#include "gemm_i8_body.h"
#pragma clang attribute pop
#endif
