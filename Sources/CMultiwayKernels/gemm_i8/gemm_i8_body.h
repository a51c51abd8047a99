// Included once per instruction set, after its vector header, its integer tile and gemm_i8_finish.h.

#ifndef MWK_FUSED_PRODUCTS
static void products(size_t rows, size_t quads, const uint8_t *q, size_t q_stride, const int8_t *panel, size_t outputs,
                     const int32_t *zero, const float *scale, const float *weight_scale, const int32_t *weight_sum,
                     const mwk_epilogue *epilogue, mwk_lines next, int32_t *acc) {
  mwk_fetch_some(&next, next.lines);
  tile(rows, quads, q, q_stride, panel, mwk_ceil_div(outputs, MWK_LANES), acc);
  finish(rows, outputs, acc, zero, scale, weight_scale, weight_sum, epilogue);
}
#endif

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

static size_t quantize_panel(size_t outputs, size_t inputs, const float *w, size_t stride, int8_t *panel, float *scale,
                             int32_t *sum) {
  size_t broken = 0;
  for (size_t o = 0; o < outputs; o += MWK_LANES) {
    size_t count = mwk_min(outputs - o, MWK_LANES);
    float inverse[MWK_LANES];
    iv16 sums[MWK_LANES];
    for (size_t r = 0; r < count; r++) {
      float top = magnitude(inputs, w + (o + r) * stride);
      bool usable = top >= 0x1p-100f;  // false for NaN too: such a row is counted, its bytes mean nothing
      broken += top != top;
      inverse[r] = usable ? 127.0f / top : 0.0f;
      scale[o + r] = usable ? top / 127.0f : top == top ? 1.0f : top;
      sums[r] = i_set(0);
    }
    // 16 rows side by side fill whole cache lines of the panel.
    for (size_t i = 0; i < inputs; i += MWK_LANES)
      for (size_t r = 0; r < count; r++)
        sums[r] = quantize_quads(inputs, w + (o + r) * stride, i, inverse[r], panel + (o + r) * 4, sums[r]);
    for (size_t r = 0; r < count; r++) {
      int32_t lanes[MWK_LANES], total = 0;
      i_store(lanes, sums[r]);
      for (size_t i = 0; i < MWK_LANES; i++) total += lanes[i];
      sum[o + r] = total;
    }
  }
  return broken;
}

/// 16 values of a row from `at`, in 8 bits; zeros where the row ends or is NULL.
MWK_INLINE iv16 quantized_values(size_t n, const float *x, size_t at, float inverse) {
  if (!x || at >= n) return i_set(0);
  iv16 q = i_cvt(v_mul(v_loadn(x + at, mwk_min(n - at, MWK_LANES), 0.0f), v_set(inverse)));
  return i_min(i_max(q, i_set(-127)), i_set(127));
}

static void quantize_quad(size_t rows, size_t channels, const float *const *x, int8_t *panel, size_t panel_bytes,
                          float *scale) {
  float inverse[4] = {0};
  const float *row[4] = {0};
  for (size_t r = 0; r < rows; r++) {
    row[r] = x[r];
    float top = row[r] ? magnitude(channels, row[r]) : 0.0f;
    bool usable = top >= 0x1p-100f;
    inverse[r] = usable ? 127.0f / top : 0.0f;
    scale[r] = !row[r] ? 0.0f : usable ? top / 127.0f : top == top ? 1.0f : top;
  }
  for (size_t c = 0; c < mwk_round_up(channels, MWK_PANEL); c += MWK_LANES)
    i_quads(panel + c / MWK_PANEL * panel_bytes + c % MWK_PANEL * 4, quantized_values(channels, row[0], c, inverse[0]),
            quantized_values(channels, row[1], c, inverse[1]), quantized_values(channels, row[2], c, inverse[2]),
            quantized_values(channels, row[3], c, inverse[3]));
}

const mwk_gemm_i8 MWK_JOIN(mwk_gemm_i8, MWK_ISA_SUFFIX);
const mwk_gemm_i8 MWK_JOIN(mwk_gemm_i8, MWK_ISA_SUFFIX) = {
    .products = products, .quantize_panel = quantize_panel, .quantize_quad = quantize_quad};
