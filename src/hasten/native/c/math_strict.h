//! v_double: types v_set1
/* float64 in every lane: what is computed in it is rounded once, so a result is hardly ever off by a whole ULP */
#if VL == 1
typedef double vd;
typedef int64_t vl;
#define D_LANE(a, i) (*((void)(i), &(a)))
static inline vd d_of(vf a) { return (double)a; }
static inline vf d_float(vd a) { return (float)a; }
static inline vd d_select(vl m, vd a, vd b) { return m ? a : b; }
static inline vl d_bits(vd a) {
    vl b;
    __builtin_memcpy(&b, &a, sizeof b);
    return b;
}
static inline vd d_frombits(vl a) {
    vd b;
    __builtin_memcpy(&b, &a, sizeof b);
    return b;
}
#else
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi" /* vectors of two registers stay inside this file */
#endif
typedef double vd __attribute__((vector_size(8 * VL)));
typedef int64_t vl __attribute__((vector_size(8 * VL)));
#define D_LANE(a, i) ((a)[i])
static inline vd d_of(vf a) { return __builtin_convertvector(a, vd); }
static inline vf d_float(vd a) { return __builtin_convertvector(a, vf); }
static inline vd d_select(vl m, vd a, vd b) { return (vd)(((vl)a & m) | ((vl)b & ~m)); }
static inline vl d_bits(vd a) { return (vl)a; }
static inline vd d_frombits(vl a) { return (vd)a; }
#endif
static inline vd d_set1(double a) { return d_of(v_set1(0.0f)) + a; }
static inline vd d_abs(vd a) { return d_frombits(d_bits(a) & 0x7fffffffffffffff); }
//! d_sqrt: v_double
static inline vd d_sqrt(vd a) {
    for (int i = 0; i < VL; i++) D_LANE(a, i) = __builtin_sqrt(D_LANE(a, i));
    return a;
}
//! d_exp_parts: v_double
/* e^x = s · (1 + q): s = 2^n, q = e^f - 1 by a polynomial on |f| <= ln 2 / 2; adding 1.5·2^52 rounds to a whole n */
static inline void d_exp_parts(vd x, vd *s, vd *q) {
    x = d_select(x > 700.0, d_set1(700.0), d_select(x < -700.0, d_set1(-700.0), x));
    const vd t = x * 1.4426950408889634 + 6755399441055744.0;
    const vd f = x - (t - 6755399441055744.0) * 0.69314718055994531;
    vd p = d_set1(2.4882508108547401e-05);
    p = p * f + 0.00019904956161514775;
    p = p * f + 0.0013888809290622513;
    p = p * f + 0.0083332889613175684;
    p = p * f + 0.041666666955242876;
    p = p * f + 0.1666666675452867;
    p = p * f + 0.49999999999736039;
    *q = p * (f * f) + f;
    *s = d_frombits(((d_bits(t) - 0x4338000000000000 + 1023) & 2047) << 52);
}
//! d_exp: d_exp_parts
static inline vd d_exp(vd x) {
    vd s, q;
    d_exp_parts(x, &s, &q);
    return s * q + s;
}
//! d_expm1: d_exp_parts
static inline vd d_expm1(vd x) {
    vd s, q;
    d_exp_parts(x, &s, &q);
    return s * q + (s - 1.0);
}
//! d_log: v_double
/* x > 0, finite: x = m · 2^e with m in [√½, √2), log m = 2·atanh((m - 1) / (m + 1)) */
static inline vd d_log(vd x) {
    const vl e = (d_bits(x) - 0x3fe6a09e667f3bcd) >> 52;
    const vd m = d_frombits(d_bits(x) - e * (1LL << 52));
    const vd n = d_frombits(e + 0x4338000000000000) - 6755399441055744.0;
    const vd r = (m - 1.0) / (m + 1.0), s = r * r;
    vd p = d_set1(0.19610055822647521);
    p = p * s + 0.22174108495604;
    p = p * s + 0.28572169711593015;
    p = p * s + 0.3999999485518419;
    p = p * s + 0.66666666679711295;
    p = p * s + 1.9999999999999463;
    return n * 0.69314718055994531 + p * r;
}
//! d_log1p: d_log
/* log(1 + x): what rounding 1 + x lost is put back */
static inline vd d_log1p(vd x) {
    const vd u = 1.0 + x;
    return d_log(u) + (x - (u - 1.0)) / u;
}
//! d_sigmoid: d_exp
static inline vd d_sigmoid(vd x) { return 1.0 / (1.0 + d_exp(-x)); }
//! d_tanh: d_expm1
static inline vd d_tanh(vd x) {
    const vd t = d_expm1(x + x);
    return t / (t + 2.0);
}
//! d_erfc: d_exp
/* erfc a for a >= 0, all digits kept where it is tiny: e^-a² times a polynomial in (a - 3) / (a + 3) */
static inline vd d_erfc(vd a) {
    a = d_select(a > 30.0, d_set1(30.0), a);
    const vd u = (a - 3.0) / (a + 3.0);
    vd p = d_set1(-6.2765879583588132e-06);
    p = p * u + -9.1816493458952614e-06;
    p = p * u + 6.305594438258606e-05;
    p = p * u + 4.2444099307763411e-05;
    p = p * u + -0.00059673020028403075;
    p = p * u + 0.00070883236720071944;
    p = p * u + 0.0042690540899381051;
    p = p * u + -0.024392708186232005;
    p = p * u + 0.071665852051327167;
    p = p * u + -0.15011591931107987;
    p = p * u + 0.24560380054650841;
    p = p * u + -0.32623356043178448;
    p = p * u + 0.17900115119580698;
    return p * d_exp(-(a * a));
}
//! v_exp: d_exp
static inline vf v_exp(vf x) { return d_float(d_exp(d_of(x))); }
//! v_weight: v_exp
static inline vf v_weight(vf x, vf top) { return v_exp(x - top); }
//! v_expm1: d_expm1 v_select
static inline vf v_expm1(vf x) { return v_select(x == 0.0f, x, d_float(d_expm1(d_of(x)))); }
//! v_log: d_log v_select v_set1
static inline vf v_log(vf x) {
    vf y = d_float(d_log(d_of(x)));
    y = v_select(x == __builtin_inff(), x, y);
    y = v_select(x == 0.0f, v_set1(-__builtin_inff()), y);
    return v_select(x >= 0.0f, y, v_set1(__builtin_nanf("")));
}
//! v_log1p: d_log1p v_select v_set1
static inline vf v_log1p(vf x) {
    vf y = d_float(d_log1p(d_of(x)));
    y = v_select(x == -1.0f, v_set1(-__builtin_inff()), y);
    y = v_select(x >= -1.0f, y, v_set1(__builtin_nanf("")));
    return v_select(x == 0.0f, x, v_select(x == __builtin_inff(), x, y));
}
//! v_sigmoid: d_sigmoid
static inline vf v_sigmoid(vf x) { return d_float(d_sigmoid(d_of(x))); }
//! v_tanh: d_tanh v_select
static inline vf v_tanh(vf x) { return v_select(x == 0.0f, x, d_float(d_tanh(d_of(x)))); }
//! v_lstm: d_sigmoid d_tanh
/* h' = σ(o)·tanh c', c' = σ(f)·c + σ(i)·tanh g */
static inline vf v_lstm(const vf *a, vf *c) {
    const vd kept = d_sigmoid(d_of(a[2])) * d_of(*c);
    const vd state = kept + d_sigmoid(d_of(a[0])) * d_tanh(d_of(a[3]));
    *c = d_float(state);
    return d_float(d_sigmoid(d_of(a[1])) * d_tanh(state));
}
//! v_erf: d_erfc v_abs v_copysign v_select
/* |x| < 0.84: an odd polynomial; beyond: 1 - erfc |x| */
static inline vf v_erf(vf x) {
    const vd a = d_of(x), s = a * a;
    vd p = d_set1(8.836281191920272e-05);
    p = p * s + -0.00082442972640098635;
    p = p * s + 0.0052092994121496553;
    p = p * s + -0.026862482329504035;
    p = p * s + 0.11283747148329973;
    p = p * s + -0.37612636872444982;
    p = p * s + 1.128379166943033;
    return v_select(v_abs(x) < 0.84f, d_float(p * a), v_copysign(d_float(1.0 - d_erfc(d_abs(a))), x));
}
//! v_times: v_double v_select v_set1
/* x · y for y >= 0 that is never quite 0; -infinity times what tends to 0 is NaN */
static inline vf v_times(vf x, vd y) {
    return v_select(x == -__builtin_inff(), v_set1(__builtin_nanf("")), d_float(d_of(x) * y));
}
//! v_silu: d_sigmoid v_times
static inline vf v_silu(vf x) { return v_times(x, d_sigmoid(d_of(x))); }
//! v_gelu: d_erfc v_times
/* x · Φ(x) by the tail of the normal distribution, so that nothing cancels where x is negative */
static inline vf v_gelu(vf x) {
    const vd a = d_of(x), tail = 0.5 * d_erfc(d_abs(a) * 0.70710678118654752);
    return v_times(x, d_select(a > 0.0, 1.0 - tail, tail));
}
//! v_gelu_tanh: d_sigmoid v_times
/* ½·x·(1 + tanh u) = x·σ(2u) */
static inline vf v_gelu_tanh(vf x) {
    const vd a = d_of(x);
    return v_times(x, d_sigmoid(1.5957691216057308 * (a + 0.044715 * (a * a * a))));
}
//! v_softplus: d_exp d_log1p v_select
static inline vf v_softplus(vf x) {
    const vd a = d_of(x);
    const vf y = d_float(d_select(a > 0.0, a, d_set1(0.0)) + d_log1p(d_exp(-d_abs(a))));
    return v_select(x == x, y, x);
}
//! v_mish: d_exp v_times
/* x · tanh(log(1 + e^x)) = x · t / (t + 2) with t = e^x·(e^x + 2) */
static inline vf v_mish(vf x) {
    const vd a = d_of(x), e = d_exp(d_select(a > 40.0, d_set1(40.0), a)), t = e * (e + 2.0);
    return v_times(x, t / (t + 2.0));
}
//! v_hard_swish: v_double v_times
static inline vf v_hard_swish(vf x) {
    vd y = d_of(x) / 6.0 + 0.5;
    y = d_select(y < 0.0, d_set1(0.0), d_select(y > 1.0, d_set1(1.0), y));
    return v_times(x, y);
}
//! v_rsqrt: d_sqrt
static inline vf v_rsqrt(vf x) { return d_float(1.0 / d_sqrt(d_of(x))); }
//! d_quarter: s_turns v_double v_hmax v_abs v_select v_set1 v_lane
/* x = r + k·π/2 with |r| <= π/4; returns k modulo 4. Lanes from 2^16 on are reduced one by one, with as many digits of
   π as it takes */
static inline vl d_quarter(vf x, vd *r) {
    const vf none = v_set1(0.0f), size = v_select(v_abs(x) < __builtin_inff(), v_abs(x), none);
    const vf far = v_select(size >= 65536.0f, size, none);
    const vd a = d_of(x), t = a * 0.63661977236758134 + 6755399441055744.0, n = t - 6755399441055744.0;
    vl k = d_bits(t) & 3;
    *r = (a - n * 1.57079632673412561417) - n * 6.07710050650619224932e-11;
    if (v_hmax(far) > 0.0f)
        for (int i = 0; i < VL; i++)
            if (V_LANE(far, i) > 0.0f) {
                int quarter;
                D_LANE(*r, i) = s_turns(V_LANE(x, i), &quarter);
                D_LANE(k, i) = quarter;
            }
    *r = *r + 0.0 * a; /* NaN where x is infinite */
    return k;
}
//! d_sin_cos: d_quarter
/* quarter k of the circle: sin is ±sin r or ±cos r */
static inline vd d_sin_cos(vl k, vd r) {
    const vd s = r * r;
    vd p = d_set1(-2.4761654420657512e-08);
    p = p * s + 2.7555357799983736e-06;
    p = p * s + -0.00019841263823205092;
    p = p * s + 0.0083333333252722797;
    p = p * s + -0.16666666666631605;
    vd q = d_set1(2.0646050611979572e-09);
    q = q * s + -2.7555538967928412e-07;
    q = q * s + 2.4801580804166204e-05;
    q = q * s + -0.0013888888877861829;
    q = q * s + 0.041666666666598844;
    const vd y = d_select((k & 1) == 0, p * s * r + r, q * s * s + (1.0 - 0.5 * s));
    return d_select((k & 2) == 0, y, -y);
}
//! v_sin: d_sin_cos v_select
static inline vf v_sin(vf x) {
    vd r;
    const vl k = d_quarter(x, &r);
    return v_select(x == 0.0f, x, d_float(d_sin_cos(k, r)));
}
//! v_cos: d_sin_cos
static inline vf v_cos(vf x) {
    vd r;
    const vl k = d_quarter(x, &r);
    return d_float(d_sin_cos(k + 1, r));
}
//! v_tan: d_sin_cos v_select
static inline vf v_tan(vf x) {
    vd r;
    const vl k = d_quarter(x, &r);
    return v_select(x == 0.0f, x, d_float(d_sin_cos(k, r) / d_sin_cos(k + 1, r)));
}
//! v_atan: v_double v_copysign
/* an odd polynomial on [0, 1]; beyond, π/2 - atan(1/x) */
static inline vf v_atan(vf x) {
    const vd a = d_abs(d_of(x)), t = d_select(a > 1.0, 1.0 / a, a), s = t * t;
    vd p = d_set1(-0.00068479950116096108);
    p = p * s + 0.0048509750094919346;
    p = p * s + -0.016111785762005084;
    p = p * s + 0.034209760172034261;
    p = p * s + -0.054279244279943253;
    p = p * s + 0.072457262901364186;
    p = p * s + -0.089802421244276218;
    p = p * s + 0.11093241989042318;
    p = p * s + -0.14283980866154083;
    p = p * s + 0.19999912060104535;
    p = p * s + -0.3333333157154057;
    p = p * s + 0.99999999994127364;
    return v_copysign(d_float(d_select(a > 1.0, 1.5707963267948966 - p * t, p * t)), x);
}
//! d_asin: v_double
/* |t| <= ½ */
static inline vd d_asin(vd t) {
    const vd s = t * t;
    vd p = d_set1(0.031567311841076896);
    p = p * s + -0.0073765545458407246;
    p = p * s + 0.017950198010039047;
    p = p * s + 0.012546365815523345;
    p = p * s + 0.017549946954492909;
    p = p * s + 0.02235484788032217;
    p = p * s + 0.030382877500390943;
    p = p * s + 0.044642828381754505;
    p = p * s + 0.075000000437703759;
    p = p * s + 0.16666666666436278;
    return p * s * t + t;
}
//! v_asin: d_asin d_sqrt v_copysign
/* beyond ½: π/2 - 2·asin √((1 - x) / 2) */
static inline vf v_asin(vf x) {
    const vd a = d_abs(d_of(x)), t = d_asin(d_select(a > 0.5, d_sqrt(0.5 * (1.0 - a)), a));
    return v_copysign(d_float(d_select(a > 0.5, 1.5707963267948966 - 2.0 * t, t)), x);
}
//! v_acos: d_asin d_sqrt
static inline vf v_acos(vf x) {
    const vd a = d_of(x), size = d_abs(a), t = d_asin(d_select(size > 0.5, d_sqrt(0.5 * (1.0 - size)), a));
    return d_float(d_select(a > 0.5, 2.0 * t, d_select(a < -0.5, 3.1415926535897931 - 2.0 * t, 1.5707963267948966 - t)));
}
//! v_sinh: d_expm1 v_copysign
static inline vf v_sinh(vf x) {
    const vd t = d_expm1(d_abs(d_of(x)));
    return v_copysign(d_float(0.5 * (t + t / (t + 1.0))), x);
}
//! v_cosh: d_exp
static inline vf v_cosh(vf x) {
    const vd e = d_exp(d_abs(d_of(x)));
    return d_float(0.5 * (e + 1.0 / e));
}
//! v_asinh: d_log1p d_sqrt v_abs v_copysign v_select
static inline vf v_asinh(vf x) {
    const vd a = d_abs(d_of(x));
    const vf y = d_float(d_log1p(a + a * a / (1.0 + d_sqrt(a * a + 1.0))));
    return v_select(v_abs(x) == __builtin_inff(), x, v_copysign(y, x));
}
//! v_acosh: d_log1p d_sqrt v_select v_set1
static inline vf v_acosh(vf x) {
    const vd t = d_of(x) - 1.0;
    const vf y = v_select(x >= 1.0f, d_float(d_log1p(t + d_sqrt(t * (t + 2.0)))), v_set1(__builtin_nanf("")));
    return v_select(x == __builtin_inff(), x, y);
}
//! v_atanh: d_log1p v_abs v_copysign v_select v_set1
static inline vf v_atanh(vf x) {
    const vd a = d_abs(d_of(x));
    const vf y = d_float(0.5 * d_log1p(2.0 * a / (1.0 - a)));
    const vf edge = v_select(v_abs(x) == 1.0f, v_set1(__builtin_inff()), v_set1(__builtin_nanf("")));
    return v_copysign(v_select(v_abs(x) < 1.0f, y, edge), x);
}
