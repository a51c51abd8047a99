// Work that treats every row alone: a task is a handful of rows.
#include "../core/context.h"

typedef struct {
  const mwk_rows *kernels;
  size_t rows, width, chunk, q_stride, groups;
  const float *x, *weight, *bias;
  float eps, *y, *scale;
  uint8_t *q;
  int32_t *zero;
} rows_job;

/// Rows that make a task worth handing out.
static size_t least_rows(size_t width) { return mwk_ceil_div(4096, mwk_max(width, 1)); }

static mwk_status run_rows(const mwk_context *context, rows_job *job, size_t scratch, mwk_task fn) {
  job->kernels = context->rows;
  job->q_stride = mwk_round_up(job->width, 4);
  job->chunk = mwk_chunk_size(context, job->rows, least_rows(job->width));
  return mwk_parallel_for(context, mwk_ceil_div(job->rows, job->chunk), scratch, fn, job);
}

static void layer_norm_task(void *argument, size_t task, void *scratch) {
  (void)scratch;
  const rows_job *job = argument;
  mwk_range range = mwk_chunk(task, job->chunk, job->rows);
  for (size_t r = range.begin; r < range.end; r++)
    job->kernels->layer_norm(job->width, job->x + r * job->width, job->weight, job->bias, job->eps,
                             job->y + r * job->width);
}

static void normalize_task(void *argument, size_t task, void *scratch) {
  (void)scratch;
  const rows_job *job = argument;
  mwk_range range = mwk_chunk(task, job->chunk, job->rows);
  for (size_t r = range.begin; r < range.end; r++)
    job->kernels->normalize(job->width, job->x + r * job->width, job->y + r * job->width);
}

/// Row r from `x`, each group of its elements with a scale and a zero point of its own.
static void quantize_groups(const rows_job *job, size_t r, const float *x) {
  size_t width = job->width / job->groups;
  for (size_t g = 0; g < job->groups; g++)
    job->kernels->quantize(width, x + g * width, job->q + r * job->q_stride + g * width, job->scale + g * job->rows + r,
                           job->zero + g * job->rows + r);
}

static void quantize_task(void *argument, size_t task, void *scratch) {
  (void)scratch;
  const rows_job *job = argument;
  mwk_range range = mwk_chunk(task, job->chunk, job->rows);
  for (size_t r = range.begin; r < range.end; r++) quantize_groups(job, r, job->x + r * job->width);
}

static void layer_norm_quantize_task(void *argument, size_t task, void *scratch) {
  const rows_job *job = argument;
  mwk_range range = mwk_chunk(task, job->chunk, job->rows);
  for (size_t r = range.begin; r < range.end; r++) {
    job->kernels->layer_norm(job->width, job->x + r * job->width, job->weight, job->bias, job->eps, scratch);
    quantize_groups(job, r, scratch);
  }
}

mwk_status mwk_layer_norm_f32(const mwk_context *context, size_t rows, size_t width, const float *x,
                              const float *weight, const float *bias, float eps, float *y) {
  rows_job job = {.rows = rows, .width = width, .x = x, .weight = weight, .bias = bias, .eps = eps, .y = y};
  return run_rows(context, &job, 0, layer_norm_task);
}

mwk_status mwk_l2_normalize_f32(const mwk_context *context, size_t rows, size_t width, const float *x, float *y) {
  rows_job job = {.rows = rows, .width = width, .x = x, .y = y};
  return run_rows(context, &job, 0, normalize_task);
}

mwk_status mwk_quantize_rows(const mwk_context *context, size_t rows, size_t width, size_t groups, const float *x,
                             uint8_t *q, float *scale, int32_t *zero) {
  rows_job job = {.rows = rows, .width = width, .groups = groups, .x = x, .q = q, .scale = scale, .zero = zero};
  return run_rows(context, &job, 0, quantize_task);
}

mwk_status mwk_layer_norm_quantize(const mwk_context *context, size_t rows, size_t width, size_t groups,
                                   const float *x, const float *weight, const float *bias, float eps, uint8_t *q,
                                   float *scale, int32_t *zero) {
  rows_job job = {.rows = rows, .width = width, .groups = groups, .x = x,         .weight = weight,
                  .bias = bias, .eps = eps,     .q = q,           .scale = scale, .zero = zero};
  return run_rows(context, &job, width * sizeof(float), layer_norm_quantize_task);
}
