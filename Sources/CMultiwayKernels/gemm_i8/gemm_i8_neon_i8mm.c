#if defined(__aarch64__)
#define MWK_TARGET "i8mm"
#define MWK_ISA_SUFFIX neon_i8mm
#include "../simd/neon.h"
#include "../core/families.h"

// USMMLA multiplies eight activations of two rows with eight weights of two outputs. Two quads of the panel, zipped, are
// eight weights an output. 6×16 outputs: 24 sums of 2×2, 3 pairs of rows.

/// Eight activations of two rows; nothing is read where a row is missing.
MWK_INLINE uint8x16_t row_pair(bool whole, const uint8_t *q, size_t q_stride) {
  return vcombine_u8(vld1_u8(q), whole ? vld1_u8(q + q_stride) : vdup_n_u8(0));
}

/// Adds what the last of an odd number of quads contributes.
MWK_INLINE void add_quad(size_t rows, const uint8_t *q, size_t q_stride, const int8_t *panel, int32_t *acc) {
  for (size_t r = 0; r < rows; r++)
    for (size_t c = 0; c < 16; c++)
      for (size_t j = 0; j < 4; j++) acc[r * MWK_PANEL + c] += q[r * q_stride + j] * panel[4 * c + j];
}

// In assembler, so that the order stays: the intrinsic is moved about until all weights are loaded first, and registers spill.
MWK_INLINE void multiply(size_t rows, const uint8x16_t x[3], int32x4_t first, int32x4_t second, int32x4_t sum[3][2]) {
  int8x16_t w[2] = {vreinterpretq_s8_s32(vzip1q_s32(first, second)), vreinterpretq_s8_s32(vzip2q_s32(first, second))};
#pragma clang loop unroll(full)
  for (size_t p = 0; 2 * p < rows; p++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 2; v++)
      __asm__ volatile("usmmla %0.4s, %1.16b, %2.16b" : "+w"(sum[p][v]) : "w"(x[p]), "w"(w[v]));
}

MWK_INLINE void tile_of(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel,
                        int32_t *acc) {
  int32x4_t sum[4][3][2];
  uint8x16_t x[3];
#pragma clang loop unroll(full)
  for (size_t v = 0; v < 4; v++)
#pragma clang loop unroll(full)
    for (size_t p = 0; 2 * p < rows; p++) sum[v][p][0] = sum[v][p][1] = vdupq_n_s32(0);
  size_t k = 0;
  for (; k + 2 <= quads; k += 2, panel += 2 * MWK_PANEL * 4) {
#pragma clang loop unroll(full)
    for (size_t p = 0; 2 * p < rows; p++)
      x[p] = row_pair(2 * p + 1 < rows, q + 2 * p * q_stride + 4 * k, q_stride);
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 4; v++) {
      multiply(rows, x, vreinterpretq_s32_s8(vld1q_s8(panel + 16 * v)),
               vreinterpretq_s32_s8(vld1q_s8(panel + MWK_PANEL * 4 + 16 * v)), sum[v]);
      __asm__ volatile("" ::: "memory");  // the next weights are loaded after these products
    }
  }
#pragma clang loop unroll(full)
  for (size_t v = 0; v < 4; v++)
#pragma clang loop unroll(full)
    for (size_t p = 0; 2 * p < rows; p++) {
      int64x2_t l = vreinterpretq_s64_s32(sum[v][p][0]), h = vreinterpretq_s64_s32(sum[v][p][1]);
      int32_t *out = acc + 2 * p * MWK_PANEL + 4 * v;
      vst1q_s32(out, vreinterpretq_s32_s64(vzip1q_s64(l, h)));
      if (2 * p + 1 < rows) vst1q_s32(out + MWK_PANEL, vreinterpretq_s32_s64(vzip2q_s64(l, h)));
    }
  if (k < quads) add_quad(rows, q + 4 * k, q_stride, panel, acc);
}

typedef void (*tile_function)(size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, int32_t *acc);
#define MWK_TILE(r) \
  static void tile_##r(size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, int32_t *acc) { \
    tile_of(r, quads, q, q_stride, panel, acc); \
  }
MWK_TILE(1) MWK_TILE(2) MWK_TILE(3) MWK_TILE(4) MWK_TILE(5) MWK_TILE(6)

static void tile(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, size_t vectors,
                 int32_t *acc) {
  static const tile_function tiles[MWK_TILE_ROWS] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
  for (size_t c = 0; c < vectors * MWK_LANES; c += MWK_LANES) tiles[rows - 1](quads, q, q_stride, panel + 4 * c, acc + c);
}

#include "gemm_i8_finish.h"
#include "gemm_i8_body.h"
#pragma clang attribute pop
#endif
