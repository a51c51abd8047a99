#pragma once
// The 16-lane vector in plain C: the specification of the two others. `max`, `min` and `cvt` copy what x86 does with NaN
// and with values out of range, because the bits must agree there too.
#include "common.h"
#include <math.h>

#define MWK_ISA_SUFFIX scalar
#define MWK_TILE_VECTORS 1
#undef MWK_UNROLL
#define MWK_UNROLL _Pragma("clang loop unroll(disable)")
#define MWK_EACH for (int i = 0; i < MWK_LANES; i++)

typedef struct { float f[MWK_LANES]; } v16;
typedef struct { int32_t n[MWK_LANES]; } iv16;
typedef struct { bool b[MWK_LANES]; } m16;

MWK_INLINE v16 v_set(float x) { v16 r; MWK_EACH r.f[i] = x; return r; }
MWK_INLINE v16 v_load(const float *p) { v16 r; memcpy(&r, p, sizeof r); return r; }
MWK_INLINE v16 v_loadn(const float *p, size_t n, float pad) {
  v16 r = v_set(pad);
  memcpy(&r, p, n * sizeof(float));
  return r;
}
MWK_INLINE void v_store(float *p, v16 a) { memcpy(p, &a, sizeof a); }
MWK_INLINE void v_storen(float *p, v16 a, size_t n) { memcpy(p, &a, n * sizeof(float)); }

MWK_INLINE v16 v_add(v16 a, v16 b) { MWK_EACH a.f[i] = a.f[i] + b.f[i]; return a; }
MWK_INLINE v16 v_sub(v16 a, v16 b) { MWK_EACH a.f[i] = a.f[i] - b.f[i]; return a; }
MWK_INLINE v16 v_mul(v16 a, v16 b) { MWK_EACH a.f[i] = a.f[i] * b.f[i]; return a; }
MWK_INLINE v16 v_div(v16 a, v16 b) { MWK_EACH a.f[i] = a.f[i] / b.f[i]; return a; }
MWK_INLINE v16 v_fma(v16 a, v16 b, v16 c) { MWK_EACH a.f[i] = fmaf(a.f[i], b.f[i], c.f[i]); return a; }
/// c − a·b in one rounding.
MWK_INLINE v16 v_fnma(v16 a, v16 b, v16 c) { MWK_EACH a.f[i] = fmaf(-a.f[i], b.f[i], c.f[i]); return a; }
MWK_INLINE v16 v_max(v16 a, v16 b) { MWK_EACH a.f[i] = a.f[i] > b.f[i] ? a.f[i] : b.f[i]; return a; }
MWK_INLINE v16 v_min(v16 a, v16 b) { MWK_EACH a.f[i] = a.f[i] < b.f[i] ? a.f[i] : b.f[i]; return a; }
MWK_INLINE v16 v_round(v16 a) { MWK_EACH a.f[i] = rintf(a.f[i]); return a; }
MWK_INLINE v16 v_abs(v16 a) {
  MWK_EACH a.f[i] = mwk_float_of_bits(mwk_bits_of_float(a.f[i]) & 0x7fffffffu);
  return a;
}
MWK_INLINE v16 v_neg(v16 a) {
  MWK_EACH a.f[i] = mwk_float_of_bits(mwk_bits_of_float(a.f[i]) ^ 0x80000000u);
  return a;
}
MWK_INLINE v16 v_copysign(v16 magnitude, v16 sign) {
  MWK_EACH magnitude.f[i] = mwk_float_of_bits((mwk_bits_of_float(magnitude.f[i]) & 0x7fffffffu) |
                                              (mwk_bits_of_float(sign.f[i]) & 0x80000000u));
  return magnitude;
}
MWK_INLINE m16 v_less(v16 a, v16 b) { m16 r; MWK_EACH r.b[i] = a.f[i] < b.f[i]; return r; }
MWK_INLINE v16 v_select(m16 m, v16 yes, v16 no) { MWK_EACH if (!m.b[i]) yes.f[i] = no.f[i]; return yes; }

// Every horizontal reduction is this tree: 8+8, 4+4, 2+2, 1+1.
MWK_INLINE float v_sum(v16 a) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) a.f[i] = a.f[i] + a.f[i + half];
  return a.f[0];
}
MWK_INLINE float v_hmax(v16 a) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) a.f[i] = a.f[i] > a.f[i + half] ? a.f[i] : a.f[i + half];
  return a.f[0];
}
MWK_INLINE float v_hmin(v16 a) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) a.f[i] = a.f[i] < a.f[i + half] ? a.f[i] : a.f[i + half];
  return a.f[0];
}

MWK_INLINE iv16 i_set(int32_t x) { iv16 r; MWK_EACH r.n[i] = x; return r; }
MWK_INLINE iv16 i_load(const int32_t *p) { iv16 r; memcpy(&r, p, sizeof r); return r; }
MWK_INLINE iv16 i_loadn(const int32_t *p, size_t n) { iv16 r = i_set(0); memcpy(&r, p, n * sizeof *p); return r; }
MWK_INLINE void i_store(int32_t *p, iv16 a) { memcpy(p, &a, sizeof a); }
MWK_INLINE iv16 i_add(iv16 a, iv16 b) { MWK_EACH a.n[i] = (int32_t)((uint32_t)a.n[i] + (uint32_t)b.n[i]); return a; }
MWK_INLINE iv16 i_sub(iv16 a, iv16 b) { MWK_EACH a.n[i] = (int32_t)((uint32_t)a.n[i] - (uint32_t)b.n[i]); return a; }
MWK_INLINE iv16 i_mul(iv16 a, iv16 b) { MWK_EACH a.n[i] = (int32_t)((uint32_t)a.n[i] * (uint32_t)b.n[i]); return a; }
MWK_INLINE iv16 i_min(iv16 a, iv16 b) { MWK_EACH a.n[i] = a.n[i] < b.n[i] ? a.n[i] : b.n[i]; return a; }
MWK_INLINE iv16 i_max(iv16 a, iv16 b) { MWK_EACH a.n[i] = a.n[i] > b.n[i] ? a.n[i] : b.n[i]; return a; }
MWK_INLINE iv16 i_half(iv16 a) { MWK_EACH a.n[i] = a.n[i] >> 1; return a; }
MWK_INLINE v16 i_float(iv16 a) { v16 r; MWK_EACH r.f[i] = (float)a.n[i]; return r; }
/// Rounds half to even; what does not fit in int32, and NaN, becomes INT32_MIN.
MWK_INLINE iv16 i_cvt(v16 a) {
  iv16 r;
  MWK_EACH {
    float x = rintf(a.f[i]);
    r.n[i] = x >= -2147483648.0f && x < 2147483648.0f ? (int32_t)x : INT32_MIN;
  }
  return r;
}
MWK_INLINE iv16 i_high_bytes(iv16 a) { MWK_EACH a.n[i] = a.n[i] >> 8; return a; }
/// 2ⁿ from −126 ≤ n ≤ 127; any other n gives some value, never a fault.
MWK_INLINE v16 i_pow2(iv16 n) {
  v16 r;
  MWK_EACH r.f[i] = mwk_float_of_bits(((uint32_t)n.n[i] + 127u) << 23);
  return r;
}
/// The low bytes of four vectors, lane by lane: a₀ b₀ c₀ d₀ a₁ …
MWK_INLINE void i_quads(int8_t *p, iv16 a, iv16 b, iv16 c, iv16 d) {
  MWK_EACH p[4 * i] = (int8_t)a.n[i], p[4 * i + 1] = (int8_t)b.n[i], p[4 * i + 2] = (int8_t)c.n[i], p[4 * i + 3] = (int8_t)d.n[i];
}
/// The low bytes of 16 lanes whose values fit in a byte.
MWK_INLINE void i_bytes(uint8_t *p, iv16 a) { MWK_EACH p[i] = (uint8_t)a.n[i]; }

MWK_INLINE uint16_t float_to_half(float x) {
  uint32_t bits = mwk_bits_of_float(x), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);  // 65520 and above round to infinity
  if (magnitude < 0x38800000u) {
    // Adding ½ lines the subnormal half's last bit up with the last bit of a float in [½, 1): the addition rounds it.
    uint32_t rounded = mwk_bits_of_float(mwk_float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
    return (uint16_t)(sign | rounded);
  }
  uint32_t odd = (magnitude >> 13) & 1u;
  return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}
MWK_INLINE v16 v_load_f16(const void *p) {
  uint16_t h[MWK_LANES];
  memcpy(h, p, sizeof h);
  v16 r;
  MWK_EACH r.f[i] = mwk_float_of_half(h[i]);
  return r;
}
MWK_INLINE v16 v_load_bf16(const void *p) {
  uint16_t h[MWK_LANES];
  memcpy(h, p, sizeof h);
  v16 r;
  MWK_EACH r.f[i] = mwk_float_of_bits((uint32_t)h[i] << 16);
  return r;
}
MWK_INLINE void v_store_f16(uint16_t *p, v16 a) { MWK_EACH p[i] = float_to_half(a.f[i]); }
MWK_INLINE void v_store_bf16(uint16_t *p, v16 a) {
  MWK_EACH {
    uint32_t bits = mwk_bits_of_float(a.f[i]);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    p[i] = (uint16_t)(nan ? bits >> 16 | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
}
/// A half as a number. Eight bytes may be read.
MWK_INLINE float f16_at(const void *p) {
  uint16_t half;
  memcpy(&half, p, sizeof half);
  return mwk_float_of_half(half);
}
/// 16 signed bytes.
MWK_INLINE v16 v_load_i8(const void *p) {
  int8_t bytes[MWK_LANES];
  memcpy(bytes, p, sizeof bytes);
  v16 r;
  MWK_EACH r.f[i] = (float)bytes[i];
  return r;
}
/// fma(scale, first + n, offset) for the low four bits n of 16 bytes, and for the high ones.
MWK_INLINE void v_load_nibbles(const void *p, int first, v16 scale, v16 offset, v16 w[2]) {
  uint8_t bytes[MWK_LANES];
  memcpy(bytes, p, sizeof bytes);
  MWK_EACH {
    w[0].f[i] = fmaf(scale.f[i], (float)(first + (bytes[i] & 15)), offset.f[i]);
    w[1].f[i] = fmaf(scale.f[i], (float)(first + (bytes[i] >> 4)), offset.f[i]);
  }
}
/// v_sum of each of 16 vectors.
MWK_INLINE v16 v_sums(const v16 a[MWK_LANES]) {
  v16 r;
  MWK_EACH r.f[i] = v_sum(a[i]);
  return r;
}
/// How many lanes are finite and at least `limit` in magnitude.
MWK_INLINE int v_count_finite_from(v16 a, float limit) {
  int count = 0;
  MWK_EACH count += fabsf(a.f[i]) >= limit && fabsf(a.f[i]) < INFINITY;
  return count;
}
MWK_INLINE void v_transpose(v16 r[MWK_LANES]) {
  for (int a = 0; a < MWK_LANES; a++)
    for (int b = 0; b < a; b++) {
      float t = r[a].f[b];
      r[a].f[b] = r[b].f[a];
      r[b].f[a] = t;
    }
}
