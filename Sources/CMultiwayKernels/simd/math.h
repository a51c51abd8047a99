#pragma once
// exp, gelu and tanh as one operation sequence for every instruction set. The coefficients are weighted minimax fits made
// for this project (Docs/Numerics.md gives intervals, weights and errors). Included after one of the vector headers.

/// p·2ⁿ for a whole n, where the result is normal or p is not a number.
#if !defined(MWK_SCALE_POWER)
MWK_INLINE v16 v_scale_power(v16 p, v16 n) { return v_mul(p, i_pow2(i_cvt(n))); }
#endif

/// eʳ for |r| ≤ ½·ln 2: 1 + (r + r²·P₄(r)).
MWK_INLINE v16 exp_fraction(v16 r) {
  v16 p = v_set(0x1.6a2352p-10f);
  p = v_fma(p, r, v_set(0x1.123a6cp-7f));
  p = v_fma(p, r, v_set(0x1.5558f4p-5f));
  p = v_fma(p, r, v_set(0x1.555490p-3f));
  p = v_fma(p, r, v_set(0x1.fffffcp-2f));
  return v_add(v_fma(p, v_mul(r, r), r), v_set(1.0f));
}

/// n = rne(x·log₂e).
MWK_INLINE v16 exp_whole(v16 x) { return v_round(v_mul(x, v_set(0x1.715476p+0f))); }

/// r = x − n·ln 2, in two steps.
MWK_INLINE v16 exp_rest(v16 x, v16 n) {
  v16 r = v_fnma(n, v_set(0.693359375f), x);
  return v_fnma(n, v_set(-0x1.bd0106p-13f), r);
}

/// eˣ, within 1.1 ulp on [−104, 88]; 0 below −104, ∞ above 88.73, NaN for NaN.
MWK_INLINE v16 v_exp(v16 x) {
  // Lanes below −104, such as masked scores, compute e⁰ instead: a product that underflows would cost an assist.
  m16 none = v_less(x, v_set(-104.0f));
  // The constant stands first because x86 returns the second operand when one is NaN.
  x = v_min(v_set(89.0f), v_select(none, v_set(0.0f), x));
  v16 n = exp_whole(x), p = exp_fraction(exp_rest(x, n));
  // 2ⁿ in two factors: n runs from −150 to 128, and only the last product may round (to a subnormal).
  iv16 whole = i_cvt(n), half = i_half(whole);
  v16 y = v_mul(v_mul(p, i_pow2(half)), i_pow2(i_sub(whole, half)));
  return v_select(none, v_set(0.0f), y);
}

/// eˣ for x ≤ 0, within 1.1 ulp where the result is normal; 0 below −87, NaN for NaN.
MWK_INLINE v16 v_exp_negative(v16 x) {
  m16 none = v_less(x, v_set(-87.0f));
  x = v_select(none, v_set(0.0f), x);
  v16 n = exp_whole(x), p = exp_fraction(exp_rest(x, n));
  return v_select(none, v_set(0.0f), v_scale_power(p, n));
}

/// 2ᵗ for t ≤ 0 within 3·10⁻⁶ of it, which is plenty where the result becomes a byte; 0 below −100, NaN for NaN.
MWK_INLINE v16 v_exp2_to_bytes(v16 t) {
  m16 none = v_less(t, v_set(-100.0f));
  t = v_select(none, v_set(0.0f), t);
  v16 n = v_round(t), f = v_sub(t, n), p = v_set(0x1.3a02ccp-7f);
  p = v_fma(p, f, v_set(0x1.c9fc46p-5f));
  p = v_fma(p, f, v_set(0x1.ec0378p-3f));
  p = v_fma(p, f, v_set(0x1.62e12cp-1f));
  p = v_fma(p, f, v_set(1.0f));
  return v_select(none, v_set(0.0f), v_scale_power(p, n));
}

/// x·Φ(x), the exact (erf) gelu: max(x, 0) − a·2ᵗ, where a = |x| and t(a) approximates log₂ Φ(−a).
/// Absolute error at most 8·10⁻⁸·max(1, |x|). From |x| = 6 on, where a·Φ(−a) < 6·10⁻⁹, it is 0 or x, infinities included.
MWK_INLINE v16 v_gelu(v16 x) {
  v16 limit = v_set(6.0f), magnitude = v_abs(x), a = v_min(limit, magnitude);
  v16 t = v_set(-0x1.fe94f2p-20f);
  t = v_fma(t, a, v_set(0x1.d6b7a4p-16f));
  t = v_fma(t, a, v_set(-0x1.13b826p-13f));
  t = v_fma(t, a, v_set(-0x1.1d4ac4p-12f));
  t = v_fma(t, a, v_set(0x1.dad5fep-8f));
  t = v_fma(t, a, v_set(-0x1.af201ap-5f));
  t = v_fma(t, a, v_set(-0x1.d62e9ap-2f));
  t = v_fma(t, a, v_set(-0x1.26af36p+0f));
  t = v_fma(t, a, v_set(-1.0f));
  v16 n = v_round(t), f = v_sub(t, n), p = v_set(0x1.5bba34p-10f);
  p = v_fma(p, f, v_set(0x1.3cea88p-7f));
  p = v_fma(p, f, v_set(0x1.c6b752p-5f));
  p = v_fma(p, f, v_set(0x1.ebf9bcp-3f));
  p = v_fma(p, f, v_set(0x1.62e42ap-1f));
  p = v_fma(p, f, v_set(1.0f));
  v16 tail = v_select(v_less(magnitude, limit), v_scale_power(p, n), v_set(0.0f));
  return v_fnma(a, tail, v_max(x, v_set(0.0f)));
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
