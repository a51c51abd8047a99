#pragma once
// exp, gelu and tanh as one operation sequence for every instruction set. The coefficients are weighted minimax fits made
// for this project (Docs/Numerics.md gives intervals, weights and errors). Included after one of the vector headers.

/// eˣ, within 1.1 ulp on [−104, 88]; 0 below −103.98, ∞ above 88.73, NaN for NaN.
MWK_INLINE v16 v_exp(v16 x) {
  // The constant stands first in max and min because x86 returns the second operand when one is NaN.
  x = v_min(v_set(89.0f), v_max(v_set(-104.0f), x));
  v16 n = v_round(v_mul(x, v_set(0x1.715476p+0f)));
  v16 r = v_fma(v_neg(n), v_set(0.693359375f), x);
  r = v_fma(v_neg(n), v_set(-0x1.bd0106p-13f), r);
  v16 p = v_set(0x1.6a2352p-10f);
  p = v_fma(p, r, v_set(0x1.123a6cp-7f));
  p = v_fma(p, r, v_set(0x1.5558f4p-5f));
  p = v_fma(p, r, v_set(0x1.555490p-3f));
  p = v_fma(p, r, v_set(0x1.fffffcp-2f));
  p = v_add(v_fma(p, v_mul(r, r), r), v_set(1.0f));
  // 2ⁿ in two factors: n runs from −150 to 128, and only the last product may round (to a subnormal).
  iv16 whole = i_cvt(n), half = i_half(whole);
  return v_mul(v_mul(p, i_pow2(half)), i_pow2(i_sub(whole, half)));
}

/// x·Φ(x), the exact (erf) gelu: max(x, 0) − |x|·½·exp(−q(|x|)) where q(a) approximates −ln(2·Φ(−a)).
/// Absolute error at most 8·10⁻⁸·max(1, |x|); +∞ gives +∞, −∞ gives 0.
MWK_INLINE v16 v_gelu(v16 x) {
  v16 a = v_min(v_set(14.5f), v_abs(x));
  v16 q = v_set(0x1.3fed7ep-28f);
  q = v_fma(q, a, v_set(-0x1.c15212p-23f));
  q = v_fma(q, a, v_set(0x1.ec5636p-19f));
  q = v_fma(q, a, v_set(-0x1.09c7aap-15f));
  q = v_fma(q, a, v_set(0x1.08a962p-13f));
  q = v_fma(q, a, v_set(0x1.105f34p-13f));
  q = v_fma(q, a, v_set(-0x1.455a78p-8f));
  q = v_fma(q, a, v_set(0x1.2a92aap-5f));
  q = v_fma(q, a, v_set(0x1.45ea14p-2f));
  q = v_fma(q, a, v_set(0x1.9884d6p-1f));
  v16 tail = v_mul(v_set(0.5f), v_exp(v_neg(v_mul(q, a))));
  return v_fma(v_neg(a), tail, v_max(x, v_set(0.0f)));
}

/// tanh x: an odd polynomial below 0.625, (1 − e⁻²ˣ)/(1 + e⁻²ˣ) above.
MWK_INLINE v16 v_tanh(v16 x) {
  v16 a = v_abs(x), s = v_mul(x, x), one = v_set(1.0f);
  v16 p = v_set(-0x1.76ac1ap-8f);
  p = v_fma(p, s, v_set(0x1.5256d8p-6f));
  p = v_fma(p, s, v_set(-0x1.b84448p-5f));
  p = v_fma(p, s, v_set(0x1.110768p-3f));
  p = v_fma(p, s, v_set(-0x1.555534p-2f));
  v16 small = v_copysign(v_fma(v_mul(p, s), x, x), x);  // the sign is lost only where x is −0
  v16 e = v_exp(v_mul(v_set(-2.0f), a));
  v16 large = v_copysign(v_div(v_sub(one, e), v_add(one, e)), x);
  return v_select(v_less(a, v_set(0.625f)), small, large);
}
