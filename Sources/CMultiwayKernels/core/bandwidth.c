// What memory gives: a sum over a buffer larger than the caches, read by all threads.
#include "context.h"
#include <stdatomic.h>

/// Bytes that a task reads.
#define TASK_BYTES ((size_t)1 << 20)
/// Bytes that are asked for ahead.
#define AHEAD ((size_t)4096)

typedef struct {
  const uint64_t *memory;
  size_t bytes;
  _Atomic uint64_t sum;
} reading;

static void read_task(void *argument, size_t task, void *scratch) {
  reading *job = argument;
  (void)scratch;
  mwk_range range = mwk_chunk(task, TASK_BYTES, job->bytes);
  uint64_t sums[8] = {0};
  for (size_t at = range.begin; at < range.end; at += 64) {
    const uint64_t *line = job->memory + at / 8;
    __builtin_prefetch((const char *)line + AHEAD, 0, 2);
    for (size_t i = 0; i < 8; i++) sums[i] += line[i];
  }
  uint64_t sum = 0;
  for (size_t i = 0; i < 8; i++) sum += sums[i];
  atomic_fetch_add(&job->sum, sum);
}

mwk_status mwk_read_memory(const mwk_context *context, size_t bytes, const void *memory, uint64_t *sink) {
  reading job = {.memory = memory, .bytes = bytes};
  mwk_status status = mwk_parallel_for(context, mwk_ceil_div(bytes, TASK_BYTES), 0, read_task, &job);
  *sink = job.sum;
  return status;
}
