#include "../core/context.h"

typedef enum { op_gelu, op_tanh, op_exp, op_relu, op_add, op_scale, op_add_table, op_multiply_table } element_op;

typedef struct {
  const mwk_elementwise *kernels;
  element_op op;
  size_t count, chunk, width, table_rows;
  float factor;
  const float *a, *b;
  float *y;
} element_job;

static void element_task(void *argument, size_t task, void *scratch) {
  (void)scratch;
  const element_job *job = argument;
  mwk_range range = mwk_chunk(task, job->chunk, job->count);
  size_t n = range.end - range.begin;
  const float *a = job->a + range.begin;
  float *y = job->y + range.begin;
  switch (job->op) {
  case op_gelu: job->kernels->gelu(n, a, y); break;
  case op_tanh: job->kernels->tanh(n, a, y); break;
  case op_exp: job->kernels->exp(n, a, y); break;
  case op_relu: job->kernels->relu(n, a, y); break;
  case op_add: job->kernels->add(n, a, job->b + range.begin, y); break;
  case op_scale: job->kernels->scale(n, job->factor, a, y); break;
  default: break;
  }
}

static void table_task(void *argument, size_t task, void *scratch) {
  (void)scratch;
  const element_job *job = argument;
  mwk_range range = mwk_chunk(task, job->chunk, job->count);
  for (size_t r = range.begin; r < range.end; r++) {
    const float *a = job->a + r * job->width, *b = job->b + r % job->table_rows * job->width;
    float *y = job->y + r * job->width;
    if (job->op == op_add_table)
      job->kernels->add(job->width, a, b, y);
    else
      job->kernels->multiply(job->width, a, b, y);
  }
}

static mwk_status run(const mwk_context *context, element_job job, size_t least, mwk_task fn) {
  job.kernels = context->elementwise;
  job.chunk = mwk_chunk_size(context, job.count, least);
  return mwk_parallel_for(context, mwk_ceil_div(job.count, job.chunk), 0, fn, &job);
}

mwk_status mwk_gelu_f32(const mwk_context *context, size_t count, const float *x, float *y) {
  return run(context, (element_job){.op = op_gelu, .count = count, .a = x, .y = y}, 4096, element_task);
}
mwk_status mwk_tanh_f32(const mwk_context *context, size_t count, const float *x, float *y) {
  return run(context, (element_job){.op = op_tanh, .count = count, .a = x, .y = y}, 4096, element_task);
}
mwk_status mwk_exp_f32(const mwk_context *context, size_t count, const float *x, float *y) {
  return run(context, (element_job){.op = op_exp, .count = count, .a = x, .y = y}, 4096, element_task);
}
mwk_status mwk_relu_f32(const mwk_context *context, size_t count, const float *x, float *y) {
  return run(context, (element_job){.op = op_relu, .count = count, .a = x, .y = y}, 16384, element_task);
}
mwk_status mwk_add_f32(const mwk_context *context, size_t count, const float *a, const float *b, float *y) {
  return run(context, (element_job){.op = op_add, .count = count, .a = a, .b = b, .y = y}, 16384, element_task);
}
mwk_status mwk_scale_f32(const mwk_context *context, size_t count, float factor, const float *x, float *y) {
  element_job job = {.op = op_scale, .count = count, .factor = factor, .a = x, .y = y};
  return run(context, job, 16384, element_task);
}

static mwk_status run_table(const mwk_context *context, element_op op, size_t rows, size_t width, const float *x,
                            size_t table_rows, const float *table, float *y) {
  element_job job = {.op = op, .count = rows, .width = width, .table_rows = table_rows, .a = x, .b = table, .y = y};
  if (table_rows == 0) return mwk_ok;
  return run(context, job, mwk_ceil_div(16384, mwk_max(width, 1)), table_task);
}
mwk_status mwk_add_table_f32(const mwk_context *context, size_t rows, size_t width, const float *x, size_t table_rows,
                             const float *table, float *y) {
  return run_table(context, op_add_table, rows, width, x, table_rows, table, y);
}
mwk_status mwk_multiply_table_f32(const mwk_context *context, size_t rows, size_t width, const float *x,
                                  size_t table_rows, const float *table, float *y) {
  return run_table(context, op_multiply_table, rows, width, x, table_rows, table, y);
}
