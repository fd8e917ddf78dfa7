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
//! v_shrink: v_raise v_select v_set1
/* a · 2^n for t = n + 127 + 1.5·2^23, whose last bits are those of 2^n; zero below 2^-126, whatever a is there */
static inline vf v_shrink(vf a, vf t) {
    return v_select(t < 12582913.0f, v_set1(0.0f), a * v_raise(v_set1(0.0f), t));
}
//! v_weight: v_set1 v_shrink
/* e^(x - top) for x <= top, exact beside what weighs 1: what a softmax sums; e^f by a polynomial on |f| <= ln 2 / 2 */
static inline vf v_weight(vf x, vf top) {
    const vf d = x - top, t = d * 1.44269504088896341f + 12583039.0f, n = t - 12583039.0f;
    const vf f = (d - n * 0.693145751953125f) - n * 1.428606765330187e-06f;
    vf p = v_set1(0.008290269214f);
    p = p * f + 0.041898117f;
    p = p * f + 0.1666763799f;
    p = p * f + 0.4999914814f;
    p = p * f + 0.9999997064f;
    return v_shrink(p * f + 1.0f, t);
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
//! v_tanh_divisor: types
/* an even polynomial of degree 6, in pairs of terms: fewer roundings where those of products count too */
static inline vf v_tanh_divisor(vf s) {
    return (s * 3.06754149034757e-04f + 0.0303448846557834f) * (s * s) + (s * 0.580719265904384f + 1.25274244749923f);
}
//! v_tanh_parts: v_tanh_divisor v_max v_min v_set1
/* tanh x = p / q, odd over even polynomials of degree 13 and 6, |x| held to where the quotient reaches 1; scaled so that
   p is a normal number where x is */
static inline void v_tanh_parts(vf x, vf *p, vf *q) {
    x = v_max(v_set1(-7.90531111f), v_min(v_set1(7.90531111f), x));
    const vf s = x * x;
    vf a = v_set1(-7.06756730220429e-14f);
    a = a * s + 5.12048103635141e-11f;
    a = a * s + -2.20279590966716e-08f;
    a = a * s + 1.31130805513501e-05f;
    a = a * s + 0.00380344923438026f;
    a = a * s + 0.163139053792112f;
    a = a * s + 1.25274228708297f;
    *p = a * x;
    *q = v_tanh_divisor(s);
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
//! v_silu: v_abs v_min v_set1 v_raise
/* relu(x) less |x|·σ(-|x|); e^-|x| = 2^n·e^-f, and 2^32 times that so that it is a normal number as long as the result
   is */
static inline vf v_silu(vf x) {
    const vf b = v_abs(x), a = v_min(v_set1(109.0f), b);
    const vf t = a * -1.44269504088896341f + 12582912.0f, n = t - 12582912.0f;
    const vf f = (a + n * 0.693145751953125f) + n * 1.428606765330187e-06f;
    vf e = v_set1(5946485.491f);
    e = e * f + -35967309.24f;
    e = e * f + 178962580.4f;
    e = e * f + -715817685.8f;
    e = e * f + 2147483405.0f;
    e = e * f + -4294967437.0f;
    e = v_raise(e * f + 4294967296.0f, t);
    return (0.5f * x + 0.5f * b) - a * e / (e + 4294967296.0f);
}
//! v_gelu_rest: v_bits v_frombits
/* a² + n·2·ln 2 with n = -a² / (2·ln 2), whole: what the sum leaves of a². Both in two parts, so that no product of the
   first ones is rounded */
static inline vf v_gelu_rest(vf a, vf n) {
    const vf high = v_frombits(v_bits(a) & (int)0xfffff000);
    return (high * high + n * 1.38629150390625f) + ((a - high) * (a + high) + n * 2.86102295e-06f);
}
//! v_gelu: v_gelu_rest v_abs v_min v_set1 v_raise
/* relu(x) less a·Φ(-a), a = |x|: e^(-a²/2) / √2π = 2^n·e^(-f/2) / √2π times h / (h + g), polynomials, so that the tail
   keeps its digits. e and g are 2^32 times what they are, since e must be a normal number until the result is zero */
static inline vf v_gelu(vf x) {
    const vf b = v_abs(x), a = v_min(v_set1(14.5f), b);
    const vf t = a * a * -0.721347520444481704f + 12582912.0f, f = v_gelu_rest(a, t - 12582912.0f);
    vf e = v_set1(-443902.166f);
    e = e * f + 4486866.35f;
    e = e * f + -35698723.0f;
    e = e * f + 214176207.0f;
    e = e * f + -856719171.0f;
    e = v_raise(e * f + 1.71343885e+09f, t);
    vf h = v_set1(0.00605805172f);
    h = h * a + 0.0569175668f;
    h = h * a + 0.247315794f;
    h = h * a + 0.572992384f;
    h = (h * a + 0.626658976f) * a;
    vf g = v_set1(25917708.0f);
    g = g * a + 246611024.0f;
    g = g * a + 985541183.0f;
    g = g * a + 2.14748365e+09f;
    return (0.5f * x + 0.5f * b) - e * h / (h * 4294967296.0f + g);
}
//! v_gelu_power: v_bits v_frombits
/* 2u / ln 2 = a·(c + d·a²) = -n + f, whole n: returns f, t holds n in its last bits. Up to 126, so that a, d and the sum
   are split for a product that is not rounded, 8 bits times 16, and a rest */
static inline vf v_gelu_power(vf a, vf *t) {
    const vf high = v_frombits(v_bits(a * 1.00292969f) & (int)0xffff0000), s = high * high;
    const vf v = s * 0.1025390625f + 2.3022079467773438f, low = v_frombits(v_bits(v) & (int)0xffffff00);
    const vf lost = (v - low) + (s * 0.00040417708f + 2.513669815e-07f);
    const vf rest = high * lost + (a - high) * ((a * (a + high) + s) * 0.10294324f + 2.3022082f);
    *t = 12582912.0f - (high * low + rest);
    return (high * low + (*t - 12582912.0f)) + rest;
}
//! v_gelu_tanh: v_gelu_power v_abs v_min v_set1 v_raise
/* relu(x) less |x|·σ(-2u), u = 0.79788456·(|x| + 0.044715·|x|³); e^-2u = 2^n·2^-f, and 2^32 times that so that it is a
   normal number as long as the result is */
static inline vf v_gelu_tanh(vf x) {
    const vf b = v_abs(x), a = v_min(v_set1(10.78f), b);
    vf t;
    const vf f = v_gelu_power(a, &t);
    vf e = v_set1(-5697125.682f);
    e = e * f + 41539016.58f;
    e = e * f + -238402224.6f;
    e = e * f + 1031747413.0f;
    e = e * f + -2977043598.0f;
    e = v_raise(e * f + 4294967296.0f, t);
    return (0.5f * x + 0.5f * b) - a * e / (e + 4294967296.0f);
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
