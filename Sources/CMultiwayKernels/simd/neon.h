#pragma once
// The 16-lane vector as four q registers of the base ARMv8 instruction set. A file may define MWK_TARGET, further features, and
// MWK_ISA_SUFFIX before it includes this; the target attribute that opens here is closed by the including file.
#include "common.h"
#include <arm_neon.h>
#include <math.h>

#if !defined(MWK_TARGET)
#define MWK_TARGET "arch=armv8-a"
#define MWK_ISA_SUFFIX neon
#endif
#pragma clang attribute push(__attribute__((target(MWK_TARGET))), apply_to = function)
#define MWK_TILE_VECTORS 1
#define MWK_QUARTERS for (int i = 0; i < 4; i++)

typedef struct { float32x4_t q[4]; } v16;
typedef struct { int32x4_t q[4]; } iv16;
typedef struct { uint32x4_t q[4]; } m16;

#define MWK_BINARY(name, type, op) \
  MWK_INLINE type name(type a, type b) { MWK_QUARTERS a.q[i] = op(a.q[i], b.q[i]); return a; }

// FMAX and FMIN return NaN where either operand is one; the definition returns the second operand.
MWK_INLINE float32x4_t larger(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
MWK_INLINE float32x4_t smaller(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }

MWK_INLINE v16 v_set(float x) { v16 r; MWK_QUARTERS r.q[i] = vdupq_n_f32(x); return r; }
MWK_INLINE v16 v_load(const float *p) { v16 r; MWK_QUARTERS r.q[i] = vld1q_f32(p + 4 * i); return r; }
MWK_INLINE void v_store(float *p, v16 a) { MWK_QUARTERS vst1q_f32(p + 4 * i, a.q[i]); }
// There are no masked loads; copies stay inside the array.
MWK_INLINE v16 v_loadn(const float *p, size_t n, float pad) {
  if (n == MWK_LANES) return v_load(p);
  float lanes[MWK_LANES];
  v_store(lanes, v_set(pad));
  memcpy(lanes, p, n * sizeof *p);
  return v_load(lanes);
}
MWK_INLINE void v_storen(float *p, v16 a, size_t n) {
  if (n == MWK_LANES) {
    v_store(p, a);
    return;
  }
  float lanes[MWK_LANES];
  v_store(lanes, a);
  memcpy(p, lanes, n * sizeof *p);
}
MWK_BINARY(v_add, v16, vaddq_f32)
MWK_BINARY(v_sub, v16, vsubq_f32)
MWK_BINARY(v_mul, v16, vmulq_f32)
MWK_BINARY(v_div, v16, vdivq_f32)
MWK_BINARY(v_max, v16, larger)
MWK_BINARY(v_min, v16, smaller)
MWK_INLINE v16 v_fma(v16 a, v16 b, v16 c) { MWK_QUARTERS c.q[i] = vfmaq_f32(c.q[i], a.q[i], b.q[i]); return c; }
// c − a·b in one rounding.
MWK_INLINE v16 v_fnma(v16 a, v16 b, v16 c) { MWK_QUARTERS c.q[i] = vfmsq_f32(c.q[i], a.q[i], b.q[i]); return c; }
MWK_INLINE v16 v_round(v16 a) { MWK_QUARTERS a.q[i] = vrndnq_f32(a.q[i]); return a; }
MWK_INLINE v16 v_abs(v16 a) { MWK_QUARTERS a.q[i] = vabsq_f32(a.q[i]); return a; }
MWK_INLINE v16 v_neg(v16 a) { MWK_QUARTERS a.q[i] = vnegq_f32(a.q[i]); return a; }
MWK_INLINE v16 v_copysign(v16 magnitude, v16 sign) {
  MWK_QUARTERS magnitude.q[i] = vbslq_f32(vdupq_n_u32(0x80000000u), sign.q[i], magnitude.q[i]);
  return magnitude;
}
MWK_INLINE m16 v_less(v16 a, v16 b) { m16 r; MWK_QUARTERS r.q[i] = vcltq_f32(a.q[i], b.q[i]); return r; }
MWK_INLINE v16 v_select(m16 m, v16 yes, v16 no) {
  MWK_QUARTERS yes.q[i] = vbslq_f32(m.q[i], yes.q[i], no.q[i]);
  return yes;
}

MWK_INLINE float32x2_t larger_2(float32x2_t a, float32x2_t b) { return vbsl_f32(vcgt_f32(a, b), a, b); }
MWK_INLINE float32x2_t smaller_2(float32x2_t a, float32x2_t b) { return vbsl_f32(vclt_f32(a, b), a, b); }
#define MWK_TREE(four, two)                                                    \
  float32x4_t x = four(four(a.q[0], a.q[2]), four(a.q[1], a.q[3]));            \
  float32x2_t y = two(vget_low_f32(x), vget_high_f32(x));                      \
  return vget_lane_f32(two(y, vdup_lane_f32(y, 1)), 0)
MWK_INLINE float v_sum(v16 a) { MWK_TREE(vaddq_f32, vadd_f32); }
MWK_INLINE float v_hmax(v16 a) { MWK_TREE(larger, larger_2); }
MWK_INLINE float v_hmin(v16 a) { MWK_TREE(smaller, smaller_2); }
#undef MWK_TREE

MWK_INLINE iv16 i_set(int32_t x) { iv16 r; MWK_QUARTERS r.q[i] = vdupq_n_s32(x); return r; }
MWK_INLINE iv16 i_load(const int32_t *p) { iv16 r; MWK_QUARTERS r.q[i] = vld1q_s32(p + 4 * i); return r; }
MWK_INLINE iv16 i_loadn(const int32_t *p, size_t n) {
  if (n == MWK_LANES) return i_load(p);
  int32_t lanes[MWK_LANES] = {0};
  memcpy(lanes, p, n * sizeof *p);
  return i_load(lanes);
}
MWK_INLINE void i_store(int32_t *p, iv16 a) { MWK_QUARTERS vst1q_s32(p + 4 * i, a.q[i]); }
MWK_BINARY(i_add, iv16, vaddq_s32)
MWK_BINARY(i_sub, iv16, vsubq_s32)
MWK_BINARY(i_mul, iv16, vmulq_s32)
MWK_BINARY(i_min, iv16, vminq_s32)
MWK_BINARY(i_max, iv16, vmaxq_s32)
MWK_INLINE iv16 i_half(iv16 a) { MWK_QUARTERS a.q[i] = vshrq_n_s32(a.q[i], 1); return a; }
MWK_INLINE v16 i_float(iv16 a) { v16 r; MWK_QUARTERS r.q[i] = vcvtq_f32_s32(a.q[i]); return r; }
/// FCVTNS saturates and makes NaN 0; what is too large and NaN are made INT32_MIN, as everywhere else.
MWK_INLINE iv16 i_cvt(v16 a) {
  iv16 r;
  MWK_QUARTERS {
    uint32x4_t fits = vcltq_f32(a.q[i], vdupq_n_f32(2147483648.0f));
    r.q[i] = vbslq_s32(fits, vcvtnq_s32_f32(a.q[i]), vdupq_n_s32(INT32_MIN));
  }
  return r;
}
MWK_INLINE v16 i_pow2(iv16 n) {
  v16 r;
  MWK_QUARTERS r.q[i] = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n.q[i], vdupq_n_s32(127)), 23));
  return r;
}
/// The low 16-bit halves of two quarters, in order.
MWK_INLINE uint16x8_t low_halves(int32x4_t a, int32x4_t b) {
  return vuzp1q_u16(vreinterpretq_u16_s32(a), vreinterpretq_u16_s32(b));
}
MWK_INLINE uint8x16_t low_bytes(iv16 a) {
  uint16x8_t l = low_halves(a.q[0], a.q[1]), h = low_halves(a.q[2], a.q[3]);
  return vuzp1q_u8(vreinterpretq_u8_u16(l), vreinterpretq_u8_u16(h));
}
MWK_INLINE iv16 i_high_bytes(iv16 a) {
  MWK_QUARTERS a.q[i] = vshrq_n_s32(a.q[i], 8);
  return a;
}
MWK_INLINE void i_bytes(uint8_t *p, iv16 a) { vst1q_u8(p, low_bytes(a)); }
MWK_INLINE void i_quads(int8_t *p, iv16 a, iv16 b, iv16 c, iv16 d) {
  uint8x16x4_t lanes = {{low_bytes(a), low_bytes(b), low_bytes(c), low_bytes(d)}};
  vst4q_u8((uint8_t *)p, lanes);
}

MWK_INLINE v16 v_load_f16(const void *p) {
  const uint8_t *bytes = p;
  v16 r;
  MWK_QUARTERS r.q[i] = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(bytes + 8 * i)));
  return r;
}
MWK_INLINE float f16_at(const void *p) {
  uint16_t half;
  memcpy(&half, p, sizeof half);
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half))), 0);
}
MWK_INLINE v16 signed_bytes(int8x16_t bytes) {
  int16x8_t halves[2] = {vmovl_s8(vget_low_s8(bytes)), vmovl_s8(vget_high_s8(bytes))};
  v16 r;
  for (int i = 0; i < 2; i++) {
    r.q[2 * i] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(halves[i])));
    r.q[2 * i + 1] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(halves[i])));
  }
  return r;
}
MWK_INLINE v16 v_load_i8(const void *p) { return signed_bytes(vld1q_s8(p)); }
MWK_INLINE void v_load_nibbles(const void *p, int first, v16 scale, v16 offset, v16 w[2]) {
  uint8x16_t bytes = vld1q_u8(p);
  int8x16_t low = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))), high = vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4));
  w[0] = v_fma(scale, signed_bytes(vaddq_s8(low, vdupq_n_s8((int8_t)first))), offset);
  w[1] = v_fma(scale, signed_bytes(vaddq_s8(high, vdupq_n_s8((int8_t)first))), offset);
}
MWK_INLINE v16 v_sums(const v16 a[MWK_LANES]) {
  float sums[MWK_LANES];
  for (int i = 0; i < MWK_LANES; i++) sums[i] = v_sum(a[i]);
  return v_load(sums);
}
MWK_INLINE v16 v_load_bf16(const void *p) {
  const uint8_t *bytes = p;
  v16 r;
  MWK_QUARTERS r.q[i] = vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(bytes + 8 * i)), 16));
  return r;
}
MWK_INLINE void v_store_f16(uint16_t *p, v16 a) {
  MWK_QUARTERS vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.q[i])));
}
MWK_INLINE uint16x4_t bf16_bits(float32x4_t a) {
  uint32x4_t bits = vreinterpretq_u32_f32(a), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  uint16x4_t rounded = vshrn_n_u32(vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff))), 16);
  uint16x4_t quiet = vorr_u16(vshrn_n_u32(bits, 16), vdup_n_u16(0x40));
  return vbsl_u16(vmovn_u32(vceqq_f32(a, a)), rounded, quiet);
}
MWK_INLINE void v_store_bf16(uint16_t *p, v16 a) { MWK_QUARTERS vst1_u16(p + 4 * i, bf16_bits(a.q[i])); }
MWK_INLINE int v_count_finite_from(v16 a, float limit) {
  uint32x4_t count = vdupq_n_u32(0);
  MWK_QUARTERS {
    uint32x4_t from = vcageq_f32(a.q[i], vdupq_n_f32(limit)), finite = vcaltq_f32(a.q[i], vdupq_n_f32(INFINITY));
    count = vsubq_u32(count, vandq_u32(from, finite));
  }
  return (int)vaddvq_u32(count);
}
MWK_INLINE void transpose4(float32x4_t r[4]) {
  float32x4x2_t low = vzipq_f32(r[0], r[2]), high = vzipq_f32(r[1], r[3]);
  float32x4x2_t first = vzipq_f32(low.val[0], high.val[0]), last = vzipq_f32(low.val[1], high.val[1]);
  r[0] = first.val[0], r[1] = first.val[1], r[2] = last.val[0], r[3] = last.val[1];
}
MWK_INLINE void v_transpose(v16 r[MWK_LANES]) {
  v16 t[MWK_LANES];
  for (int a = 0; a < 4; a++)
    for (int b = 0; b < 4; b++) {
      float32x4_t block[4];
      MWK_QUARTERS block[i] = r[4 * a + i].q[b];
      transpose4(block);
      MWK_QUARTERS t[4 * b + i].q[a] = block[i];
    }
  memcpy(r, t, sizeof t);
}
