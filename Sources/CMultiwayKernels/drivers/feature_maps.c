// Pools, interpolation and transposition of maps [images][height][width][channels], in plain C: their bits do not depend on
// the instruction set, so there is one of each.
#include "../core/context.h"

typedef struct {
  size_t height, width, channels, to_height, to_width;
  const float *x;
  float *y;
} map_job;

/// The larger of two, NaN where one is.
MWK_INLINE float larger(float a, float b) { return b > a || b != b ? b : a; }

/// One row of an image's result.
static void max_pool_task(void *argument, size_t task, void *scratch) {
  (void)scratch;
  const map_job *job = argument;
  size_t down = job->height / 2, across = job->width / 2, channels = job->channels, stride = job->width * channels;
  const float *x = job->x + (task / down * job->height + task % down * 2) * stride;
  float *y = job->y + task * across * channels;
  for (size_t column = 0; column < across; column++, x += 2 * channels, y += channels)
    for (size_t c = 0; c < channels; c++)
      y[c] = larger(larger(x[c], x[channels + c]), larger(x[stride + c], x[stride + channels + c]));
}

mwk_status mwk_max_pool_f32(const mwk_context *context, size_t images, size_t height, size_t width, size_t channels,
                            const float *x, float *y) {
  map_job job = {.height = height, .width = width, .channels = channels, .x = x, .y = y};
  return mwk_parallel_for(context, images * (height / 2), 0, max_pool_task, &job);
}

/// Block `index` of `bins` that cover an axis.
MWK_INLINE mwk_range bin(size_t index, size_t bins, size_t size) {
  return (mwk_range){index * size / bins, mwk_ceil_div((index + 1) * size, bins)};
}

/// One block.
static void average_pool_task(void *argument, size_t task, void *scratch) {
  (void)scratch;
  const map_job *job = argument;
  size_t bins = job->to_height, image = task / (bins * bins);
  mwk_range rows = bin(task / bins % bins, bins, job->height), columns = bin(task % bins, bins, job->width);
  float *y = job->y + task * job->channels;
  memset(y, 0, job->channels * sizeof *y);
  for (size_t row = rows.begin; row < rows.end; row++)
    for (size_t column = columns.begin; column < columns.end; column++) {
      const float *x = job->x + ((image * job->height + row) * job->width + column) * job->channels;
      for (size_t c = 0; c < job->channels; c++) y[c] = y[c] + x[c];
    }
  float count = (float)((rows.end - rows.begin) * (columns.end - columns.begin));
  for (size_t c = 0; c < job->channels; c++) y[c] = y[c] / count;
}

mwk_status mwk_average_pool_f32(const mwk_context *context, size_t images, size_t height, size_t width,
                                size_t channels, size_t bins, const float *x, float *y) {
  map_job job = {.height = height, .width = width, .channels = channels, .to_height = bins, .x = x, .y = y};
  return mwk_parallel_for(context, images * bins * bins, 0, average_pool_task, &job);
}

/// The two positions that an interpolated one lies between, and the weight of each.
typedef struct {
  size_t low, high;
  float low_weight, high_weight;
} neighbours;

MWK_INLINE neighbours neighbours_of(size_t index, size_t size, size_t target) {
  float place = (float)size / (float)target * ((float)index + 0.5f) - 0.5f;
  if (!(place > 0.0f)) place = 0.0f;
  neighbours n;
  n.low = mwk_min((size_t)place, size - 1);
  n.high = mwk_min(n.low + 1, size - 1);
  float part = place - (float)n.low;
  n.high_weight = part < 1.0f ? part : 1.0f;
  n.low_weight = 1.0f - n.high_weight;
  return n;
}

/// One row of an image's result.
static void resize_task(void *argument, size_t task, void *scratch) {
  (void)scratch;
  const map_job *job = argument;
  size_t channels = job->channels, image = task / job->to_height;
  neighbours row = neighbours_of(task % job->to_height, job->height, job->to_height);
  const float *above = job->x + (image * job->height + row.low) * job->width * channels;
  const float *below = job->x + (image * job->height + row.high) * job->width * channels;
  float *y = job->y + task * job->to_width * channels;
  for (size_t index = 0; index < job->to_width; index++, y += channels) {
    neighbours column = neighbours_of(index, job->width, job->to_width);
    const float *a = above + column.low * channels, *b = above + column.high * channels;
    const float *c = below + column.low * channels, *d = below + column.high * channels;
    for (size_t i = 0; i < channels; i++) {
      float top = column.low_weight * a[i] + column.high_weight * b[i];
      float bottom = column.low_weight * c[i] + column.high_weight * d[i];
      y[i] = row.low_weight * top + row.high_weight * bottom;
    }
  }
}

mwk_status mwk_resize_bilinear_f32(const mwk_context *context, size_t images, size_t height, size_t width,
                                   size_t channels, size_t to_height, size_t to_width, const float *x, float *y) {
  map_job job = {.height = height, .width = width, .channels = channels, .x = x, .y = y};
  job.to_height = to_height;
  job.to_width = to_width;
  return mwk_parallel_for(context, images * to_height, 0, resize_task, &job);
}

/// One channel of an image.
static void to_image_task(void *argument, size_t task, void *scratch) {
  (void)scratch;
  const map_job *job = argument;
  size_t positions = job->height * job->width;
  const float *x = job->x + task / job->channels * positions * job->channels + task % job->channels;
  float *y = job->y + task * positions;
  for (size_t p = 0; p < positions; p++) y[p] = x[p * job->channels];
}

mwk_status mwk_to_image_f32(const mwk_context *context, size_t images, size_t height, size_t width, size_t channels,
                            const float *x, float *y) {
  map_job job = {.height = height, .width = width, .channels = channels, .x = x, .y = y};
  return mwk_parallel_for(context, images * channels, 0, to_image_task, &job);
}
