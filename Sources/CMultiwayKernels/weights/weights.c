#include "../core/families.h"

#define MWK_VARIANT(isa, name) extern const mwk_weights name;
#include "weights.inc"
#undef MWK_VARIANT

const mwk_weights *mwk_weights_for(mwk_isa isa) {
  switch (isa) {
#define MWK_VARIANT(isa, name) case mwk_isa_##isa: return &name;
#include "weights.inc"
#undef MWK_VARIANT
  default: return NULL;
  }
}
