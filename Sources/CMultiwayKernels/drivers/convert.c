#include "../core/context.h"
#include <stdatomic.h>

typedef struct {
  void (*decode)(size_t n, const void *x, float *y);
  size_t (*encode)(size_t n, const float *x, void *y);
  size_t count, chunk;
  const char *narrow;
  char *narrow_out;
  const float *wide;
  float *wide_out;
  atomic_size_t overflows;
} convert_job;

static void decode_task(void *argument, size_t task, void *scratch) {
  (void)scratch;
  const convert_job *job = argument;
  mwk_range range = mwk_chunk(task, job->chunk, job->count);
  job->decode(range.end - range.begin, job->narrow + 2 * range.begin, job->wide_out + range.begin);
}

static void encode_task(void *argument, size_t task, void *scratch) {
  (void)scratch;
  convert_job *job = argument;
  mwk_range range = mwk_chunk(task, job->chunk, job->count);
  size_t overflows =
      job->encode(range.end - range.begin, job->wide + range.begin, job->narrow_out + 2 * range.begin);
  if (overflows) atomic_fetch_add(&job->overflows, overflows);
}

static mwk_status run(const mwk_context *context, convert_job *job, mwk_task fn) {
  job->chunk = mwk_chunk_size(context, job->count, 65536);
  return mwk_parallel_for(context, mwk_ceil_div(job->count, job->chunk), 0, fn, job);
}

mwk_status mwk_f16_to_f32(const mwk_context *context, size_t count, const void *x, float *y) {
  convert_job job = {.decode = context->convert->from_f16, .count = count, .narrow = x, .wide_out = y};
  return run(context, &job, decode_task);
}
mwk_status mwk_bf16_to_f32(const mwk_context *context, size_t count, const void *x, float *y) {
  convert_job job = {.decode = context->convert->from_bf16, .count = count, .narrow = x, .wide_out = y};
  return run(context, &job, decode_task);
}
mwk_status mwk_f32_to_f16(const mwk_context *context, size_t count, const float *x, void *y, size_t *overflows) {
  convert_job job = {.encode = context->convert->to_f16, .count = count, .wide = x, .narrow_out = y};
  mwk_status status = run(context, &job, encode_task);
  *overflows = job.overflows;
  return status;
}
mwk_status mwk_f32_to_bf16(const mwk_context *context, size_t count, const float *x, void *y, size_t *overflows) {
  convert_job job = {.encode = context->convert->to_bf16, .count = count, .wide = x, .narrow_out = y};
  mwk_status status = run(context, &job, encode_task);
  *overflows = job.overflows;
  return status;
}
