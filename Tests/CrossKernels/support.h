#pragma once
// What the cases share: numbers that are the same everywhere, memory that ends at a page nobody may touch, a digest of bits.
#include "../../Sources/CMultiwayKernels/core/context.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/// SplitMix64.
typedef struct { uint64_t state; } numbers;
numbers seeded(uint64_t seed);
uint64_t next(numbers *n);

// Memory of one case, released all together. One element past the end of any of it is a fault.
void *guarded(size_t bytes);
void release_guarded(void);

/// Uniform in −scale ..< scale.
float *floats(numbers *n, size_t count, float scale);
/// Numbers among which stand NaN, infinities, zeros of both signs, subnormals and the ends of the range.
float *hard_floats(numbers *n, size_t count, float scale);
void *bytes(numbers *n, size_t count);
/// Room for results, filled with a pattern, so that what is written beyond them shows.
float *room(size_t count);

/// FNV-1a over bits; every NaN counts as the same one, since its payload is not part of the promise.
typedef struct { uint64_t value; } digest;
digest empty_digest(void);
void add_bytes(digest *d, size_t count, const void *p);
void add_floats(digest *d, size_t count, const float *p);
void add_word(digest *d, uint64_t word);

/// Says what failed where, and counts it.
#define CHECK(condition) \
  do { \
    if (!(condition)) report(__FILE__, __LINE__, #condition); \
  } while (0)
void report(const char *file, int line, const char *what);
extern size_t failures;

/// Runs kernels on a context and digests what they wrote.
typedef void (*case_function)(const mwk_context *context, size_t length, digest *d);
typedef struct {
  const char *name;
  case_function run;
  const size_t *lengths;
  size_t length_count;
} kernel_case;

/// The AVX-VNNI kernels in an encoding that this CPU has, or NULL.
const mwk_gemm_i8 *avx_vnni_evex(void);

void layer_norm_case(const mwk_context *context, size_t width, digest *d);
void quantize_rows_case(const mwk_context *context, size_t width, digest *d);
void normalize_case(const mwk_context *context, size_t width, digest *d);
void elementwise_case(const mwk_context *context, size_t count, digest *d);
void tables_case(const mwk_context *context, size_t width, digest *d);
void convert_case(const mwk_context *context, size_t count, digest *d);
void linear_f32_case(const mwk_context *context, size_t inputs, digest *d);
void linear_blocks_case(const mwk_context *context, size_t inputs, digest *d);
void encode_blocks_case(const mwk_context *context, size_t count, digest *d);
void convolution_case(const mwk_context *context, size_t channels, digest *d);
void linear_i8_case(const mwk_context *context, size_t inputs, digest *d);
void extreme_i8_case(const mwk_context *context, size_t inputs, digest *d);
void panels_case(const mwk_context *context, size_t inputs, digest *d);
void attention_case(const mwk_context *context, size_t tokens, digest *d);
void caption_case(const mwk_context *context, size_t tokens, digest *d);
void weight_sums_case(const mwk_context *context, size_t inputs, digest *d);
void layout_case(const mwk_context *context, size_t width, digest *d);
void feature_maps_case(const mwk_context *context, size_t channels, digest *d);
void int8_block_case(const mwk_context *context, size_t width, digest *d);
void float_block_case(const mwk_context *context, size_t width, digest *d);
