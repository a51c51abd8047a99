#pragma once
// Numbers to blocks. The scale is not simply the largest number's: several are tried, each is improved by least squares, and the one
// with the smallest error, of the numbers that the block will stand for, is kept; the first of equal ones.
#include "../core/families.h"

typedef struct { v16 low, high; } block;

MWK_INLINE float sum_of(block a) { return v_sum(v_add(a.low, a.high)); }
MWK_INLINE block product(block a, block b) { return (block){v_mul(a.low, b.low), v_mul(a.high, b.high)}; }
MWK_INLINE float smallest(block a) { return v_hmin(v_min(a.low, a.high)); }
MWK_INLINE float largest(block a) { return v_hmax(v_max(a.low, a.high)); }

MWK_INLINE v16 step_of(v16 w, float scale, float offset, float least, float most) {
  return v_min(v_max(v_round(v_div(v_sub(w, v_set(offset)), v_set(scale))), v_set(least)), v_set(most));
}
/// The nearest steps: clamp(rne((w − offset) ÷ scale)). All of scale 0 are 0.
MWK_INLINE block steps(block w, float scale, float offset, float least, float most) {
  if (scale == 0) return (block){v_set(0.0f), v_set(0.0f)};
  return (block){step_of(w.low, scale, offset, least, most), step_of(w.high, scale, offset, least, most)};
}

/// Σ (w − (scale · n + offset))².
MWK_INLINE float error_of(block w, block n, float scale, float offset) {
  v16 low = v_sub(w.low, v_fma(v_set(scale), n.low, v_set(offset)));
  v16 high = v_sub(w.high, v_fma(v_set(scale), n.high, v_set(offset)));
  return v_sum(v_fma(high, high, v_mul(low, low)));
}

/// The half next to x, and the number that it stands for.
MWK_INLINE float half_of(float x, uint16_t *half) {
  uint16_t halves[MWK_LANES];
  v_store_f16(halves, v_set(x));
  *half = halves[0];
  return mwk_float_of_half(halves[0]);
}
MWK_INLINE bool is_finite(float x) { return x - x == 0; }

/// What a block says of its numbers: scale · n + offset.
typedef struct {
  uint16_t scale, offset;
  block n;
  float error;
} choice;

/// Keeps a scale, and an offset, if the block is nearer to w with them. For four bits without an offset `w` counts from −8.
MWK_INLINE void consider(choice *best, block w, float scale, float offset, float least, float most) {
  choice now;
  float s = half_of(scale, &now.scale), o = half_of(offset, &now.offset);
  if (!is_finite(s) || !is_finite(o)) return;
  now.n = steps(w, s, o, least, most);
  now.error = error_of(w, now.n, s, o);
  if (now.error < best->error) *best = now;
}

/// Sixteen steps around zero, −8 … 7: tries scales that take the largest number to −6.5, −6.75, … −9.
MWK_INLINE void search_q4_0(choice *best, block w) {
  float most = largest(w), least = smallest(w), extreme = -least > most ? least : most;
  for (int quarter = 26; quarter <= 36; quarter++) {
    float scale = extreme / (-0.25f * (float)quarter);
    block n = steps(w, scale, 0, -8, 7);
    float squares = sum_of(product(n, n));
    if (squares > 0) scale = sum_of(product(w, n)) / squares;
    consider(best, w, scale, 0, -8, 7);
  }
}

/// Sixteen steps from an offset on: tries ranges from a little more than that of the numbers to three quarters of it.
MWK_INLINE void search_q4_1(choice *best, block w) {
  float most = largest(w), least = smallest(w), sum = sum_of(w);
  float middle = 0.5f * least + 0.5f * most, range = most - least;
  for (int percent = 104; percent >= 72; percent -= 4) {
    float scale = range * (0.01f * (float)percent) / 15, offset = middle - 7.5f * scale;
    block n = steps(w, scale, offset, 0, 15);
    float ones = sum_of(n), squares = sum_of(product(n, n)), products = sum_of(product(w, n));
    float determinant = 32 * squares - ones * ones;
    if (determinant > 0) {
      scale = (32 * products - sum * ones) / determinant;
      offset = (squares * sum - ones * products) / determinant;
    }
    consider(best, w, scale, offset, 0, 15);
  }
}

/// Encodes a block; false where that cannot be.
MWK_INLINE bool encode_block(mwk_block_type type, const float *x, uint8_t *out) {
  block w = {v_load(x), v_load(x + MWK_LANES)};
  if (v_count_finite_from(w.low, 0) + v_count_finite_from(w.high, 0) < 2 * MWK_LANES) return false;
  choice best = {.error = INFINITY};
  switch (type) {
  case mwk_block_q4_0: search_q4_0(&best, w); break;
  case mwk_block_q4_1: search_q4_1(&best, w); break;
  default: {
    float top = largest(w), bottom = -smallest(w);
    consider(&best, w, (bottom > top ? bottom : top) / 127, 0, -127, 127);
  }
  }
  if (!(best.error < INFINITY)) return false;
  iv16 low = i_cvt(best.n.low), high = i_cvt(best.n.high);
  memcpy(out, &best.scale, 2);
  out += 2;
  if (type == mwk_block_q8_0) {
    i_bytes(out, low);
    i_bytes(out + MWK_LANES, high);
    return true;
  }
  if (type == mwk_block_q4_1) {
    memcpy(out, &best.offset, 2);
    out += 2;
  } else {
    low = i_add(low, i_set(8)), high = i_add(high, i_set(8));
  }
  i_bytes(out, i_add(low, i_mul(high, i_set(16))));
  return true;
}

static size_t encode(mwk_block_type type, size_t count, const float *x, void *blocks) {
  size_t broken = 0;
  uint8_t *out = blocks;
  for (size_t b = 0; b < count; b++) broken += !encode_block(type, x + b * MWK_BLOCK, out + b * mwk_bytes_of_block(type));
  return broken;
}
