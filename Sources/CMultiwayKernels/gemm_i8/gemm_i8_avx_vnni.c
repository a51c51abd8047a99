#if defined(__x86_64__)
#if !defined(MWK_TARGET)
#define MWK_TARGET "avx2,fma,f16c,avxvnni"
#define MWK_ISA_SUFFIX avx_vnni
#endif
#include "../simd/avx2.h"
#include "../core/families.h"

// 6×16 outputs: 12 sums, 2 registers of weights, 1 broadcast of four activations.
MWK_INLINE void tile_of(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel,
                        int32_t *acc) {
  __m256i sum[MWK_TILE_ROWS][2];
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 2; v++) sum[r][v] = _mm256_setzero_si256();
  for (size_t k = 0; k < quads; k++, panel += MWK_PANEL * 4) {
    __m256i w[2];
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 2; v++) w[v] = _mm256_loadu_si256((const __m256i *)(panel + 32 * v));
#pragma clang loop unroll(full)
    for (size_t r = 0; r < rows; r++) {
      int32_t quad;
      memcpy(&quad, q + r * q_stride + 4 * k, sizeof quad);
      __m256i x = _mm256_set1_epi32(quad);
#pragma clang loop unroll(full)
      for (size_t v = 0; v < 2; v++) sum[r][v] = _mm256_dpbusd_epi32(sum[r][v], x, w[v]);
    }
  }
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 2; v++) _mm256_storeu_si256((__m256i *)(acc + r * MWK_PANEL + 8 * v), sum[r][v]);
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
