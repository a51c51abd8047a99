// A task is one panel of 64 outputs times a run of rows: the panel is decoded block by block into the thread's scratch,
// and every block is applied to all rows of the run before the next one is decoded. Sums pass between blocks through
// memory, which does not round: each stays one chain of fma in the order of k. While a block is applied, the weights of the
// next one are asked for: decoding would wait for them for longer than it works.
#include "../core/ahead.h"
#include "../core/context.h"

/// Inputs decoded at a time, at most: 128 KiB of panel.
#define BLOCK_INPUTS ((size_t)512)
/// Inputs decoded between two requests for weights.
#define SLICE_INPUTS ((size_t)32)
/// Rows a task at most: 96 KiB of sums.
#define RUN_ROWS ((size_t)384)

typedef struct {
  const mwk_gemm_f32 *kernels;
  const mwk_linear_f32_job *job;
  size_t run, panels, block, weight_bytes, row_bytes, tasks;
} tiling;

/// The weights of a block of a task.
static mwk_ahead weights_at(const tiling *t, size_t task, size_t k) {
  size_t output = task % t->panels * MWK_PANEL;
  size_t inputs = mwk_min(t->block, t->job->inputs - k);
  return (mwk_ahead){.at = (const char *)t->job->weight + output * t->row_bytes + k * t->weight_bytes,
                     .rows = mwk_min(MWK_PANEL, t->job->outputs - output),
                     .bytes = inputs * t->weight_bytes,
                     .stride = t->row_bytes};
}

/// What this thread decodes after a block of a task: the next block, or that of the task that follows: a thread takes tasks in order.
static mwk_ahead weights_after(const tiling *t, size_t task, size_t k) {
  if (k + t->block < t->job->inputs) return weights_at(t, task, k + t->block);
  return task + 1 < t->tasks ? weights_at(t, task + 1, 0) : (mwk_ahead){.rows = 0};
}

/// What follows the sums of some rows and a panel.
static mwk_epilogue epilogue_at(const mwk_linear_f32_job *job, size_t row, size_t output) {
  size_t corner = row * job->y_stride + output;
  return (mwk_epilogue){
      .bias = job->bias ? job->bias + output : NULL,
      .residual = job->residual ? job->residual + corner : NULL,
      .activation = job->activation,
      .y = job->y + corner,
      .y_stride = job->y_stride,
  };
}

static void linear_task(void *argument, size_t task, void *scratch) {
  const tiling *t = argument;
  const mwk_linear_f32_job *job = t->job;
  float *panel = scratch, *acc = panel + t->block * MWK_PANEL;
  mwk_range rows = mwk_chunk(task / t->panels, t->run, job->rows);
  size_t output = task % t->panels * MWK_PANEL, outputs = mwk_min(MWK_PANEL, job->outputs - output);
  size_t tiles = mwk_ceil_div(rows.end - rows.begin, MWK_TILE_ROWS);
  size_t k = 0;
  do {
    size_t inputs = mwk_min(t->block, job->inputs - k);
    mwk_ahead now = weights_at(t, task, k), next = weights_after(t, task, k);
    // Where rows are few, decoding is most of the work, so it asks for its part.
    size_t lines = mwk_ahead_lines(&next, tiles + mwk_ceil_div(inputs, SLICE_INPUTS));
    for (size_t i = 0; i < inputs; i += SLICE_INPUTS) {
      t->kernels->pack(job->weight_type, outputs, mwk_min(SLICE_INPUTS, inputs - i), now.at + i * t->weight_bytes,
                       t->row_bytes, panel + i * MWK_PANEL);
      mwk_fetch(&next, lines);
    }
    for (size_t r = rows.begin; r < rows.end; r += MWK_TILE_ROWS) {
      size_t count = mwk_min(MWK_TILE_ROWS, rows.end - r);
      float *sums = acc + (r - rows.begin) * MWK_PANEL;
      if (k == 0) memset(sums, 0, count * MWK_PANEL * sizeof *sums);
      t->kernels->tile(count, inputs, job->x + r * job->x_stride + k, job->x_stride, panel,
                       mwk_ceil_div(outputs, MWK_LANES), sums);
      mwk_fetch(&next, lines);
      if (k + inputs < job->inputs) continue;
      mwk_epilogue epilogue = epilogue_at(job, r, output);
      t->kernels->finish(count, outputs, sums, &epilogue);
    }
    k += inputs;
  } while (k < job->inputs);
}

/// A panel of outputs of all rows, where those are few: there is nothing to gain from weights that lie in the cache.
static void few_task(void *argument, size_t task, void *scratch) {
  const tiling *t = argument;
  const mwk_linear_f32_job *job = t->job;
  size_t output = task * MWK_PANEL, outputs = mwk_min(MWK_PANEL, job->outputs - output);
  mwk_epilogue epilogue = epilogue_at(job, 0, output);
  t->kernels->few(job->weight_type, job->rows, outputs, job->inputs, (const char *)job->weight + output * t->row_bytes,
                  t->row_bytes, job->x, job->x_stride, scratch);
  t->kernels->finish(job->rows, outputs, scratch, &epilogue);
}

mwk_status mwk_linear_f32(const mwk_context *context, const mwk_linear_f32_job *job) {
  tiling t = {.kernels = context->gemm_f32, .job = job};
  t.weight_bytes = job->weight_type == mwk_weight_f32 ? 4 : 2;
  t.row_bytes = job->inputs * t.weight_bytes;
  t.panels = mwk_ceil_div(job->outputs, MWK_PANEL);
  if (job->rows <= MWK_TILE_ROWS && job->rows > 0) {
    size_t scratch = MWK_TILE_ROWS * MWK_PANEL * sizeof(float);
    return mwk_parallel_for(context, t.panels, scratch, few_task, &t);
  }
  // Blocks of equal length, whole vectors of inputs.
  t.block = mwk_round_up(mwk_ceil_div(job->inputs, mwk_max(mwk_ceil_div(job->inputs, BLOCK_INPUTS), 1)), MWK_LANES);
  // Panels alone usually feed all threads; more runs would decode every panel again.
  size_t runs = mwk_ceil_div(context->threads == 1 ? 1 : 2 * context->threads, mwk_max(t.panels, 1));
  size_t even = mwk_round_up(mwk_ceil_div(job->rows, runs), MWK_TILE_ROWS);
  t.run = mwk_max(MWK_TILE_ROWS, mwk_min(RUN_ROWS, even));
  t.tasks = t.panels * mwk_ceil_div(job->rows, t.run);
  size_t scratch = (t.block + mwk_min(t.run, mwk_round_up(job->rows, MWK_TILE_ROWS))) * MWK_PANEL * sizeof(float);
  return mwk_parallel_for(context, t.tasks, scratch, linear_task, &t);
}
