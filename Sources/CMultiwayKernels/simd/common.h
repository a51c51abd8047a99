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
