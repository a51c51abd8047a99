#if defined(__x86_64__)
#include "../simd/avx2.h"
#include "../core/families.h"

// vpmaddubsw would saturate at 2·255·127, so both sides are widened to int16 and multiplied by vpmaddwd, which is exact.
// One output's four products become two int32 lanes; they are added when the sums are stored.
MWK_INLINE void tile_of(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel,
                        int32_t *acc) {
  __m256i sum[2][4];
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
    for (size_t v = 0; v < 4; v++) sum[r][v] = _mm256_setzero_si256();
  for (size_t k = 0; k < quads; k++, panel += MWK_PANEL * 4) {
    __m256i w[4];
#pragma clang loop unroll(full)
    for (size_t v = 0; v < 4; v++)
      w[v] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(panel + 16 * v)));
#pragma clang loop unroll(full)
    for (size_t r = 0; r < rows; r++) {
      int32_t quad;
      memcpy(&quad, q + r * q_stride + 4 * k, sizeof quad);
      __m256i x = _mm256_cvtepu8_epi16(_mm_set1_epi32(quad));
#pragma clang loop unroll(full)
      for (size_t v = 0; v < 4; v++) sum[r][v] = _mm256_add_epi32(sum[r][v], _mm256_madd_epi16(x, w[v]));
    }
  }
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
    for (size_t v = 0; v < 4; v += 2) {
      __m256i pairs = _mm256_permute4x64_epi64(_mm256_hadd_epi32(sum[r][v], sum[r][v + 1]), 0xd8);
      _mm256_storeu_si256((__m256i *)(acc + r * MWK_PANEL + 4 * v), pairs);
    }
}

static void tile_2(size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, int32_t *acc) {
  tile_of(2, quads, q, q_stride, panel, acc);
}
static void tile_1(size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, int32_t *acc) {
  tile_of(1, quads, q, q_stride, panel, acc);
}

static void tile(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, size_t vectors,
                 int32_t *acc) {
  for (size_t c = 0; c < vectors * MWK_LANES; c += MWK_LANES) {
    size_t r = 0;
    for (; r + 2 <= rows; r += 2)
      tile_2(quads, q + r * q_stride, q_stride, panel + 4 * c, acc + r * MWK_PANEL + c);
    if (r < rows) tile_1(quads, q + r * q_stride, q_stride, panel + 4 * c, acc + r * MWK_PANEL + c);
  }
}

#include "gemm_i8_finish.h"
#include "gemm_i8_body.h"
#pragma clang attribute pop
#endif
