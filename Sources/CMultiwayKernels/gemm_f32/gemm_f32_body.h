// Included once per instruction set, after its vector header. One accumulator per output, k in increasing order.
#include "../core/families.h"
#include "../simd/epilogue.h"

MWK_INLINE void tile_of(size_t rows, size_t vectors, size_t k, const float *a, size_t a_stride, const float *b,
                        float *acc) {
  v16 sum[MWK_TILE_ROWS][MWK_TILE_VECTORS];
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < vectors; v++) sum[r][v] = v_load(acc + r * MWK_PANEL + v * MWK_LANES);
  for (size_t i = 0; i < k; i++, b += MWK_PANEL) {
    v16 w[MWK_TILE_VECTORS];
#pragma clang loop unroll(full)
    for (size_t v = 0; v < vectors; v++) w[v] = v_load(b + v * MWK_LANES);
#pragma clang loop unroll(full)
    for (size_t r = 0; r < rows; r++) {
      v16 x = v_set(a[r * a_stride + i]);
#pragma clang loop unroll(full)
      for (size_t v = 0; v < vectors; v++) sum[r][v] = v_fma(x, w[v], sum[r][v]);
    }
  }
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t v = 0; v < vectors; v++) v_store(acc + r * MWK_PANEL + v * MWK_LANES, sum[r][v]);
}

#define MWK_TILE(r, v) \
  static void tile_##r##_##v(size_t k, const float *a, size_t a_stride, const float *b, float *acc) { \
    tile_of(r, v, k, a, a_stride, b, acc); \
  }
#define MWK_TILES(v) MWK_TILE(1, v) MWK_TILE(2, v) MWK_TILE(3, v) MWK_TILE(4, v) MWK_TILE(5, v) MWK_TILE(6, v)
#define MWK_TILE_NAMES(v) {tile_1_##v, tile_2_##v, tile_3_##v, tile_4_##v, tile_5_##v, tile_6_##v}

typedef void (*tile_function)(size_t k, const float *a, size_t a_stride, const float *b, float *acc);
MWK_TILES(1)
static const tile_function narrow_tiles[MWK_TILE_ROWS] = MWK_TILE_NAMES(1);
#if MWK_TILE_VECTORS == 4
MWK_TILES(4)
static const tile_function wide_tiles[MWK_TILE_ROWS] = MWK_TILE_NAMES(4);
#endif

static void tile(size_t rows, size_t k, const float *a, size_t a_stride, const float *b, size_t vectors, float *acc) {
#if MWK_TILE_VECTORS == 4
  if (vectors == 4) {
    wide_tiles[rows - 1](k, a, a_stride, b, acc);
    return;
  }
#endif
  for (size_t v = 0; v < vectors; v++)
    narrow_tiles[rows - 1](k, a, a_stride, b + v * MWK_LANES, acc + v * MWK_LANES);
}

MWK_INLINE size_t weight_bytes(mwk_weight_type type) { return type == mwk_weight_f32 ? 4 : 2; }

MWK_INLINE v16 load_weights(mwk_weight_type type, const void *p) {
  switch (type) {
  case mwk_weight_f16: return v_load_f16(p);
  case mwk_weight_bf16: return v_load_bf16(p);
  default: break;
  }
  float block[MWK_LANES];
  memcpy(block, p, sizeof block);  // a safetensors file may put a float at any byte
  return v_load(block);
}

/// 16 weights of one row from `at`, zeros where row or matrix end.
MWK_INLINE v16 weights_at(mwk_weight_type type, const char *row, size_t at, size_t inputs) {
  size_t size = weight_bytes(type);
  if (at + MWK_LANES <= inputs) return load_weights(type, row + at * size);
  char tail[4 * MWK_LANES] = {0};
  memcpy(tail, row + at * size, (inputs - at) * size);
  return load_weights(type, tail);
}

MWK_INLINE void pack_as(mwk_weight_type type, size_t outputs, size_t inputs, const char *weight, size_t row_bytes,
                        float *b) {
  for (size_t o = 0; o < MWK_PANEL; o += MWK_LANES) {
    size_t i = 0;
    for (; o + MWK_LANES <= outputs && i + MWK_LANES <= inputs; i += MWK_LANES) {
      v16 block[MWK_LANES];
#pragma clang loop unroll(full)
      for (size_t r = 0; r < MWK_LANES; r++)
        block[r] = load_weights(type, weight + (o + r) * row_bytes + i * weight_bytes(type));
      v_transpose(block);
#pragma clang loop unroll(full)
      for (size_t c = 0; c < MWK_LANES; c++) v_store(b + (i + c) * MWK_PANEL + o, block[c]);
    }
    for (; i < inputs; i += MWK_LANES) {
      v16 block[MWK_LANES];
      for (size_t r = 0; r < MWK_LANES; r++)
        block[r] = o + r < outputs ? weights_at(type, weight + (o + r) * row_bytes, i, inputs) : v_set(0.0f);
      v_transpose(block);
      size_t count = mwk_min(MWK_LANES, inputs - i);
      for (size_t c = 0; c < count; c++) v_store(b + (i + c) * MWK_PANEL + o, block[c]);
    }
  }
}

static void pack(mwk_weight_type type, size_t outputs, size_t inputs, const void *weight, size_t row_bytes, float *b) {
  switch (type) {
  case mwk_weight_f16: pack_as(mwk_weight_f16, outputs, inputs, weight, row_bytes, b); break;
  case mwk_weight_bf16: pack_as(mwk_weight_bf16, outputs, inputs, weight, row_bytes, b); break;
  default: pack_as(mwk_weight_f32, outputs, inputs, weight, row_bytes, b); break;
  }
}

// A few rows: 16 weights of 16 outputs at a time are turned in registers and used at once, so that weights pass from memory to the
// sums without being written again.

typedef struct {
  size_t inputs, row_bytes, x_stride;
  const char *weight;
  const float *x;
} few_job;

/// The sums of 16 rows of weights; of fewer where `outputs` is less.
MWK_INLINE void few_sums(mwk_weight_type type, size_t rows, size_t outputs, const few_job *job, v16 sum[MWK_TILE_ROWS]) {
  size_t size = weight_bytes(type), i = 0;
  v16 block[MWK_LANES];
  for (; outputs >= MWK_LANES && i + MWK_LANES <= job->inputs; i += MWK_LANES) {
    // The weights of the next 16 outputs, in the order in which they lie; never faults.
    const char *next = job->weight + MWK_LANES * (job->row_bytes + i * size);
    MWK_UNROLL
    for (size_t line = 0; line < MWK_LANES * MWK_LANES * size; line += 64) __builtin_prefetch(next + line, 0, 2);
    MWK_UNROLL
    for (size_t o = 0; o < MWK_LANES; o++) block[o] = load_weights(type, job->weight + o * job->row_bytes + i * size);
    v_transpose(block);
    MWK_UNROLL
    for (size_t c = 0; c < MWK_LANES; c++) {
      MWK_UNROLL
      for (size_t r = 0; r < rows; r++) sum[r] = v_fma(v_set(job->x[r * job->x_stride + i + c]), block[c], sum[r]);
    }
  }
  for (; i < job->inputs; i += MWK_LANES) {
    for (size_t o = 0; o < MWK_LANES; o++)
      block[o] = o < outputs ? weights_at(type, job->weight + o * job->row_bytes, i, job->inputs) : v_set(0.0f);
    v_transpose(block);
    size_t count = mwk_min(MWK_LANES, job->inputs - i);
    for (size_t c = 0; c < count; c++) {
      MWK_UNROLL
      for (size_t r = 0; r < rows; r++) sum[r] = v_fma(v_set(job->x[r * job->x_stride + i + c]), block[c], sum[r]);
    }
  }
}

MWK_INLINE void few_of(mwk_weight_type type, size_t rows, size_t outputs, few_job job, float *acc) {
  for (size_t o = 0; o < outputs; o += MWK_LANES, job.weight += MWK_LANES * job.row_bytes) {
    v16 sum[MWK_TILE_ROWS];
    MWK_UNROLL
    for (size_t r = 0; r < rows; r++) sum[r] = v_set(0.0f);
    few_sums(type, rows, outputs - o, &job, sum);
    MWK_UNROLL
    for (size_t r = 0; r < rows; r++) v_store(acc + r * MWK_PANEL + o, sum[r]);
  }
}

#define MWK_FEW(r, type) \
  static void few_##r##_##type(size_t outputs, const few_job *job, float *acc) { \
    few_of(mwk_weight_##type, r, outputs, *job, acc); \
  }
#define MWK_FEWS(type) \
  MWK_FEW(1, type) MWK_FEW(2, type) MWK_FEW(3, type) MWK_FEW(4, type) MWK_FEW(5, type) MWK_FEW(6, type)
#define MWK_FEW_NAMES(type) {few_1_##type, few_2_##type, few_3_##type, few_4_##type, few_5_##type, few_6_##type}
MWK_FEWS(f32) MWK_FEWS(f16) MWK_FEWS(bf16)

static void few(mwk_weight_type type, size_t rows, size_t outputs, size_t inputs, const void *weight, size_t row_bytes,
                const float *x, size_t x_stride, float *acc) {
  static void (*const functions[][MWK_TILE_ROWS])(size_t, const few_job *, float *) = {
      [mwk_weight_f32] = MWK_FEW_NAMES(f32), [mwk_weight_f16] = MWK_FEW_NAMES(f16), [mwk_weight_bf16] = MWK_FEW_NAMES(bf16)};
  few_job job = {.inputs = inputs, .row_bytes = row_bytes, .x_stride = x_stride, .weight = weight, .x = x};
  functions[type][rows - 1](outputs, &job, acc);
}

static void finish(size_t rows, size_t outputs, const float *acc, const mwk_epilogue *epilogue) {
  for (size_t at = 0; at < outputs; at += MWK_LANES) {
    size_t left = mwk_min(outputs - at, MWK_LANES);
    v16 bias = epilogue->bias ? v_loadn(epilogue->bias + at, left, 0.0f) : v_set(0.0f);
    for (size_t r = 0; r < rows; r++) {
      v16 v = v_load(acc + r * MWK_PANEL + at);  // the accumulators are padded to the panel
      store_outputs(epilogue->bias ? v_add(v, bias) : v, r, at, left, epilogue);
    }
  }
}

const mwk_gemm_f32 MWK_JOIN(mwk_gemm_f32, MWK_ISA_SUFFIX);
const mwk_gemm_f32 MWK_JOIN(mwk_gemm_f32, MWK_ISA_SUFFIX) = {
    .tile = tile, .pack = pack, .few = few, .finish = finish};
