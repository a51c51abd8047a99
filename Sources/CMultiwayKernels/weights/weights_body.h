// Included once per instruction set, after its vector header. What conversions decide and fold by is summed in double precision, where
// products of two floats are exact. Every sum has one shape: element j goes to partial sum j mod 16 from +0; a tree adds the 16 up,
// j + (j+8), +4, +2, +1. The vectors are the compiler's own: it makes of eight doubles what the instruction set has.
#include "../core/families.h"

typedef float float8 __attribute__((vector_size(32)));
typedef double double8 __attribute__((vector_size(64)));

/// Eight elements in double precision. By address, as the convention for calls with such vectors depends on the instruction set.
MWK_INLINE void load_doubles(const float *x, double8 *y) {
  float8 elements;
  memcpy(&elements, x, sizeof elements);
  *y = __builtin_convertvector(elements, double8);
}

MWK_INLINE double sum_of_strands(const double8 strand[2]) {
  double sum[8];
  double8 both = strand[0] + strand[1];
  memcpy(sum, &both, sizeof sum);
  for (int width = 4; width > 0; width /= 2)
    for (int i = 0; i < width; i++) sum[i] += sum[i + width];
  return sum[0];
}

MWK_INLINE void add_products(const float *a, const float *b, double8 strand[2]) {
  MWK_UNROLL for (int h = 0; h < 2; h++) {
    double8 x, y;
    load_doubles(a + 8 * h, &x);
    load_doubles(b + 8 * h, &y);
    strand[h] += x * y;
  }
}

static double dot(size_t n, const float *a, const float *b) {
  double8 strand[2] = {{0}, {0}};
  size_t i = 0;
  for (; i + MWK_LANES <= n; i += MWK_LANES) add_products(a + i, b + i, strand);
  if (i < n) {
    float tail[2][MWK_LANES] = {{0}};
    memcpy(tail[0], a + i, (n - i) * sizeof *a);
    memcpy(tail[1], b + i, (n - i) * sizeof *b);
    add_products(tail[0], tail[1], strand);
  }
  return sum_of_strands(strand);
}

MWK_INLINE void add_weighted_squares(const float *a, const double *weight, double8 strand[2]) {
  MWK_UNROLL for (int h = 0; h < 2; h++) {
    double8 x, w;
    load_doubles(a + 8 * h, &x);
    memcpy(&w, weight + 8 * h, sizeof w);
    strand[h] += x * x * w;
  }
}

static double weighted_squares(size_t n, const float *a, const double *weight) {
  double8 strand[2] = {{0}, {0}};
  size_t i = 0;
  for (; i + MWK_LANES <= n; i += MWK_LANES) add_weighted_squares(a + i, weight + i, strand);
  if (i < n) {
    float tail[MWK_LANES] = {0};
    double weights[MWK_LANES] = {0};
    memcpy(tail, a + i, (n - i) * sizeof *a);
    memcpy(weights, weight + i, (n - i) * sizeof *weight);
    add_weighted_squares(tail, weights, strand);
  }
  return sum_of_strands(strand);
}

static void add_squares(size_t n, const float *a, double *squares) {
  for (size_t i = 0; i < n; i++) squares[i] += (double)a[i] * (double)a[i];
}

MWK_INLINE v16 scaled_at(size_t n, const float *row, const float *factors, size_t i) {
  if (i + MWK_LANES <= n) return v_mul(v_load(row + i), v_load(factors + i));
  return v_mul(v_loadn(row + i, n - i, 0.0f), v_loadn(factors + i, n - i, 0.0f));
}

static float quantize_signed(size_t n, const float *row, const float *factors, int16_t *q) {
  v16 top = v_set(0.0f);
  for (size_t i = 0; i < n; i += MWK_LANES) top = v_max(v_abs(scaled_at(n, row, factors, i)), top);
  float most = v_hmax(top);
  v16 inverse = v_set(most >= 0x1p-100f && most < INFINITY ? 127.0f / most : 0.0f), limit = v_set(INFINITY);
  for (size_t i = 0; i < n; i += MWK_LANES) {
    v16 x = v_mul(scaled_at(n, row, factors, i), inverse);
    int32_t whole[MWK_LANES];
    i_store(whole, i_cvt(v_select(v_less(v_abs(x), limit), x, v_set(0.0f))));
    size_t count = mwk_min(n - i, MWK_LANES);
    for (size_t j = 0; j < count; j++) q[i + j] = (int16_t)whole[j];
  }
  return most / 127.0f;
}

static int32_t integer_dot(size_t n, const int16_t *a, const int16_t *b) {
  uint32_t sum = 0;
  for (size_t i = 0; i < n; i++) sum += (uint32_t)((int32_t)a[i] * b[i]);
  return (int32_t)sum;
}

const mwk_weights MWK_JOIN(mwk_weights, MWK_ISA_SUFFIX);
const mwk_weights MWK_JOIN(mwk_weights, MWK_ISA_SUFFIX) = {
    .dot = dot,
    .weighted_squares = weighted_squares,
    .add_squares = add_squares,
    .quantize = quantize_signed,
    .integer_dot = integer_dot,
};
