// Copies and sums in plain C: their bits do not depend on the instruction set, so there is one of each.
#include "../core/context.h"

typedef struct {
  const mwk_convert *convert;
  size_t batch, tokens, width, first, count;
  size_t channels, height, patch;
  mwk_weight_type type;
  const float *x;
  const char *table;
  const int64_t *ids;
  float *y;
} layout_job;

static void mean_task(void *argument, size_t task, void *scratch) {
  (void)scratch;
  const layout_job *job = argument;
  float *y = job->y + task * job->width;
  memset(y, 0, job->width * sizeof *y);
  const float *x = job->x + (task * job->tokens + job->first) * job->width;
  for (size_t t = 0; t < job->count; t++, x += job->width)
    for (size_t c = 0; c < job->width; c++) y[c] = y[c] + x[c];
  for (size_t c = 0; c < job->width; c++) y[c] = y[c] / (float)job->count;
}

mwk_status mwk_mean_rows_f32(const mwk_context *context, size_t batch, size_t tokens, size_t width, size_t first,
                             size_t count, const float *x, float *y) {
  layout_job job = {.tokens = tokens, .width = width, .first = first, .count = count, .x = x, .y = y};
  return mwk_parallel_for(context, batch, 0, mean_task, &job);
}

/// One row of patches.
static void patchify_task(void *argument, size_t task, void *scratch) {
  (void)scratch;
  const layout_job *job = argument;
  size_t p = job->patch, down = job->height / p, across = job->width / p;
  size_t image = task / down, row = task % down;
  float *y = job->y + task * across * job->channels * p * p;
  for (size_t column = 0; column < across; column++)
    for (size_t c = 0; c < job->channels; c++)
      for (size_t i = 0; i < p; i++, y += p) {
        const float *x = job->x + ((image * job->channels + c) * job->height + row * p + i) * job->width + column * p;
        memcpy(y, x, p * sizeof *y);
      }
}

mwk_status mwk_patchify_f32(const mwk_context *context, size_t images, size_t channels, size_t height, size_t width,
                            size_t patch, const float *x, float *y) {
  if (patch == 0) return mwk_ok;
  layout_job job = {.channels = channels, .height = height, .width = width, .patch = patch, .x = x, .y = y};
  return mwk_parallel_for(context, images * (height / patch), 0, patchify_task, &job);
}

static void gather_task(void *argument, size_t task, void *scratch) {
  (void)scratch;
  const layout_job *job = argument;
  float *y = job->y + task * job->width;
  size_t row_bytes = job->width * (job->type == mwk_weight_f32 ? 4 : 2);
  const char *row = job->table + (size_t)job->ids[task] * row_bytes;
  switch (job->type) {
  case mwk_weight_f16: job->convert->from_f16(job->width, row, y); break;
  case mwk_weight_bf16: job->convert->from_bf16(job->width, row, y); break;
  default: memcpy(y, row, row_bytes); break;
  }
}

mwk_status mwk_gather_rows_f32(const mwk_context *context, size_t count, size_t width, mwk_weight_type type,
                               const void *table, const int64_t *ids, float *y) {
  layout_job job = {
      .convert = context->convert, .width = width, .type = type, .table = table, .ids = ids, .y = y};
  return mwk_parallel_for(context, count, 0, gather_task, &job);
}
