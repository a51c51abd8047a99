#pragma once
// The 16-lane vector as two ymm registers. A file may define MWK_TARGET, the features of a superset, and MWK_ISA_SUFFIX before it
// includes this; the target attribute that opens here is closed by the including file.
#include "common.h"
#include <immintrin.h>
#include <math.h>

#if !defined(MWK_TARGET)
#define MWK_TARGET "avx2,fma,f16c"
#define MWK_ISA_SUFFIX avx2
#endif
#pragma clang attribute push(__attribute__((target(MWK_TARGET))), apply_to = function)

#define MWK_TILE_VECTORS 1

typedef struct { __m256 l, h; } v16;
typedef struct { __m256i l, h; } iv16;
typedef struct { __m256 l, h; } m16;

#define V16(low, high) ((v16){(low), (high)})
#define IV16(low, high) ((iv16){(low), (high)})
#define MWK_BINARY(name, op) \
  MWK_INLINE v16 name(v16 a, v16 b) { return V16(op(a.l, b.l), op(a.h, b.h)); }
#define MWK_INTEGER(name, op) \
  MWK_INLINE iv16 name(iv16 a, iv16 b) { return IV16(op(a.l, b.l), op(a.h, b.h)); }

/// All ones in the lanes from `first` that are below n.
MWK_INLINE __m256i lanes_below(int first, size_t n) {
  __m256i lane = _mm256_add_epi32(_mm256_set1_epi32(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane);
}
MWK_INLINE v16 v_set(float x) { return V16(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
MWK_INLINE v16 v_load(const float *p) { return V16(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
MWK_INLINE v16 v_loadn(const float *p, size_t n, float pad) {
  __m256i ml = lanes_below(0, n), mh = lanes_below(8, n);
  __m256 fill = _mm256_set1_ps(pad);
  return V16(_mm256_blendv_ps(fill, _mm256_maskload_ps(p, ml), _mm256_castsi256_ps(ml)),
             _mm256_blendv_ps(fill, _mm256_maskload_ps(p + 8, mh), _mm256_castsi256_ps(mh)));
}
MWK_INLINE void v_store(float *p, v16 a) { _mm256_storeu_ps(p, a.l), _mm256_storeu_ps(p + 8, a.h); }
MWK_INLINE void v_storen(float *p, v16 a, size_t n) {
  _mm256_maskstore_ps(p, lanes_below(0, n), a.l);
  _mm256_maskstore_ps(p + 8, lanes_below(8, n), a.h);
}
MWK_BINARY(v_add, _mm256_add_ps)
MWK_BINARY(v_sub, _mm256_sub_ps)
MWK_BINARY(v_mul, _mm256_mul_ps)
MWK_BINARY(v_div, _mm256_div_ps)
MWK_BINARY(v_max, _mm256_max_ps)
MWK_BINARY(v_min, _mm256_min_ps)
MWK_INLINE v16 v_fma(v16 a, v16 b, v16 c) {
  return V16(_mm256_fmadd_ps(a.l, b.l, c.l), _mm256_fmadd_ps(a.h, b.h, c.h));
}
MWK_INLINE v16 v_fnma(v16 a, v16 b, v16 c) {
  return V16(_mm256_fnmadd_ps(a.l, b.l, c.l), _mm256_fnmadd_ps(a.h, b.h, c.h));
}
MWK_INLINE v16 v_round(v16 a) {
  return V16(_mm256_round_ps(a.l, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
             _mm256_round_ps(a.h, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
MWK_INLINE v16 v_abs(v16 a) {
  __m256 sign = _mm256_set1_ps(-0.0f);
  return V16(_mm256_andnot_ps(sign, a.l), _mm256_andnot_ps(sign, a.h));
}
MWK_INLINE v16 v_neg(v16 a) {
  __m256 sign = _mm256_set1_ps(-0.0f);
  return V16(_mm256_xor_ps(a.l, sign), _mm256_xor_ps(a.h, sign));
}
MWK_INLINE v16 v_copysign(v16 magnitude, v16 from) {
  __m256 sign = _mm256_set1_ps(-0.0f);
  v16 m = v_abs(magnitude);
  return V16(_mm256_or_ps(m.l, _mm256_and_ps(from.l, sign)), _mm256_or_ps(m.h, _mm256_and_ps(from.h, sign)));
}
MWK_INLINE m16 v_less(v16 a, v16 b) {
  return (m16){_mm256_cmp_ps(a.l, b.l, _CMP_LT_OQ), _mm256_cmp_ps(a.h, b.h, _CMP_LT_OQ)};
}
MWK_INLINE v16 v_select(m16 m, v16 yes, v16 no) {
  return V16(_mm256_blendv_ps(no.l, yes.l, m.l), _mm256_blendv_ps(no.h, yes.h, m.h));
}

#define MWK_TREE(op)                                                                \
  __m256 x = _mm256_##op##_ps(a.l, a.h);                                            \
  __m128 y = _mm_##op##_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)); \
  y = _mm_##op##_ps(y, _mm_movehl_ps(y, y));                                        \
  return _mm_cvtss_f32(_mm_##op##_ss(y, _mm_movehdup_ps(y)))
MWK_INLINE float v_sum(v16 a) { MWK_TREE(add); }
MWK_INLINE float v_hmax(v16 a) { MWK_TREE(max); }
MWK_INLINE float v_hmin(v16 a) { MWK_TREE(min); }
#undef MWK_TREE

MWK_INLINE iv16 i_set(int32_t x) { return IV16(_mm256_set1_epi32(x), _mm256_set1_epi32(x)); }
MWK_INLINE iv16 i_load(const int32_t *p) {
  return IV16(_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 8)));
}
MWK_INLINE iv16 i_loadn(const int32_t *p, size_t n) {
  return IV16(_mm256_maskload_epi32(p, lanes_below(0, n)), _mm256_maskload_epi32(p + 8, lanes_below(8, n)));
}
MWK_INLINE void i_store(int32_t *p, iv16 a) {
  _mm256_storeu_si256((__m256i *)p, a.l);
  _mm256_storeu_si256((__m256i *)(p + 8), a.h);
}
MWK_INTEGER(i_add, _mm256_add_epi32)
MWK_INTEGER(i_sub, _mm256_sub_epi32)
MWK_INTEGER(i_mul, _mm256_mullo_epi32)
MWK_INTEGER(i_min, _mm256_min_epi32)
MWK_INTEGER(i_max, _mm256_max_epi32)
MWK_INLINE iv16 i_half(iv16 a) { return IV16(_mm256_srai_epi32(a.l, 1), _mm256_srai_epi32(a.h, 1)); }
MWK_INLINE iv16 i_high_bytes(iv16 a) { return IV16(_mm256_srai_epi32(a.l, 8), _mm256_srai_epi32(a.h, 8)); }
MWK_INLINE v16 i_float(iv16 a) { return V16(_mm256_cvtepi32_ps(a.l), _mm256_cvtepi32_ps(a.h)); }
MWK_INLINE iv16 i_cvt(v16 a) { return IV16(_mm256_cvtps_epi32(a.l), _mm256_cvtps_epi32(a.h)); }
MWK_INLINE v16 i_pow2(iv16 n) {
  iv16 e = i_add(n, i_set(127));
  return V16(_mm256_castsi256_ps(_mm256_slli_epi32(e.l, 23)), _mm256_castsi256_ps(_mm256_slli_epi32(e.h, 23)));
}
/// The low 16-bit halves of 16 lanes, in order.
MWK_INLINE __m256i low_halves(iv16 a) {
  __m256i mask = _mm256_set1_epi32(0xffff);
  __m256i packed = _mm256_packus_epi32(_mm256_and_si256(a.l, mask), _mm256_and_si256(a.h, mask));
  return _mm256_permute4x64_epi64(packed, 0xd8);
}
MWK_INLINE void i_bytes(uint8_t *p, iv16 a) {
  __m256i words = _mm256_and_si256(low_halves(a), _mm256_set1_epi16(0xff));
  __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128((__m128i *)p, bytes);
}

MWK_INLINE __m256i quads(__m256i a, __m256i b, __m256i c, __m256i d) {
  __m256i byte = _mm256_set1_epi32(0xff);
  __m256i low = _mm256_or_si256(_mm256_and_si256(a, byte), _mm256_slli_epi32(_mm256_and_si256(b, byte), 8));
  __m256i high = _mm256_or_si256(_mm256_slli_epi32(_mm256_and_si256(c, byte), 16), _mm256_slli_epi32(d, 24));
  return _mm256_or_si256(low, high);
}
MWK_INLINE void i_quads(int8_t *p, iv16 a, iv16 b, iv16 c, iv16 d) {
  _mm256_storeu_si256((__m256i *)p, quads(a.l, b.l, c.l, d.l));
  _mm256_storeu_si256((__m256i *)(p + 32), quads(a.h, b.h, c.h, d.h));
}

MWK_INLINE v16 v_load_f16(const void *p) {
  const __m128i *h = p;
  return V16(_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1)));
}
MWK_INLINE float f16_at(const void *p) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)p))); }
MWK_INLINE v16 signed_bytes(__m128i bytes) {
  return i_float(IV16(_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes))));
}
MWK_INLINE v16 v_load_i8(const void *p) { return signed_bytes(_mm_loadu_si128((const __m128i *)p)); }
MWK_INLINE void v_load_nibbles(const void *p, int first, v16 scale, v16 offset, v16 w[2]) {
  __m128i bytes = _mm_loadu_si128((const __m128i *)p), low = _mm_set1_epi8(15), from = _mm_set1_epi8((char)first);
  w[0] = v_fma(scale, signed_bytes(_mm_add_epi8(_mm_and_si128(bytes, low), from)), offset);
  w[1] = v_fma(scale, signed_bytes(_mm_add_epi8(_mm_and_si128(_mm_srli_epi16(bytes, 4), low), from)), offset);
}
MWK_INLINE v16 v_sums(const v16 a[MWK_LANES]) {
  float sums[MWK_LANES];
  for (int i = 0; i < MWK_LANES; i++) sums[i] = v_sum(a[i]);
  return v_load(sums);
}
MWK_INLINE v16 v_load_bf16(const void *p) {
  const __m128i *h = p;
  __m256i l = _mm256_cvtepu16_epi32(_mm_loadu_si128(h)), u = _mm256_cvtepu16_epi32(_mm_loadu_si128(h + 1));
  return V16(_mm256_castsi256_ps(_mm256_slli_epi32(l, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(u, 16)));
}
MWK_INLINE void v_store_f16(uint16_t *p, v16 a) {
  _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a.l, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  _mm_storeu_si128((__m128i *)p + 1, _mm256_cvtps_ph(a.h, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
MWK_INLINE __m256i bf16_bits(__m256 a) {
  __m256i bits = _mm256_castps_si256(a), high = _mm256_srli_epi32(bits, 16);
  __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)));
}
MWK_INLINE void v_store_bf16(uint16_t *p, v16 a) {
  _mm256_storeu_si256((__m256i *)p, low_halves(IV16(bf16_bits(a.l), bf16_bits(a.h))));
}
MWK_INLINE int count_finite_from(__m256 magnitude, float limit) {
  __m256 from = _mm256_cmp_ps(magnitude, _mm256_set1_ps(limit), _CMP_GE_OQ);
  __m256 finite = _mm256_cmp_ps(magnitude, _mm256_set1_ps(INFINITY), _CMP_LT_OQ);
  return __builtin_popcount((unsigned)_mm256_movemask_ps(_mm256_and_ps(from, finite)));
}
MWK_INLINE int v_count_finite_from(v16 a, float limit) {
  v16 m = v_abs(a);
  return count_finite_from(m.l, limit) + count_finite_from(m.h, limit);
}
MWK_INLINE void transpose8(__m256 r[8]) {
  __m256 t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; j++) {
      r[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0x44);
      r[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0xee);
    }
  for (int c = 0; c < 4; c++) {
    __m256 low = _mm256_permute2f128_ps(r[c], r[4 + c], 0x20), high = _mm256_permute2f128_ps(r[c], r[4 + c], 0x31);
    r[c] = low, r[4 + c] = high;
  }
}
MWK_INLINE void v_transpose(v16 r[MWK_LANES]) {
  __m256 q[4][8];  // the four 8×8 quarters, top left, top right, bottom left, bottom right
  for (int i = 0; i < 8; i++) q[0][i] = r[i].l, q[1][i] = r[i].h, q[2][i] = r[8 + i].l, q[3][i] = r[8 + i].h;
  for (int i = 0; i < 4; i++) transpose8(q[i]);
  for (int i = 0; i < 8; i++) r[i] = V16(q[0][i], q[2][i]), r[8 + i] = V16(q[1][i], q[3][i]);
}
