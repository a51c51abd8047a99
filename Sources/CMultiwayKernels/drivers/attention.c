// A task is some query rows of one head of one example. It packs the head's keys (transposed) and values into panels of
// 64, then, six query rows at a time: scores, softmax, weighted sum of values, while the scores are in the first cache.
#include "../core/context.h"

typedef struct {
  const mwk_context *context;
  const mwk_attention_job *job;
  size_t total, all_key_panels, value_panels;
  size_t all_blocks, chunk, chunks;
} plan;

/// One task's scratch, laid out one after the other.
typedef struct {
  float *keys;    // [panels of all segments][head_size][64]
  float *values;  // [value_panels][total][64]
  float *scores;  // [6][total]
  float *query;   // [6][head_size]
  float *acc;     // [6][64]
  float *mask;    // [total], 0 or −∞
} workspace;

static size_t workspace_floats(const plan *p) {
  size_t keys = p->all_key_panels * p->job->head_size * MWK_PANEL;
  size_t values = p->value_panels * p->total * MWK_PANEL;
  return keys + values + MWK_TILE_ROWS * (p->total + p->job->head_size + MWK_PANEL) + p->total;
}

static workspace carve(const plan *p, float *memory) {
  workspace w;
  w.keys = memory;
  w.values = w.keys + p->all_key_panels * p->job->head_size * MWK_PANEL;
  w.acc = w.values + p->value_panels * p->total * MWK_PANEL;
  w.scores = w.acc + MWK_TILE_ROWS * MWK_PANEL;
  w.query = w.scores + MWK_TILE_ROWS * p->total;
  w.mask = w.query + MWK_TILE_ROWS * p->job->head_size;
  return w;
}

static void pack_keys(const plan *p, size_t example, size_t channel, workspace w) {
  const mwk_attention_job *job = p->job;
  float *panel = w.keys;
  for (size_t s = 0; s < job->segment_count; s++) {
    const mwk_attention_segment *segment = &job->segments[s];
    const float *k = segment->k + example / segment->share * segment->tokens * segment->stride + channel;
    for (size_t t = 0; t < segment->tokens; t += MWK_PANEL, panel += job->head_size * MWK_PANEL)
      p->context->gemm_f32->pack(mwk_weight_f32, mwk_min(MWK_PANEL, segment->tokens - t), job->head_size,
                                 k + t * segment->stride, segment->stride * sizeof *k, panel);
  }
}

static void pack_values(const plan *p, size_t example, size_t channel, workspace w) {
  const mwk_attention_job *job = p->job;
  size_t key = 0;
  for (size_t s = 0; s < job->segment_count; s++) {
    const mwk_attention_segment *segment = &job->segments[s];
    const float *v = segment->v + example / segment->share * segment->tokens * segment->stride + channel;
    for (size_t t = 0; t < segment->tokens; t++, key++, v += segment->stride)
      for (size_t c = 0; c < p->value_panels; c++) {
        float *row = w.values + (c * p->total + key) * MWK_PANEL;
        size_t count = mwk_min(MWK_PANEL, job->head_size - c * MWK_PANEL);
        memcpy(row, v + c * MWK_PANEL, count * sizeof *row);
        memset(row + count, 0, (MWK_PANEL - count) * sizeof *row);
      }
  }
}

static const mwk_attention_segment *last_segment(const plan *p) { return &p->job->segments[p->job->segment_count - 1]; }

/// Writes the mask and clears the excluded keys and values, so that a NaN in them reaches no output.
/// Returns the first key that is not excluded, or `total`.
static size_t apply_padding(const plan *p, size_t example, workspace w) {
  size_t tokens = last_segment(p)->tokens, head_size = p->job->head_size, before = p->total - tokens;
  const uint8_t *padding = p->job->key_padding + example * tokens;
  float *panels = w.keys + (p->all_key_panels - mwk_ceil_div(tokens, MWK_PANEL)) * head_size * MWK_PANEL;
  memset(w.mask, 0, before * sizeof *w.mask);
  size_t first = before > 0 ? 0 : p->total;
  for (size_t t = 0; t < tokens; t++) {
    w.mask[before + t] = padding[t] ? -__builtin_inff() : 0.0f;
    if (!padding[t]) {
      first = mwk_min(first, before + t);
      continue;
    }
    float *column = panels + t / MWK_PANEL * head_size * MWK_PANEL + t % MWK_PANEL;
    for (size_t j = 0; j < head_size; j++) column[j * MWK_PANEL] = 0.0f;
    for (size_t c = 0; c < p->value_panels; c++)
      memset(w.values + (c * p->total + before + t) * MWK_PANEL, 0, MWK_PANEL * sizeof(float));
  }
  return first;
}

/// How many keys, from the first, a query row may attend to; never fewer than the row before it.
static size_t key_limit(const plan *p, size_t segment, size_t row) {
  if (p->job->mode == mwk_attention_full) return p->total;
  size_t before = p->total - last_segment(p)->tokens;
  return segment + 1 < p->job->segment_count ? before : before + row + 1;
}

/// Adds the bias of a head to the scores of row `query` of the joint sequence.
static void add_bias(const plan *p, size_t head, size_t query, size_t limit, float *scores) {
  const float *bias = p->job->bias + head * p->job->bias_rows;
  const int16_t *index = p->job->bias_index + query * p->job->bias_stride;
  for (size_t key = 0; key < limit; key++) scores[key] = scores[key] + bias[index[key]];
}

static void score(const plan *p, size_t rows, size_t limit, workspace w) {
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
static void weigh(const plan *p, size_t rows, const size_t *limit, const float *inverse, workspace w, float *out,
                  size_t out_stride) {
  size_t common = limit[0];
  for (size_t c = 0; c < p->value_panels; c++) {
    size_t count = mwk_min(MWK_PANEL, p->job->head_size - c * MWK_PANEL), vectors = mwk_ceil_div(count, MWK_LANES);
    const float *values = w.values + c * p->total * MWK_PANEL;
    memset(w.acc, 0, rows * MWK_PANEL * sizeof(float));
    p->context->gemm_f32->tile(rows, common, w.scores, p->total, values, vectors, w.acc);
    for (size_t r = 1; r < rows; r++)
      if (limit[r] > common)
        p->context->gemm_f32->tile(1, limit[r] - common, w.scores + r * p->total + common, p->total,
                                   values + common * MWK_PANEL, vectors, w.acc + r * MWK_PANEL);
    for (size_t r = 0; r < rows; r++)
      p->context->elementwise->scale(count, inverse[r], w.acc + r * MWK_PANEL, out + r * out_stride + c * MWK_PANEL);
  }
}

/// Rows first ..< first + rows of segment s, whose first query is number `query` of all.
static void attend(const plan *p, size_t example, size_t head, size_t s, size_t query, size_t first, size_t rows,
                   size_t first_key, workspace w) {
  const mwk_attention_segment *segment = &p->job->segments[s];
  size_t token = example * segment->tokens + first, channel = head * p->job->head_size, limit[MWK_TILE_ROWS];
  for (size_t r = 0; r < rows; r++) {
    limit[r] = key_limit(p, s, first + r);
    p->context->elementwise->scale(p->job->head_size, p->job->scale,
                                   segment->q + (token + r) * segment->stride + channel,
                                   w.query + r * p->job->head_size);
  }
  score(p, rows, limit[rows - 1], w);
  float inverse[MWK_TILE_ROWS];
  for (size_t r = 0; r < rows; r++) {
    float *scores = w.scores + r * p->total;
    inverse[r] = 0.0f;
    if (p->job->bias) add_bias(p, head, query + first + r, limit[r], scores);
    if (first_key < limit[r])
      inverse[r] = p->context->rows->softmax(limit[r], p->job->key_padding ? w.mask : NULL, scores);
    else
      memset(scores, 0, limit[r] * sizeof *scores);
  }
  weigh(p, rows, limit, inverse, w, segment->out + token * segment->out_stride + channel, segment->out_stride);
}

/// Blocks of query rows.
static size_t block_count(const mwk_attention_segment *segment) {
  return segment->q ? mwk_ceil_div(segment->tokens, MWK_TILE_ROWS) : 0;
}

static void attention_task(void *argument, size_t task, void *scratch) {
  const plan *p = argument;
  const mwk_attention_job *job = p->job;
  workspace w = carve(p, scratch);
  size_t head = task / p->chunks % job->heads, example = task / p->chunks / job->heads;
  size_t channel = head * job->head_size;
  pack_keys(p, example, channel, w);
  pack_values(p, example, channel, w);
  size_t first_key = job->key_padding ? apply_padding(p, example, w) : 0;
  mwk_range blocks = mwk_chunk(task % p->chunks, p->chunk, p->all_blocks);
  size_t first_block = 0, query = 0;
  for (size_t s = 0; s < job->segment_count; s++) {
    size_t end = first_block + block_count(&job->segments[s]);
    for (size_t b = mwk_max(blocks.begin, first_block); b < mwk_min(blocks.end, end); b++) {
      size_t first = (b - first_block) * MWK_TILE_ROWS;
      attend(p, example, head, s, query, first, mwk_min(MWK_TILE_ROWS, job->segments[s].tokens - first), first_key, w);
    }
    first_block = end;
    if (job->segments[s].q) query += job->segments[s].tokens;
  }
}

mwk_status mwk_attention_f32(const mwk_context *context, const mwk_attention_job *job) {
  plan p = {.context = context, .job = job};
  for (size_t s = 0; s < job->segment_count; s++) {
    p.total += job->segments[s].tokens;
    p.all_key_panels += mwk_ceil_div(job->segments[s].tokens, MWK_PANEL);
    p.all_blocks += block_count(&job->segments[s]);
  }
  p.value_panels = mwk_ceil_div(job->head_size, MWK_PANEL);
  size_t blocks = p.all_blocks, heads = job->batch * job->heads;
  if (blocks == 0 || heads == 0 || job->head_size == 0) return mwk_ok;
  // Packing a head costs about as much as two blocks of queries: split a head only where heads are too few.
  size_t wanted = context->threads == 1 ? 1 : mwk_ceil_div(4 * context->threads, heads);
  p.chunk = mwk_max(mwk_ceil_div(blocks, wanted), mwk_min(8, blocks));
  p.chunks = mwk_ceil_div(blocks, p.chunk);
  return mwk_parallel_for(context, heads * p.chunks, workspace_floats(&p) * sizeof(float), attention_task, &p);
}
