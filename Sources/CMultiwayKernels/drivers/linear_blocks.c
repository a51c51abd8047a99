// A task is some outputs times a run of rows. Few rows are computed straight from the blocks: then every byte of the weights is read
// once, and that is what takes the time. For more rows the blocks are decoded to a panel in the thread's scratch, which stays in the
// second-level cache while the rows pass by.
#include "../core/context.h"
#include <stdatomic.h>

/// Bytes of a panel that leave room in a second-level cache.
#define PANEL_BYTES ((size_t)256 << 10)
/// Blocks that a task encodes.
#define ENCODED_BLOCKS ((size_t)256)

size_t mwk_block_bytes(mwk_block_type type) { return mwk_bytes_of_block(type); }

typedef struct {
  const mwk_gemm_blocks *kernels;
  const mwk_gemm_f32 *finish;
  const mwk_linear_blocks_job *job;
  size_t outputs, parts, run, row_bytes;
  bool direct;
} tiling;

static void rows_of_part(const tiling *t, mwk_range rows, size_t output, size_t outputs, const void *blocks, float *scratch) {
  const mwk_linear_blocks_job *job = t->job;
  float *sums = scratch, *partial = sums + t->kernels->tile_rows * MWK_PANEL;
  float *panel = partial + t->kernels->tile_rows * MWK_PANEL * MWK_LANES;
  if (!t->direct) t->kernels->decode(job->type, outputs, job->inputs, blocks, panel);
  size_t step = t->direct ? t->kernels->direct_rows : t->kernels->tile_rows;
  for (size_t r = rows.begin; r < rows.end; r += step) {
    size_t count = mwk_min(step, rows.end - r), corner = r * job->y_stride + output;
    const float *x = job->x + r * job->x_stride;
    if (t->direct)
      t->kernels->direct(job->type, count, outputs, job->inputs, x, job->x_stride, blocks, sums);
    else
      t->kernels->tile(count, outputs, job->inputs, x, job->x_stride, panel, partial, sums);
    mwk_epilogue epilogue = {
        .bias = job->bias ? job->bias + output : NULL,
        .residual = job->residual ? job->residual + corner : NULL,
        .activation = job->activation,
        .y = job->y + corner,
        .y_stride = job->y_stride,
    };
    t->finish->finish(count, outputs, sums, &epilogue);
  }
}

static void linear_task(void *argument, size_t task, void *scratch) {
  const tiling *t = argument;
  size_t output = task % t->parts * t->outputs, outputs = mwk_min(t->outputs, t->job->outputs - output);
  rows_of_part(t, mwk_chunk(task / t->parts, t->run, t->job->rows), output, outputs,
               (const char *)t->job->blocks + output * t->row_bytes, scratch);
}

mwk_status mwk_linear_blocks(const mwk_context *context, const mwk_linear_blocks_job *job) {
  tiling t = {.kernels = context->gemm_blocks, .finish = context->gemm_f32, .job = job};
  size_t tile_rows = t.kernels->tile_rows;
  t.row_bytes = job->inputs / MWK_BLOCK * mwk_block_bytes(job->type);
  t.direct = job->rows <= t.kernels->direct_rows || job->inputs == 0;
  size_t fits = PANEL_BYTES / (mwk_max(job->inputs, 1) * sizeof(float));
  // Whole vectors of outputs where there is room for them, whole groups elsewhere.
  fits = fits >= MWK_LANES ? fits / MWK_LANES * MWK_LANES : mwk_max(fits / 4 * 4, 4);
  t.outputs = t.direct ? MWK_PANEL : mwk_min(MWK_PANEL, fits);
  t.parts = mwk_ceil_div(job->outputs, t.outputs);
  // Parts alone usually feed all threads; more runs would decode every panel again.
  size_t runs = t.direct || context->threads == 1 ? 1 : mwk_ceil_div(2 * context->threads, mwk_max(t.parts, 1));
  t.run = mwk_max(mwk_round_up(mwk_ceil_div(job->rows, runs), tile_rows), tile_rows);
  size_t tasks = t.parts * mwk_ceil_div(job->rows, t.run);
  size_t floats = tile_rows * MWK_PANEL * (1 + MWK_LANES) + (t.direct ? 0 : t.outputs * job->inputs);
  return mwk_parallel_for(context, tasks, floats * sizeof(float), linear_task, &t);
}

typedef struct {
  const mwk_gemm_blocks *kernels;
  mwk_block_type type;
  size_t count;
  const float *x;
  char *blocks;
  atomic_size_t broken;
} encoding;

static void encode_task(void *argument, size_t task, void *scratch) {
  encoding *job = argument;
  (void)scratch;
  mwk_range blocks = mwk_chunk(task, ENCODED_BLOCKS, job->count);
  size_t broken = job->kernels->encode(job->type, blocks.end - blocks.begin, job->x + blocks.begin * MWK_BLOCK,
                                       job->blocks + blocks.begin * mwk_block_bytes(job->type));
  if (broken) atomic_fetch_add(&job->broken, broken);
}

mwk_status mwk_encode_blocks(const mwk_context *context, mwk_block_type type, size_t count, const float *x, void *blocks,
                             size_t *broken) {
  encoding job = {.kernels = context->gemm_blocks, .type = type, .count = count, .x = x, .blocks = blocks};
  mwk_status status = mwk_parallel_for(context, mwk_ceil_div(count, ENCODED_BLOCKS), 0, encode_task, &job);
  *broken = job.broken;
  return status;
}
