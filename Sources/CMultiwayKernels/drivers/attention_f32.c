// Attention in fp32: keys transposed and values in panels of 64, each sum one chain of fma.
#include "attention.h"

/// A head's keys and values, and one task's scratch.
typedef struct {
  float *keys;    // [room for panels][head_size][64]
  float *values;  // [value_panels][room for keys][64]
  float *scores;  // [6][total]
  float *query;   // [6][head_size]
  float *acc;     // [6][64]
  float *mask;    // [total], 0 or −∞
} workspace;

static size_t key_elements(const mwk_attention_plan *p) { return p->room_panels * p->job->head_size * MWK_PANEL; }

static size_t packed_bytes(const mwk_attention_plan *p) {
  return sizeof(float) * (key_elements(p) + p->value_panels * p->room_keys * MWK_PANEL);
}

static size_t scratch_bytes(const mwk_attention_plan *p) {
  return sizeof(float) * (MWK_TILE_ROWS * (p->total + p->job->head_size + MWK_PANEL) + p->total);
}

static workspace carve(const mwk_attention_plan *p, float *packed, float *scratch) {
  workspace w;
  w.keys = packed;
  w.values = w.keys + key_elements(p);
  w.acc = scratch;
  w.scores = w.acc + MWK_TILE_ROWS * MWK_PANEL;
  w.query = w.scores + MWK_TILE_ROWS * p->total;
  w.mask = w.query + MWK_TILE_ROWS * p->job->head_size;
  return w;
}

static void pack_keys(const mwk_attention_plan *p, size_t example, size_t channel, size_t kept, workspace w) {
  const mwk_attention_job *job = p->job;
  float *panel = w.keys;
  size_t key = 0;
  for (size_t s = 0; s < job->segment_count; key += job->segments[s++].tokens) {
    const mwk_attention_segment *segment = &job->segments[s];
    const float *k = segment->k + example / segment->share * segment->tokens * segment->stride + channel;
    for (size_t t = 0; t < segment->tokens; t += MWK_PANEL, panel += job->head_size * MWK_PANEL)
      if (key >= kept)
        p->context->gemm_f32->pack(mwk_weight_f32, mwk_min(MWK_PANEL, segment->tokens - t), job->head_size,
                                   k + t * segment->stride, segment->stride * sizeof *k, panel);
  }
}

static void pack_values(const mwk_attention_plan *p, size_t example, size_t channel, size_t kept, workspace w) {
  const mwk_attention_job *job = p->job;
  size_t key = 0;
  for (size_t s = 0; s < job->segment_count; key += job->segments[s++].tokens) {
    if (key < kept) continue;
    const mwk_attention_segment *segment = &job->segments[s];
    const float *v = segment->v + example / segment->share * segment->tokens * segment->stride + channel;
    for (size_t t = 0; t < segment->tokens; t++, v += segment->stride)
      for (size_t c = 0; c < p->value_panels; c++) {
        float *row = w.values + (c * p->room_keys + key + t) * MWK_PANEL;
        size_t count = mwk_min(MWK_PANEL, job->head_size - c * MWK_PANEL);
        memcpy(row, v + c * MWK_PANEL, count * sizeof *row);
        memset(row + count, 0, (MWK_PANEL - count) * sizeof *row);
      }
  }
}

/// Clears the excluded keys and values, so that a NaN in them reaches no output.
static void clear_excluded(const mwk_attention_plan *p, size_t example, workspace w) {
  size_t tokens = mwk_last_segment(p)->tokens, head_size = p->job->head_size, before = p->total - tokens;
  float *panels = w.keys + (p->all_key_panels - mwk_ceil_div(tokens, MWK_PANEL)) * head_size * MWK_PANEL;
  for (size_t t = 0; t < tokens; t++) {
    if (!mwk_is_excluded(p, example, before + t)) continue;
    float *column = panels + t / MWK_PANEL * head_size * MWK_PANEL + t % MWK_PANEL;
    for (size_t j = 0; j < head_size; j++) column[j * MWK_PANEL] = 0.0f;
    for (size_t c = 0; c < p->value_panels; c++)
      memset(w.values + (c * p->room_keys + before + t) * MWK_PANEL, 0, MWK_PANEL * sizeof(float));
  }
}

static size_t pack(const mwk_attention_plan *p, size_t example, size_t head, size_t kept, void *packed, void *scratch) {
  workspace w = carve(p, packed, scratch);
  size_t channel = head * p->job->head_size;
  pack_keys(p, example, channel, kept, w);
  pack_values(p, example, channel, kept, w);
  if (!p->job->key_padding) return 0;
  clear_excluded(p, example, w);
  return mwk_attention_mask(p, example, w.mask);
}

static void score(const mwk_attention_plan *p, size_t rows, size_t limit, workspace w) {
  const mwk_attention_job *job = p->job;
  const float *panel = w.keys;
  size_t key = 0;
  for (size_t s = 0; s < job->segment_count; s++)
    for (size_t t = 0; t < job->segments[s].tokens; t += MWK_PANEL, panel += job->head_size * MWK_PANEL) {
      if (key >= limit) return;
      size_t count = mwk_min(MWK_PANEL, job->segments[s].tokens - t);
      memset(w.acc, 0, rows * MWK_PANEL * sizeof(float));
      p->context->gemm_f32->tile(rows, job->head_size, w.query, job->head_size, panel,
                                 mwk_ceil_div(count, MWK_LANES), w.acc);
      for (size_t r = 0; r < rows; r++)
        memcpy(w.scores + r * p->total + key, w.acc + r * MWK_PANEL, count * sizeof(float));
      key += count;
    }
}

/// Sums over the keys that all rows may attend to, six rows at once, then over each row's own further keys: what a row may
/// not attend to never meets its sums, so not even a NaN there reaches them.
static void weigh(const mwk_attention_plan *p, const mwk_attention_block *block, const float *inverse, workspace w,
                  float *out, size_t out_stride) {
  size_t common = block->limit[0];
  for (size_t c = 0; c < p->value_panels; c++) {
    size_t count = mwk_min(MWK_PANEL, p->job->head_size - c * MWK_PANEL), vectors = mwk_ceil_div(count, MWK_LANES);
    const float *values = w.values + c * p->room_keys * MWK_PANEL;
    memset(w.acc, 0, block->rows * MWK_PANEL * sizeof(float));
    p->context->gemm_f32->tile(block->rows, common, w.scores, p->total, values, vectors, w.acc);
    for (size_t r = 1; r < block->rows; r++)
      if (block->limit[r] > common)
        p->context->gemm_f32->tile(1, block->limit[r] - common, w.scores + r * p->total + common, p->total,
                                   values + common * MWK_PANEL, vectors, w.acc + r * MWK_PANEL);
    for (size_t r = 0; r < block->rows; r++)
      p->context->elementwise->scale(count, inverse[r], w.acc + r * MWK_PANEL, out + r * out_stride + c * MWK_PANEL);
  }
}

/// Scores of a row → exp(score − largest); returns 1 / their sum, or 0 where no key is allowed: then they are zeros.
static float softmax(const mwk_attention_plan *p, const mwk_attention_block *block, size_t row, workspace w) {
  size_t limit = block->limit[row];
  float *scores = w.scores + row * p->total;
  mwk_attention_add_bias(p, block, row, scores);
  if (block->first_key < limit) return p->context->rows->softmax(limit, p->job->key_padding ? w.mask : NULL, scores);
  memset(scores, 0, limit * sizeof *scores);
  return 0.0f;
}

static void attend(const mwk_attention_plan *p, const mwk_attention_block *block, void *packed, void *scratch) {
  workspace w = carve(p, packed, scratch);
  const mwk_attention_segment *segment = &p->job->segments[block->segment];
  size_t token = block->example * segment->tokens + block->first, channel = block->head * p->job->head_size;
  for (size_t r = 0; r < block->rows; r++)
    p->context->elementwise->scale(p->job->head_size, p->job->scale,
                                   segment->q + (token + r) * segment->stride + channel,
                                   w.query + r * p->job->head_size);
  score(p, block->rows, block->limit[block->rows - 1], w);
  float inverse[MWK_TILE_ROWS];
  for (size_t r = 0; r < block->rows; r++) inverse[r] = softmax(p, block, r, w);
  weigh(p, block, inverse, w, segment->out + token * segment->out_stride + channel, segment->out_stride);
}

const mwk_attention_products mwk_attention_f32_products = {packed_bytes, scratch_bytes, pack, attend};
