#pragma once
// What the integer tiles of ARM share. UMULL and UDOT have unsigned factors only: a weight w goes in as w + 128, and 128 · Σ q is
// taken off again, exact modulo 2³².
#include "neon.h"

/// Sixteen weights, each + 128.
MWK_INLINE uint8x16_t biased_weights(const int8_t *w) {
  return veorq_u8(vreinterpretq_u8_s8(vld1q_s8(w)), vdupq_n_u8(0x80));
}

/// 128 · Σ q over a row of the tile.
MWK_INLINE uint32_t weight_bias(size_t quads, const uint8_t *q) {
  uint32x4_t sum = vdupq_n_u32(0);
  size_t k = 0;
  for (; k + 4 <= quads; k += 4) sum = vpadalq_u16(sum, vpaddlq_u8(vld1q_u8(q + 4 * k)));
  uint32_t total = vaddvq_u32(sum);
  for (k *= 4; k < 4 * quads; k++) total += q[k];
  return 128 * total;
}

/// Four activations of a row, as often as a vector holds them.
MWK_INLINE uint8x16_t broadcast_quad(const uint8_t *q) {
  uint32_t quad;
  memcpy(&quad, q, sizeof quad);
  return vreinterpretq_u8_u32(vdupq_n_u32(quad));
}
