// A convolution is a matrix product whose left matrix, nine times as large as the map for a kernel of 3, is never made: the
// inputs of a tap (a row and column of the kernel) are the map itself, shifted. A task is one panel of 64 outputs times a
// run of positions, as in linear_f32.c: every block of a tap's weights is decoded once and applied to the whole run.
#include "../core/context.h"

/// Channels decoded at a time: 128 KiB of panel.
#define BLOCK_INPUTS ((size_t)512)
/// Positions a task at most: 96 KiB of sums.
#define RUN_POSITIONS ((size_t)384)

typedef struct {
  const mwk_gemm_f32 *kernels;
  const mwk_convolution_f32_job *job;
  size_t positions, run, panels, weight_bytes;
} tiling;

/// What one block of channels of one tap adds to the sums of a run. A tile stays in one row of an image; of its positions
/// only those whose neighbour lies inside the image take part.
static void add_tap(const tiling *t, mwk_range run, size_t tap_row, size_t tap_column, size_t channel, size_t count,
                    const float *panel, size_t vectors, float *acc) {
  const mwk_convolution_f32_job *job = t->job;
  size_t half = job->kernel / 2, height = job->height, width = job->width;
  size_t first = half > tap_column ? half - tap_column : 0;
  size_t end = width + half > tap_column ? mwk_min(width, width + half - tap_column) : 0;
  for (size_t p = run.begin; p < run.end;) {
    size_t column = p % width, row = p / width % height;
    size_t length = mwk_min(mwk_min(MWK_TILE_ROWS, width - column), run.end - p);
    size_t low = mwk_max(column, first), high = mwk_min(column + length, end);
    if (low < high && row + tap_row >= half && row + tap_row < height + half) {
      size_t corner = p - column - row * width;
      size_t source = corner + (row + tap_row - half) * width + low + tap_column - half;
      t->kernels->tile(high - low, count, job->x + source * job->channels + channel, job->channels, panel, vectors,
                       acc + (p - run.begin + low - column) * MWK_PANEL);
    }
    p += length;
  }
}

static void convolution_task(void *argument, size_t task, void *scratch) {
  const tiling *t = argument;
  const mwk_convolution_f32_job *job = t->job;
  float *panel = scratch, *acc = panel + BLOCK_INPUTS * MWK_PANEL;
  mwk_range run = mwk_chunk(task / t->panels, t->run, t->positions);
  size_t output = task % t->panels * MWK_PANEL, outputs = mwk_min(MWK_PANEL, job->outputs - output);
  size_t taps = job->kernel * job->kernel, row_bytes = taps * job->channels * t->weight_bytes;
  const char *weight = (const char *)job->weight + output * row_bytes;
  memset(acc, 0, (run.end - run.begin) * MWK_PANEL * sizeof *acc);
  for (size_t tap = 0; tap < taps; tap++)
    for (size_t c = 0; c < job->channels; c += BLOCK_INPUTS) {
      size_t count = mwk_min(BLOCK_INPUTS, job->channels - c);
      const char *block = weight + (tap * job->channels + c) * t->weight_bytes;
      t->kernels->pack(job->weight_type, outputs, count, block, row_bytes, panel);
      add_tap(t, run, tap / job->kernel, tap % job->kernel, c, count, panel, mwk_ceil_div(outputs, MWK_LANES), acc);
    }
  mwk_epilogue epilogue = {
      .bias = job->bias ? job->bias + output : NULL,
      .activation = job->activation,
      .y = job->y + run.begin * job->outputs + output,
      .y_stride = job->outputs,
  };
  t->kernels->finish(run.end - run.begin, outputs, acc, &epilogue);
}

mwk_status mwk_convolution_f32(const mwk_context *context, const mwk_convolution_f32_job *job) {
  tiling t = {.kernels = context->gemm_f32, .job = job};
  t.weight_bytes = job->weight_type == mwk_weight_f32 ? 4 : 2;
  t.panels = mwk_ceil_div(job->outputs, MWK_PANEL);
  t.positions = job->images * job->height * job->width;
  size_t runs = mwk_ceil_div(context->threads == 1 ? 1 : 2 * context->threads, mwk_max(t.panels, 1));
  t.run = mwk_max(1, mwk_min(RUN_POSITIONS, mwk_ceil_div(t.positions, runs)));
  size_t tasks = t.panels * mwk_ceil_div(t.positions, t.run);
  return mwk_parallel_for(context, tasks, (BLOCK_INPUTS + t.run) * MWK_PANEL * sizeof(float), convolution_task, &t);
}
