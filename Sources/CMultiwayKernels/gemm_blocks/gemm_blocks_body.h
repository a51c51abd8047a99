// Included once per instruction set, after its vector header. Lane j of an accumulator takes the inputs k ≡ j mod 16 in order; a
// tree adds the lanes. So it does not matter whether decoded weights pass through memory.
#include "../core/ahead.h"
#include "../core/families.h"
#include "gemm_blocks_encode.h"

#if MWK_TILE_VECTORS == 4
#define GROUP 4
#define TILE_ROWS 6
#define DIRECT_ROWS 4
#else
#define GROUP 2
#define TILE_ROWS 3
#define DIRECT_ROWS 2
#endif
/// Inputs that a tile works on at a time: so much of its rows stays in the first-level cache while the outputs pass by.
#define CHUNK ((size_t)512)
/// Bytes that are asked for before they are decoded, so that memory is never waited for.
#define AHEAD ((size_t)8192)

/// The weights of a block.
MWK_INLINE void decode_block(mwk_block_type type, const uint8_t *p, v16 w[2]) {
  v16 scale = v_set(f16_at(p));
  switch (type) {
  case mwk_block_q4_0: v_load_nibbles(p + 2, -8, scale, v_set(0.0f), w); break;
  case mwk_block_q4_1: v_load_nibbles(p + 4, 0, scale, v_set(f16_at(p + 2)), w); break;
  default:
    w[0] = v_mul(scale, v_load_i8(p + 2));
    w[1] = v_mul(scale, v_load_i8(p + 18));
    break;
  }
}

/// `outputs` rows of blocks that lie one after the other, times `rows` rows.
MWK_INLINE void direct_of(mwk_block_type type, size_t rows, size_t outputs, size_t inputs, const float *x, size_t x_stride,
                          const uint8_t *blocks, float *sums) {
  size_t block_bytes = mwk_bytes_of_block(type), count = inputs / MWK_BLOCK, row_bytes = count * block_bytes;
  v16 sum[DIRECT_ROWS][GROUP];
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t o = 0; o < outputs; o++) sum[r][o] = v_set(0.0f);
  const uint8_t *ahead = (const uint8_t *)((uintptr_t)blocks + AHEAD);  // past the end too: asking never faults
  for (size_t b = 0; b < count; b++) {
    for (size_t line = 0; line < outputs * block_bytes; line += MWK_CACHE_LINE) __builtin_prefetch(ahead + line, 0, 2);
    ahead += outputs * block_bytes;
#pragma clang loop unroll(full)
    for (size_t o = 0; o < outputs; o++) {
      v16 w[2];
      decode_block(type, blocks + o * row_bytes + b * block_bytes, w);
#pragma clang loop unroll(full)
      for (size_t r = 0; r < rows; r++) {
        const float *row = x + r * x_stride + b * MWK_BLOCK;
        sum[r][o] = v_fma(v_load(row), w[0], sum[r][o]);
        sum[r][o] = v_fma(v_load(row + MWK_LANES), w[1], sum[r][o]);
      }
    }
  }
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t o = 0; o < outputs; o++) sums[r * MWK_PANEL + o] = v_sum(sum[r][o]);
}

typedef void (*direct_function)(size_t inputs, const float *x, size_t x_stride, const uint8_t *blocks, float *sums);
#define MWK_DIRECT(type, r, o) \
  static void direct_##type##_##r##_##o(size_t inputs, const float *x, size_t x_stride, const uint8_t *blocks, float *sums) { \
    direct_of(mwk_block_##type, r, o, inputs, x, x_stride, blocks, sums); \
  }
#if MWK_TILE_VECTORS == 4
#define MWK_DIRECTS(type) \
  MWK_DIRECT(type, 1, 4) MWK_DIRECT(type, 2, 4) MWK_DIRECT(type, 3, 4) MWK_DIRECT(type, 4, 4) \
  MWK_DIRECT(type, 1, 1) MWK_DIRECT(type, 2, 1) MWK_DIRECT(type, 3, 1) MWK_DIRECT(type, 4, 1)
#define MWK_DIRECT_NAMES(type) \
  {{direct_##type##_1_4, direct_##type##_2_4, direct_##type##_3_4, direct_##type##_4_4}, \
   {direct_##type##_1_1, direct_##type##_2_1, direct_##type##_3_1, direct_##type##_4_1}}
#else
#define MWK_DIRECTS(type) MWK_DIRECT(type, 1, 2) MWK_DIRECT(type, 2, 2) MWK_DIRECT(type, 1, 1) MWK_DIRECT(type, 2, 1)
#define MWK_DIRECT_NAMES(type) \
  {{direct_##type##_1_2, direct_##type##_2_2}, {direct_##type##_1_1, direct_##type##_2_1}}
#endif
MWK_DIRECTS(q8_0)
MWK_DIRECTS(q4_0)
MWK_DIRECTS(q4_1)
static const direct_function directs[3][2][DIRECT_ROWS] = {MWK_DIRECT_NAMES(q8_0), MWK_DIRECT_NAMES(q4_0),
                                                           MWK_DIRECT_NAMES(q4_1)};

static void direct(mwk_block_type type, size_t rows, size_t outputs, size_t inputs, const float *x, size_t x_stride,
                   const void *blocks, float *sums) {
  size_t row_bytes = inputs / MWK_BLOCK * mwk_bytes_of_block(type), o = 0;
  const uint8_t *at = blocks;
  for (; o + GROUP <= outputs; o += GROUP)
    directs[type][0][rows - 1](inputs, x, x_stride, at + o * row_bytes, sums + o);
  for (; o < outputs; o++) directs[type][1][rows - 1](inputs, x, x_stride, at + o * row_bytes, sums + o);
}

MWK_INLINE void decode_as(mwk_block_type type, size_t outputs, size_t inputs, const uint8_t *blocks, float *panel) {
  size_t block_bytes = mwk_bytes_of_block(type), count = inputs / MWK_BLOCK;
  for (size_t o = 0; o < mwk_round_up(outputs, GROUP); o++) {
    float *into = panel + o / GROUP * GROUP * inputs + o % GROUP * MWK_LANES;
    for (size_t b = 0; b < count; b++, into += 2 * GROUP * MWK_LANES) {
      v16 w[2] = {v_set(0.0f), v_set(0.0f)};
      if (o < outputs) decode_block(type, blocks + (o * count + b) * block_bytes, w);
      v_store(into, w[0]);
      v_store(into + GROUP * MWK_LANES, w[1]);
    }
  }
}

static void decode(mwk_block_type type, size_t outputs, size_t inputs, const void *blocks, float *panel) {
  switch (type) {
  case mwk_block_q4_0: decode_as(mwk_block_q4_0, outputs, inputs, blocks, panel); break;
  case mwk_block_q4_1: decode_as(mwk_block_q4_1, outputs, inputs, blocks, panel); break;
  default: decode_as(mwk_block_q8_0, outputs, inputs, blocks, panel); break;
  }
}

/// Adds `steps` vectors of inputs to the chains of `rows` rows and a group of outputs; they start from zeros where `first`.
MWK_INLINE void tile_of(size_t rows, size_t steps, bool first, const float *x, size_t x_stride, const float *panel,
                        float *partial) {
  v16 sum[TILE_ROWS][GROUP];
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t o = 0; o < GROUP; o++)
      sum[r][o] = first ? v_set(0.0f) : v_load(partial + (r * GROUP + o) * MWK_LANES);
  for (size_t i = 0; i < steps; i++, x += MWK_LANES, panel += GROUP * MWK_LANES) {
    v16 w[GROUP];
#pragma clang loop unroll(full)
    for (size_t o = 0; o < GROUP; o++) w[o] = v_load(panel + o * MWK_LANES);
#pragma clang loop unroll(full)
    for (size_t r = 0; r < rows; r++) {
      v16 row = v_load(x + r * x_stride);
#pragma clang loop unroll(full)
      for (size_t o = 0; o < GROUP; o++) sum[r][o] = v_fma(row, w[o], sum[r][o]);
    }
  }
#pragma clang loop unroll(full)
  for (size_t r = 0; r < rows; r++)
#pragma clang loop unroll(full)
    for (size_t o = 0; o < GROUP; o++) v_store(partial + (r * GROUP + o) * MWK_LANES, sum[r][o]);
}

typedef void (*tile_function)(size_t steps, bool first, const float *x, size_t x_stride, const float *panel, float *partial);
#define MWK_TILE(r) \
  static void tile_##r(size_t steps, bool first, const float *x, size_t x_stride, const float *panel, float *partial) { \
    tile_of(r, steps, first, x, x_stride, panel, partial); \
  }
MWK_TILE(1)
MWK_TILE(2)
MWK_TILE(3)
#if MWK_TILE_VECTORS == 4
MWK_TILE(4)
MWK_TILE(5)
MWK_TILE(6)
static const tile_function tiles[TILE_ROWS] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
#else
static const tile_function tiles[TILE_ROWS] = {tile_1, tile_2, tile_3};
#endif

static void tile(size_t rows, size_t outputs, size_t inputs, const float *x, size_t x_stride, const float *panel,
                 float *partial, float *sums) {
  size_t groups = mwk_ceil_div(outputs, GROUP), each = rows * GROUP * MWK_LANES;
  for (size_t k = 0; k < inputs; k += CHUNK)
    for (size_t g = 0; g < groups; g++)
      tiles[rows - 1](mwk_min(CHUNK, inputs - k) / MWK_LANES, k == 0, x + k, x_stride, panel + (g * inputs + k) * GROUP,
                      partial + g * each);
  for (size_t r = 0; r < rows; r++)
    for (size_t o = 0; o < outputs; o += MWK_LANES) {
      v16 chains[MWK_LANES];
      for (size_t i = 0; i < MWK_LANES; i++) {
        size_t output = mwk_min(o + i, outputs - 1);
        chains[i] = v_load(partial + output / GROUP * each + (r * GROUP + output % GROUP) * MWK_LANES);
      }
      v_store(sums + r * MWK_PANEL + o, v_sums(chains));
    }
}

const mwk_gemm_blocks MWK_JOIN(mwk_gemm_blocks, MWK_ISA_SUFFIX);
const mwk_gemm_blocks MWK_JOIN(mwk_gemm_blocks, MWK_ISA_SUFFIX) = {
    .direct_rows = DIRECT_ROWS, .tile_rows = TILE_ROWS, .group = GROUP,
    .direct = direct, .decode = decode, .tile = tile, .encode = encode,
};
