// A task is one weight panel times a run of rows, as in linear_i8.c: the rows of a run stay in the second-level cache while
// the panels pass by. What follows the sums is that of fp32 layers.
#include "../core/context.h"
#include <stdatomic.h>

/// Bytes of activations that leave room in a 1 MiB cache for a panel beside them.
#define RUN_BYTES ((size_t)384 << 10)
/// Inputs that are packed at a time: 64 KiB of fp32.
#define BLOCK_INPUTS ((size_t)256)

// Rows -----------------------------------------------------------------------------------------------------------------

typedef struct {
  const mwk_context *context;
  size_t rows, width, stride, chunk;
  const float *x, *weight, *bias;
  float eps;
  bool normalizes;
  uint16_t *y;
} rounding;

static void round_task(void *argument, size_t task, void *scratch) {
  const rounding *job = argument;
  mwk_range range = mwk_chunk(task, job->chunk, job->rows);
  for (size_t r = range.begin; r < range.end; r++) {
    const float *x = job->x + r * job->width;
    uint16_t *y = job->y + r * job->stride;
    if (job->normalizes) {
      job->context->rows->layer_norm(job->width, x, job->weight, job->bias, job->eps, scratch);
      x = scratch;
    }
    job->context->convert->to_bf16(job->width, x, y);
    if (job->stride > job->width) y[job->width] = 0;
  }
}

static mwk_status run_rounding(const mwk_context *context, rounding job) {
  if (!context->gemm_bf16) return mwk_unsupported;
  job.context = context;
  job.stride = mwk_round_up(job.width, 2);
  job.chunk = mwk_chunk_size(context, job.rows, mwk_ceil_div(4096, mwk_max(job.width, 1)));
  return mwk_parallel_for(context, mwk_ceil_div(job.rows, job.chunk), job.width * sizeof(float), round_task, &job);
}

mwk_status mwk_round_rows_bf16(const mwk_context *context, size_t rows, size_t width, const float *x, uint16_t *y) {
  return run_rounding(context, (rounding){.rows = rows, .width = width, .x = x, .y = y});
}

mwk_status mwk_layer_norm_round_bf16(const mwk_context *context, size_t rows, size_t width, const float *x,
                                     const float *weight, const float *bias, float eps, uint16_t *y) {
  return run_rounding(context, (rounding){.rows = rows, .width = width, .x = x, .weight = weight, .bias = bias,
                                          .eps = eps, .normalizes = true, .y = y});
}

// Weights --------------------------------------------------------------------------------------------------------------

typedef struct {
  const mwk_context *context;
  size_t outputs, inputs, weight_bytes;
  mwk_weight_type type;
  const char *weight;
  uint16_t *panels;
  atomic_size_t overflows;
} packing;

/// One panel, a block of inputs at a time: decoded to fp32 with the inputs as rows, rounded, and two rows interleaved.
static void pack_task(void *argument, size_t task, void *scratch) {
  packing *job = argument;
  float *block = scratch;
  uint16_t *rounded = (uint16_t *)(block + BLOCK_INPUTS * MWK_PANEL);
  size_t output = task * MWK_PANEL, outputs = mwk_min(MWK_PANEL, job->outputs - output);
  size_t row_bytes = job->inputs * job->weight_bytes, overflows = 0;
  uint16_t *panel = job->panels + task * mwk_round_up(job->inputs, 2) * MWK_PANEL;
  for (size_t k = 0; k < job->inputs; k += BLOCK_INPUTS) {
    size_t inputs = mwk_min(BLOCK_INPUTS, job->inputs - k), even = mwk_round_up(inputs, 2);
    const char *weight = job->weight + output * row_bytes + k * job->weight_bytes;
    job->context->gemm_f32->pack(job->type, outputs, inputs, weight, row_bytes, block);
    overflows += job->context->convert->to_bf16(inputs * MWK_PANEL, block, rounded);
    if (even > inputs) memset(rounded + inputs * MWK_PANEL, 0, MWK_PANEL * sizeof *rounded);
    job->context->gemm_bf16->interleave(even / 2, rounded, rounded + MWK_PANEL, panel + k * MWK_PANEL);
  }
  if (overflows) atomic_fetch_add(&job->overflows, overflows);
}

mwk_status mwk_pack_bf16_panels(const mwk_context *context, size_t outputs, size_t inputs, mwk_weight_type type,
                                const void *weight, uint16_t *panels, size_t *overflows) {
  if (!context->gemm_bf16) return mwk_unsupported;
  packing job = {.context = context, .outputs = outputs, .inputs = inputs, .type = type, .weight = weight, .panels = panels};
  job.weight_bytes = type == mwk_weight_f32 ? 4 : 2;
  size_t scratch = BLOCK_INPUTS * MWK_PANEL * (sizeof(float) + sizeof(uint16_t));
  mwk_status status = mwk_parallel_for(context, mwk_ceil_div(outputs, MWK_PANEL), scratch, pack_task, &job);
  *overflows = job.overflows;
  return status;
}

// Product --------------------------------------------------------------------------------------------------------------

typedef struct {
  const mwk_context *context;
  const mwk_linear_bf16_job *job;
  size_t run, panels, pairs;
} tiling;

static void linear_task(void *argument, size_t task, void *scratch) {
  const tiling *t = argument;
  const mwk_linear_bf16_job *job = t->job;
  float *acc = scratch;
  size_t panel = task % t->panels, output = panel * MWK_PANEL, outputs = mwk_min(MWK_PANEL, job->outputs - output);
  const uint16_t *weights = job->panels + panel * t->pairs * MWK_PANEL * 2;
  mwk_range rows = mwk_chunk(task / t->panels, t->run, job->rows);
  for (size_t r = rows.begin; r < rows.end; r += MWK_TILE_ROWS) {
    size_t count = mwk_min(MWK_TILE_ROWS, rows.end - r), corner = r * job->y_stride + output;
    mwk_epilogue epilogue = {
        .bias = job->bias ? job->bias + output : NULL,
        .residual = job->residual ? job->residual + corner : NULL,
        .activation = job->activation,
        .y = job->y + corner,
        .y_stride = job->y_stride,
    };
    t->context->gemm_bf16->tile(count, t->pairs, job->x + r * 2 * t->pairs, 2 * t->pairs, weights, acc);
    t->context->gemm_f32->finish(count, outputs, acc, &epilogue);
  }
}

mwk_status mwk_linear_bf16(const mwk_context *context, const mwk_linear_bf16_job *job) {
  if (!context->gemm_bf16) return mwk_unsupported;
  tiling t = {.context = context, .job = job};
  t.panels = mwk_ceil_div(job->outputs, MWK_PANEL);
  t.pairs = mwk_ceil_div(job->inputs, 2);
  // Rows a task: bounded by the cache, and few enough that every thread gets several tasks.
  size_t fits = RUN_BYTES / mwk_max(4 * t.pairs, 1) / MWK_TILE_ROWS * MWK_TILE_ROWS;
  size_t runs = mwk_ceil_div(context->threads == 1 ? 1 : 6 * context->threads, mwk_max(t.panels, 1));
  size_t even = mwk_round_up(mwk_ceil_div(job->rows, runs), MWK_TILE_ROWS);
  t.run = mwk_max(MWK_TILE_ROWS, mwk_min(fits, even));
  size_t tasks = t.panels * mwk_ceil_div(job->rows, t.run);
  return mwk_parallel_for(context, tasks, MWK_TILE_ROWS * MWK_PANEL * sizeof(float), linear_task, &t);
}
