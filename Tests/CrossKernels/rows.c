// Rows, elements, conversions and layout.
#include "support.h"

#define ROWS 7

/// Ordinary rows, and one of each kind that is not.
static float *rows_of(numbers *n, size_t width) {
  float *x = floats(n, ROWS * width, 3);
  for (size_t i = 0; i < width; i++) {
    x[width + i] = 0;
    x[4 * width + i] = (i % 2 == 0 ? 1.0f : -1.0f) * 3e38f;
    x[5 * width + i] = 0x1p-130f * (float)(i % 3);
  }
  if (width > 0) x[2 * width + width / 2] = NAN, x[3 * width] = INFINITY;
  return x;
}

void layer_norm_case(const mwk_context *context, size_t width, digest *d) {
  numbers n = seeded(width + 1);
  const float *x = rows_of(&n, width), *weight = floats(&n, width, 1), *bias = floats(&n, width, 1);
  float *y = room(ROWS * width);
  for (int which = 0; which < 4; which++) {
    CHECK(mwk_layer_norm_f32(context, ROWS, width, x, which & 1 ? weight : NULL, which & 2 ? bias : NULL, 1e-5f, y) ==
          mwk_ok);
    add_floats(d, ROWS * width, y);
  }
}

static void add_quantized(digest *d, size_t width, size_t groups, const uint8_t *q, const float *scale,
                          const int32_t *zero) {
  add_bytes(d, ROWS * mwk_round_up(width, 4), q);
  add_floats(d, groups * ROWS, scale);
  add_bytes(d, groups * ROWS * sizeof *zero, zero);
}

void quantize_rows_case(const mwk_context *context, size_t width, digest *d) {
  numbers n = seeded(width + 2);
  const float *x = rows_of(&n, width), *weight = floats(&n, width, 1), *bias = floats(&n, width, 1);
  size_t most = 4;
  uint8_t *q = guarded(ROWS * mwk_round_up(width, 4));
  for (size_t groups = 1; groups <= most; groups *= 2) {
    if (width % (4 * groups) != 0 && groups > 1) continue;
    float *scale = room(groups * ROWS);
    int32_t *zero = guarded(groups * ROWS * sizeof *zero);
    CHECK(mwk_quantize_rows(context, ROWS, width, groups, x, q, scale, zero) == mwk_ok);
    add_quantized(d, width, groups, q, scale, zero);
    CHECK(mwk_layer_norm_quantize(context, ROWS, width, groups, x, weight, bias, 1e-5f, q, scale, zero) == mwk_ok);
    add_quantized(d, width, groups, q, scale, zero);
  }
}

void normalize_case(const mwk_context *context, size_t width, digest *d) {
  numbers n = seeded(width + 3);
  const float *x = rows_of(&n, width);
  float *y = room(ROWS * width);
  CHECK(mwk_l2_normalize_f32(context, ROWS, width, x, y) == mwk_ok);
  add_floats(d, ROWS * width, y);
}

void elementwise_case(const mwk_context *context, size_t count, digest *d) {
  mwk_status (*const unary[])(const mwk_context *, size_t, const float *, float *) = {
      mwk_gelu_f32, mwk_tanh_f32, mwk_relu_f32, mwk_exp_f32};
  numbers n = seeded(count + 4);
  const float *a = hard_floats(&n, count, 20), *b = hard_floats(&n, count, 100);
  float *y = room(count);
  for (size_t i = 0; i < sizeof unary / sizeof *unary; i++) {
    CHECK(unary[i](context, count, a, y) == mwk_ok);
    add_floats(d, count, y);
    CHECK(unary[i](context, count, b, y) == mwk_ok);
    add_floats(d, count, y);
  }
  CHECK(mwk_add_f32(context, count, a, b, y) == mwk_ok);
  add_floats(d, count, y);
  CHECK(mwk_scale_f32(context, count, 0.3f, b, y) == mwk_ok);
  add_floats(d, count, y);
}

void tables_case(const mwk_context *context, size_t width, digest *d) {
  numbers n = seeded(width + 5);
  const float *x = hard_floats(&n, 7 * width, 3), *table = hard_floats(&n, 3 * width, 3);
  float *y = room(7 * width);
  CHECK(mwk_add_table_f32(context, 7, width, x, 3, table, y) == mwk_ok);
  add_floats(d, 7 * width, y);
  CHECK(mwk_multiply_table_f32(context, 7, width, x, 3, table, y) == mwk_ok);
  add_floats(d, 7 * width, y);
}

/// `count` 16-bit patterns (from 65536 on: all of them) decoded, and floats around them encoded, at odd addresses.
void convert_case(const mwk_context *context, size_t count, digest *d) {
  numbers n = seeded(count + 6);
  char *halves = (char *)guarded(2 * count + 1);
  for (size_t i = 0; i < count; i++) {
    uint16_t pattern = (uint16_t)(count >= 65536 ? i : next(&n));
    memcpy(halves + 2 * i, &pattern, 2);
  }
  float *y = room(count);
  const float *hard = hard_floats(&n, count, 1e5f);
  for (int bf16 = 0; bf16 < 2; bf16++) {
    CHECK((bf16 ? mwk_bf16_to_f32 : mwk_f16_to_f32)(context, count, halves, y) == mwk_ok);
    add_floats(d, count, y);
    // Halfway to the next number, and just beside it: where rounding decides.
    for (size_t i = 0; i < count; i++)
      y[i] = mwk_float_of_bits(mwk_bits_of_float(y[i]) + (bf16 ? 0x8000u : 0x1000u) + (uint32_t)(i % 3) - 1u);
    char *out = (char *)guarded(2 * count + 1);
    for (int which = 0; which < 2; which++) {
      size_t overflows = 0;
      CHECK((bf16 ? mwk_f32_to_bf16 : mwk_f32_to_f16)(context, count, which ? hard : y, out, &overflows) == mwk_ok);
      add_bytes(d, 2 * count, out);
      add_word(d, overflows);
    }
  }
}

void layout_case(const mwk_context *context, size_t width, digest *d) {
  numbers n = seeded(width + 7);
  const float *x = hard_floats(&n, 2 * 9 * width, 3), *image = floats(&n, 2 * 3 * 8 * 12, 1);
  float *mean = room(2 * width), *patches = room(2 * 6 * 48), *gathered = room(5 * width);
  CHECK(mwk_mean_rows_f32(context, 2, 9, width, 1, 8, x, mean) == mwk_ok);
  add_floats(d, 2 * width, mean);
  CHECK(mwk_patchify_f32(context, 2, 3, 8, 12, 4, image, patches) == mwk_ok);
  add_floats(d, 2 * 6 * 48, patches);
  static const int64_t ids[5] = {3, 0, 8, 3, 1};
  const char *table = bytes(&n, 4 * 9 * width + 1);
  for (uint32_t type = mwk_weight_f32; type <= mwk_weight_bf16; type++) {
    CHECK(mwk_gather_rows_f32(context, 5, width, (mwk_weight_type)type, table, ids, gathered) == mwk_ok);
    add_floats(d, 5 * width, gathered);
  }
}

void feature_maps_case(const mwk_context *context, size_t channels, digest *d) {
  numbers n = seeded(channels + 8);
  const float *x = hard_floats(&n, 2 * 5 * 6 * channels, 3);
  float *y = room(2 * 12 * 14 * channels);
  CHECK(mwk_max_pool_f32(context, 2, 5, 6, channels, x, y) == mwk_ok);
  add_floats(d, 2 * 2 * 3 * channels, y);
  CHECK(mwk_average_pool_f32(context, 2, 5, 6, channels, 3, x, y) == mwk_ok);
  add_floats(d, 2 * 9 * channels, y);
  CHECK(mwk_resize_bilinear_f32(context, 2, 5, 6, channels, 12, 14, x, y) == mwk_ok);
  add_floats(d, 2 * 12 * 14 * channels, y);
  CHECK(mwk_to_image_f32(context, 2, 5, 6, channels, x, y) == mwk_ok);
  add_floats(d, 2 * 5 * 6 * channels, y);
}

void weight_sums_case(const mwk_context *context, size_t inputs, digest *d) {
  enum { tokens = 3 };
  numbers n = seeded(inputs + 9);
  const float *matrix = floats(&n, ROWS * inputs, 3), *token = rows_of(&n, inputs), *start = floats(&n, ROWS, 1);
  float *factors = floats(&n, inputs, 1);
  for (size_t i = 0; i < inputs; i++) factors[i] = 0.5f + factors[i] * factors[i];
  float *bias = room(ROWS), *scale = room(ROWS), *divided = room(mwk_round_up(inputs, 4));
  double *square = guarded(mwk_max(inputs, ROWS) * sizeof *square), *sums = guarded(ROWS * tokens * sizeof *sums);
  double *squares = guarded(inputs * sizeof *squares);
  for (size_t i = 0; i < inputs; i++) squares[i] = (double)factors[i] * (double)factors[i];
  mwk_shifted_bias(context, ROWS, inputs, matrix, factors, start, bias);
  add_floats(d, ROWS, bias);
  mwk_row_moments(context, ROWS, inputs, matrix, squares, factors, square, sums);
  add_bytes(d, ROWS * sizeof *square, square);
  add_bytes(d, ROWS * sizeof *sums, sums);
  mwk_column_squares(context, ROWS, inputs, matrix, square);
  add_bytes(d, inputs * sizeof *square, square);
  mwk_row_products(context, ROWS, inputs, tokens, matrix, floats(&n, tokens * inputs, 2), sums);
  add_bytes(d, ROWS * tokens * sizeof *sums, sums);
  int16_t *q = guarded(ROWS * inputs * sizeof *q), *quantized = guarded(inputs * sizeof *quantized);
  int32_t *integers = guarded(ROWS * ROWS * sizeof *integers);
  mwk_quantize_tokens(context, ROWS, inputs, token, factors, divided, guarded(mwk_round_up(inputs, 4)), q, scale);
  add_bytes(d, ROWS * inputs * sizeof *q, q);
  add_floats(d, ROWS, scale);
  mwk_quantized_row_products(context, ROWS, inputs, ROWS, matrix, factors, q, quantized, integers, scale);
  add_bytes(d, ROWS * ROWS * sizeof *integers, integers);
  add_floats(d, ROWS, scale);
}
