// Attention with integer products: a query is quantized as an activation is, a key as a row of weights, each by itself. Values are
// quantized by token, and a token's scale moves into the weight that the softmax gives it, so that what a token becomes depends on
// no other: a decoding step has the bits of the whole sequence.
#include "attention.h"

/// A head's keys and values, and one task's scratch.
typedef struct {
  int8_t *keys;         // [room for panels][quads of channels][64][4]
  int8_t *values;       // [value_panels][room for quads of keys][64][4]
  float *key_scale;     // [room for panels][64]
  int32_t *key_sum;     // [room for panels][64]
  float *value_scale;   // [room for keys]
  float *scores;        // [6][total], rows whole vectors apart
  float *mask;          // [total], 0 or −∞
  float *row;           // [head_size]
  int32_t *acc;         // [6][64]
  uint8_t *query;       // [6][quads of channels][4]
  uint8_t *high, *low;  // [6][quads of keys][4], the bytes of the weights
} workspace;

static size_t channel_quads(const mwk_attention_plan *p) { return mwk_ceil_div(p->job->head_size, 4); }
static size_t key_quads(const mwk_attention_plan *p) { return mwk_ceil_div(p->total, 4); }
static size_t score_stride(const mwk_attention_plan *p) { return mwk_round_up(p->total, MWK_LANES); }
/// The bytes between two panels of values.
static size_t value_panel_bytes(const mwk_attention_plan *p) { return mwk_ceil_div(p->room_keys, 4) * MWK_PANEL * 4; }

// Parts are laid out one after the other from `memory`, which may be null where only the size is wanted.
#define MWK_PART(part, bytes) w->part = memory ? (void *)(memory + at) : NULL, at += mwk_round_up(bytes, 64)

static size_t carve_packed(const mwk_attention_plan *p, char *memory, workspace *w) {
  size_t keys = p->room_panels * MWK_PANEL, at = 0;
  MWK_PART(keys, keys * 4 * channel_quads(p));
  MWK_PART(values, p->value_panels * value_panel_bytes(p));
  MWK_PART(key_scale, keys * sizeof(float));
  MWK_PART(key_sum, keys * sizeof(int32_t));
  MWK_PART(value_scale, p->room_keys * sizeof(float));
  return at;
}

static size_t carve_scratch(const mwk_attention_plan *p, char *memory, workspace *w) {
  size_t at = 0;
  MWK_PART(scores, MWK_TILE_ROWS * score_stride(p) * sizeof(float));
  MWK_PART(mask, p->total * sizeof(float));
  MWK_PART(row, p->job->head_size * sizeof(float));
  MWK_PART(acc, MWK_TILE_ROWS * MWK_PANEL * sizeof(int32_t));
  MWK_PART(query, MWK_TILE_ROWS * 4 * channel_quads(p));
  MWK_PART(high, MWK_TILE_ROWS * 4 * key_quads(p));
  MWK_PART(low, MWK_TILE_ROWS * 4 * key_quads(p));
  return at;
}
#undef MWK_PART

static size_t packed_bytes(const mwk_attention_plan *p) {
  workspace w;
  return carve_packed(p, NULL, &w);
}

static size_t scratch_bytes(const mwk_attention_plan *p) {
  workspace w;
  return carve_scratch(p, NULL, &w);
}

/// Asks for the part of a row that belongs to a head. Rows lie far apart, so the machine does not see which comes next.
static void fetch(const mwk_attention_plan *p, const float *row) {
  for (size_t c = 0; c < p->job->head_size; c += 16) __builtin_prefetch(row + c, 0, 3);
}

/// Rows that are on their way while one is quantized.
#define ROWS_AHEAD ((size_t)16)

static void pack_keys(const mwk_attention_plan *p, size_t example, size_t channel, size_t kept, const workspace *w) {
  const mwk_attention_job *job = p->job;
  size_t panel = 0, key = 0;
  for (size_t s = 0; s < job->segment_count; s++) {
    const mwk_attention_segment *segment = &job->segments[s];
    const float *k = segment->k + example / segment->share * segment->tokens * segment->stride + channel;
    for (size_t t = 0; t < segment->tokens; t += MWK_PANEL, panel++) {
      size_t count = mwk_min(MWK_PANEL, segment->tokens - t);
      if (key < kept) {
        key += count;
        continue;
      }
      for (size_t next = t + count; next < mwk_min(t + count + MWK_PANEL, segment->tokens); next++)
        fetch(p, k + next * segment->stride);
      float *scale = w->key_scale + panel * MWK_PANEL;
      int32_t *sum = w->key_sum + panel * MWK_PANEL;
      p->context->gemm_i8->quantize_panel(count, job->head_size, k + t * segment->stride, segment->stride,
                                          w->keys + panel * MWK_PANEL * 4 * channel_quads(p), scale, sum);
      // An excluded key's score is 0 before the mask, whatever the key holds.
      for (size_t i = 0; i < count; i++, key++)
        if (mwk_is_excluded(p, example, key)) scale[i] = 0.0f, sum[i] = 0;
    }
  }
}

/// Values of all segments, four keys at a time: a quad may begin in one segment and end in the next. Quads of kept keys alone stay.
static void pack_values(const mwk_attention_plan *p, size_t example, size_t channel, size_t kept, const workspace *w) {
  const mwk_attention_job *job = p->job;
  const float *rows[4];
  size_t key = 0, filled = 0, panel_bytes = value_panel_bytes(p);
  for (size_t s = 0; s < job->segment_count; s++) {
    const mwk_attention_segment *segment = &job->segments[s];
    size_t first = mwk_min(segment->tokens, mwk_max(kept / 4 * 4, key) - key);
    const float *v = segment->v + (example / segment->share * segment->tokens + first) * segment->stride + channel;
    for (size_t t = first; t < segment->tokens; t++, v += segment->stride) {
      if (t + ROWS_AHEAD < segment->tokens) fetch(p, v + ROWS_AHEAD * segment->stride);
      rows[filled++] = mwk_is_excluded(p, example, key + t) ? NULL : v;
      bool last = key + t + 1 == p->total;
      if (filled < 4 && !last) continue;
      size_t quad = (key + t) / 4;
      p->context->gemm_i8->quantize_quad(filled, job->head_size, rows, w->values + quad * 4 * MWK_PANEL, panel_bytes,
                                         w->value_scale + quad * 4);
      filled = 0;
    }
    key += segment->tokens;
  }
}

static size_t pack(const mwk_attention_plan *p, size_t example, size_t head, size_t kept, void *packed, void *scratch) {
  workspace w;
  carve_packed(p, packed, &w);
  carve_scratch(p, scratch, &w);
  size_t channel = head * p->job->head_size;
  pack_keys(p, example, channel, kept, &w);
  pack_values(p, example, channel, kept, &w);
  return p->job->key_padding ? mwk_attention_mask(p, example, w.mask) : 0;
}

/// Quantizes the queries of a block.
static void load_queries(const mwk_attention_plan *p, const mwk_attention_block *block, const float *q, size_t stride,
                         const workspace *w, float *scale, int32_t *zero) {
  size_t tokens = p->job->segments[block->segment].tokens;
  for (size_t r = 0; r < block->rows; r++) {
    if (block->first + r + ROWS_AHEAD < tokens) fetch(p, q + (r + ROWS_AHEAD) * stride);
    p->context->elementwise->scale(p->job->head_size, p->job->scale, q + r * stride, w->row);
    p->context->rows->quantize(p->job->head_size, w->row, w->query + r * 4 * channel_quads(p), scale + r, zero + r);
  }
}

static void score(const mwk_attention_plan *p, const mwk_attention_block *block, const workspace *w, const float *scale,
                  const int32_t *zero) {
  const mwk_attention_job *job = p->job;
  size_t quads = channel_quads(p), panel = 0, key = 0, limit = block->limit[block->rows - 1];
  for (size_t s = 0; s < job->segment_count; s++)
    for (size_t t = 0; t < job->segments[s].tokens; t += MWK_PANEL, panel++) {
      if (key >= limit) return;
      size_t count = mwk_min(MWK_PANEL, job->segments[s].tokens - t);
      mwk_epilogue epilogue = {.activation = mwk_activation_none, .y = w->scores + key, .y_stride = score_stride(p)};
      p->context->gemm_i8->products(block->rows, quads, w->query, 4 * quads, w->keys + panel * MWK_PANEL * 4 * quads,
                                    count, zero, scale, w->key_scale + panel * MWK_PANEL, w->key_sum + panel * MWK_PANEL,
                                    &epilogue, (mwk_lines){0}, w->acc);
      key += count;
    }
}

/// Softmax of each row, times the values' scales, in 16 bits, as one byte would be the coarsest of all roundings where a row attends to
/// many keys; `scale` receives what a row's sums of products are worth: 0 where
/// no key is allowed.
static void quantize_weights(const mwk_attention_plan *p, const mwk_attention_block *block, const workspace *w, float *scale) {
  size_t stride = 4 * key_quads(p), end = 4 * mwk_ceil_div(block->limit[block->rows - 1], 4);
  const float *mask = p->job->key_padding ? w->mask : NULL;
  for (size_t r = 0; r < block->rows; r++) {
    size_t limit = block->limit[r], written = 0;
    float *scores = w->scores + r * score_stride(p), step, inverse;
    uint8_t *high = w->high + r * stride, *low = w->low + r * stride;
    scale[r] = 0.0f;
    mwk_attention_add_bias(p, block, r, scores);
    if (block->first_key < limit) {
      inverse = p->context->rows->softmax_quantize(limit, mask, w->value_scale, scores, high, low, &step);
      scale[r] = step * inverse;
      written = 4 * mwk_ceil_div(limit, 4);
    }
    memset(high + written, 0, end - written);
    memset(low + written, 0, end - written);
  }
}

static void weigh(const mwk_attention_plan *p, const mwk_attention_block *block, const workspace *w, const float *scale,
                  float *out, size_t out_stride) {
  static const int32_t none[MWK_PANEL];
  static const float one[MWK_PANEL] = {[0 ... MWK_PANEL - 1] = 1.0f};
  const mwk_gemm_i8 *gemm = p->context->gemm_i8;
  size_t quads = mwk_ceil_div(block->limit[block->rows - 1], 4), stride = 4 * key_quads(p);
  float high_scale[MWK_TILE_ROWS];
  for (size_t r = 0; r < block->rows; r++) high_scale[r] = 256.0f * scale[r];
  for (size_t c = 0; c < p->value_panels; c++) {
    size_t count = mwk_min(MWK_PANEL, p->job->head_size - c * MWK_PANEL);
    const int8_t *values = w->values + c * value_panel_bytes(p);
    mwk_epilogue epilogue = {.activation = mwk_activation_none, .y = out + c * MWK_PANEL, .y_stride = out_stride};
    gemm->products(block->rows, quads, w->low, stride, values, count, none, scale, one, none, &epilogue, (mwk_lines){0}, w->acc);
    epilogue.residual = epilogue.y;
    gemm->products(block->rows, quads, w->high, stride, values, count, none, high_scale, one, none, &epilogue, (mwk_lines){0}, w->acc);
  }
}

static void attend(const mwk_attention_plan *p, const mwk_attention_block *block, void *packed, void *scratch) {
  workspace w;
  carve_packed(p, packed, &w);
  carve_scratch(p, scratch, &w);
  const mwk_attention_segment *segment = &p->job->segments[block->segment];
  size_t token = block->example * segment->tokens + block->first, channel = block->head * p->job->head_size;
  float scale[MWK_TILE_ROWS];
  int32_t zero[MWK_TILE_ROWS];
  load_queries(p, block, segment->q + token * segment->stride + channel, segment->stride, &w, scale, zero);
  score(p, block, &w, scale, zero);
  quantize_weights(p, block, &w, scale);
  weigh(p, block, &w, scale, segment->out + token * segment->out_stride + channel, segment->out_stride);
}

const mwk_attention_products mwk_attention_i8_products = {packed_bytes, scratch_bytes, pack, attend};
