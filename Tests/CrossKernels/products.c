// Linear layers, convolutions and attention.
#include "support.h"

/// Rows and outputs around a tile of 6 × 64.
static const size_t row_counts[] = {1, 5, 6, 7, 13};
static const size_t output_counts[] = {1, 16, 63, 65, 130};
#define SHAPES (sizeof row_counts / sizeof *row_counts)

void linear_f32_case(const mwk_context *context, size_t inputs, digest *d) {
  numbers n = seeded(inputs + 11);
  for (size_t shape = 0; shape < SHAPES; shape++)
    for (uint32_t type = mwk_weight_f32; type <= mwk_weight_bf16; type++) {
      size_t rows = row_counts[shape], outputs = output_counts[shape], stride = outputs + 3;
      size_t size = type == mwk_weight_f32 ? 4 : 2, extent = (rows - 1) * stride + outputs;
      float *values = floats(&n, outputs * inputs, 0.3f), *y = room(extent);
      // Weights at odd addresses, as a safetensors file may have them.
      char *weight = (char *)guarded(outputs * inputs * size + 1);
      size_t overflows = 0;
      if (type == mwk_weight_f32) memcpy(weight, values, outputs * inputs * size);
      if (type == mwk_weight_f16) mwk_f32_to_f16(context, outputs * inputs, values, weight, &overflows);
      if (type == mwk_weight_bf16) mwk_f32_to_bf16(context, outputs * inputs, values, weight, &overflows);
      mwk_linear_f32_job job = {
          .rows = rows, .inputs = inputs, .outputs = outputs,
          .x = floats(&n, rows * (inputs + 3), 1), .x_stride = inputs + 3,
          .weight = weight, .weight_type = (mwk_weight_type)type,
          .bias = type == mwk_weight_f32 ? NULL : floats(&n, outputs, 1),
          .residual = type == mwk_weight_f16 ? NULL : floats(&n, extent, 1),
          .activation = type == mwk_weight_f16 ? mwk_activation_gelu : mwk_activation_none,
          .y = y, .y_stride = stride,
      };
      CHECK(mwk_linear_f32(context, &job) == mwk_ok);
      add_floats(d, extent, y);
      release_guarded();
    }
}

/// Blocks of numbers, or of any bits, in which scales are NaN and infinite too.
static void *blocks_of(const mwk_context *context, numbers *n, mwk_block_type type, size_t count, bool hostile, digest *d) {
  size_t size = count * mwk_block_bytes(type), broken = 0;
  char *blocks = (char *)guarded(size + 1);
  if (hostile) {
    memcpy(blocks, bytes(n, size), size);
    return blocks;
  }
  CHECK(mwk_encode_blocks(context, type, count, floats(n, MWK_BLOCK * count, 0.3f), blocks, &broken) == mwk_ok);
  CHECK(broken == 0);
  add_bytes(d, size, blocks);
  return blocks;
}

void linear_blocks_case(const mwk_context *context, size_t inputs, digest *d) {
  numbers n = seeded(inputs + 18);
  for (size_t shape = 0; shape < SHAPES; shape++)
    for (size_t few = 0; few < 3; few++)
      for (uint32_t type = mwk_block_q8_0; type <= mwk_block_q4_1; type++) {
        // The rows of this file's tiles, and those that are computed straight from the blocks.
        size_t rows = few ? 1 + few * shape % 4 : row_counts[shape], outputs = output_counts[shape], stride = outputs + 3;
        size_t extent = (rows - 1) * stride + outputs, count = outputs * (inputs / MWK_BLOCK);
        mwk_linear_blocks_job job = {
            .rows = rows, .inputs = inputs, .outputs = outputs,
            .x = floats(&n, rows * (inputs + 3), 1), .x_stride = inputs + 3,
            .blocks = blocks_of(context, &n, (mwk_block_type)type, count, few == 2, d), .type = (mwk_block_type)type,
            .bias = type == mwk_block_q8_0 ? NULL : floats(&n, outputs, 1),
            .residual = type == mwk_block_q4_0 ? NULL : floats(&n, extent, 1),
            .activation = type == mwk_block_q4_0 ? mwk_activation_gelu : mwk_activation_none,
            .y = room(extent), .y_stride = stride,
        };
        CHECK(mwk_linear_blocks(context, &job) == mwk_ok);
        add_floats(d, extent, job.y);
        release_guarded();
      }
}

/// Numbers of every magnitude, and blocks that cannot be encoded, which are counted.
void encode_blocks_case(const mwk_context *context, size_t count, digest *d) {
  numbers n = seeded(count + 19);
  for (uint32_t type = mwk_block_q8_0; type <= mwk_block_q4_1; type++)
    for (int power = -40; power <= 20; power += 5) {
      size_t size = count * mwk_block_bytes((mwk_block_type)type), broken = 0;
      float *x = floats(&n, MWK_BLOCK * count, ldexpf(1, power));
      for (size_t i = 0; i < count; i += 3)
        for (size_t k = 0; k < MWK_BLOCK; k++) x[i * MWK_BLOCK + k] = k % 5 && i % 2 ? 0 : ldexpf(1, power);
      void *blocks = bytes(&n, size);
      CHECK(mwk_encode_blocks(context, (mwk_block_type)type, count, x, blocks, &broken) == mwk_ok);
      add_word(d, broken);
      if (!broken) add_bytes(d, size, blocks);
      CHECK(mwk_encode_blocks(context, (mwk_block_type)type, count, hard_floats(&n, MWK_BLOCK * count, 1), blocks,
                              &broken) == mwk_ok);
      add_word(d, broken);
      release_guarded();
    }
}

void convolution_case(const mwk_context *context, size_t channels, digest *d) {
  numbers n = seeded(channels + 12);
  for (size_t kernel = 1; kernel <= 5; kernel += 2) {
    size_t outputs = 66, positions = 2 * 4 * 7;
    mwk_convolution_f32_job job = {
        .images = 2, .height = 4, .width = 7, .channels = channels, .outputs = outputs, .kernel = kernel,
        .x = floats(&n, positions * channels, 1),
        .weight = floats(&n, outputs * kernel * kernel * channels, 0.3f), .weight_type = mwk_weight_f32,
        .bias = floats(&n, outputs, 1), .activation = mwk_activation_gelu, .y = room(positions * outputs),
    };
    CHECK(mwk_convolution_f32(context, &job) == mwk_ok);
    add_floats(d, positions * outputs, job.y);
    release_guarded();
  }
}

/// An int8 layer of any bytes, −128 among the weights.
static void int8_layer(const mwk_context *context, numbers *n, size_t rows, size_t inputs, size_t outputs,
                       size_t groups, int extreme, digest *d) {
  size_t quads = mwk_ceil_div(inputs, 4), panel_bytes = mwk_ceil_div(outputs, 64) * quads * 256;
  uint8_t *q = bytes(n, rows * 4 * quads);
  int8_t *panels = bytes(n, panel_bytes);
  if (extreme) memset(q, 255, rows * 4 * quads), memset(panels, extreme > 0 ? 127 : -128, panel_bytes);
  int32_t *zero = guarded(groups * rows * sizeof *zero), *sum = guarded(groups * outputs * sizeof *sum);
  for (size_t i = 0; i < groups * rows; i++) zero[i] = (int32_t)(next(n) % 256);
  // The layer takes the sums as they are given; these are the true ones of nothing, which any kernel must treat alike.
  for (size_t i = 0; i < groups * outputs; i++) sum[i] = (int32_t)(next(n) % 2001) - 1000;
  mwk_linear_i8_job job = {
      .rows = rows, .inputs = inputs, .outputs = outputs, .groups = groups,
      .q = q, .scale = floats(n, groups * rows, 0.01f), .zero = zero,
      .panels = panels, .weight_scale = floats(n, groups * outputs, 0.01f), .weight_sum = sum,
      .bias = rows % 2 ? floats(n, outputs, 1) : NULL, .residual = rows % 3 ? floats(n, rows * outputs, 1) : NULL,
      .activation = rows % 2 ? mwk_activation_none : mwk_activation_gelu,
      .y = room(rows * outputs), .y_stride = outputs,
  };
  CHECK(mwk_linear_i8(context, &job) == mwk_ok);
  add_floats(d, rows * outputs, job.y);
  release_guarded();
}

void linear_i8_case(const mwk_context *context, size_t inputs, digest *d) {
  numbers n = seeded(inputs + 13);
  for (size_t shape = 0; shape < SHAPES; shape++) {
    int8_layer(context, &n, row_counts[shape], inputs, output_counts[shape], 1, 0, d);
    if (inputs % 12 == 0) int8_layer(context, &n, row_counts[shape], inputs, output_counts[shape], 3, 0, d);
  }
}

void extreme_i8_case(const mwk_context *context, size_t inputs, digest *d) {
  numbers n = seeded(inputs + 14);
  for (int sign = -1; sign <= 1; sign += 2) int8_layer(context, &n, 2, inputs, 3, 1, sign, d);
}

void panels_case(const mwk_context *context, size_t inputs, digest *d) {
  numbers n = seeded(inputs + 15);
  for (size_t shape = 0; shape < SHAPES; shape++) {
    size_t outputs = output_counts[shape], groups = inputs % 8 == 0 ? 2 : 1, broken = 0;
    size_t panel_bytes = mwk_ceil_div(outputs, 64) * mwk_ceil_div(inputs, 4) * 256;
    const float *weight = floats(&n, outputs * inputs, 0.1f), *column = floats(&n, inputs, 2);
    int8_t *panels = bytes(&n, panel_bytes);
    float *scale = room(groups * outputs);
    int32_t *sum = guarded(groups * outputs * sizeof *sum);
    CHECK(mwk_quantize_weight_panels(context, outputs, inputs, groups, weight, shape % 2 ? column : NULL, panels,
                                     scale, sum, &broken) == mwk_ok);
    CHECK(broken == 0);
    add_bytes(d, panel_bytes, panels);
    add_floats(d, groups * outputs, scale);
    add_bytes(d, groups * outputs * sizeof *sum, sum);
    release_guarded();
  }
}

/// A store changes no bit, neither when it is filled nor when it is read.
static void keep_memory(const mwk_context *context, mwk_attention_job job) {
  size_t width = job.heads * job.head_size, keys = 0, count = job.segment_count;
  for (size_t s = 0; s < count; s++) keys += job.segments[s].tokens;
  size_t bytes = mwk_attention_store_bytes(job.arithmetic, 1, job.heads, job.head_size, keys);
  job.store = (mwk_attention_store){.bytes = guarded(bytes), .keys = keys};
  for (int filled = 0; filled < 2; filled++) {
    const float *expected[2];
    for (size_t s = count - 2; s < count; s++) {
      expected[s + 2 - count] = job.segments[s].out;
      job.segments[s].out = room(job.batch * job.segments[s].tokens * width);
    }
    job.store.is_filled = filled;
    CHECK(mwk_attention(context, &job) == mwk_ok);
    for (size_t s = count - 2; s < count; s++)
      CHECK(memcmp(expected[s + 2 - count], job.segments[s].out,
                   job.batch * job.segments[s].tokens * width * sizeof(float)) == 0);
  }
}

/// Segments of `first` and `last` tokens, q, k and v side by side, behind a memory of `memory` tokens where that is not 0.
static void attend_as(mwk_attention_arithmetic arithmetic, const mwk_context *context, numbers *n, size_t batch,
                      size_t head_size, size_t memory, size_t first, size_t last, bool caption, bool padded, bool biased,
                      digest *d) {
  enum { heads = 2, bias_rows = 11 };
  size_t width = heads * head_size, stride = 3 * width + 5, count = 0, keys = memory + first + last;
  mwk_attention_job job = {.batch = batch, .heads = heads, .head_size = head_size, .scale = 0.3f,
                           .arithmetic = arithmetic,
                           .mode = caption ? mwk_attention_caption : mwk_attention_full};
  if (memory)
    job.segments[count++] = (mwk_attention_segment){
        .k = floats(n, memory * width, 2), .v = floats(n, memory * width, 2), .tokens = memory, .stride = width,
        .share = batch};
  for (int s = 0; s < 2; s++) {
    size_t tokens = s ? last : first;
    const float *q = floats(n, batch * tokens * stride, 2);
    job.segments[count++] = (mwk_attention_segment){
        .q = q, .k = q + width, .v = q + 2 * width, .out = room(batch * tokens * width), .tokens = tokens,
        .stride = stride, .out_stride = width, .share = 1};
  }
  job.segment_count = count;
  uint8_t *padding = bytes(n, batch * last);
  for (size_t i = 0; i < batch * last; i++) padding[i] = i < last || padding[i] % 3 == 0;
  if (padded) job.key_padding = padding;
  int16_t *index = bytes(n, (first + last) * keys * sizeof *index);
  for (size_t i = 0; i < (first + last) * keys; i++) index[i] = (int16_t)(next(n) % bias_rows);
  const float *bias = floats(n, heads * bias_rows, 3);
  if (biased) job.bias = bias, job.bias_rows = bias_rows, job.bias_index = index, job.bias_stride = keys;
  CHECK(mwk_attention(context, &job) == mwk_ok);
  for (size_t s = count - 2; s < count; s++) add_floats(d, batch * job.segments[s].tokens * width, job.segments[s].out);
  if (memory) keep_memory(context, job);
  release_guarded();
}

static void attend(const mwk_context *context, numbers *n, size_t batch, size_t head_size, size_t memory, size_t first,
                   size_t last, bool caption, bool padded, bool biased, digest *d) {
  attend_as(mwk_attention_f32, context, n, batch, head_size, memory, first, last, caption, padded, biased, d);
  attend_as(mwk_attention_i8, context, n, batch, head_size, memory, first, last, caption, padded, biased, d);
}

void attention_case(const mwk_context *context, size_t tokens, digest *d) {
  numbers n = seeded(tokens + 16);
  attend(context, &n, 2, 8, 0, tokens, 9, false, false, false, d);
  attend(context, &n, 1, 20, 0, 5, tokens, false, true, true, d);
  attend(context, &n, 1, 65, tokens, 0, 3, false, false, false, d);
}

void caption_case(const mwk_context *context, size_t tokens, digest *d) {
  numbers n = seeded(tokens + 17);
  attend(context, &n, 2, 16, 0, 7, tokens, true, true, false, d);
  attend(context, &n, 3, 8, tokens, 2, 8, true, false, true, d);
}
