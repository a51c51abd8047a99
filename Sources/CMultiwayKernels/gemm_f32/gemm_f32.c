#include "../core/families.h"

#define MWK_VARIANT(isa, name) extern const mwk_gemm_f32 name;
#include "gemm_f32.inc"
#undef MWK_VARIANT

const mwk_gemm_f32 *mwk_gemm_f32_for(mwk_isa isa) {
  switch (isa) {
#define MWK_VARIANT(isa, name) case mwk_isa_##isa: return &name;
#include "gemm_f32.inc"
#undef MWK_VARIANT
  default: return NULL;
  }
}
