#pragma once
// Weights that a thread will read next, asked for while it computes: a product would wait for memory at each new panel, as hardware
// prefetchers follow a panel only once it is being read.
#include "../simd/common.h"

#define MWK_CACHE_LINE ((size_t)64)

/// Neighbouring cache lines.
typedef struct {
  const char *at;
  size_t lines;
} mwk_lines;

/// Asks for at most `count` of the lines, so that they are in the second-level cache when they are read. Never faults.
MWK_INLINE void mwk_fetch_some(mwk_lines *next, size_t count) {
  for (; count > 0 && next->lines > 0; count--, next->lines--, next->at += MWK_CACHE_LINE) __builtin_prefetch(next->at, 0, 2);
}

/// Rows of bytes, `stride` apart, and how far they have been asked for.
typedef struct {
  const char *at;
  size_t rows, bytes, stride, row, byte;
} mwk_ahead;

/// The lines to ask for at each of `times` calls of `mwk_fetch`.
MWK_INLINE size_t mwk_ahead_lines(const mwk_ahead *next, size_t times) {
  return mwk_ceil_div(next->rows * mwk_ceil_div(next->bytes, MWK_CACHE_LINE), mwk_max(times, 1));
}

/// Asks for some lines.
MWK_INLINE void mwk_fetch(mwk_ahead *next, size_t lines) {
  for (; lines > 0 && next->row < next->rows; lines--) {
    __builtin_prefetch(next->at + next->row * next->stride + next->byte, 0, 2);
    next->byte += MWK_CACHE_LINE;
    if (next->byte >= next->bytes) next->row++, next->byte = 0;
  }
}
