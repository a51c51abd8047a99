#pragma once
// The 16-lane vector as one zmm register. Include <immintrin.h> through this header only: it opens the target attribute
// that the including file closes.
#include "common.h"
#include <immintrin.h>
#include <math.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c"))), \
                             apply_to = function)

#define MWK_ISA_SUFFIX avx512
#define MWK_TILE_VECTORS 4

typedef __m512 v16;
typedef __m512i iv16;
typedef __mmask16 m16;

MWK_INLINE __mmask16 first_lanes(size_t n) { return (__mmask16)((1u << n) - 1u); }
MWK_INLINE v16 v_set(float x) { return _mm512_set1_ps(x); }
MWK_INLINE v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
MWK_INLINE v16 v_loadn(const float *p, size_t n, float pad) {
  return _mm512_mask_loadu_ps(_mm512_set1_ps(pad), first_lanes(n), p);
}
MWK_INLINE void v_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
MWK_INLINE void v_storen(float *p, v16 a, size_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), a); }
MWK_INLINE v16 v_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
MWK_INLINE v16 v_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
MWK_INLINE v16 v_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
MWK_INLINE v16 v_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
MWK_INLINE v16 v_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
MWK_INLINE v16 v_fnma(v16 a, v16 b, v16 c) { return _mm512_fnmadd_ps(a, b, c); }
MWK_INLINE v16 v_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
MWK_INLINE v16 v_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
MWK_INLINE v16 v_round(v16 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
MWK_INLINE v16 v_abs(v16 a) { return _mm512_and_ps(a, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff))); }
MWK_INLINE v16 v_neg(v16 a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
MWK_INLINE v16 v_copysign(v16 magnitude, v16 sign) {
  return _mm512_or_ps(v_abs(magnitude), _mm512_and_ps(sign, _mm512_set1_ps(-0.0f)));
}
MWK_INLINE m16 v_less(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
MWK_INLINE v16 v_select(m16 m, v16 yes, v16 no) { return _mm512_mask_blend_ps(m, no, yes); }

#define MWK_TREE(op)                                                                              \
  __m256 x = _mm256_##op##_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));           \
  __m128 y = _mm_##op##_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));               \
  y = _mm_##op##_ps(y, _mm_movehl_ps(y, y));                                                      \
  return _mm_cvtss_f32(_mm_##op##_ss(y, _mm_movehdup_ps(y)))
MWK_INLINE float v_sum(v16 a) { MWK_TREE(add); }
MWK_INLINE float v_hmax(v16 a) { MWK_TREE(max); }
MWK_INLINE float v_hmin(v16 a) { MWK_TREE(min); }
#undef MWK_TREE

MWK_INLINE iv16 i_set(int32_t x) { return _mm512_set1_epi32(x); }
MWK_INLINE iv16 i_load(const int32_t *p) { return _mm512_loadu_si512(p); }
MWK_INLINE iv16 i_loadn(const int32_t *p, size_t n) { return _mm512_maskz_loadu_epi32(first_lanes(n), p); }
MWK_INLINE void i_store(int32_t *p, iv16 a) { _mm512_storeu_si512(p, a); }
MWK_INLINE iv16 i_add(iv16 a, iv16 b) { return _mm512_add_epi32(a, b); }
MWK_INLINE iv16 i_sub(iv16 a, iv16 b) { return _mm512_sub_epi32(a, b); }
MWK_INLINE iv16 i_mul(iv16 a, iv16 b) { return _mm512_mullo_epi32(a, b); }
MWK_INLINE iv16 i_min(iv16 a, iv16 b) { return _mm512_min_epi32(a, b); }
MWK_INLINE iv16 i_max(iv16 a, iv16 b) { return _mm512_max_epi32(a, b); }
MWK_INLINE iv16 i_half(iv16 a) { return _mm512_srai_epi32(a, 1); }
MWK_INLINE iv16 i_high_bytes(iv16 a) { return _mm512_srai_epi32(a, 8); }
MWK_INLINE v16 i_float(iv16 a) { return _mm512_cvtepi32_ps(a); }
MWK_INLINE iv16 i_cvt(v16 a) { return _mm512_cvtps_epi32(a); }
MWK_INLINE v16 i_pow2(iv16 n) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
}
#define MWK_SCALE_POWER
MWK_INLINE v16 v_scale_power(v16 p, v16 n) { return _mm512_scalef_ps(p, n); }
MWK_INLINE void i_bytes(uint8_t *p, iv16 a) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a)); }

MWK_INLINE void i_quads(int8_t *p, iv16 a, iv16 b, iv16 c, iv16 d) {
  __m512i byte = _mm512_set1_epi32(0xff);
  __m512i low = _mm512_or_si512(_mm512_and_si512(a, byte), _mm512_slli_epi32(_mm512_and_si512(b, byte), 8));
  __m512i high = _mm512_or_si512(_mm512_slli_epi32(_mm512_and_si512(c, byte), 16), _mm512_slli_epi32(d, 24));
  _mm512_storeu_si512(p, _mm512_or_si512(low, high));
}

MWK_INLINE v16 v_load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
MWK_INLINE float f16_at(const void *p) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)p))); }
MWK_INLINE v16 v_load_i8(const void *p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
/// Four bits have 16 values, which one register holds; only the low four bits of a lane choose among them.
MWK_INLINE void v_load_nibbles(const void *p, int first, v16 scale, v16 offset, v16 w[2]) {
  v16 count = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  v16 values = v_fma(scale, v_add(count, v_set((float)first)), offset);
  __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
  w[0] = _mm512_permutexvar_ps(bytes, values);
  w[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), values);
}
/// The tree of v_sum, of two vectors, then four, eight and sixteen in one register.
MWK_INLINE v16 v_sums(const v16 a[MWK_LANES]) {
  v16 eight[8], four[4], two[2];
  for (int i = 0; i < 8; i++)  // lanes 0…7 of a pair's halves: + 8
    eight[i] = v_add(_mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0x44), _mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0xee));
  for (int i = 0; i < 4; i++)  // + 4: a block of four for each of four vectors
    four[i] = v_add(_mm512_shuffle_f32x4(eight[2 * i], eight[2 * i + 1], 0x88),
                    _mm512_shuffle_f32x4(eight[2 * i], eight[2 * i + 1], 0xdd));
  for (int i = 0; i < 2; i++)  // + 2
    two[i] = v_add(_mm512_shuffle_ps(four[2 * i], four[2 * i + 1], 0x44), _mm512_shuffle_ps(four[2 * i], four[2 * i + 1], 0xee));
  v16 sums = v_add(_mm512_shuffle_ps(two[0], two[1], 0x88), _mm512_shuffle_ps(two[0], two[1], 0xdd));  // + 1
  // Lane 4b + c holds vector 4c + b's: the blocks are the vectors of a four, the lanes the fours.
  __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_ps(order, sums);
}
MWK_INLINE v16 v_load_bf16(const void *p) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
MWK_INLINE void v_store_f16(uint16_t *p, v16 a) {
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
MWK_INLINE void v_store_bf16(uint16_t *p, v16 a) {
  __m512i bits = _mm512_castps_si512(a), high = _mm512_srli_epi32(bits, 16);
  __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
  __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  rounded = _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40));
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(rounded));
}
MWK_INLINE int v_count_finite_from(v16 a, float limit) {
  v16 m = v_abs(a);
  unsigned from = _mm512_cmp_ps_mask(m, v_set(limit), _CMP_GE_OQ);
  return __builtin_popcount(from & _mm512_cmp_ps_mask(m, v_set(INFINITY), _CMP_LT_OQ));
}
MWK_INLINE void v_transpose(v16 r[MWK_LANES]) {
  // Four rows, then four columns at a time: 24 registers live at most.
  for (int g = 0; g < 16; g += 4) {
    v16 a = _mm512_unpacklo_ps(r[g], r[g + 1]), b = _mm512_unpackhi_ps(r[g], r[g + 1]);
    v16 c = _mm512_unpacklo_ps(r[g + 2], r[g + 3]), d = _mm512_unpackhi_ps(r[g + 2], r[g + 3]);
    r[g] = _mm512_shuffle_ps(a, c, 0x44);
    r[g + 1] = _mm512_shuffle_ps(a, c, 0xee);
    r[g + 2] = _mm512_shuffle_ps(b, d, 0x44);
    r[g + 3] = _mm512_shuffle_ps(b, d, 0xee);
  }
  // r[4g+c] now holds, in each 128-bit lane L, column 4L+c of the rows 4g…4g+3.
  for (int c = 0; c < 4; c++) {
    v16 e = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88), f = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
    v16 g = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88), h = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
    r[c] = _mm512_shuffle_f32x4(e, g, 0x88);
    r[8 + c] = _mm512_shuffle_f32x4(e, g, 0xdd);
    r[4 + c] = _mm512_shuffle_f32x4(f, h, 0x88);
    r[12 + c] = _mm512_shuffle_f32x4(f, h, 0xdd);
  }
}
