// What the multiplier of one core can do at most: independent multiply-adds on registers, nothing else.
#include "../include/CMultiwayKernels.h"
#include "../simd/common.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define CHAINS 24

#pragma clang attribute push(__attribute__((target("avx512f,avx512vnni"))), apply_to = function)
static double peak_i8_avx512(size_t iterations, int32_t *sink) {
  __m512i sum[CHAINS], a = _mm512_set1_epi32(*sink), b = _mm512_set1_epi32(*sink + 1);
#pragma clang loop unroll(full)
  for (int i = 0; i < CHAINS; i++) sum[i] = _mm512_set1_epi32(i);
  for (size_t n = 0; n < iterations; n++) {
#pragma clang loop unroll(full)
    for (int i = 0; i < CHAINS; i++) __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum[i]) : "v"(a), "v"(b));
  }
#pragma clang loop unroll(full)
  for (int i = 1; i < CHAINS; i++) sum[0] = _mm512_add_epi32(sum[0], sum[i]);
  *sink = _mm_cvtsi128_si32(_mm512_castsi512_si128(sum[0]));
  return (double)iterations * CHAINS * 64 * 2;
}
static double peak_f32_avx512(size_t iterations, float *sink) {
  __m512 sum[CHAINS], a = _mm512_set1_ps(*sink), b = _mm512_set1_ps(0.5f);
#pragma clang loop unroll(full)
  for (int i = 0; i < CHAINS; i++) sum[i] = _mm512_set1_ps((float)i);
  for (size_t n = 0; n < iterations; n++) {
#pragma clang loop unroll(full)
    for (int i = 0; i < CHAINS; i++) __asm__ volatile("vfmadd231ps %2, %1, %0" : "+v"(sum[i]) : "v"(a), "v"(b));
  }
#pragma clang loop unroll(full)
  for (int i = 1; i < CHAINS; i++) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  *sink = _mm_cvtss_f32(_mm512_castps512_ps128(sum[0]));
  return (double)iterations * CHAINS * 16 * 2;
}
#pragma clang attribute pop

#pragma clang attribute push(__attribute__((target("avx512f,avx512bf16"))), apply_to = function)
static double peak_bf16_avx512(size_t iterations, float *sink) {
  __m512 sum[CHAINS], a = _mm512_set1_ps(*sink), b = _mm512_set1_ps(0.5f);
#pragma clang loop unroll(full)
  for (int i = 0; i < CHAINS; i++) sum[i] = _mm512_set1_ps((float)i);
  for (size_t n = 0; n < iterations; n++) {
#pragma clang loop unroll(full)
    for (int i = 0; i < CHAINS; i++) __asm__ volatile("vdpbf16ps %2, %1, %0" : "+v"(sum[i]) : "v"(a), "v"(b));
  }
#pragma clang loop unroll(full)
  for (int i = 1; i < CHAINS; i++) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  *sink = _mm_cvtss_f32(_mm512_castps512_ps128(sum[0]));
  return (double)iterations * CHAINS * 32 * 2;
}
#pragma clang attribute pop

#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
static double peak_f32_avx2(size_t iterations, float *sink) {
  __m256 sum[12], a = _mm256_set1_ps(*sink), b = _mm256_set1_ps(0.5f);
#pragma clang loop unroll(full)
  for (int i = 0; i < 12; i++) sum[i] = _mm256_set1_ps((float)i);
  for (size_t n = 0; n < iterations; n++) {
#pragma clang loop unroll(full)
    for (int i = 0; i < 12; i++) __asm__ volatile("vfmadd231ps %2, %1, %0" : "+x"(sum[i]) : "x"(a), "x"(b));
  }
#pragma clang loop unroll(full)
  for (int i = 1; i < 12; i++) sum[0] = _mm256_add_ps(sum[0], sum[i]);
  *sink = _mm_cvtss_f32(_mm256_castps256_ps128(sum[0]));
  return (double)iterations * 12 * 8 * 2;
}
/// vpmaddwd and the addition that must follow it.
static double peak_i8_avx2(size_t iterations, int32_t *sink) {
  __m256i sum[8], a = _mm256_set1_epi32(*sink), b = _mm256_set1_epi32(*sink + 1);
#pragma clang loop unroll(full)
  for (int i = 0; i < 8; i++) sum[i] = _mm256_set1_epi32(i);
  for (size_t n = 0; n < iterations; n++) {
#pragma clang loop unroll(full)
    for (int i = 0; i < 8; i++) {
      __m256i product;
      __asm__ volatile("vpmaddwd %2, %1, %0" : "=x"(product) : "x"(a), "x"(b));
      sum[i] = _mm256_add_epi32(sum[i], product);
    }
  }
#pragma clang loop unroll(full)
  for (int i = 1; i < 8; i++) sum[0] = _mm256_add_epi32(sum[0], sum[i]);
  *sink = _mm_cvtsi128_si32(_mm256_castsi256_si128(sum[0]));
  return (double)iterations * 8 * 16 * 2;
}
#pragma clang attribute pop
#endif

double mwk_peak_i8(mwk_isa isa, size_t iterations, int32_t *sink) {
#if defined(__x86_64__)
  if (isa == mwk_isa_avx512) return peak_i8_avx512(iterations, sink);
  if (isa == mwk_isa_avx2) return peak_i8_avx2(iterations, sink);
#endif
  (void)iterations, (void)sink;
  return 0;
}

double mwk_peak_f32(mwk_isa isa, size_t iterations, float *sink) {
#if defined(__x86_64__)
  if (isa == mwk_isa_avx512) return peak_f32_avx512(iterations, sink);
  if (isa == mwk_isa_avx2) return peak_f32_avx2(iterations, sink);
#endif
  (void)iterations, (void)sink;
  return 0;
}

double mwk_peak_bf16(mwk_isa isa, size_t iterations, float *sink) {
#if defined(__x86_64__)
  if (isa == mwk_isa_avx512 && mwk_supports_bf16(isa)) return peak_bf16_avx512(iterations, sink);
#endif
  (void)iterations, (void)sink;
  return 0;
}
