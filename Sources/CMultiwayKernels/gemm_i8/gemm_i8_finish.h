// What follows the sums of an integer tile, from memory. Included once per instruction set, after its vector header.
#include "../core/families.h"
#include "../simd/epilogue.h"

static void finish(size_t rows, size_t outputs, const int32_t *acc, const int32_t *zero, const float *scale,
                   const float *weight_scale, const int32_t *weight_sum, const mwk_epilogue *epilogue) {
  for (size_t at = 0; at < outputs; at += MWK_LANES) {
    size_t left = mwk_min(outputs - at, MWK_LANES);
    iv16 sums = i_loadn(weight_sum + at, left);
    v16 scales = v_loadn(weight_scale + at, left, 0.0f);
    v16 bias = epilogue->bias ? v_loadn(epilogue->bias + at, left, 0.0f) : v_set(0.0f);
    for (size_t r = 0; r < rows; r++) {
      v16 t = i_float(i_sub(i_load(acc + r * MWK_PANEL + at), i_mul(i_set(zero[r]), sums)));
      v16 s = v_mul(v_set(scale[r]), scales);
      store_outputs(epilogue->bias ? v_fma(t, s, bias) : v_mul(t, s), r, at, left, epilogue);
    }
  }
}
