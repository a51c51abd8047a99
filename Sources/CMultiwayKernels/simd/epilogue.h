#pragma once
// What follows every matrix product, in this order: bias (by the caller), activation, residual.
#include "../core/families.h"
#include "math.h"

MWK_INLINE void store_outputs(v16 v, size_t at, size_t left, mwk_epilogue epilogue, float *y) {
  if (epilogue.activation == mwk_activation_gelu) v = v_gelu(v);
  if (left >= MWK_LANES) {
    if (epilogue.residual) v = v_add(v, v_load(epilogue.residual + at));
    v_store(y + at, v);
  } else {
    if (epilogue.residual) v = v_add(v, v_loadn(epilogue.residual + at, left, 0.0f));
    v_storen(y + at, v, left);
  }
}
