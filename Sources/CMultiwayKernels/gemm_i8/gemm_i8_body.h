// Included once per instruction set, after its vector header and its integer tile.
#include "../core/families.h"
#include "../simd/epilogue.h"

static void finish(size_t n, const int32_t *acc, int32_t zero, float scale, const float *weight_scale,
                   const int32_t *weight_sum, mwk_epilogue epilogue, float *y) {
  for (size_t i = 0; i < n; i += MWK_LANES) {
    size_t left = mwk_min(n - i, MWK_LANES);
    iv16 sums = i_loadn(weight_sum + i, left);
    v16 t = i_float(i_sub(i_load(acc + i), i_mul(i_set(zero), sums)));
    v16 s = v_mul(v_set(scale), v_loadn(weight_scale + i, left, 0.0f));
    v16 v = epilogue.bias ? v_fma(t, s, v_loadn(epilogue.bias + i, left, 0.0f)) : v_mul(t, s);
    store_outputs(v, i, left, epilogue, y);
  }
}

/// The largest magnitude of a weight row, or NaN if one of its values is not finite.
MWK_INLINE float magnitude(size_t n, const float *w) {
  v16 top = v_set(0.0f), poison = v_set(0.0f);
  for (size_t i = 0; i < n; i += MWK_LANES) {
    v16 x = v_loadn(w + i, mwk_min(n - i, MWK_LANES), 0.0f);
    top = v_max(v_abs(x), top);
    poison = v_fma(x, v_set(0.0f), poison);
  }
  return v_sum(poison) == 0.0f ? v_hmax(top) : NAN;
}

/// 16 inputs from `at` of one output: four quads of the panel. Returns the running sum of the quantized values.
MWK_INLINE iv16 quantize_quads(size_t n, const float *w, size_t at, float inverse, int8_t *panel, iv16 sum) {
  size_t left = mwk_min(n - at, MWK_LANES);
  iv16 q = i_cvt(v_mul(v_loadn(w + at, left, 0.0f), v_set(inverse)));
  q = i_min(i_max(q, i_set(-127)), i_set(127));
  uint8_t bytes[MWK_LANES];
  i_bytes(bytes, q);
  for (size_t quad = 0; 4 * quad < left; quad++) memcpy(panel + (at / 4 + quad) * MWK_PANEL * 4, bytes + 4 * quad, 4);
  return i_add(sum, q);
}

static size_t quantize_panel(size_t outputs, size_t inputs, const float *w, int8_t *panel, float *scale, int32_t *sum) {
  size_t broken = 0;
  for (size_t o = 0; o < outputs; o += MWK_LANES) {
    size_t count = mwk_min(outputs - o, MWK_LANES);
    float inverse[MWK_LANES];
    iv16 sums[MWK_LANES];
    for (size_t r = 0; r < count; r++) {
      float top = magnitude(inputs, w + (o + r) * inputs);
      bool usable = top >= 0x1p-100f;  // false for NaN too: such a row is counted, its bytes mean nothing
      broken += top != top;
      inverse[r] = usable ? 127.0f / top : 0.0f;
      scale[o + r] = usable ? top / 127.0f : 1.0f;
      sums[r] = i_set(0);
    }
    // 16 rows side by side fill whole cache lines of the panel.
    for (size_t i = 0; i < inputs; i += MWK_LANES)
      for (size_t r = 0; r < count; r++)
        sums[r] = quantize_quads(inputs, w + (o + r) * inputs, i, inverse[r], panel + (o + r) * 4, sums[r]);
    for (size_t r = 0; r < count; r++) {
      int32_t lanes[MWK_LANES], total = 0;
      i_store(lanes, sums[r]);
      for (size_t i = 0; i < MWK_LANES; i++) total += lanes[i];
      sum[o + r] = total;
    }
  }
  return broken;
}

const mwk_gemm_i8 MWK_JOIN(mwk_gemm_i8, MWK_ISA_SUFFIX);
const mwk_gemm_i8 MWK_JOIN(mwk_gemm_i8, MWK_ISA_SUFFIX) = {
    .tile = tile, .finish = finish, .quantize_panel = quantize_panel};
