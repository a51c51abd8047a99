// A task is one panel of 64 outputs times a run of rows: the panel is decoded block by block into the thread's scratch,
// and every block is applied to all rows of the run before the next one is decoded. Sums pass between blocks through
// memory, which does not round: each stays one chain of fma in the order of k.
#include "../core/context.h"

/// Inputs decoded at a time: 128 KiB of panel.
#define BLOCK_INPUTS ((size_t)512)
/// Rows a task at most: 96 KiB of sums.
#define RUN_ROWS ((size_t)384)

typedef struct {
  const mwk_gemm_f32 *kernels;
  const mwk_linear_f32_job *job;
  size_t run, panels, weight_bytes;
} tiling;

static void linear_task(void *argument, size_t task, void *scratch) {
  const tiling *t = argument;
  const mwk_linear_f32_job *job = t->job;
  float *panel = scratch, *acc = panel + BLOCK_INPUTS * MWK_PANEL;
  mwk_range rows = mwk_chunk(task / t->panels, t->run, job->rows);
  size_t output = task % t->panels * MWK_PANEL, outputs = mwk_min(MWK_PANEL, job->outputs - output);
  size_t row_bytes = job->inputs * t->weight_bytes;
  const char *weight = (const char *)job->weight + output * row_bytes;
  memset(acc, 0, (rows.end - rows.begin) * MWK_PANEL * sizeof *acc);
  for (size_t k = 0; k < job->inputs; k += BLOCK_INPUTS) {
    size_t inputs = mwk_min(BLOCK_INPUTS, job->inputs - k);
    t->kernels->pack(job->weight_type, outputs, inputs, weight + k * t->weight_bytes, row_bytes, panel);
    for (size_t r = rows.begin; r < rows.end; r += MWK_TILE_ROWS)
      t->kernels->tile(mwk_min(MWK_TILE_ROWS, rows.end - r), inputs, job->x + r * job->x_stride + k, job->x_stride,
                       panel, mwk_ceil_div(outputs, MWK_LANES), acc + (r - rows.begin) * MWK_PANEL);
  }
  size_t corner = rows.begin * job->y_stride + output;
  mwk_epilogue epilogue = {
      .bias = job->bias ? job->bias + output : NULL,
      .residual = job->residual ? job->residual + corner : NULL,
      .activation = job->activation,
      .y = job->y + corner,
      .y_stride = job->y_stride,
  };
  t->kernels->finish(rows.end - rows.begin, outputs, acc, &epilogue);
}

mwk_status mwk_linear_f32(const mwk_context *context, const mwk_linear_f32_job *job) {
  tiling t = {.kernels = context->gemm_f32, .job = job};
  t.weight_bytes = job->weight_type == mwk_weight_f32 ? 4 : 2;
  t.panels = mwk_ceil_div(job->outputs, MWK_PANEL);
  // Panels alone usually feed all threads; more runs would decode every panel again.
  size_t runs = mwk_ceil_div(context->threads == 1 ? 1 : 2 * context->threads, mwk_max(t.panels, 1));
  size_t even = mwk_round_up(mwk_ceil_div(job->rows, runs), MWK_TILE_ROWS);
  t.run = mwk_max(MWK_TILE_ROWS, mwk_min(RUN_ROWS, even));
  size_t tasks = t.panels * mwk_ceil_div(job->rows, t.run);
  size_t scratch = (BLOCK_INPUTS + mwk_min(t.run, mwk_round_up(job->rows, MWK_TILE_ROWS))) * MWK_PANEL * sizeof(float);
  return mwk_parallel_for(context, tasks, scratch, linear_task, &t);
}
