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

#pragma clang attribute push(__attribute__((target("avx2,avxvnni"))), apply_to = function)
static double peak_i8_avx_vnni(size_t iterations, int32_t *sink) {
  __m256i sum[12], a = _mm256_set1_epi32(*sink), b = _mm256_set1_epi32(*sink + 1);
#pragma clang loop unroll(full)
  for (int i = 0; i < 12; i++) sum[i] = _mm256_set1_epi32(i);
  for (size_t n = 0; n < iterations; n++) {
#pragma clang loop unroll(full)
    for (int i = 0; i < 12; i++) __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum[i]) : "x"(a), "x"(b));
  }
#pragma clang loop unroll(full)
  for (int i = 1; i < 12; i++) sum[0] = _mm256_add_epi32(sum[0], sum[i]);
  *sink = _mm_cvtsi128_si32(_mm256_castsi256_si128(sum[0]));
  return (double)iterations * 12 * 32 * 2;
}
#pragma clang attribute pop
#elif defined(__aarch64__)
#include <arm_neon.h>

#define CHAINS 24

/// A loop of one instruction that adds a product of registers to one of many sums.
#define MWK_PEAK_NEON(name, instruction, operations) \
  static double name(size_t iterations, int32_t *sink) { \
    int32x4_t sum[CHAINS], a = vdupq_n_s32(*sink), b = vdupq_n_s32(*sink + 1); \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < CHAINS; i++) sum[i] = vdupq_n_s32(i); \
    for (size_t n = 0; n < iterations; n++) { \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < CHAINS; i++) \
          __asm__ volatile(instruction : "+w"(sum[i]) : "w"(a), "w"(b)); \
    } \
    _Pragma("clang loop unroll(full)") for (int i = 1; i < CHAINS; i++) sum[0] = vaddq_s32(sum[0], sum[i]); \
    *sink = vgetq_lane_s32(sum[0], 0); \
    return (double)iterations * CHAINS * (operations); \
  }
MWK_PEAK_NEON(peak_fma_neon, "fmla %0.4s, %1.4s, %2.4s", 4 * 2)
MWK_PEAK_NEON(peak_i8_neon_dotprod, ".arch_extension dotprod\nudot %0.4s, %1.16b, %2.16b", 16 * 2)
MWK_PEAK_NEON(peak_i8_neon_i8mm, ".arch_extension i8mm\nusmmla %0.4s, %1.16b, %2.16b", 32 * 2)

/// UMULL and the UADALP that must follow it.
static double peak_i8_neon(size_t iterations, int32_t *sink) {
  uint32x4_t sum[8];
  uint8x16_t a = vdupq_n_u8((uint8_t)*sink), b = vdupq_n_u8((uint8_t)(*sink + 1));
#pragma clang loop unroll(full)
  for (uint32_t i = 0; i < 8; i++) sum[i] = vdupq_n_u32(i);
  for (size_t n = 0; n < iterations; n++) {
#pragma clang loop unroll(full)
    for (int i = 0; i < 8; i++) {
      uint16x8_t product;
      __asm__ volatile("umull %0.8h, %1.8b, %2.8b" : "=w"(product) : "w"(a), "w"(b));
      sum[i] = vpadalq_u16(sum[i], product);
    }
  }
#pragma clang loop unroll(full)
  for (int i = 1; i < 8; i++) sum[0] = vaddq_u32(sum[0], sum[i]);
  *sink = (int32_t)vgetq_lane_u32(sum[0], 0);
  return (double)iterations * 8 * 8 * 2;
}
static double peak_f32_neon(size_t iterations, float *sink) {
  int32_t bits = (int32_t)*sink;
  double operations = peak_fma_neon(iterations, &bits);
  *sink = (float)bits;
  return operations;
}
#endif

double mwk_peak_i8(mwk_isa isa, size_t iterations, int32_t *sink) {
  switch (isa) {
#if defined(__x86_64__)
  case mwk_isa_avx2: return peak_i8_avx2(iterations, sink);
  case mwk_isa_avx_vnni: return peak_i8_avx_vnni(iterations, sink);
  case mwk_isa_avx512: return peak_i8_avx512(iterations, sink);
#elif defined(__aarch64__)
  case mwk_isa_neon: return peak_i8_neon(iterations, sink);
  case mwk_isa_neon_dotprod: return peak_i8_neon_dotprod(iterations, sink);
  case mwk_isa_neon_i8mm: return peak_i8_neon_i8mm(iterations, sink);
#endif
  default: return 0;
  }
}

double mwk_peak_f32(mwk_isa isa, size_t iterations, float *sink) {
  switch (isa) {
#if defined(__x86_64__)
  case mwk_isa_avx2:
  case mwk_isa_avx_vnni: return peak_f32_avx2(iterations, sink);
  case mwk_isa_avx512: return peak_f32_avx512(iterations, sink);
#elif defined(__aarch64__)
  case mwk_isa_neon:
  case mwk_isa_neon_dotprod:
  case mwk_isa_neon_i8mm: return peak_f32_neon(iterations, sink);
#endif
  default: return 0;
  }
}

double mwk_peak_bf16(mwk_isa isa, size_t iterations, float *sink) {
#if defined(__x86_64__)
  if (isa == mwk_isa_avx512 && mwk_supports_bf16(isa)) return peak_bf16_avx512(iterations, sink);
#endif
  (void)iterations, (void)sink;
  return 0;
}
