#include "../core/families.h"

#define MWK_VARIANT(isa, name) extern const mwk_gemm_bf16 name;
#include "gemm_bf16.inc"
#undef MWK_VARIANT

static const mwk_gemm_bf16 *variant_for(mwk_isa isa) {
  switch (isa) {
#define MWK_VARIANT(isa, name) case mwk_isa_##isa: return &name;
#include "gemm_bf16.inc"
#undef MWK_VARIANT
  default: return NULL;
  }
}

bool mwk_cpu_has_bf16(void) {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

bool mwk_supports_bf16(mwk_isa isa) { return mwk_cpu_supports(isa) && mwk_cpu_has_bf16() && variant_for(isa) != NULL; }

const mwk_gemm_bf16 *mwk_gemm_bf16_for(mwk_isa isa) { return mwk_supports_bf16(isa) ? variant_for(isa) : NULL; }
