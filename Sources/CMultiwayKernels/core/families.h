#pragma once
// A kernel family is a struct of function pointers; each instruction set provides one constant of it. The list of a
// family's constants is <family>/<family>.inc: a new instruction set is one file and one line there.
#include "../include/CMultiwayKernels.h"
#include "../simd/common.h"
#include "ahead.h"

/// Outputs in one weight panel, int8 and fp32 alike.
#define MWK_PANEL 64
/// Rows that a matrix tile computes at once.
#define MWK_TILE_ROWS 6

typedef struct {
  void (*gelu)(size_t n, const float *x, float *y);
  void (*tanh)(size_t n, const float *x, float *y);
  void (*add)(size_t n, const float *a, const float *b, float *y);
  void (*multiply)(size_t n, const float *a, const float *b, float *y);
  void (*scale)(size_t n, float factor, const float *x, float *y);
  void (*exp)(size_t n, const float *x, float *y);
  void (*relu)(size_t n, const float *x, float *y);
  /// The largest of n numbers, NaN left out; −∞ for none.
  float (*largest)(size_t n, const float *x);
  /// Σ exp(x − shift), a row sum.
  float (*exp_sum)(size_t n, const float *x, float shift);
} mwk_elementwise;

typedef struct {
  void (*layer_norm)(size_t n, const float *x, const float *weight, const float *bias, float eps, float *y);
  void (*normalize)(size_t n, const float *x, float *y);
  /// Writes round_up(n, 4) bytes of q.
  void (*quantize)(size_t n, const float *x, uint8_t *q, float *scale, int32_t *zero);
  /// x ← exp(x + mask − max), for the first n of them; returns 1 / Σ.
  float (*softmax)(size_t n, const float *mask, float *x);
  /// The same, times value_scale, in 16 bits: 256 · high + low ≈ x · value_scale / scale. Writes round_up(n, 4) bytes of each; x is
  /// overwritten.
  float (*softmax_quantize)(size_t n, const float *mask, const float *value_scale, float *x, uint8_t *high, uint8_t *low,
                            float *scale);
} mwk_rows;

typedef struct {
  void (*from_f16)(size_t n, const void *x, float *y);
  void (*from_bf16)(size_t n, const void *x, float *y);
  size_t (*to_f16)(size_t n, const float *x, void *y);
  size_t (*to_bf16)(size_t n, const float *x, void *y);
} mwk_convert;

/// Sums over weights in double precision, of the shape that weights_body.h defines.
typedef struct {
  /// Σ a · b.
  double (*dot)(size_t n, const float *a, const float *b);
  /// Σ a² · weight.
  double (*weighted_squares)(size_t n, const float *a, const double *weight);
  /// squares[i] += a[i]².
  void (*add_squares)(size_t n, const float *a, double *squares);
  /// row · factors as −127…127, values that are not finite as zero; returns the scale, the largest magnitude / 127.
  float (*quantize)(size_t n, const float *row, const float *factors, int16_t *q);
  /// Σ a · b modulo 2³².
  int32_t (*integer_dot)(size_t n, const int16_t *a, const int16_t *b);
} mwk_weights;

/// As in the public header; known to the compiler where the type is.
MWK_INLINE size_t mwk_bytes_of_block(mwk_block_type type) {
  switch (type) {
  case mwk_block_q4_0: return 18;
  case mwk_block_q4_1: return 20;
  default: return 34;
  }
}

/// What follows a tile of sums. All pointers stand at the tile's first row and output.
typedef struct {
  const float *partial;          // or NULL; rows are MWK_PANEL apart; added before the activation
  const float *bias, *residual;  // or NULL; residual rows are y_stride apart, as y's
  mwk_activation activation;
  float *y;
  size_t y_stride;
  size_t rows_ahead;  // so many rows of y after these are written next, and asked for meanwhile
} mwk_epilogue;

typedef struct {
  /// acc[r][c] ← fma chain over k, from what acc holds: a[r·a_stride + k]·b[k·64 + c], for 16·vectors columns.
  void (*tile)(size_t rows, size_t k, const float *a, size_t a_stride, const float *b, size_t vectors, float *acc);
  /// Decodes `outputs` ≤ 64 rows of `inputs` weights, `row_bytes` apart, to b[input][64], zero padded.
  void (*pack)(mwk_weight_type type, size_t outputs, size_t inputs, const void *weight, size_t row_bytes, float *b);
  /// acc[r][c] = fma chain over all inputs, from +0: x[r·x_stride + k] · weight[c][k], for rows ≤ 6 and `outputs` ≤ 64 rows of weights,
  /// `row_bytes` apart: the bits of `pack` and `tile` without a panel in memory.
  void (*few)(mwk_weight_type type, size_t rows, size_t outputs, size_t inputs, const void *weight, size_t row_bytes,
              const float *x, size_t x_stride, float *acc);
  /// Bias, activation, residual for rows of at most 64 outputs.
  void (*finish)(size_t rows, size_t outputs, const float *acc, const mwk_epilogue *epilogue);
} mwk_gemm_f32;

typedef struct {
  /// acc[r][c] = Σ q[r·q_stride + 4k+j] · panel[k][c][j], exact, over `quads` values of k, for rows ≤ 6 and outputs ≤ 64; then zero
  /// points, scales, bias, activation, residual. `acc` is [6][64] of scratch. `next` is asked for on the way.
  void (*products)(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, size_t outputs,
                   const int32_t *zero, const float *scale, const float *weight_scale, const int32_t *weight_sum,
                   const mwk_epilogue *epilogue, mwk_lines next, int32_t *acc);
  /// Quantizes `outputs` ≤ 64 weight rows, `stride` apart, into one panel; returns how many rows hold a value that is not
  /// finite: their scale becomes NaN.
  size_t (*quantize_panel)(size_t outputs, size_t inputs, const float *w, size_t stride, int8_t *panel, float *scale,
                           int32_t *sum);
  /// Quantizes up to four rows of `channels`, each with its own scale, as one quad of inputs of ⌈channels/64⌉ panels that lie
  /// panel_bytes apart. A row that is NULL, and one that there is not, is zeros; the scale of NULL is 0.
  void (*quantize_quad)(size_t rows, size_t channels, const float *const *x, int8_t *panel, size_t panel_bytes,
                        float *scale);
} mwk_gemm_i8;

/// What the CPU's bf16 multiplier does; bias, activation and residual are those of mwk_gemm_f32.
typedef struct {
  /// acc[r][c] = the instruction's sum over pairs of x[r·x_stride + 2k + j]·panel[k][c][j], from +0.
  void (*tile)(size_t rows, size_t pairs, const uint16_t *x, size_t x_stride, const uint16_t *panel, float *acc);
  /// Rows of 64 values, two by two, to panel[pair][64][2]: `even` and `odd` are the first of each, 128 values apart.
  void (*interleave)(size_t pairs, const uint16_t *even, const uint16_t *odd, uint16_t *panel);
} mwk_gemm_bf16;

/// Weights in blocks of 32. Sums are 16 chains, k mod 16, and their tree: the same numbers whichever entry makes them.
typedef struct {
  /// The most rows that `direct` takes, and `tile`; the outputs that lie together in a panel.
  size_t direct_rows, tile_rows, group;
  /// sums[r·64 + o] of at most 64 outputs, whose blocks are decoded in registers and used at once.
  void (*direct)(mwk_block_type type, size_t rows, size_t outputs, size_t inputs, const float *x, size_t x_stride,
                 const void *blocks, float *sums);
  /// Decodes the blocks of some outputs to [⌈outputs/group⌉][inputs/16][group][16], zero padded.
  void (*decode)(mwk_block_type type, size_t outputs, size_t inputs, const void *blocks, float *panel);
  /// sums[r·64 + o] from a panel of at most 64 outputs. `partial` is [tile_rows][64][16] of scratch.
  void (*tile)(size_t rows, size_t outputs, size_t inputs, const float *x, size_t x_stride, const float *panel,
               float *partial, float *sums);
  /// Encodes 32 · count numbers; returns how many blocks cannot be.
  size_t (*encode)(mwk_block_type type, size_t count, const float *x, void *blocks);
} mwk_gemm_blocks;

const mwk_elementwise *mwk_elementwise_for(mwk_isa isa);
const mwk_rows *mwk_rows_for(mwk_isa isa);
const mwk_convert *mwk_convert_for(mwk_isa isa);
const mwk_weights *mwk_weights_for(mwk_isa isa);
const mwk_gemm_f32 *mwk_gemm_f32_for(mwk_isa isa);
const mwk_gemm_i8 *mwk_gemm_i8_for(mwk_isa isa);
const mwk_gemm_blocks *mwk_gemm_blocks_for(mwk_isa isa);
/// NULL where the instruction set or this CPU has no bf16 multiplier.
const mwk_gemm_bf16 *mwk_gemm_bf16_for(mwk_isa isa);

#define MWK_JOIN_(a, b) a##_##b
#define MWK_JOIN(a, b) MWK_JOIN_(a, b)
