// A task is one weight panel times a run of rows. The rows of a run stay in the second-level cache while the panels
// pass by; each panel is read once a run.
#include "../core/context.h"
#include <stdatomic.h>

/// Bytes of activations that leave room in a 1 MiB cache for a panel beside them.
#define RUN_BYTES ((size_t)384 << 10)
/// Fewer rows than this for each thread, and the panels are divided instead: every thread would read them for too little work.
#define LEAST_RUN_ROWS ((size_t)48)

typedef struct {
  const mwk_gemm_i8 *kernels;
  const mwk_linear_i8_job *job;
  size_t run, panels, quads, group_quads;
} tiling;

/// One group's products of a tile of rows and a panel, and what follows them. `partial` holds the sum of the groups before.
static void group_tile(const tiling *t, size_t group, size_t row, size_t count, size_t panel, size_t rows_ahead,
                       mwk_lines next, int32_t *acc, float *partial) {
  const mwk_linear_i8_job *job = t->job;
  size_t output = panel * MWK_PANEL, outputs = mwk_min(MWK_PANEL, job->outputs - output), q_stride = 4 * t->quads;
  size_t corner = row * job->y_stride + output;
  bool first = group == 0, last = group + 1 == job->groups;
  mwk_epilogue epilogue = {
      .partial = first ? NULL : partial,
      .bias = job->bias && first ? job->bias + output : NULL,
      .residual = job->residual && last ? job->residual + corner : NULL,
      .activation = last ? job->activation : mwk_activation_none,
      .y = last ? job->y + corner : partial,
      .y_stride = last ? job->y_stride : MWK_PANEL,
      .rows_ahead = last ? rows_ahead : 0,
  };
  t->kernels->products(count, t->group_quads, job->q + row * q_stride + group * 4 * t->group_quads, q_stride,
                       job->panels + (panel * t->quads + group * t->group_quads) * MWK_PANEL * 4, outputs,
                       job->zero + group * job->rows + row, job->scale + group * job->rows + row,
                       job->weight_scale + group * job->outputs + output,
                       job->weight_sum + group * job->outputs + output, &epilogue, next, acc);
}

/// A part of the weights that come next, to be asked for while the ones before are at work: they come from memory, a panel at a time.
static mwk_lines lines_ahead(const tiling *t, size_t block, size_t part, size_t parts) {
  size_t bytes = t->group_quads * MWK_PANEL * 4, lines = bytes / MWK_CACHE_LINE, each = mwk_ceil_div(lines, parts);
  if ((block + 1) * bytes >= t->panels * t->quads * MWK_PANEL * 4 || part * each >= lines) return (mwk_lines){0};
  const char *next = (const char *)t->job->panels + (block + 1) * bytes;
  return (mwk_lines){next + part * each * MWK_CACHE_LINE, mwk_min(each, lines - part * each)};
}

static void linear_task(void *argument, size_t task, void *scratch) {
  const tiling *t = argument;
  const mwk_linear_i8_job *job = t->job;
  int32_t *acc = scratch;
  float *partial = (float *)scratch + MWK_TILE_ROWS * MWK_PANEL;
  size_t panel = task % t->panels;
  mwk_range rows = mwk_chunk(task / t->panels, t->run, job->rows);
  size_t tiles = mwk_ceil_div(rows.end - rows.begin, MWK_TILE_ROWS);
  for (size_t g = 0; g < job->groups; g++)
    for (size_t i = 0; i < tiles; i++) {
      size_t r = rows.begin + i * MWK_TILE_ROWS;
      size_t count = mwk_min(MWK_TILE_ROWS, rows.end - r);
      mwk_lines next = lines_ahead(t, panel * job->groups + g, i, tiles);
      group_tile(t, g, r, count, panel, mwk_min(MWK_TILE_ROWS, rows.end - r - count), next, acc,
                 partial + (r - rows.begin) * MWK_PANEL);
    }
}

/// Rows a task: bounded by the cache, and a whole number of runs a thread where there are rows enough. A thread then meets the rows
/// that it wrote in the step before; the panels, which nobody writes, are what all threads read.
static size_t run_length(const mwk_context *context, const mwk_linear_i8_job *job, size_t panels) {
  size_t fits = RUN_BYTES / mwk_max(job->inputs, 1) / MWK_TILE_ROWS * MWK_TILE_ROWS;
  size_t threads = context->threads, runs = mwk_ceil_div(job->rows, mwk_max(fits, MWK_TILE_ROWS));
  if (job->rows >= LEAST_RUN_ROWS * threads)
    // Runs of equal length, tiles cut short included: rounding up would leave the last thread idle for its share.
    return mwk_ceil_div(job->rows, mwk_round_up(mwk_max(runs, 1), threads));
  if (threads > 1)
    runs = mwk_max(runs, mwk_ceil_div(6 * threads, mwk_max(panels, 1)));
  return mwk_round_up(mwk_ceil_div(mwk_max(job->rows, 1), mwk_max(runs, 1)), MWK_TILE_ROWS);
}

mwk_status mwk_linear_i8(const mwk_context *context, const mwk_linear_i8_job *job) {
  tiling t = {.kernels = context->gemm_i8, .job = job};
  t.panels = mwk_ceil_div(job->outputs, MWK_PANEL);
  t.quads = mwk_ceil_div(job->inputs, 4);
  t.group_quads = t.quads / job->groups;
  t.run = run_length(context, job, t.panels);
  size_t tasks = t.panels * mwk_ceil_div(job->rows, t.run);
  size_t partial = job->groups > 1 ? mwk_min(t.run, mwk_round_up(job->rows, MWK_TILE_ROWS)) : 0;
  size_t scratch = (MWK_TILE_ROWS + partial) * MWK_PANEL * sizeof(int32_t);
  return mwk_parallel_for(context, tasks, scratch, linear_task, &t);
}

typedef struct {
  const mwk_gemm_i8 *kernels;
  const mwk_elementwise *elementwise;
  size_t outputs, inputs, groups;
  const float *weight, *column_scale;
  int8_t *panels;
  float *scale;
  int32_t *sum;
  atomic_size_t broken;
} quantization;

/// The weights of a group of inputs, side by side and with their column scales; in place where they lie so.
static const float *gather_group(const quantization *job, const float *rows, size_t outputs, size_t g, float *scratch) {
  if (job->groups == 1 && !job->column_scale) return rows;
  size_t width = job->inputs / job->groups;
  for (size_t r = 0; r < outputs; r++) {
    const float *row = rows + r * job->inputs + g * width;
    if (job->column_scale)
      job->elementwise->multiply(width, row, job->column_scale + g * width, scratch + r * width);
    else
      memcpy(scratch + r * width, row, width * sizeof *row);
  }
  return scratch;
}

static void quantize_task(void *argument, size_t task, void *scratch) {
  quantization *job = argument;
  size_t output = task * MWK_PANEL, outputs = mwk_min(MWK_PANEL, job->outputs - output);
  size_t panel_bytes = mwk_ceil_div(job->inputs, 4) * 4 * MWK_PANEL;
  int8_t *panel = job->panels + task * panel_bytes;
  if (outputs < MWK_PANEL) memset(panel, 0, panel_bytes);
  const float *rows = job->weight + output * job->inputs;
  size_t width = job->inputs / job->groups, broken = 0;
  for (size_t g = 0; g < job->groups; g++) {
    const float *group = gather_group(job, rows, outputs, g, scratch);
    broken += job->kernels->quantize_panel(outputs, width, group, width, panel + g * width * MWK_PANEL,
                                           job->scale + g * job->outputs + output, job->sum + g * job->outputs + output);
  }
  if (broken) atomic_fetch_add(&job->broken, broken);
}

mwk_status mwk_quantize_weight_panels(const mwk_context *context, size_t outputs, size_t inputs, size_t groups,
                                      const float *weight, const float *column_scale, int8_t *panels, float *scale, int32_t *sum,
                                      size_t *broken) {
  quantization job = {.kernels = context->gemm_i8, .elementwise = context->elementwise, .outputs = outputs,
                      .inputs = inputs,            .groups = groups,                    .weight = weight,
                      .panels = panels,            .column_scale = column_scale,        .scale = scale,
                      .sum = sum};
  size_t scratch = mwk_min(MWK_PANEL, outputs) * (inputs / groups) * sizeof(float);
  mwk_status status = mwk_parallel_for(context, mwk_ceil_div(outputs, MWK_PANEL), scratch, quantize_task, &job);
  *broken = job.broken;
  return status;
}
