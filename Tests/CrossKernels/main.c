// Runs every kernel on every instruction set of this CPU and compares the bits with the scalar kernel's on one thread. Prints a
// digest for each case, which must be the same on every machine: Tools/cross-test compares them with digests.txt.
//
//   kernels [ISA…]     the sets that this CPU must have, exactly; without names, whichever it has
//
// MULTIWAY_UNGUARDED=1 leaves the pages behind the buffers open, for an emulator that touches them.
#include "support.h"

static const struct { const char *name; mwk_isa isa; } sets[MWK_ISA_COUNT] = {
    {"scalar", mwk_isa_scalar},     {"avx2", mwk_isa_avx2},
    {"avx-vnni", mwk_isa_avx_vnni}, {"avx512", mwk_isa_avx512},
    {"neon", mwk_isa_neon},         {"neon-dotprod", mwk_isa_neon_dotprod},
    {"neon-i8mm", mwk_isa_neon_i8mm},
};

#define LENGTHS(name, ...) static const size_t name[] = {__VA_ARGS__}
#define CASE(function, lengths) {#function, function##_case, lengths, sizeof lengths / sizeof *lengths}

LENGTHS(vectors, 0, 1, 3, 15, 16, 17, 31, 33, 64, 88, 197);
LENGTHS(inputs, 1, 3, 4, 5, 8, 15, 16, 17, 24, 33, 36, 88);
LENGTHS(whole_blocks, 32, 64, 96, 512, 544, 1056);
LENGTHS(long_inputs, 4096, 65536);
LENGTHS(tokens, 1, 5, 6, 7, 63, 64, 65);
LENGTHS(conversions, 0, 1, 15, 16, 17, 33, 65536);
LENGTHS(channels, 1, 3, 16, 17);
LENGTHS(widths, 96);

static const kernel_case cases[] = {
    CASE(layer_norm, vectors),   CASE(quantize_rows, vectors), CASE(normalize, vectors),
    CASE(elementwise, vectors),  CASE(tables, vectors),        CASE(convert, conversions),
    CASE(layout, vectors),       CASE(linear_f32, inputs),     CASE(linear_i8, inputs),
    CASE(linear_blocks, whole_blocks), CASE(encode_blocks, tokens),
    CASE(extreme_i8, long_inputs), CASE(panels, inputs),       CASE(attention, tokens),
    CASE(caption, tokens),       CASE(convolution, channels),  CASE(feature_maps, channels),
    CASE(weight_sums, vectors),  CASE(int8_block, widths),    CASE(float_block, widths),
};
#define CASES (sizeof cases / sizeof *cases)

static uint64_t run(const kernel_case *c, const mwk_context *context, size_t at) {
  digest d = empty_digest();
  c->run(context, c->lengths[at], &d);
  release_guarded();
  return d.value;
}

static mwk_context *context_of(mwk_isa isa, size_t threads) {
  mwk_context *context;
  if (mwk_context_create(isa, threads, &context) != mwk_ok) abort();
  return context;
}

/// Compares a context with the scalar kernels and destroys it; `expected` has a digest for each case and length.
static void compare(const char *set, mwk_context *context, uint64_t expected[CASES][16]) {
  for (size_t c = 0; c < CASES; c++)
    for (size_t at = 0; at < cases[c].length_count; at++) {
      if (run(&cases[c], context, at) == expected[c][at]) continue;
      fprintf(stderr, "%s on %s with %zu threads, length %zu: other bits than scalar\n", cases[c].name, set,
              context->threads, cases[c].lengths[at]);
      failures++;
    }
  mwk_context_destroy(context);
}

/// Whether the sets that the CPU has are those named, if any are.
static void check_sets(int count, char **names) {
  for (size_t set = 0; set < MWK_ISA_COUNT; set++) {
    bool named = count == 0 && mwk_cpu_supports(sets[set].isa);
    for (int i = 0; i < count; i++) named = named || strcmp(names[i], sets[set].name) == 0;
    mwk_context *context;
    mwk_status status = mwk_context_create(sets[set].isa, 1, &context);
    if (named != mwk_cpu_supports(sets[set].isa) || (status == mwk_ok) != named) {
      fprintf(stderr, "%s: %s on this CPU\n", sets[set].name, named ? "not found" : "not expected");
      failures++;
    }
    if (status == mwk_ok) mwk_context_destroy(context);
  }
  mwk_context *context;
  CHECK(mwk_context_create(MWK_ISA_COUNT, 1, &context) == mwk_unsupported);
  CHECK(mwk_context_create(mwk_isa_scalar, 0, &context) == mwk_unsupported);
}

/// The loops that measure a peak must run too.
static void check_peaks(size_t set) {
  int32_t integer = 1;
  float real = 1;
  if (sets[set].isa == mwk_isa_scalar) return;
  CHECK(mwk_peak_i8(sets[set].isa, 3, &integer) > 0);
  CHECK(mwk_peak_f32(sets[set].isa, 3, &real) > 0);
}

int main(int count, char **arguments) {
  static uint64_t expected[CASES][16];
  check_sets(count - 1, arguments + 1);
  mwk_context *scalar = context_of(mwk_isa_scalar, 1);
  for (size_t c = 0; c < CASES; c++) {
    digest whole = empty_digest();
    for (size_t at = 0; at < cases[c].length_count; at++)
      add_word(&whole, expected[c][at] = run(&cases[c], scalar, at));
    printf("%s %016llx\n", cases[c].name, (unsigned long long)whole.value);
  }
  mwk_context_destroy(scalar);
  for (size_t set = 0; set < MWK_ISA_COUNT; set++) {
    if (!mwk_cpu_supports(sets[set].isa)) continue;
    check_peaks(set);
    if (sets[set].isa != mwk_isa_scalar) compare(sets[set].name, context_of(sets[set].isa, 1), expected);
    compare(sets[set].name, context_of(sets[set].isa, 3), expected);
  }
  if (avx_vnni_evex()) {
    mwk_context *context = context_of(mwk_isa_avx2, 1);
    context->gemm_i8 = avx_vnni_evex();
    compare("avx-vnni-in-evex", context, expected);
  }
  for (size_t set = 0; set < MWK_ISA_COUNT; set++)
    if (mwk_cpu_supports(sets[set].isa)) fprintf(stderr, " %s", sets[set].name);
  fprintf(stderr, "%s\n", avx_vnni_evex() ? " avx-vnni-in-evex" : "");
  return failures ? 1 : 0;
}
