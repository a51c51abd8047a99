// Included once per instruction set, after its vector header. Every reduction here has one shape. In the sums of norms element j goes
// to partial sum j mod 64, in those of the softmax to j mod 16: additions of one partial sum wait for each other. Missing lanes hold
// the neutral element; the 64 become 16 by (s₀ + s₁) + (s₂ + s₃), and v_sum's tree adds the 16 up.
#include "../core/families.h"
#include "../simd/math.h"

/// Vectors that are summed side by side.
#define MWK_STRANDS 4

MWK_INLINE float sum_strands(const v16 sum[MWK_STRANDS]) {
  return v_sum(v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3])));
}

/// 16 elements from i; `pad` where the row has ended.
MWK_INLINE v16 load_padded(size_t n, const float *x, size_t i, float pad) {
  return i + MWK_LANES <= n ? v_load(x + i) : i < n ? v_loadn(x + i, n - i, pad) : v_set(pad);
}

/// Σ of term(x) over a row; a padded lane's term must be +0.
#define MWK_SUM_ROW(n, x, pad, term)                                                                        \
  v16 sum[MWK_STRANDS] = {v_set(0.0f), v_set(0.0f), v_set(0.0f), v_set(0.0f)};                              \
  size_t i = 0;                                                                                             \
  for (; i + MWK_STRANDS * MWK_LANES <= n; i += MWK_STRANDS * MWK_LANES)                                    \
    _Pragma("clang loop unroll(full)") for (size_t s = 0; s < MWK_STRANDS; s++)                             \
        sum[s] = term(v_load(x + i + s * MWK_LANES), sum[s]);                                               \
  _Pragma("clang loop unroll(full)") for (size_t s = 0; s < MWK_STRANDS; s++) if (i + s * MWK_LANES < n)    \
      sum[s] = term(load_padded(n, x, i + s * MWK_LANES, pad), sum[s])

MWK_INLINE float row_mean(size_t n, const float *x) {
#define MWK_TERM(a, sum) v_add(sum, a)
  MWK_SUM_ROW(n, x, 0.0f, MWK_TERM);
#undef MWK_TERM
  return sum_strands(sum) / (float)n;
}

MWK_INLINE v16 add_square(v16 d, v16 sum) { return v_fma(d, d, sum); }

MWK_INLINE float row_variance(size_t n, const float *x, float mean) {
  v16 m = v_set(mean);
#define MWK_TERM(a, sum) add_square(v_sub(a, m), sum)
  MWK_SUM_ROW(n, x, mean, MWK_TERM);
#undef MWK_TERM
  return sum_strands(sum) / (float)n;
}

/// y = (x − mean) · rstd [· weight] [+ bias]; inlined where it is known which of them there are.
MWK_INLINE void normalize_as(size_t n, const float *x, float mean, float rstd, const float *weight, const float *bias,
                             float *y) {
  v16 m = v_set(mean), r = v_set(rstd);
  for (size_t i = 0; i < n; i += MWK_LANES) {
    v16 a = v_mul(v_sub(load_padded(n, x, i, 0.0f), m), r);
    if (weight && bias)
      a = v_fma(a, load_padded(n, weight, i, 0.0f), load_padded(n, bias, i, 0.0f));
    else if (weight)
      a = v_mul(a, load_padded(n, weight, i, 0.0f));
    else if (bias)
      a = v_add(a, load_padded(n, bias, i, 0.0f));
    if (i + MWK_LANES <= n)
      v_store(y + i, a);
    else
      v_storen(y + i, a, n - i);
  }
}

static void layer_norm_row(size_t n, const float *x, const float *weight, const float *bias, float eps, float *y) {
  if (n == 0) return;
  float mean = row_mean(n, x), rstd = 1.0f / sqrtf(row_variance(n, x, mean) + eps);
  if (weight && bias)
    normalize_as(n, x, mean, rstd, weight, bias, y);
  else if (weight)
    normalize_as(n, x, mean, rstd, weight, NULL, y);
  else if (bias)
    normalize_as(n, x, mean, rstd, NULL, bias, y);
  else
    normalize_as(n, x, mean, rstd, NULL, NULL, y);
}

static void normalize_row(size_t n, const float *x, float *y) {
  MWK_SUM_ROW(n, x, 0.0f, add_square);
  float norm = sqrtf(sum_strands(sum));
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

/// The range of a row: two running ones, as their order does not show.
MWK_INLINE row_range range_of(size_t n, const float *x) {
  row_range r = {v_set(0.0f), v_set(0.0f), v_set(0.0f)}, other = r;
  size_t i = 0;
  for (; i + 2 * MWK_LANES <= n; i += 2 * MWK_LANES) {
    r = widen(r, v_load(x + i));
    other = widen(other, v_load(x + i + MWK_LANES));
  }
  for (; i < n; i += MWK_LANES) r = widen(r, load_padded(n, x, i, 0.0f));
  return (row_range){v_min(other.low, r.low), v_max(other.high, r.high), v_add(other.poison, r.poison)};
}

static void quantize_row(size_t n, const float *x, uint8_t *q, float *scale, int32_t *zero) {
  row_range r = range_of(n, x);
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
  size_t i = 0;
  for (; i + MWK_LANES <= n; i += MWK_LANES) i_bytes(q + i, quantized(v_load(x + i), inv, z));
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

/// The largest score: two running maxima, as the order of a maximum does not show.
MWK_INLINE v16 largest_score(size_t n, const float *mask, const float *x) {
  v16 top = v_set(-INFINITY), other = top;
  size_t i = 0;
  for (; i + 2 * MWK_LANES <= n; i += 2 * MWK_LANES) {
    top = v_max(masked_scores(MWK_LANES, mask, x, i), top);
    other = v_max(masked_scores(MWK_LANES, mask, x, i + MWK_LANES), other);
  }
  for (; i < n; i += MWK_LANES) top = v_max(masked_scores(mwk_min(n - i, MWK_LANES), mask, x, i), top);
  return v_set(v_hmax(v_max(other, top)));
}

static float softmax_row(size_t n, const float *mask, float *x) {
  v16 top = largest_score(n, mask, x), sum = v_set(0.0f);
  size_t i = 0;
  for (; i + MWK_LANES <= n; i += MWK_LANES) {
    v16 e = v_exp_negative(v_sub(masked_scores(MWK_LANES, mask, x, i), top));
    v_store(x + i, e);
    sum = v_add(sum, e);
  }
  if (i < n) {
    v16 e = v_exp_negative(v_sub(masked_scores(n - i, mask, x, i), top));
    v_storen(x + i, e, n - i);
    sum = v_add(sum, e);
  }
  return 1.0f / v_sum(sum);
}

/// What a row of weights is made of while they are scaled: Σe, the largest e · scale, and Σ(e · scale), which is not finite where one
/// of the scales is not.
typedef struct { v16 sum, top, scaled_sum; } weight_sums;

MWK_INLINE v16 scaled_weights(v16 e, v16 scale, weight_sums *sums) {
  v16 weight = v_mul(e, scale);
  sums->sum = v_add(sums->sum, e);
  sums->top = v_max(weight, sums->top);
  sums->scaled_sum = v_add(sums->scaled_sum, weight);
  return weight;
}

/// High and low bytes from weights between 0 and 65535 / inverse.
MWK_INLINE void store_weights(size_t n, const float *x, float inverse, uint8_t *high, uint8_t *low) {
  v16 inv = v_set(inverse);
  size_t i = 0;
  for (; i + MWK_LANES <= n; i += MWK_LANES) {
    iv16 q = i_cvt(v_mul(v_load(x + i), inv));
    i_bytes(high + i, i_high_bytes(q));
    i_bytes(low + i, q);
  }
  if (i == n) return;
  uint8_t tail[2][MWK_LANES];
  iv16 q = i_cvt(v_mul(v_loadn(x + i, n - i, 0.0f), inv));
  i_bytes(tail[0], i_high_bytes(q));
  i_bytes(tail[1], q);
  memcpy(high + i, tail[0], mwk_round_up(n - i, 4));
  memcpy(low + i, tail[1], mwk_round_up(n - i, 4));
}

static float softmax_quantize_row(size_t n, const float *mask, const float *value_scale, float *x, uint8_t *high,
                                  uint8_t *low, float *scale) {
  v16 log2e = v_set(0x1.715476p+0f), shift = v_neg(v_mul(largest_score(n, mask, x), log2e));
  weight_sums sums = {v_set(0.0f), v_set(0.0f), v_set(0.0f)};
  size_t i = 0;
  for (; i + MWK_LANES <= n; i += MWK_LANES) {
    v16 e = v_exp2_to_bytes(v_fma(masked_scores(MWK_LANES, mask, x, i), log2e, shift));
    v_store(x + i, scaled_weights(e, v_load(value_scale + i), &sums));
  }
  if (i < n) {
    v16 e = v_exp2_to_bytes(v_fma(masked_scores(n - i, mask, x, i), log2e, shift));
    v_storen(x + i, scaled_weights(e, v_loadn(value_scale + i, n - i, 0.0f), &sums), n - i);
  }
  float top = v_hmax(sums.top), total = v_sum(sums.scaled_sum);
  bool broken = !(total < INFINITY), usable = !broken && top >= 0x1p-100f;
  *scale = broken ? NAN : usable ? top / 65535.0f : 1.0f;
  if (usable)
    store_weights(n, x, 65535.0f / top, high, low);
  else
    memset(high, 0, mwk_round_up(n, 4)), memset(low, 0, mwk_round_up(n, 4));
  return 1.0f / v_sum(sums.sum);
}

const mwk_rows MWK_JOIN(mwk_rows, MWK_ISA_SUFFIX);
const mwk_rows MWK_JOIN(mwk_rows, MWK_ISA_SUFFIX) = {
    .layer_norm = layer_norm_row,
    .normalize = normalize_row,
    .quantize = quantize_row,
    .softmax = softmax_row,
    .softmax_quantize = softmax_quantize_row,
};
