// Sums over weights for what conversions decide and fold. One sum waits for its own last addition; several rows side by side do not
// wait for each other.
#include "../core/context.h"

#pragma clang fp contract(off)

/// The rows that are summed side by side.
#define SIDE 8

static void dot_rows(size_t rows, size_t inputs, const float *matrix, const float *vector, double *sum) {
  if (rows == SIDE) {
    for (size_t i = 0; i < inputs; i++)
      for (size_t r = 0; r < SIDE; r++) sum[r] += (double)matrix[r * inputs + i] * (double)vector[i];
    return;
  }
  for (size_t r = 0; r < rows; r++)
    for (size_t i = 0; i < inputs; i++) sum[r] += (double)matrix[r * inputs + i] * (double)vector[i];
}

void mwk_shifted_bias(size_t rows, size_t inputs, const float *matrix, const float *vector, const float *start, float *out) {
  for (size_t first = 0; first < rows; first += SIDE) {
    size_t count = mwk_min(SIDE, rows - first);
    double sum[SIDE];
    for (size_t r = 0; r < count; r++) sum[r] = start ? (double)start[first + r] : 0;
    dot_rows(count, inputs, matrix + first * inputs, vector, sum);
    for (size_t r = 0; r < count; r++) out[first + r] = (float)sum[r];
  }
}

void mwk_row_moments(size_t rows, size_t inputs, const float *matrix, const double *squares, const float *shift, double *square,
                     double *mean) {
  for (size_t first = 0; first < rows; first += SIDE) {
    size_t count = mwk_min(SIDE, rows - first);
    const float *corner = matrix + first * inputs;
    double sum[SIDE] = {0};
    if (count == SIDE) {
      for (size_t i = 0; i < inputs; i++)
        for (size_t r = 0; r < SIDE; r++) {
          double element = corner[r * inputs + i];
          sum[r] += element * element * squares[i];
        }
    } else {
      for (size_t r = 0; r < count; r++)
        for (size_t i = 0; i < inputs; i++) {
          double element = corner[r * inputs + i];
          sum[r] += element * element * squares[i];
        }
    }
    for (size_t r = 0; r < count; r++) square[first + r] = sum[r];
    if (!shift) continue;
    memset(sum, 0, sizeof sum);
    dot_rows(count, inputs, corner, shift, sum);
    for (size_t r = 0; r < count; r++) mean[first + r] = sum[r];
  }
}

void mwk_row_products(size_t rows, size_t inputs, size_t tokens, const float *matrix, const float *token, double *exact) {
  memset(exact, 0, rows * tokens * sizeof *exact);
  for (size_t t = 0; t < tokens; t++)
    for (size_t first = 0; first < rows; first += SIDE)
      dot_rows(mwk_min(SIDE, rows - first), inputs, matrix + first * inputs, token + t * inputs, exact + t * rows + first);
}

/// Rounds half to even, exactly for magnitudes below 2²²; there is no function for it that every instruction set has.
static float round_even(float x) { return (x + 0x1.8p+23f) - 0x1.8p+23f; }

/// Scales a row and quantizes it to at most 127 in magnitude; what is not a number becomes zero.
static float quantize_row(size_t inputs, const float *row, const float *factors, float *scaled, int16_t *q) {
  float top = 0;
  for (size_t i = 0; i < inputs; i++) {
    scaled[i] = row[i] * factors[i];
    float magnitude = __builtin_fabsf(scaled[i]);
    top = magnitude > top ? magnitude : top;
  }
  float inverse = top >= 0x1p-100f && top < __builtin_inff() ? 127.0f / top : 0.0f;
  for (size_t i = 0; i < inputs; i++) {
    float value = scaled[i] * inverse;
    q[i] = (int16_t)round_even(value == value ? value : 0.0f);
  }
  return top / 127.0f;
}

void mwk_quantized_row_products(size_t rows, size_t inputs, size_t tokens, const float *matrix, const float *factors,
                                const int16_t *token, float *scaled, int16_t *quantized, int32_t *sums, float *scale) {
  for (size_t r = 0; r < rows; r++) {
    scale[r] = quantize_row(inputs, matrix + r * inputs, factors, scaled, quantized);
    for (size_t t = 0; t < tokens; t++) {
      const int16_t *values = token + t * inputs;
      uint32_t sum = 0;
      for (size_t i = 0; i < inputs; i++) sum += (uint32_t)((int32_t)quantized[i] * values[i]);
      sums[t * rows + r] = (int32_t)sum;
    }
  }
}
