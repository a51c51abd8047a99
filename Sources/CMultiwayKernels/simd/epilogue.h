#pragma once
// What follows every matrix product, in this order: bias (by the caller), earlier groups' sum, activation, residual.
#include "../core/families.h"
#include "math.h"

/// Stores the first `left` ≤ 16 outputs of a row, from output `at` of the tile.
MWK_INLINE void store_outputs(v16 v, size_t row, size_t at, size_t left, const mwk_epilogue *epilogue) {
  size_t offset = row * epilogue->y_stride + at;
  if (epilogue->partial) v = v_add(v, v_loadn(epilogue->partial + row * MWK_PANEL + at, left, 0.0f));
  if (epilogue->activation == mwk_activation_gelu) v = v_gelu(v);
  if (left == MWK_LANES) {
    if (epilogue->residual) v = v_add(v, v_load(epilogue->residual + offset));
    v_store(epilogue->y + offset, v);
  } else {
    if (epilogue->residual) v = v_add(v, v_loadn(epilogue->residual + offset, left, 0.0f));
    v_storen(epilogue->y + offset, v, left);
  }
}
