#pragma once
// What every translation unit of the kernels agrees on. Included first, before any intrinsic header.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Fusing a·b+c behind our back would give different bits on machines with and without fma: it is written out instead.
#pragma clang fp contract(off)

#define MWK_INLINE static inline __attribute__((always_inline, unused))

/// Before a loop over lanes or rows that has to become straight code where vectors are registers; plain C would only grow.
#define MWK_UNROLL _Pragma("clang loop unroll(full)")

/// Lanes of the one vector type that all kernels are written in, on every instruction set.
#define MWK_LANES 16

MWK_INLINE size_t mwk_min(size_t a, size_t b) { return a < b ? a : b; }
MWK_INLINE size_t mwk_max(size_t a, size_t b) { return a > b ? a : b; }
MWK_INLINE size_t mwk_ceil_div(size_t a, size_t b) { return a / b + (a % b != 0); }
MWK_INLINE size_t mwk_round_up(size_t a, size_t b) { return mwk_ceil_div(a, b) * b; }

MWK_INLINE float mwk_float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

MWK_INLINE uint32_t mwk_bits_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/// Exact; a signalling NaN becomes quiet.
MWK_INLINE float mwk_float_of_half(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
  if (exponent == 31) return mwk_float_of_bits(sign | 0x7f800000u | mantissa << 13 | (mantissa ? 0x400000u : 0u));
  if (exponent != 0) return mwk_float_of_bits(sign | (exponent + 112u) << 23 | mantissa << 13);
  float magnitude = (float)mantissa * 0x1p-24f;  // exact: zero and the subnormal halves are multiples of 2⁻²⁴
  return mwk_float_of_bits(mwk_bits_of_float(magnitude) | sign);
}
