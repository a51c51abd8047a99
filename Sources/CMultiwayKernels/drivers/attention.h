#pragma once
// What the two arithmetics of attention share: who may attend to whom, biases, softmax.
#include "../core/context.h"

typedef struct mwk_attention_products mwk_attention_products;

typedef struct {
  const mwk_context *context;
  const mwk_attention_job *job;
  const mwk_attention_products *products;
  size_t total, all_key_panels, value_panels;  // keys of all segments; panels of 64 keys, each segment's own; of 64 channels
  size_t all_blocks, chunk, chunks;
  size_t group;  // so many examples in a row are one task: they share memories
  size_t room_keys, room_panels;  // keys and panels of keys that packed keys and values have room for
  size_t packed_bytes;            // of a head's keys and values
  char *store;                    // [examples of the first segment][heads][packed_bytes], or NULL: a task packs into its scratch
} mwk_attention_plan;

/// At most six query rows of one head of one example.
typedef struct {
  size_t example, head, segment;
  size_t query;      // the first row's number among all queries
  size_t first;      // the first row's number in its segment
  size_t rows;
  size_t first_key;  // the first key that is not excluded, or `total`
  size_t limit[MWK_TILE_ROWS];  // how many keys, from the first, each row may attend to; never fewer than the row before it
} mwk_attention_block;

/// How the two products of attention are computed.
struct mwk_attention_products {
  /// The size of a head's keys and values in `room_keys` and `room_panels`, a multiple of 64.
  size_t (*packed_bytes)(const mwk_attention_plan *p);
  size_t (*scratch_bytes)(const mwk_attention_plan *p);
  /// Prepares keys and values of a head; returns the first key that is not excluded, or `total`. The first `kept` keys, whole segments,
  /// are those for which `packed` was prepared last.
  size_t (*pack)(const mwk_attention_plan *p, size_t example, size_t head, size_t kept, void *packed, void *scratch);
  void (*attend)(const mwk_attention_plan *p, const mwk_attention_block *block, void *packed, void *scratch);
};

extern const mwk_attention_products mwk_attention_f32_products, mwk_attention_i8_products;

MWK_INLINE const mwk_attention_segment *mwk_last_segment(const mwk_attention_plan *p) {
  return &p->job->segments[p->job->segment_count - 1];
}

/// Whether padding excludes a key of the joint sequence.
MWK_INLINE bool mwk_is_excluded(const mwk_attention_plan *p, size_t example, size_t key) {
  size_t tokens = mwk_last_segment(p)->tokens, before = p->total - tokens;
  return p->job->key_padding && key >= before && p->job->key_padding[example * tokens + key - before];
}

/// 0 or −∞ for every key; returns the first key that is not excluded, or `total`.
size_t mwk_attention_mask(const mwk_attention_plan *p, size_t example, float *mask);

/// Adds the bias, where there is one, to the scores of a block's row.
void mwk_attention_add_bias(const mwk_attention_plan *p, const mwk_attention_block *block, size_t row, float *scores);
