// A task is one weight panel times a run of rows. The rows of a run stay in the second-level cache while the panels
// pass by; each panel is read once a run.
#include "../core/context.h"
#include <stdatomic.h>

/// Bytes of activations that leave room in a 1 MiB cache for a panel beside them.
#define RUN_BYTES ((size_t)384 << 10)

typedef struct {
  const mwk_gemm_i8 *kernels;
  const mwk_linear_i8_job *job;
  size_t run, panels, quads;
} tiling;

static void linear_task(void *argument, size_t task, void *scratch) {
  const tiling *t = argument;
  const mwk_linear_i8_job *job = t->job;
  int32_t *acc = scratch;
  mwk_range rows = mwk_chunk(task / t->panels, t->run, job->rows);
  size_t panel = task % t->panels, output = panel * MWK_PANEL, q_stride = 4 * t->quads;
  size_t outputs = mwk_min(MWK_PANEL, job->outputs - output);
  const int8_t *weights = job->panels + panel * t->quads * MWK_PANEL * 4;
  for (size_t r = rows.begin; r < rows.end; r += MWK_TILE_ROWS) {
    size_t count = mwk_min(MWK_TILE_ROWS, rows.end - r), corner = r * job->y_stride + output;
    mwk_epilogue epilogue = {
        .bias = job->bias ? job->bias + output : NULL,
        .residual = job->residual ? job->residual + corner : NULL,
        .activation = job->activation,
        .y = job->y + corner,
        .y_stride = job->y_stride,
    };
    t->kernels->tile(count, t->quads, job->q + r * q_stride, q_stride, weights, acc);
    t->kernels->finish(count, outputs, acc, job->zero + r, job->scale + r, job->weight_scale + output,
                       job->weight_sum + output, &epilogue);
  }
}

/// Rows a task: bounded by the cache, and small enough that every thread gets several tasks.
static size_t run_length(const mwk_context *context, const mwk_linear_i8_job *job, size_t panels) {
  size_t fits = RUN_BYTES / mwk_max(job->inputs, 1) / MWK_TILE_ROWS * MWK_TILE_ROWS;
  size_t runs = mwk_ceil_div(context->threads == 1 ? 1 : 6 * context->threads, mwk_max(panels, 1));
  size_t even = mwk_round_up(mwk_ceil_div(job->rows, runs), MWK_TILE_ROWS);
  return mwk_max(MWK_TILE_ROWS, mwk_min(fits, even));
}

mwk_status mwk_linear_i8(const mwk_context *context, const mwk_linear_i8_job *job) {
  tiling t = {.kernels = context->gemm_i8, .job = job};
  t.panels = mwk_ceil_div(job->outputs, MWK_PANEL);
  t.quads = mwk_ceil_div(job->inputs, 4);
  t.run = run_length(context, job, t.panels);
  size_t tasks = t.panels * mwk_ceil_div(job->rows, t.run);
  return mwk_parallel_for(context, tasks, MWK_TILE_ROWS * MWK_PANEL * sizeof(int32_t), linear_task, &t);
}

typedef struct {
  const mwk_gemm_i8 *kernels;
  const mwk_elementwise *elementwise;
  size_t outputs, inputs;
  const float *weight, *column_scale;
  int8_t *panels;
  float *scale;
  int32_t *sum;
  atomic_size_t broken;
} quantization;

static void quantize_task(void *argument, size_t task, void *scratch) {
  quantization *job = argument;
  size_t output = task * MWK_PANEL, outputs = mwk_min(MWK_PANEL, job->outputs - output);
  size_t panel_bytes = mwk_ceil_div(job->inputs, 4) * 4 * MWK_PANEL;
  int8_t *panel = job->panels + task * panel_bytes;
  if (outputs < MWK_PANEL) memset(panel, 0, panel_bytes);
  const float *rows = job->weight + output * job->inputs;
  if (job->column_scale) {
    float *scaled = scratch;
    for (size_t r = 0; r < outputs; r++)
      job->elementwise->multiply(job->inputs, rows + r * job->inputs, job->column_scale, scaled + r * job->inputs);
    rows = scaled;
  }
  size_t broken =
      job->kernels->quantize_panel(outputs, job->inputs, rows, panel, job->scale + output, job->sum + output);
  if (broken) atomic_fetch_add(&job->broken, broken);
}

mwk_status mwk_quantize_weight_panels(const mwk_context *context, size_t outputs, size_t inputs, const float *weight,
                                      const float *column_scale, int8_t *panels, float *scale, int32_t *sum,
                                      size_t *broken) {
  quantization job = {.kernels = context->gemm_i8, .elementwise = context->elementwise, .outputs = outputs,
                      .inputs = inputs,            .weight = weight,                    .column_scale = column_scale,
                      .panels = panels,            .scale = scale,                      .sum = sum};
  size_t scratch = column_scale ? mwk_min(MWK_PANEL, outputs) * inputs * sizeof(float) : 0;
  mwk_status status = mwk_parallel_for(context, mwk_ceil_div(outputs, MWK_PANEL), scratch, quantize_task, &job);
  *broken = job.broken;
  return status;
}
