// Included once per instruction set, after its vector header.
#include "../core/families.h"
#include "../simd/math.h"

// A tail runs the same instructions on padded lanes, so an element's bits do not depend on where it stands.
#define MWK_UNARY(name, expression)                                 \
  static void name(size_t n, const float *x, float *y) {            \
    size_t i = 0;                                                   \
    for (; i + MWK_LANES <= n; i += MWK_LANES) {                    \
      v16 a = v_load(x + i);                                        \
      v_store(y + i, expression);                                   \
    }                                                               \
    if (i < n) {                                                    \
      v16 a = v_loadn(x + i, n - i, 0.0f);                          \
      v_storen(y + i, expression, n - i);                           \
    }                                                               \
  }
#define MWK_BINARY_ROW(name, expression)                                                    \
  static void name(size_t n, const float *x, const float *z, float *y) {                    \
    size_t i = 0;                                                                           \
    for (; i + MWK_LANES <= n; i += MWK_LANES) {                                            \
      v16 a = v_load(x + i), b = v_load(z + i);                                             \
      v_store(y + i, expression);                                                           \
    }                                                                                       \
    if (i < n) {                                                                            \
      v16 a = v_loadn(x + i, n - i, 0.0f), b = v_loadn(z + i, n - i, 0.0f);                 \
      v_storen(y + i, expression, n - i);                                                   \
    }                                                                                       \
  }

MWK_UNARY(gelu_row, v_gelu(a))
MWK_UNARY(tanh_row, v_tanh(a))
MWK_UNARY(exp_row, v_exp(a))
MWK_UNARY(relu_row, v_max(v_set(0.0f), a))
MWK_BINARY_ROW(add_row, v_add(a, b))
MWK_BINARY_ROW(multiply_row, v_mul(a, b))

static void scale_row(size_t n, float factor, const float *x, float *y) {
  size_t i = 0;
  for (; i + MWK_LANES <= n; i += MWK_LANES) v_store(y + i, v_mul(v_load(x + i), v_set(factor)));
  if (i < n) v_storen(y + i, v_mul(v_loadn(x + i, n - i, 0.0f), v_set(factor)), n - i);
}

static float largest_of(size_t n, const float *x) {
  v16 top = v_set(-INFINITY);
  size_t i = 0;
  for (; i + MWK_LANES <= n; i += MWK_LANES) top = v_max(v_load(x + i), top);
  if (i < n) top = v_max(v_loadn(x + i, n - i, -INFINITY), top);
  return v_hmax(top);
}

static float exp_sum(size_t n, const float *x, float shift) {
  v16 sum = v_set(0.0f), s = v_set(shift);
  size_t i = 0;
  for (; i + MWK_LANES <= n; i += MWK_LANES) sum = v_add(sum, v_exp(v_sub(v_load(x + i), s)));
  if (i < n) sum = v_add(sum, v_exp(v_sub(v_loadn(x + i, n - i, -INFINITY), s)));
  return v_sum(sum);
}

const mwk_elementwise MWK_JOIN(mwk_elementwise, MWK_ISA_SUFFIX);
const mwk_elementwise MWK_JOIN(mwk_elementwise, MWK_ISA_SUFFIX) = {
    .gelu = gelu_row,
    .tanh = tanh_row,
    .add = add_row,
    .multiply = multiply_row,
    .scale = scale_row,
    .exp = exp_row,
    .relu = relu_row,
    .largest = largest_of,
    .exp_sum = exp_sum,
};
