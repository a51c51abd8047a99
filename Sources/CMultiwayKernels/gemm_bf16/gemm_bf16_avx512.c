#if defined(__x86_64__)
#include "../simd/common.h"
#include <immintrin.h>
#include "../core/families.h"
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))), apply_to = function)

// 6×64 outputs: 24 accumulators, 4 weight registers, 1 broadcast of two activations.
MWK_INLINE void tile_of(size_t rows, size_t pairs, const uint16_t *x, size_t x_stride, const uint16_t *panel, float *acc) {
  __m512 sum[MWK_TILE_ROWS][4];
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 4; v++) sum[r][v] = _mm512_setzero_ps();
  for (size_t k = 0; k < pairs; k++, panel += MWK_PANEL * 2) {
    __m512bh w[4];
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 4; v++) w[v] = (__m512bh)_mm512_loadu_si512(panel + 32 * v);
#pragma clang loop unroll(full)
    for (size_t r = 0; r < rows; r++) {
      int32_t pair;
      memcpy(&pair, x + r * x_stride + 2 * k, sizeof pair);
      __m512bh two = (__m512bh)_mm512_set1_epi32(pair);
#pragma clang loop unroll(full)
      for (size_t v = 0; v < 4; v++) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], two, w[v]);
    }
  }
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 4; v++) _mm512_storeu_ps(acc + r * MWK_PANEL + 16 * v, sum[r][v]);
}

typedef void (*tile_function)(size_t pairs, const uint16_t *x, size_t x_stride, const uint16_t *panel, float *acc);
#define MWK_TILE(r) \
  static void tile_##r(size_t pairs, const uint16_t *x, size_t x_stride, const uint16_t *panel, float *acc) { \
    tile_of(r, pairs, x, x_stride, panel, acc); \
  }
MWK_TILE(1) MWK_TILE(2) MWK_TILE(3) MWK_TILE(4) MWK_TILE(5) MWK_TILE(6)

static void tile(size_t rows, size_t pairs, const uint16_t *x, size_t x_stride, const uint16_t *panel, float *acc) {
  static const tile_function tiles[MWK_TILE_ROWS] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
  tiles[rows - 1](pairs, x, x_stride, panel, acc);
}

/// Two rows of 64 values side by side: column c becomes the pair c.
static void interleave(size_t count, const uint16_t *even, const uint16_t *odd, uint16_t *panel) {
  for (size_t k = 0; k < count; k++, even += 2 * MWK_PANEL, odd += 2 * MWK_PANEL, panel += 2 * MWK_PANEL)
    for (size_t c = 0; c < MWK_PANEL; c += 16) {
      __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(even + c)));
      __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(odd + c)));
      _mm512_storeu_si512(panel + 2 * c, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

const mwk_gemm_bf16 mwk_gemm_bf16_avx512 = {.tile = tile, .interleave = interleave};
#pragma clang attribute pop
#endif
