// Included once per instruction set, after its vector header. Every reduction here has one shape: element j goes to
// partial sum j mod 16, missing lanes hold the neutral element, and v_sum's tree adds the 16 up.
#include "../core/families.h"
#include "../simd/math.h"

MWK_INLINE float row_mean(size_t n, const float *x) {
  v16 sum = v_set(0.0f);
  size_t i = 0;
  for (; i + MWK_LANES <= n; i += MWK_LANES) sum = v_add(sum, v_load(x + i));
  if (i < n) sum = v_add(sum, v_loadn(x + i, n - i, 0.0f));
  return v_sum(sum) / (float)n;
}

MWK_INLINE float row_variance(size_t n, const float *x, float mean) {
  v16 sum = v_set(0.0f), m = v_set(mean);
  size_t i = 0;
  for (; i + MWK_LANES <= n; i += MWK_LANES) {
    v16 d = v_sub(v_load(x + i), m);
    sum = v_fma(d, d, sum);
  }
  if (i < n) {
    v16 d = v_sub(v_loadn(x + i, n - i, mean), m);
    sum = v_fma(d, d, sum);
  }
  return v_sum(sum) / (float)n;
}

MWK_INLINE v16 normalized(v16 x, v16 mean, v16 rstd, const v16 *weight, const v16 *bias) {
  v16 y = v_mul(v_sub(x, mean), rstd);
  if (weight && bias) return v_fma(y, *weight, *bias);
  if (weight) return v_mul(y, *weight);
  return bias ? v_add(y, *bias) : y;
}

static void layer_norm_row(size_t n, const float *x, const float *weight, const float *bias, float eps, float *y) {
  if (n == 0) return;
  float mean = row_mean(n, x);
  float rstd = 1.0f / sqrtf(row_variance(n, x, mean) + eps);
  v16 m = v_set(mean), r = v_set(rstd), w = m, b = m;
  size_t i = 0;
  for (; i + MWK_LANES <= n; i += MWK_LANES) {
    if (weight) w = v_load(weight + i);
    if (bias) b = v_load(bias + i);
    v_store(y + i, normalized(v_load(x + i), m, r, weight ? &w : NULL, bias ? &b : NULL));
  }
  if (i < n) {
    if (weight) w = v_loadn(weight + i, n - i, 0.0f);
    if (bias) b = v_loadn(bias + i, n - i, 0.0f);
    v16 a = v_loadn(x + i, n - i, 0.0f);
    v_storen(y + i, normalized(a, m, r, weight ? &w : NULL, bias ? &b : NULL), n - i);
  }
}

static void normalize_row(size_t n, const float *x, float *y) {
  v16 sum = v_set(0.0f);
  size_t i = 0;
  for (; i + MWK_LANES <= n; i += MWK_LANES) sum = v_fma(v_load(x + i), v_load(x + i), sum);
  if (i < n) {
    v16 a = v_loadn(x + i, n - i, 0.0f);
    sum = v_fma(a, a, sum);
  }
  float norm = sqrtf(v_sum(sum));
  v16 d = v_set(norm < 1e-12f ? 1e-12f : norm);
  for (i = 0; i + MWK_LANES <= n; i += MWK_LANES) v_store(y + i, v_div(v_load(x + i), d));
  if (i < n) v_storen(y + i, v_div(v_loadn(x + i, n - i, 0.0f), d), n - i);
}

typedef struct { v16 low, high, poison; } row_range;

MWK_INLINE row_range widen(row_range r, v16 x) {
  r.low = v_min(x, r.low);
  r.high = v_max(x, r.high);
  r.poison = v_fma(x, v_set(0.0f), r.poison);  // becomes NaN, and stays it, at the first NaN or infinity
  return r;
}

MWK_INLINE iv16 quantized(v16 x, v16 inverse, iv16 zero) {
  iv16 q = i_add(i_cvt(v_mul(x, inverse)), zero);
  return i_min(i_max(q, i_set(0)), i_set(255));
}

static void quantize_row(size_t n, const float *x, uint8_t *q, float *scale, int32_t *zero) {
  row_range r = {v_set(0.0f), v_set(0.0f), v_set(0.0f)};
  size_t i = 0;
  for (; i + MWK_LANES <= n; i += MWK_LANES) r = widen(r, v_load(x + i));
  if (i < n) r = widen(r, v_loadn(x + i, n - i, 0.0f));
  float low = v_hmin(r.low), range = v_hmax(r.high) - low;
  bool broken = !(v_sum(r.poison) == 0.0f && range < INFINITY);
  if (broken || range < 0x1p-100f) {
    // A row that cannot be represented says so in its scale, and every output that it feeds becomes NaN.
    *scale = broken ? NAN : 1.0f;
    *zero = 0;
    memset(q, 0, mwk_round_up(n, 4));
    return;
  }
  float inverse = 255.0f / range;
  *scale = range / 255.0f;
  *zero = (int32_t)rintf(-low * inverse);
  v16 inv = v_set(inverse);
  iv16 z = i_set(*zero);
  for (i = 0; i + MWK_LANES <= n; i += MWK_LANES) i_bytes(q + i, quantized(v_load(x + i), inv, z));
  if (i < n) {
    uint8_t tail[MWK_LANES];
    i_bytes(tail, quantized(v_loadn(x + i, n - i, 0.0f), inv, z));
    memset(tail + (n - i), 0, MWK_LANES - (n - i));
    memcpy(q + i, tail, mwk_round_up(n - i, 4));
  }
}

MWK_INLINE v16 masked_scores(size_t left, const float *mask, const float *x, size_t i) {
  if (left == MWK_LANES) return mask ? v_add(v_load(x + i), v_load(mask + i)) : v_load(x + i);
  v16 a = v_loadn(x + i, left, -INFINITY);
  return mask ? v_add(a, v_loadn(mask + i, left, 0.0f)) : a;
}

static float softmax_row(size_t n, const float *mask, float *x) {
  v16 top = v_set(-INFINITY), sum = v_set(0.0f);
  size_t whole = n / MWK_LANES * MWK_LANES, left = n - whole;
  for (size_t i = 0; i < whole; i += MWK_LANES) top = v_max(masked_scores(MWK_LANES, mask, x, i), top);
  if (left) top = v_max(masked_scores(left, mask, x, whole), top);
  v16 m = v_set(v_hmax(top));
  for (size_t i = 0; i < whole; i += MWK_LANES) {
    v16 e = v_exp(v_sub(masked_scores(MWK_LANES, mask, x, i), m));
    v_store(x + i, e);
    sum = v_add(sum, e);
  }
  if (left) {
    v16 e = v_exp(v_sub(masked_scores(left, mask, x, whole), m));
    v_storen(x + whole, e, left);
    sum = v_add(sum, e);
  }
  return 1.0f / v_sum(sum);
}

const mwk_rows MWK_JOIN(mwk_rows, MWK_ISA_SUFFIX);
const mwk_rows MWK_JOIN(mwk_rows, MWK_ISA_SUFFIX) = {
    .layer_norm = layer_norm_row,
    .normalize = normalize_row,
    .quantize = quantize_row,
    .softmax = softmax_row,
};
