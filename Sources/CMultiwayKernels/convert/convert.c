#include "../core/families.h"

#define MWK_VARIANT(isa, name) extern const mwk_convert name;
#include "convert.inc"
#undef MWK_VARIANT

const mwk_convert *mwk_convert_for(mwk_isa isa) {
  switch (isa) {
#define MWK_VARIANT(isa, name) case mwk_isa_##isa: return &name;
#include "convert.inc"
#undef MWK_VARIANT
  default: return NULL;
  }
}
