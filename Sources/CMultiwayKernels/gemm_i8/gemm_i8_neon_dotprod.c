#if defined(__aarch64__)
#define MWK_TARGET "dotprod"
#define MWK_ISA_SUFFIX neon_dotprod
#include "../simd/neon_bytes.h"
#include "../core/families.h"

// 6×16 outputs: 24 sums, 4 registers of weights, 1 broadcast of four activations.
MWK_INLINE void tile_of(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel,
                        const uint32_t *bias, int32_t *acc) {
  uint32x4_t sum[MWK_TILE_ROWS][4];
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 4; v++) sum[r][v] = vdupq_n_u32(-bias[r]);
  for (size_t k = 0; k < quads; k++, panel += MWK_PANEL * 4) {
    uint8x16_t w[4];
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 4; v++) w[v] = biased_weights(panel + 16 * v);
#pragma clang loop unroll(full)
    for (size_t r = 0; r < rows; r++) {
      uint8x16_t x = broadcast_quad(q + r * q_stride + 4 * k);
#pragma clang loop unroll(full)
      for (size_t v = 0; v < 4; v++) sum[r][v] = vdotq_u32(sum[r][v], w[v], x);
    }
  }
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 4; v++) vst1q_s32(acc + r * MWK_PANEL + 4 * v, vreinterpretq_s32_u32(sum[r][v]));
}

typedef void (*tile_function)(size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel,
                              const uint32_t *bias, int32_t *acc);
#define MWK_TILE(r) \
  static void tile_##r(size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, const uint32_t *bias, \
                       int32_t *acc) { \
    tile_of(r, quads, q, q_stride, panel, bias, acc); \
  }
MWK_TILE(1) MWK_TILE(2) MWK_TILE(3) MWK_TILE(4) MWK_TILE(5) MWK_TILE(6)

static void tile(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, size_t vectors,
                 int32_t *acc) {
  static const tile_function tiles[MWK_TILE_ROWS] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
  uint32_t bias[MWK_TILE_ROWS];
  for (size_t r = 0; r < rows; r++) bias[r] = weight_bias(quads, q + r * q_stride);
  for (size_t c = 0; c < vectors * MWK_LANES; c += MWK_LANES) tiles[rows - 1](quads, q, q_stride, panel + 4 * c, bias, acc + c);
}

#include "gemm_i8_finish.h"
#include "gemm_i8_body.h"
#pragma clang attribute pop
#endif
