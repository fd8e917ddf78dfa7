//! s_turns: types
/* x = r + k·π/2 for |x| >= 2^16: those 96 bits of 2/π that decide k modulo 4, times the 24 digits of x */
static inline double s_turns(float x, int *k) {
    static const uint32_t digits[] = {0,          0xa2f9836e, 0x4e441529, 0xfc2757d1,
                                      0xf534ddc0, 0xdb629599, 0x3c439041, 0xfe5163ab};
    uint32_t b;
    __builtin_memcpy(&b, &x, sizeof b);
    const int at = (int)(b >> 23 & 255) - 150 + 30, word = at >> 5, shift = at & 31;
    const uint64_t m = (b & 0x7fffff) | 0x800000;
    const uint64_t high = (uint64_t)digits[word] << 32 | digits[word + 1];
    const uint64_t low = (uint64_t)digits[word + 2] << 32 | digits[word + 3];
    const uint64_t first = shift ? high << shift | low >> (64 - shift) : high, rest = (low << shift) >> 32;
    const uint64_t product = m * first + ((m * rest) >> 32);
    const uint64_t n = (product + ((uint64_t)1 << 61)) >> 62;
    const double r = (double)(int64_t)(product - (n << 62)) * 3.4061215800865545e-19; /* π/2 · 2^-62 */
    *k = (int)(b >> 31 ? -n & 3 : n & 3);
    return b >> 31 ? -r : r;
}
//! v_quarter: s_turns v_round v_toint v_hmax v_abs v_select v_set1 v_lane
/* x = r + k·π/2 with |r| <= π/4; returns k modulo 4. Up to 200, k has 7 bits and the first two constants 17 each, so
   that no product with them is rounded; up to 2^20 the like in double; beyond, with as many bits of π as it takes */
static inline vi v_quarter(vf x, vf *r) {
    const vf size = v_select(x == x, v_abs(x), v_set1(0.0f)); /* a NaN must not hide a large angle */
    const float largest = v_hmax(size);
    vi k;
    if (largest <= 200.0f) {
        const vf n = v_round(x * 0.636619772367581343f);
        *r = ((x - n * 1.5707855224609375f) - n * 1.08042731881141663e-5f) - n * 6.07710062827671038e-11f;
        k = v_toint(n);
    } else {
        for (int i = 0; i < VL; i++) {
            const float b = V_LANE(x, i);
            const double a = b > -1048576.0f && b < 1048576.0f ? (double)b : 0.0, t = a * 0.63661977236758134;
            const int n = (int)(t + (t < 0 ? -0.5 : 0.5));
            V_LANE(*r, i) = (float)((a - n * 1.57079632673412561417) - n * 6.07710050650619224932e-11);
            V_LANE(k, i) = n;
        }
        if (largest >= 1048576.0f)
            for (int i = 0; i < VL; i++)
                if (V_LANE(size, i) >= 1048576.0f) {
                    int n;
                    V_LANE(*r, i) = (float)s_turns(V_LANE(x, i), &n);
                    V_LANE(k, i) = n;
                }
        *r = *r + 0.0f * x; /* NaN where x is infinite */
    }
    return k & 3;
}
//! v_sin_cos: v_quarter v_select v_max v_min v_set1
/* quarter k of the circle: sin is ±sin r or ±cos r */
static inline vf v_sin_cos(vf x, int turn) {
    vf r;
    const vi k = (v_quarter(x, &r) + turn) & 3;
    const vf s = r * r;
    vf p = v_set1(2.717567854e-6f);
    p = p * s + -1.983925699e-4f;
    p = p * s + 8.333329145e-3f;
    p = p * s + -1.666666664e-1f;
    const vf sine = p * s * r + r;
    vf q = v_set1(2.443123351e-5f);
    q = q * s + -1.388730628e-3f;
    q = q * s + 4.166664566e-2f;
    const vf cosine = q * s * s + (1.0f - 0.5f * s);
    const vf y = v_select((k & 1) == 0, sine, cosine);
    return v_max(v_set1(-1.0f), v_min(v_set1(1.0f), v_select((k & 2) == 0, y, -y)));
}
//! v_sin: v_sin_cos
static inline vf v_sin(vf x) { return v_sin_cos(x, 0); }
//! v_cos: v_sin_cos
static inline vf v_cos(vf x) { return v_sin_cos(x, 1); }
//! v_tan: v_sin v_cos
static inline vf v_tan(vf x) { return v_sin(x) / v_cos(x); }
//! v_atan: v_abs v_copysign v_select v_set1
/* an odd polynomial on [0, 1]; beyond, π/2 - atan(1/x) */
static inline vf v_atan(vf x) {
    const vf a = v_abs(x), t = v_select(a > 1.0f, 1.0f / a, a), s = t * t;
    vf p = v_set1(-1.753836929e-3f);
    p = p * s + 1.072652533e-2f;
    p = p * s + -3.080381369e-2f;
    p = p * s + 5.755131188e-2f;
    p = p * s + -8.377269027e-2f;
    p = p * s + 1.094201465e-1f;
    p = p * s + -1.426193000e-1f;
    p = p * s + 1.999826574e-1f;
    p = p * s + -3.333328363e-1f;
    const vf y = p * s * t + t;
    return v_copysign(v_select(a > 1.0f, 1.57079632679489662f - y, y), x);
}
//! v_asin: v_abs v_copysign v_select v_sqrt v_set1
/* a polynomial up to ½; beyond, π/2 - 2·asin √((1 - x) / 2) */
static inline vf v_asin(vf x) {
    const vf a = v_abs(x), half = 0.5f * (1.0f - a);
    const vi big = a > 0.5f;
    const vf t = v_select(big, v_sqrt(half), a), s = v_select(big, half, a * a);
    vf p = v_set1(4.264761080e-2f);
    p = p * s + 2.385142802e-2f;
    p = p * s + 4.555149823e-2f;
    p = p * s + 7.494424483e-2f;
    p = p * s + 1.666679039e-1f;
    const vf y = p * s * t + t;
    return v_copysign(v_select(big, 1.57079632679489662f - 2.0f * y, y), x);
}
//! v_acos: v_asin v_sqrt v_select
/* near 1 straight from the half angle, so that no digits cancel */
static inline vf v_acos(vf x) {
    const vf near = 2.0f * v_asin(v_sqrt(0.5f * (1.0f - x)));
    return v_select(x > 0.5f, near, 1.57079632679489662f - v_asin(x));
}
//! v_sinh: v_expm1 v_exp v_abs v_copysign v_select
static inline vf v_sinh(vf x) {
    const vf a = v_abs(x), e = v_expm1(a), h = v_exp(0.5f * a);
    return v_copysign(v_select(a > 44.0f, 0.5f * h * h, 0.5f * (e + e / (e + 1.0f))), x);
}
//! v_cosh: v_exp v_abs v_select
static inline vf v_cosh(vf x) {
    const vf a = v_abs(x), e = v_exp(a), h = v_exp(0.5f * a);
    return v_select(a > 44.0f, 0.5f * h * h, 0.5f * (e + 1.0f / e));
}
//! v_asinh: v_log1p v_log v_abs v_copysign v_select v_sqrt
static inline vf v_asinh(vf x) {
    const vf a = v_abs(x), y = v_log1p(a + a * a / (1.0f + v_sqrt(a * a + 1.0f)));
    return v_copysign(v_select(a > 1e9f, v_log(a) + 0.693147180559945309f, y), x);
}
//! v_acosh: v_log1p v_log v_select v_set1 v_sqrt
static inline vf v_acosh(vf x) {
    const vf t = x - 1.0f, y = v_log1p(t + v_sqrt(t * (t + 2.0f)));
    return v_select(x > 1e9f, v_log(x) + 0.693147180559945309f, v_select(x >= 1.0f, y, v_set1(__builtin_nanf(""))));
}
//! v_atanh: v_log1p v_abs v_copysign
static inline vf v_atanh(vf x) {
    const vf a = v_abs(x);
    return v_copysign(0.5f * v_log1p(2.0f * a / (1.0f - a)), x);
}
