#pragma once
#include "families.h"

typedef struct mwk_pool mwk_pool;
mwk_status mwk_pool_create(size_t threads, mwk_pool **pool);
void mwk_pool_destroy(mwk_pool *pool);
mwk_status mwk_pool_run(mwk_pool *pool, size_t count, size_t scratch_bytes, mwk_task fn, void *argument);

struct mwk_context {
  size_t threads;
  mwk_pool *pool;
  const mwk_elementwise *elementwise;
  const mwk_rows *rows;
  const mwk_convert *convert;
  const mwk_weights *weights;
  const mwk_gemm_f32 *gemm_f32;
  const mwk_gemm_i8 *gemm_i8;
  const mwk_gemm_blocks *gemm_blocks;
  const mwk_gemm_bf16 *gemm_bf16;  // or NULL
};

/// The part of `count` items, `chunk` a task, that belongs to a task.
typedef struct { size_t begin, end; } mwk_range;
MWK_INLINE mwk_range mwk_chunk(size_t task, size_t chunk, size_t count) {
  return (mwk_range){task * chunk, mwk_min(task * chunk + chunk, count)};
}
/// Items a task should take so that threads even out, and no task is smaller than `least` items.
MWK_INLINE size_t mwk_chunk_size(const mwk_context *context, size_t count, size_t least) {
  return mwk_max(mwk_max(least, 1), mwk_ceil_div(count, context->threads * 4));
}
