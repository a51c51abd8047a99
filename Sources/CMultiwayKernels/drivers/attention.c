// A task is some query rows of one head of one example, or of examples that share a memory. It packs the head's keys and values
// into panels, those of a memory once for all that share it, then, six query rows at a time: scores, softmax, weighted sum of values,
// while the scores are in the first cache. Where the caller keeps a store, the panels lie there, and those of the first memory are
// still there at the next call.
#include "attention.h"

size_t mwk_attention_mask(const mwk_attention_plan *p, size_t example, float *mask) {
  size_t first = p->total;
  for (size_t key = 0; key < p->total; key++) {
    bool excluded = mwk_is_excluded(p, example, key);
    mask[key] = excluded ? -__builtin_inff() : 0.0f;
    if (!excluded) first = mwk_min(first, key);
  }
  return first;
}

/// How many keys, from the first, a query row may attend to.
static size_t key_limit(const mwk_attention_plan *p, size_t segment, size_t row) {
  if (p->job->mode == mwk_attention_full) return p->total;
  size_t before = p->total - mwk_last_segment(p)->tokens;
  return segment + 1 < p->job->segment_count ? before : before + row + 1;
}

void mwk_attention_add_bias(const mwk_attention_plan *p, const mwk_attention_block *block, size_t row, float *scores) {
  if (!p->job->bias) return;
  const float *bias = p->job->bias + block->head * p->job->bias_rows;
  const int16_t *index = p->job->bias_index + (block->query + row) * p->job->bias_stride;
  for (size_t key = 0; key < block->limit[row]; key++) scores[key] = scores[key] + bias[index[key]];
}

/// Blocks of query rows.
static size_t block_count(const mwk_attention_segment *segment) {
  return segment->q ? mwk_ceil_div(segment->tokens, MWK_TILE_ROWS) : 0;
}

/// The keys, from the first, that an example shares with the one before it.
static size_t shared_keys(const mwk_attention_plan *p, size_t example) {
  size_t keys = 0;
  for (size_t s = 0; s < p->job->segment_count && example % p->job->segments[s].share != 0; s++)
    keys += p->job->segments[s].tokens;
  return keys;
}

/// Some blocks of queries of one head of one example.
static void attend_example(const mwk_attention_plan *p, size_t example, size_t head, mwk_range blocks, size_t first_key,
                           void *packed, void *scratch) {
  const mwk_attention_job *job = p->job;
  size_t first_block = 0, query = 0;
  for (size_t s = 0; s < job->segment_count; s++) {
    const mwk_attention_segment *segment = &job->segments[s];
    size_t end = first_block + block_count(segment);
    for (size_t b = mwk_max(blocks.begin, first_block); b < mwk_min(blocks.end, end); b++) {
      size_t first = (b - first_block) * MWK_TILE_ROWS;
      mwk_attention_block block = {
          .example = example, .head = head, .segment = s, .query = query + first, .first = first,
          .rows = mwk_min(MWK_TILE_ROWS, segment->tokens - first), .first_key = first_key};
      for (size_t r = 0; r < block.rows; r++) block.limit[r] = key_limit(p, s, first + r);
      p->products->attend(p, &block, packed, scratch);
    }
    first_block = end;
    if (segment->q) query += segment->tokens;
  }
}

/// The keys, from the first, that are where they are to be packed: from the example before or from the call before.
static size_t kept_keys(const mwk_attention_plan *p, size_t example, bool is_first) {
  size_t before = is_first ? 0 : shared_keys(p, example);
  return p->store && p->job->store.is_filled ? mwk_max(before, p->job->segments[0].tokens) : before;
}

static void attention_task(void *argument, size_t task, void *scratch) {
  const mwk_attention_plan *p = argument;
  size_t head = task / p->chunks % p->job->heads, share = p->job->segments[0].share;
  mwk_range examples = mwk_chunk(task / p->chunks / p->job->heads, p->group, p->job->batch);
  mwk_range blocks = mwk_chunk(task % p->chunks, p->chunk, p->all_blocks);
  for (size_t example = examples.begin; example < examples.end; example++) {
    char *packed = p->store ? p->store + (example / share * p->job->heads + head) * p->packed_bytes : scratch;
    void *rest = p->store ? scratch : (char *)scratch + p->packed_bytes;
    size_t kept = kept_keys(p, example, example == examples.begin);
    size_t first_key = p->products->pack(p, example, head, kept, packed, rest);
    attend_example(p, example, head, blocks, first_key, packed, rest);
  }
}

static const mwk_attention_products *products_for(mwk_attention_arithmetic arithmetic) {
  return arithmetic == mwk_attention_i8 ? &mwk_attention_i8_products : &mwk_attention_f32_products;
}

/// Room for so many keys in a store. Every segment's last panel may have a single key.
static void make_room(mwk_attention_plan *p, size_t keys) {
  p->room_keys = keys;
  p->room_panels = mwk_ceil_div(keys, MWK_PANEL) + MWK_ATTENTION_SEGMENTS;
}

size_t mwk_attention_store_bytes(mwk_attention_arithmetic arithmetic, size_t examples, size_t heads, size_t head_size,
                                 size_t keys) {
  mwk_attention_job job = {.head_size = head_size};
  mwk_attention_plan p = {.job = &job, .value_panels = mwk_ceil_div(head_size, MWK_PANEL)};
  make_room(&p, keys);
  return examples * heads * products_for(arithmetic)->packed_bytes(&p);
}

mwk_status mwk_attention(const mwk_context *context, const mwk_attention_job *job) {
  mwk_attention_plan p = {.context = context, .job = job, .group = 1, .products = products_for(job->arithmetic)};
  for (size_t s = 0; s < job->segment_count; s++) {
    p.total += job->segments[s].tokens;
    p.all_key_panels += mwk_ceil_div(job->segments[s].tokens, MWK_PANEL);
    p.all_blocks += block_count(&job->segments[s]);
    p.group = mwk_max(p.group, job->segments[s].share);
  }
  p.value_panels = mwk_ceil_div(job->head_size, MWK_PANEL);
  p.store = job->store.bytes;
  if (p.store)
    make_room(&p, job->store.keys);
  else
    p.room_keys = p.total, p.room_panels = p.all_key_panels;
  p.packed_bytes = p.products->packed_bytes(&p);
  size_t blocks = p.all_blocks, heads = mwk_ceil_div(job->batch, p.group) * job->heads;
  if (blocks == 0 || heads == 0 || job->head_size == 0) return mwk_ok;
  // Packing a head costs about as much as two blocks of queries: split a head only where heads are too few, and never where its
  // tasks would pack into one place.
  size_t wanted = context->threads == 1 || p.store ? 1 : mwk_ceil_div(4 * context->threads, heads);
  p.chunk = mwk_max(mwk_ceil_div(blocks, wanted), mwk_min(8, blocks));
  p.chunks = mwk_ceil_div(blocks, p.chunk);
  size_t scratch = p.products->scratch_bytes(&p) + (p.store ? 0 : p.packed_bytes);
  return mwk_parallel_for(context, heads * p.chunks, scratch, attention_task, &p);
}
