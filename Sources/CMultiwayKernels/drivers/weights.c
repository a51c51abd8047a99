// Sums over weights for what conversions decide and fold, on the calling thread: conversions have a thread for each tensor.
#include "../core/context.h"

void mwk_shifted_bias(const mwk_context *context, size_t rows, size_t inputs, const float *matrix, const float *vector,
                      const float *start, float *out) {
  for (size_t r = 0; r < rows; r++) {
    double sum = context->weights->dot(inputs, matrix + r * inputs, vector);
    out[r] = (float)(start ? (double)start[r] + sum : sum);
  }
}

void mwk_row_moments(const mwk_context *context, size_t rows, size_t inputs, const float *matrix, const double *squares,
                     const float *shift, double *square, double *mean) {
  for (size_t r = 0; r < rows; r++) {
    square[r] = context->weights->weighted_squares(inputs, matrix + r * inputs, squares);
    if (shift) mean[r] = context->weights->dot(inputs, matrix + r * inputs, shift);
  }
}

void mwk_column_squares(const mwk_context *context, size_t rows, size_t inputs, const float *matrix, double *squares) {
  memset(squares, 0, inputs * sizeof *squares);
  for (size_t r = 0; r < rows; r++) context->weights->add_squares(inputs, matrix + r * inputs, squares);
}

void mwk_row_products(const mwk_context *context, size_t rows, size_t inputs, size_t tokens, const float *matrix,
                      const float *token, double *exact) {
  for (size_t r = 0; r < rows; r++)
    for (size_t t = 0; t < tokens; t++)
      exact[t * rows + r] = context->weights->dot(inputs, matrix + r * inputs, token + t * inputs);
}

void mwk_quantize_tokens(const mwk_context *context, size_t tokens, size_t inputs, const float *token, const float *factors,
                         float *divided, uint8_t *bytes, int16_t *q, float *scale) {
  for (size_t t = 0; t < tokens; t++) {
    int32_t zero;
    for (size_t i = 0; i < inputs; i++) divided[i] = token[t * inputs + i] / factors[i];
    context->rows->quantize(inputs, divided, bytes, &scale[t], &zero);
    for (size_t i = 0; i < inputs; i++) q[t * inputs + i] = (int16_t)(bytes[i] - zero);
  }
}

void mwk_quantized_row_products(const mwk_context *context, size_t rows, size_t inputs, size_t tokens, const float *matrix,
                                const float *factors, const int16_t *token, int16_t *quantized, int32_t *sums, float *scale) {
  for (size_t r = 0; r < rows; r++) {
    scale[r] = context->weights->quantize(inputs, matrix + r * inputs, factors, quantized);
    for (size_t t = 0; t < tokens; t++)
      sums[t * rows + r] = context->weights->integer_dot(inputs, quantized, token + t * inputs);
  }
}
