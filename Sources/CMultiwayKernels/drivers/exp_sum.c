// The two numbers that make the logarithms of a row's probabilities. A task is a row.
#include "../core/context.h"

/// Elements whose exponentials are summed in fp32 before the sum is added to the others in double precision: with 64 terms a lane
/// rounding stays below one part in a million, however long the row.
#define BLOCK ((size_t)1024)

typedef struct {
  const mwk_elementwise *kernels;
  size_t width;
  const float *x;
  float *largest;
  double *sum;
} exp_sum_job;

static void exp_sum_task(void *argument, size_t row, void *scratch) {
  (void)scratch;
  const exp_sum_job *job = argument;
  const float *x = job->x + row * job->width;
  float top = job->kernels->largest(job->width, x);
  double sum = 0;
  for (size_t i = 0; i < job->width; i += BLOCK)
    sum += (double)job->kernels->exp_sum(mwk_min(BLOCK, job->width - i), x + i, top);
  job->largest[row] = top;
  job->sum[row] = sum;
}

mwk_status mwk_exp_sums(const mwk_context *context, size_t rows, size_t width, const float *x, float *largest, double *sum) {
  exp_sum_job job = {.kernels = context->elementwise, .width = width, .x = x, .largest = largest, .sum = sum};
  return mwk_parallel_for(context, rows, 0, exp_sum_task, &job);
}
