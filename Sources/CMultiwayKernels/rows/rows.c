#include "../core/families.h"

#define MWK_VARIANT(isa, name) extern const mwk_rows name;
#include "rows.inc"
#undef MWK_VARIANT

const mwk_rows *mwk_rows_for(mwk_isa isa) {
  switch (isa) {
#define MWK_VARIANT(isa, name) case mwk_isa_##isa: return &name;
#include "rows.inc"
#undef MWK_VARIANT
  default: return NULL;
  }
}
