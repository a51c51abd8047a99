#if defined(__x86_64__)
#include "../simd/avx512.h"
#include "../core/families.h"

#include "gemm_i8_finish.h"
#define MWK_FUSED_PRODUCTS

typedef struct {
  const uint8_t *q;
  size_t q_stride, quads;
  const int8_t *panel;
  const int32_t *zero, *weight_sum;
  const float *scale, *weight_scale;
  const mwk_epilogue *epilogue;
  mwk_lines next;
  int32_t *acc;
} product_job;

/// What a tile asks for on its way: weights that come next, and the outputs of the tile that follows.
typedef struct {
  mwk_lines weights;
  const float *outputs;
  size_t stride, rows;
} ahead;

/// One line of each.
MWK_INLINE void fetch(ahead *next) {
  mwk_fetch_some(&next->weights, 1);
  if (next->rows == 0) return;
  for (size_t c = 0; c < MWK_PANEL; c += MWK_CACHE_LINE / sizeof *next->outputs) __builtin_prefetch(next->outputs + c, 1, 2);
  next->rows--, next->outputs += next->stride;
}

// 6×64 outputs: 24 accumulators, 4 weight registers, 1 broadcast of four activations. The lines to ask for are spread over the
// products: asked for at once they would take all places where a core notes what it waits for, and the panel itself would have to queue.
MWK_INLINE void multiply(size_t rows, size_t vectors, const product_job *job, __m512i sum[MWK_TILE_ROWS][4]) {
  const uint8_t *q = job->q;
  const int8_t *panel = job->panel;
  const mwk_epilogue *epilogue = job->epilogue;
  ahead next = {job->next, epilogue->y + rows * epilogue->y_stride, epilogue->y_stride, epilogue->rows_ahead};
  size_t quads = job->quads, q_stride = job->q_stride, every = quads / (mwk_max(next.weights.lines, next.rows) + 1) + 1;
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < vectors; v++) sum[r][v] = _mm512_setzero_si512();
  for (size_t k = 0; k < quads; fetch(&next)) {
    for (size_t end = mwk_min(k + every, quads); k < end; k++, panel += MWK_PANEL * 4) {
      __m512i w[4];
#pragma clang loop unroll(full)
      for (size_t v = 0; v < vectors; v++) w[v] = _mm512_loadu_si512(panel + 64 * v);
#pragma clang loop unroll(full)
      for (size_t r = 0; r < rows; r++) {
        int32_t quad;
        memcpy(&quad, q + r * q_stride + 4 * k, sizeof quad);
        __m512i x = _mm512_set1_epi32(quad);
#pragma clang loop unroll(full)
        for (size_t v = 0; v < vectors; v++) sum[r][v] = _mm512_dpbusd_epi32(sum[r][v], x, w[v]);
      }
    }
  }
  mwk_fetch_some(&next.weights, next.weights.lines);
}

/// Sums to memory, for `finish`.
MWK_INLINE void products_by_memory(size_t rows, size_t vectors, const product_job *job) {
  __m512i sum[MWK_TILE_ROWS][4];
  multiply(rows, vectors, job, sum);
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < vectors; v++) _mm512_storeu_si512(job->acc + r * MWK_PANEL + 16 * v, sum[r][v]);
}

/// Sums, and what follows them, without leaving the registers: for 64 outputs and no activation.
MWK_INLINE void products_in_registers(size_t rows, const product_job *job) {
  __m512i sum[MWK_TILE_ROWS][4];
  multiply(rows, 4, job, sum);
  mwk_epilogue epilogue = *job->epilogue;
  epilogue.activation = mwk_activation_none;
#pragma clang loop unroll(full)
  for (size_t v = 0; v < 4; v++) {
    iv16 sums = i_load(job->weight_sum + 16 * v);
    v16 scales = v_load(job->weight_scale + 16 * v), bias = epilogue.bias ? v_load(epilogue.bias + 16 * v) : v_set(0.0f);
#pragma clang loop unroll(full)
    for (size_t r = 0; r < rows; r++) {
      v16 t = i_float(i_sub(sum[r][v], i_mul(i_set(job->zero[r]), sums))), s = v_mul(v_set(job->scale[r]), scales);
      store_outputs(epilogue.bias ? v_fma(t, s, bias) : v_mul(t, s), r, 16 * v, MWK_LANES, &epilogue);
    }
  }
}

typedef void (*product_function)(const product_job *job);
#define MWK_TILE(r, v) \
  static void products_##r##_##v(const product_job *job) { products_by_memory(r, v, job); }
#define MWK_WHOLE(r) \
  static void products_##r(const product_job *job) { products_in_registers(r, job); }
#define MWK_TILES(v) MWK_TILE(1, v) MWK_TILE(2, v) MWK_TILE(3, v) MWK_TILE(4, v) MWK_TILE(5, v) MWK_TILE(6, v)
#define MWK_TILE_NAMES(v) \
  {products_1_##v, products_2_##v, products_3_##v, products_4_##v, products_5_##v, products_6_##v}
MWK_TILES(1) MWK_TILES(2) MWK_TILES(3) MWK_TILES(4)
MWK_WHOLE(1) MWK_WHOLE(2) MWK_WHOLE(3) MWK_WHOLE(4) MWK_WHOLE(5) MWK_WHOLE(6)

static void products(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, size_t outputs,
                     const int32_t *zero, const float *scale, const float *weight_scale, const int32_t *weight_sum,
                     const mwk_epilogue *epilogue, mwk_lines next, int32_t *acc) {
  static const product_function by_memory[4][MWK_TILE_ROWS] = {MWK_TILE_NAMES(1), MWK_TILE_NAMES(2), MWK_TILE_NAMES(3),
                                                               MWK_TILE_NAMES(4)};
  static const product_function whole[MWK_TILE_ROWS] = {products_1, products_2, products_3, products_4, products_5,
                                                        products_6};
  product_job job = {q, q_stride, quads, panel, zero, weight_sum, scale, weight_scale, epilogue, next, acc};
  if (outputs == MWK_PANEL && epilogue->activation == mwk_activation_none) {
    whole[rows - 1](&job);
    return;
  }
  by_memory[mwk_ceil_div(outputs, MWK_LANES) - 1][rows - 1](&job);
  finish(rows, outputs, acc, zero, scale, weight_scale, weight_sum, epilogue);
}

#include "gemm_i8_body.h"
#pragma clang attribute pop
#endif
