// Included once per instruction set, after its vector header and its integer tile.
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
