#include "../simd/scalar.h"
#include "../core/families.h"

static void tile(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, size_t vectors,
                 int32_t *acc) {
  for (size_t r = 0; r < rows; r++, q += q_stride, acc += MWK_PANEL) {
    memset(acc, 0, MWK_PANEL * sizeof *acc);
    for (size_t k = 0; k < quads; k++)
      for (size_t c = 0; c < vectors * MWK_LANES; c++)
        for (size_t j = 0; j < 4; j++) acc[c] += q[4 * k + j] * panel[(k * MWK_PANEL + c) * 4 + j];
  }
}

#include "gemm_i8_finish.h"
#include "gemm_i8_body.h"
