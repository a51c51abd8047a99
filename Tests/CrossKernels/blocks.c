// A whole transformer block, in int8 and in floats: what a model does, so that its digest stands for that of a model.
#include "support.h"

#define BATCH ((size_t)2)
#define TOKENS ((size_t)37)
#define ROWS (BATCH * TOKENS)
#define HEADS ((size_t)3)

/// A layer quantized from random weights.
static mwk_linear_i8_job int8_layer(const mwk_context *context, numbers *n, size_t inputs, size_t outputs,
                                    size_t groups) {
  size_t panel_bytes = mwk_ceil_div(outputs, 64) * mwk_ceil_div(inputs, 4) * 256, broken = 0;
  int8_t *panels = guarded(panel_bytes);
  float *scale = room(groups * outputs);
  int32_t *sum = guarded(groups * outputs * sizeof *sum);
  CHECK(mwk_quantize_weight_panels(context, outputs, inputs, groups, floats(n, outputs * inputs, 0.1f), NULL, panels,
                                   scale, sum, &broken) == mwk_ok);
  return (mwk_linear_i8_job){.rows = ROWS, .inputs = inputs, .outputs = outputs, .groups = groups, .panels = panels,
                             .weight_scale = scale, .weight_sum = sum, .bias = floats(n, outputs, 0.1f),
                             .y = room(ROWS * outputs), .y_stride = outputs};
}

/// Quantizes the inputs and runs the layer; its outputs.
static float *run_int8(const mwk_context *context, mwk_linear_i8_job job, const float *x, const float *norm,
                       const float *residual, mwk_activation activation) {
  uint8_t *q = guarded(ROWS * mwk_round_up(job.inputs, 4));
  float *scale = room(job.groups * ROWS);
  int32_t *zero = guarded(job.groups * ROWS * sizeof *zero);
  if (norm)
    CHECK(mwk_layer_norm_quantize(context, ROWS, job.inputs, job.groups, x, norm, norm, 1e-5f, q, scale, zero) ==
          mwk_ok);
  else
    CHECK(mwk_quantize_rows(context, ROWS, job.inputs, job.groups, x, q, scale, zero) == mwk_ok);
  job.q = q, job.scale = scale, job.zero = zero, job.residual = residual, job.activation = activation;
  CHECK(mwk_linear_i8(context, &job) == mwk_ok);
  return job.y;
}

static float *attend(const mwk_context *context, mwk_attention_arithmetic arithmetic, size_t width, const float *qkv) {
  mwk_attention_job job = {.batch = BATCH, .heads = HEADS, .head_size = width / HEADS, .scale = 0.25f,
                           .segment_count = 1, .mode = mwk_attention_full, .arithmetic = arithmetic};
  job.segments[0] = (mwk_attention_segment){.q = qkv, .k = qkv + width, .v = qkv + 2 * width,
                                            .out = room(ROWS * width), .tokens = TOKENS, .stride = 3 * width,
                                            .out_stride = width, .share = 1};
  CHECK(mwk_attention(context, &job) == mwk_ok);
  return job.segments[0].out;
}

static void finish(const mwk_context *context, size_t width, float *y, digest *d) {
  add_floats(d, ROWS * width, y);
  CHECK(mwk_l2_normalize_f32(context, ROWS, width, y, y) == mwk_ok);
  add_floats(d, ROWS * width, y);
}

void int8_block_case(const mwk_context *context, size_t width, digest *d) {
  numbers n = seeded(width + 21);
  float *x = floats(&n, ROWS * width, 1), *norm = floats(&n, width, 1);
  mwk_linear_i8_job qkv = int8_layer(context, &n, width, 3 * width, 1), out = int8_layer(context, &n, width, width, 1);
  mwk_linear_i8_job wide = int8_layer(context, &n, width, 4 * width, 1);
  mwk_linear_i8_job narrow = int8_layer(context, &n, 4 * width, width, 2);
  float *attended = attend(context, mwk_attention_i8, width, run_int8(context, qkv, x, norm, NULL, mwk_activation_none));
  float *middle = run_int8(context, out, attended, NULL, x, mwk_activation_none);
  float *hidden = run_int8(context, wide, middle, norm, NULL, mwk_activation_gelu);
  finish(context, width, run_int8(context, narrow, hidden, NULL, middle, mwk_activation_none), d);
}

static float *run_float(const mwk_context *context, numbers *n, mwk_weight_type type, size_t inputs, size_t outputs,
                        const float *x, const float *residual, mwk_activation activation) {
  const float *values = floats(n, outputs * inputs, 0.1f);
  void *weight = guarded(outputs * inputs * sizeof(float));
  size_t overflows = 0;
  if (type == mwk_weight_f32) memcpy(weight, values, outputs * inputs * sizeof(float));
  if (type == mwk_weight_f16) mwk_f32_to_f16(context, outputs * inputs, values, weight, &overflows);
  if (type == mwk_weight_bf16) mwk_f32_to_bf16(context, outputs * inputs, values, weight, &overflows);
  mwk_linear_f32_job job = {.rows = ROWS, .inputs = inputs, .outputs = outputs, .x = x, .x_stride = inputs,
                            .weight = weight, .weight_type = type, .bias = floats(n, outputs, 0.1f),
                            .residual = residual, .activation = activation, .y = room(ROWS * outputs),
                            .y_stride = outputs};
  CHECK(mwk_linear_f32(context, &job) == mwk_ok);
  return job.y;
}

void float_block_case(const mwk_context *context, size_t width, digest *d) {
  numbers n = seeded(width + 22);
  float *x = floats(&n, ROWS * width, 1), *norm = floats(&n, width, 1), *normed = room(ROWS * width);
  CHECK(mwk_layer_norm_f32(context, ROWS, width, x, norm, norm, 1e-5f, normed) == mwk_ok);
  float *qkv = run_float(context, &n, mwk_weight_f32, width, 3 * width, normed, NULL, mwk_activation_none);
  float *attended = attend(context, mwk_attention_f32, width, qkv);
  float *middle = run_float(context, &n, mwk_weight_f16, width, width, attended, x, mwk_activation_none);
  CHECK(mwk_layer_norm_f32(context, ROWS, width, middle, norm, norm, 1e-5f, normed) == mwk_ok);
  float *hidden = run_float(context, &n, mwk_weight_bf16, width, 4 * width, normed, NULL, mwk_activation_gelu);
  CHECK(mwk_tanh_f32(context, ROWS * 4 * width, hidden, hidden) == mwk_ok);
  finish(context, width, run_float(context, &n, mwk_weight_f32, 4 * width, width, hidden, middle, mwk_activation_none),
         d);
}
