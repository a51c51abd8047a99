#include "../core/families.h"

#define MWK_VARIANT(isa, name) extern const mwk_elementwise name;
#include "elementwise.inc"
#undef MWK_VARIANT

const mwk_elementwise *mwk_elementwise_for(mwk_isa isa) {
  switch (isa) {
#define MWK_VARIANT(isa, name) case mwk_isa_##isa: return &name;
#include "elementwise.inc"
#undef MWK_VARIANT
  default: return NULL;
  }
}
