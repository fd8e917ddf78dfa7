//! v_relu: v_max v_set1
static inline vf v_relu(vf x) { return v_max(v_set1(0.0f), x); }
//! v_copysign: v_bits v_frombits
/* the size of a, the sign of b */
static inline vf v_copysign(vf a, vf b) {
    return v_frombits((v_bits(a) & 0x7fffffff) | (v_bits(b) & (int)0x80000000));
}
//! v_sum4: v_sum
/* where all but the first four lanes hold 0 */
static inline float v_sum4(vf a) { return v_sum(a); }
//! v_hmax4: v_hmax
/* where all but the first four lanes hold -infinity */
static inline float v_hmax4(vf a) { return v_hmax(a); }
//! near_zero:
/* true where a number is so small that a product with it may be denormal, which takes a processor long */
static inline int near_zero(const float *x, int n) {
    int any = 0;
    for (int i = 0; i < n; i++) any |= (x[i] != 0.0f) & (x[i] > -1e-25f) & (x[i] < 1e-25f);
    return any;
}
//! v_exp_parts: v_round v_set1 v_max v_min
/* e^x = 2^n · (1 + q): q = e^f - 1 by a polynomial on |f| <= ln 2 / 2 */
static inline void v_exp_parts(vf x, vf *n, vf *q) {
    x = v_max(v_set1(-105.0f), v_min(v_set1(89.0f), x));
    *n = v_round(x * 1.44269504088896341f);
    vf f = x - *n * 0.693145751953125f;
    f = f - *n * 1.428606765330187e-06f;
    const vf s = f * f; /* in pairs of terms, which need not wait for each other */
    const vf high = f * 1.991710701e-4f + 1.394728380e-3f, middle = f * 8.333267061e-3f + 4.166625264e-2f;
    const vf p = (high * s + middle) * s + (f * 1.666666685e-1f + 5.000000083e-1f);
    *q = p * s + f;
}
//! v_exp: v_exp_parts v_scale
static inline vf v_exp(vf x) {
    vf n, q;
    v_exp_parts(x, &n, &q);
    return v_scale(q + 1.0f, n);
}
//! v_shrink: v_toint v_frombits v_select v_set1
/* a · 2^n, n whole, from -150 to 0; zero below 2^-126 */
static inline vf v_shrink(vf a, vf n) {
    return v_select(n < -126.0f, v_set1(0.0f), a * v_frombits((v_toint(n) + 127) << 23));
}
//! v_weight: v_max v_round v_set1 v_shrink
/* e^(x - top) for x <= top, exact beside what weighs 1: what a softmax sums; 2^f by a polynomial on |f| <= ½ */
static inline vf v_weight(vf x, vf top) {
    const vf d = v_max(v_set1(-104.0f), x - top), n = v_round(d * 1.44269504088896341f);
    const vf f = d * 1.44269504088896341f - n;
    vf p = v_set1(1.326471451e-3f);
    p = p * f + 9.671513923e-3f;
    p = p * f + 5.550733954e-2f;
    p = p * f + 2.402224243e-1f;
    p = p * f + 6.931470037e-1f;
    return v_shrink(p * f + 1.0f, n);
}
//! v_expm1: v_exp_parts v_scale v_set1 v_select
/* e^x - 1 without losing digits near zero: 2^n·q + (2^n - 1), halved so that 2^n does not overflow early */
static inline vf v_expm1(vf x) {
    vf n, q;
    v_exp_parts(x, &n, &q);
    const vf s = v_scale(v_set1(0.5f), n);
    const vf y = s * q + (s - 0.5f);
    return v_select(x == 0.0f, x, y + y);
}
//! v_log: v_bits v_frombits v_tofloat v_select v_set1
/* x = m · 2^e with m in [√½, √2): log x = e·ln 2 + log m, the latter a polynomial in m - 1 */
static inline vf v_log(vf x) {
    const vi bits = v_bits(x);
    vf e = v_tofloat((bits >> 23) - 126);
    vf m = v_frombits((bits & 0x007fffff) | 0x3f000000);
    const vi low = m < 0.707106781186547524f;
    e = v_select(low, e - 1.0f, e);
    const vf f = v_select(low, m + m - 1.0f, m - 1.0f), s = f * f;
    vf p = v_set1(6.746489954e-2f);
    p = p * f + -1.167561535e-1f;
    p = p * f + 1.188821176e-1f;
    p = p * f + -1.240559787e-1f;
    p = p * f + 1.421954637e-1f;
    p = p * f + -1.666799517e-1f;
    p = p * f + 2.000211897e-1f;
    p = p * f + -2.500000962e-1f;
    p = p * f + 3.333331260e-1f;
    vf y = p * f * s;
    y = e * -2.12194440e-4f + y;
    y = y - 0.5f * s;
    y = f + y;
    y = e * 0.693359375f + y;
    y = v_select(x == __builtin_inff(), x, y);
    y = v_select(x == 0.0f, v_set1(-__builtin_inff()), y);
    return v_select(x >= 0.0f, y, v_set1(__builtin_nanf("")));
}
//! v_log1p: v_log v_select
/* log(1 + x): what rounding 1 + x lost is put back */
static inline vf v_log1p(vf x) {
    const vf u = 1.0f + x;
    const vf y = v_log(u) - ((u - 1.0f) - x) / u;
    return v_select(u == 1.0f, x, v_select(u == __builtin_inff(), u, v_select(u == 0.0f, v_log(u), y)));
}
//! v_sigmoid: v_exp
static inline vf v_sigmoid(vf x) { return 1.0f / (1.0f + v_exp(-x)); }
//! v_tanh_parts: v_max v_min v_set1
/* tanh x = p / q, odd over even polynomials of degree 13 and 6, |x| held to where the quotient reaches 1 */
static inline void v_tanh_parts(vf x, vf *p, vf *q) {
    x = v_max(v_set1(-7.90531111f), v_min(v_set1(7.90531111f), x));
    const vf s = x * x;
    vf a = v_set1(-2.76076847742355e-16f);
    a = a * s + 2.00018790482477e-13f;
    a = a * s + -8.60467152213735e-11f;
    a = a * s + 5.12229709037114e-08f;
    a = a * s + 1.48572235717979e-05f;
    a = a * s + 6.37261928875436e-04f;
    a = a * s + 4.89352455891786e-03f;
    vf b = v_set1(1.19825839466702e-06f);
    b = b * s + 1.18534705686654e-04f;
    b = b * s + 2.26843463243900e-03f;
    b = b * s + 4.89352518554385e-03f;
    *p = a * x;
    *q = b;
}
//! v_tanh: v_tanh_parts
static inline vf v_tanh(vf x) {
    vf p, q;
    v_tanh_parts(x, &p, &q);
    return v_max(v_set1(-1.0f), v_min(v_set1(1.0f), p / q));
}
//! v_lstm: v_tanh_parts v_exp
/* h' = σ(o)·tanh c', c' = σ(f)·c + σ(i)·tanh g; with σ(x) = 1 / (1 + e^-x) and tanh = p / q each product is one division,
   and a closed gate is exactly zero */
static inline vf v_lstm(const vf *a, vf *c) {
    vf gp, gq, cp, cq;
    v_tanh_parts(a[3], &gp, &gq);
    const vf state = *c / (1.0f + v_exp(-a[2])) + gp / (gq * (1.0f + v_exp(-a[0])));
    *c = state;
    v_tanh_parts(state, &cp, &cq);
    return cp / (cq * (1.0f + v_exp(-a[1])));
}
//! v_erf: v_exp v_abs v_copysign v_select v_min v_set1
/* |x| < 1: an odd polynomial; beyond: 1 - e^-p(|x|), p fitted to -log erfc */
static inline vf v_erf(vf x) {
    const vf s = x * x, a = v_min(v_set1(4.1f), v_abs(x));
    vf p = v_set1(-9.641505987e-6f);
    p = p * s + 1.125694432e-4f;
    p = p * s + -8.482828344e-4f;
    p = p * s + 5.220945398e-3f;
    p = p * s + -2.686540003e-2f;
    p = p * s + 1.128378197e-1f;
    p = p * s + -3.761263843e-1f;
    p = p * s + 1.128379167f;
    vf q = v_set1(-4.637559844e-8f);
    q = q * a + 2.236301524e-5f;
    q = q * a + -4.455643536e-4f;
    q = q * a + 4.219372924e-3f;
    q = q * a + -2.524005692e-2f;
    q = q * a + 1.084614409e-1f;
    q = q * a + 6.331844595e-1f;
    q = q * a + 1.129594855f;
    q = q * a + -1.913141347e-4f;
    return v_select(v_abs(x) < 1.0f, p * x, v_copysign(1.0f - v_exp(-q), x));
}
//! v_elu: v_expm1 v_select v_min v_set1
static inline vf v_elu(vf x, vf alpha) { return v_select(x > 0.0f, x, alpha * v_expm1(v_min(v_set1(0.0f), x))); }
//! v_celu: v_expm1 v_max v_min v_set1
static inline vf v_celu(vf x, vf alpha) {
    return v_max(v_set1(0.0f), x) + v_min(v_set1(0.0f), alpha * v_expm1(v_min(v_set1(0.0f), x / alpha)));
}
//! v_selu: v_expm1 v_select v_min v_set1
static inline vf v_selu(vf x, vf alpha, vf gamma) {
    return gamma * v_select(x > 0.0f, x, alpha * v_expm1(v_min(v_set1(0.0f), x)));
}
//! v_leaky_relu: v_select
static inline vf v_leaky_relu(vf x, vf alpha) { return v_select(x < 0.0f, alpha * x, x); }
//! v_thresholded_relu: v_select v_set1
static inline vf v_thresholded_relu(vf x, vf alpha) { return v_select(x > alpha, x, v_set1(0.0f)); }
//! v_hard_sigmoid: v_max v_min v_set1
static inline vf v_hard_sigmoid(vf x, vf alpha, vf beta) {
    return v_max(v_set1(0.0f), v_min(v_set1(1.0f), alpha * x + beta));
}
//! v_hard_swish: v_max v_min v_set1
/* x + 3 is exact beside -3, where x / 6 + ½ would cancel */
static inline vf v_hard_swish(vf x) {
    return x * (v_max(v_set1(0.0f), v_min(v_set1(6.0f), x + 3.0f)) * 0.166666667f);
}
//! v_silu: v_exp
static inline vf v_silu(vf x) { return x / (1.0f + v_exp(-x)); }
//! v_gelu: v_abs v_min v_set1
/* relu(x) less |x|·Φ(-|x|), which is gone from 5.6 on: a polynomial in t from -1 to 1 */
static inline vf v_gelu(vf x) {
    const vf b = v_abs(x), a = v_min(v_set1(5.6f), b), t = a * 0.357142866f - 1.0f, s = t * t;
    vf p = v_set1(-2.61199614e-03f);
    p = p * s + 1.017343998e-02f;
    p = p * s + -1.350561739e-03f;
    p = p * s + -6.286305934e-02f;
    p = p * s + 1.362774819e-01f;
    p = p * s + -5.422115326e-02f;
    p = p * s + -1.307941079e-01f;
    p = p * s + -1.960851811e-02f;
    vf q = v_set1(6.322694011e-03f);
    q = q * s + -3.462610766e-02f;
    q = q * s + 7.580909133e-02f;
    q = q * s + -5.347897112e-02f;
    q = q * s + -8.278340101e-02f;
    q = q * s + 1.43932119e-01f;
    q = q * s + 6.727103144e-02f;
    q = q * s + 2.555135405e-03f;
    return (0.5f * x + 0.5f * b) - a * (1.0f - t) * (p * t + q);
}
//! v_gelu_tanh: v_abs v_min v_set1
/* the like for x·σ(1.5957691·(x + 0.044715·x³)), gone from 5.2 on */
static inline vf v_gelu_tanh(vf x) {
    const vf b = v_abs(x), a = v_min(v_set1(5.2f), b), t = a * 0.384615391f - 1.0f, s = t * t;
    vf p = v_set1(-1.76502543e-03f);
    p = p * s + 7.268062327e-03f;
    p = p * s + -3.333926667e-03f;
    p = p * s + -3.344213963e-02f;
    p = p * s + 6.75476715e-02f;
    p = p * s + 1.111499779e-02f;
    p = p * s + -1.415680647e-01f;
    p = p * s + -3.082014062e-02f;
    vf q = v_set1(2.597443061e-03f);
    q = q * s + -1.470139343e-02f;
    q = q * s + 2.956142277e-02f;
    q = q * s + -1.575001865e-03f;
    q = q * s + -9.153866023e-02f;
    q = q * s + 1.053888127e-01f;
    q = q * s + 9.078648686e-02f;
    q = q * s + 4.482262302e-03f;
    return (0.5f * x + 0.5f * b) - a * (1.0f - t) * (p * t + q);
}
//! v_softplus: v_exp v_log1p v_abs v_max v_set1
static inline vf v_softplus(vf x) { return v_max(v_set1(0.0f), x) + v_log1p(v_exp(-v_abs(x))); }
//! v_softsign: v_abs
static inline vf v_softsign(vf x) { return x / (1.0f + v_abs(x)); }
//! v_mish: v_exp_parts v_scale v_max v_min v_select v_set1
/* x · tanh(log(1 + e^x)) = x · t / (t + 2) with t = e^x·(e^x + 2); e and t are 2^32 times that, since x · e^x is a normal
   number where e^x no longer is. -infinity times zero is NaN */
static inline vf v_mish(vf x) {
    vf n, q;
    v_exp_parts(v_min(v_set1(10.0f), x), &n, &q);
    const vf e = v_scale(q + 1.0f, n + 32.0f), t = e * (e * 2.32830644e-10f + 2.0f);
    return v_select(x > 10.0f, x, v_max(v_set1(-105.0f), x) * t / (t + 8589934592.0f) + 0.0f * x);
}
//! v_reciprocal: types
static inline vf v_reciprocal(vf x) { return 1.0f / x; }
//! v_rsqrt: v_sqrt
static inline vf v_rsqrt(vf x) { return 1.0f / v_sqrt(x); }
//! v_sign: v_select v_set1
static inline vf v_sign(vf x) {
    return v_select(x > 0.0f, v_set1(1.0f), v_select(x < 0.0f, v_set1(-1.0f), x));
}
//! v_maximum: v_max v_select
/* the larger; NaN where either is NaN */
static inline vf v_maximum(vf a, vf b) { return v_select(a == a, v_max(a, b), a); }
//! v_minimum: v_min v_select
/* the smaller; NaN where either is NaN */
static inline vf v_minimum(vf a, vf b) { return v_select(a == a, v_min(a, b), a); }
//! v_isnan: v_select v_set1
static inline vf v_isnan(vf x) { return v_select(x == x, v_set1(0.0f), v_set1(1.0f)); }
//! v_isinf: v_abs v_select v_set1
static inline vf v_isinf(vf x) { return v_select(v_abs(x) == __builtin_inff(), v_set1(1.0f), v_set1(0.0f)); }
//! s_pow: types
/* x^y in double, so that the exponent keeps its digits; signs and limits as IEEE 754 pow */
static inline float s_pow(float x, float y) {
    if (y == 0.0f || x == 1.0f) return 1.0f;
    if (x != x || y != y) return x + y;
    const double a = x < 0 ? -(double)x : (double)x;
    /* floats past 2^24 are even integers */
    const float size = y < 0 ? -y : y;
    const int whole = size >= 16777216.0f || (float)(int)y == y, odd = size < 16777216.0f && whole && ((int)y & 1);
    if (size == __builtin_inff()) return a == 1.0 ? 1.0f : ((a > 1.0) == (y > 0)) ? __builtin_inff() : 0.0f;
    const int minus = (__builtin_signbit(x) != 0) && odd;
    double r;
    if (a == 0.0 || a == (double)__builtin_inff()) {
        r = ((a == 0.0) == (y > 0)) ? 0.0 : __builtin_inf();
    } else {
        if (x < 0 && !whole) return __builtin_nanf("");
        union { double d; int64_t i; } u = {a};
        int64_t e = (u.i >> 52) - 1023;
        u.i = (u.i & 0xfffffffffffffll) | 0x3ff0000000000000ll;
        if (u.d > 1.4142135623730951) { u.d *= 0.5; e++; }
        const double z = (u.d - 1.0) / (u.d + 1.0), s = z * z;
        double p = 1.0 / 15;
        p = p * s + 1.0 / 13;
        p = p * s + 1.0 / 11;
        p = p * s + 1.0 / 9;
        p = p * s + 1.0 / 7;
        p = p * s + 1.0 / 5;
        p = p * s + 1.0 / 3;
        p = p * s + 1.0;
        double t = (double)y * ((double)e + 2.8853900817779268 * z * p);
        t = t > 1000 ? 1000 : t < -1000 ? -1000 : t;
        const double n = (double)(long long)(t + (t < 0 ? -0.5 : 0.5)), f = t - n;
        double q = 1.326411248e-06;
        q = q * f + 1.531008229e-05;
        q = q * f + 1.540341144e-04;
        q = q * f + 1.333345056e-03;
        q = q * f + 9.618129229e-03;
        q = q * f + 5.550410941e-02;
        q = q * f + 2.402265070e-01;
        q = q * f + 6.931471805e-01;
        q = q * f + 1.0;
        union { int64_t i; double d; } w = {((int64_t)n + 1023) << 52};
        r = n > -1000 ? q * w.d : 0.0;
    }
    return (float)(minus ? -r : r);
}
//! v_pow: s_pow v_lane
static inline vf v_pow(vf x, vf y) {
    vf r = x;
    for (int i = 0; i < VL; i++) V_LANE(r, i) = s_pow(V_LANE(x, i), V_LANE(y, i));
    return r;
}
//! s_fmod: types
/* the remainder of a / b with the sign of a; exact while the quotient is below 2^52 */
static inline float s_fmod(float a, float b) {
    const double x = (double)a, y = (double)b, n = x / y;
    if (x - x == 0 && (y > 1e300 || y < -1e300)) return a;
    if (!(n < 4503599627370496.0 && n > -4503599627370496.0)) return __builtin_nanf("");
    double r = x - (double)(long long)n * y;
    if ((r < 0) != (x < 0) && r != 0) r += (r < 0) == (y < 0) ? -y : y;
    return __builtin_copysignf((float)r, a);
}
//! v_fmod: s_fmod v_lane
static inline vf v_fmod(vf x, vf y) {
    vf r = x;
    for (int i = 0; i < VL; i++) V_LANE(r, i) = s_fmod(V_LANE(x, i), V_LANE(y, i));
    return r;
}
//! unroll:
#define UNROLL _Pragma("GCC unroll 64") /* this loop is written out by the compiler */
//! unroll_4:
#define UNROLL_4 _Pragma("GCC unroll 4") /* four turns at a time */
