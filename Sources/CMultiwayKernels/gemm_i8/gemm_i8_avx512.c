#if defined(__x86_64__)
#include "../simd/avx512.h"
#include "../core/families.h"

// 6×64 outputs: 24 accumulators, 4 weight registers, 1 broadcast of four activations.
MWK_INLINE void tile_of(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel,
                        int32_t *acc) {
  __m512i sum[MWK_TILE_ROWS][4];
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 4; v++) sum[r][v] = _mm512_setzero_si512();
  for (size_t k = 0; k < quads; k++, panel += MWK_PANEL * 4) {
    __m512i w[4];
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 4; v++) w[v] = _mm512_loadu_si512(panel + 64 * v);
#pragma clang loop unroll(full)
    for (size_t r = 0; r < rows; r++) {
      int32_t quad;
      memcpy(&quad, q + r * q_stride + 4 * k, sizeof quad);
      __m512i x = _mm512_set1_epi32(quad);
#pragma clang loop unroll(full)
      for (size_t v = 0; v < 4; v++) sum[r][v] = _mm512_dpbusd_epi32(sum[r][v], x, w[v]);
    }
  }
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 4; v++) _mm512_storeu_si512(acc + r * MWK_PANEL + 16 * v, sum[r][v]);
}

typedef void (*tile_function)(size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, int32_t *acc);
#define MWK_TILE(r) \
  static void tile_##r(size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, int32_t *acc) { \
    tile_of(r, quads, q, q_stride, panel, acc); \
  }
MWK_TILE(1) MWK_TILE(2) MWK_TILE(3) MWK_TILE(4) MWK_TILE(5) MWK_TILE(6)

static void tile(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, int32_t *acc) {
  static const tile_function tiles[MWK_TILE_ROWS] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
  tiles[rows - 1](quads, q, q_stride, panel, acc);
}

#include "gemm_i8_body.h"
#pragma clang attribute pop
#endif
