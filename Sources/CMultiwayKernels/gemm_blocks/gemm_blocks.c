#include "../core/families.h"

#define MWK_VARIANT(isa, name) extern const mwk_gemm_blocks name;
#include "gemm_blocks.inc"
#undef MWK_VARIANT

const mwk_gemm_blocks *mwk_gemm_blocks_for(mwk_isa isa) {
  switch (isa) {
#define MWK_VARIANT(isa, name) case mwk_isa_##isa: return &name;
#include "gemm_blocks.inc"
#undef MWK_VARIANT
  default: return NULL;
  }
}
