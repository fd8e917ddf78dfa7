//! v_rcp: types
/* about 1 / x; exact here, an estimate with one step of Newton's where the processor has one */
static inline vf v_rcp(vf x) { return 1.0f / x; }
//! v_exp: v_bits v_frombits v_max v_min v_set1
/* e^x = 2^(n - 1) · 2·2^f: adding 1.5·2^23 rounds to a whole n; zero below e^-87, infinity where 2^127 · 2·2^f is */
static inline vf v_exp(vf x) {
    x = v_max(v_set1(-87.6f), v_min(v_set1(89.0f), x));
    const vf t = x * 1.44269504088896341f + 12582912.0f, f = x * 1.44269504088896341f - (t - 12582912.0f);
    vf p = v_set1(1.100178593e-1f);
    p = p * f + 4.844219440e-1f;
    p = p * f + 1.386565858f;
    p = p * f + 2.0f;
    return p * v_frombits(((v_bits(t) - 0x4b400000 + 126) & 255) << 23);
}
//! v_log: v_bits v_frombits v_tofloat v_select v_set1
/* x = m · 2^e with m in [√½, √2): log x = e·ln 2 + log m, the latter a polynomial in m - 1 */
static inline vf v_log(vf x) {
    const vi above = v_bits(x) - 0x3f3504f3;
    const vf e = v_tofloat(above >> 23), f = v_frombits((above & 0x007fffff) + 0x3f3504f3) - 1.0f;
    vf p = v_set1(-2.329900465e-1f);
    p = p * f + 3.588768867e-1f;
    p = p * f + -5.019724117e-1f;
    p = p * f + 9.993634853e-1f;
    vf y = e * 0.693147180559945309f + p * f;
    y = v_select(x == __builtin_inff(), x, y);
    y = v_select(x == 0.0f, v_set1(-__builtin_inff()), y);
    return v_select(x >= 0.0f, y, v_set1(__builtin_nanf("")));
}
//! v_tanh_parts: v_max v_min v_set1
/* tanh x = p / q, odd over even polynomials of degree 5 and 4, |x| held to where the quotient passes 1 */
static inline void v_tanh_parts(vf x, vf *p, vf *q) {
    x = v_max(v_set1(-5.08f), v_min(v_set1(5.08f), x));
    const vf s = x * x;
    *p = ((6.549434837e-4f * s + 1.017231262e-1f) * s + 9.998101407e-1f) * x;
    *q = (1.263917685e-2f * s + 4.345040465e-1f) * s + 1.0f;
}
//! v_tanh: v_tanh_parts v_rcp v_max v_min v_set1
static inline vf v_tanh(vf x) {
    vf p, q;
    v_tanh_parts(x, &p, &q);
    return v_max(v_set1(-1.0f), v_min(v_set1(1.0f), p * v_rcp(q)));
}
//! v_sigmoid: v_tanh
static inline vf v_sigmoid(vf x) { return 0.5f * v_tanh(0.5f * x) + 0.5f; }
//! v_lstm: v_tanh_parts v_rcp
/* h' = σ(o)·tanh c', c' = σ(f)·c + σ(i)·tanh g; σ(x) = (q + p) / 2q with p / q = tanh(x / 2): products share a division */
static inline vf v_lstm(const vf *a, vf *c) {
    vf ip, iq, op, oq, fp, fq, gp, gq, cp, cq;
    v_tanh_parts(0.5f * a[0], &ip, &iq);
    v_tanh_parts(0.5f * a[1], &op, &oq);
    v_tanh_parts(0.5f * a[2], &fp, &fq);
    v_tanh_parts(a[3], &gp, &gq);
    const vf state = (0.5f * *c) * ((fq + fp) * v_rcp(fq)) + 0.5f * ((iq + ip) * gp * v_rcp(iq * gq));
    *c = state;
    v_tanh_parts(state, &cp, &cq);
    return 0.5f * ((oq + op) * cp * v_rcp(oq * cq));
}
//! v_erf: v_rcp v_max v_min v_set1
/* odd over even polynomials of degree 5 and 6, |x| held to where the quotient passes 1 */
static inline vf v_erf(vf x) {
    x = v_max(v_set1(-3.0f), v_min(v_set1(3.0f), x));
    const vf s = x * x;
    const vf p = ((3.062002333e-2f * s + 2.041108088e-1f) * s + 1.128171816f) * x;
    const vf q = ((3.457922833e-3f * s + 1.012711125e-1f) * s + 5.124838249e-1f) * s + 1.0f;
    return v_max(v_set1(-1.0f), v_min(v_set1(1.0f), p * v_rcp(q)));
}
//! v_silu: v_sigmoid
static inline vf v_silu(vf x) { return x * v_sigmoid(x); }
//! v_softplus: v_exp v_abs v_max v_set1
/* max(x, 0) + log(1 + e^-|x|), the latter a polynomial */
static inline vf v_softplus(vf x) {
    const vf e = v_exp(-v_abs(x));
    vf p = v_set1(-6.917884794e-2f);
    p = p * e + 2.444453702e-1f;
    p = p * e + -4.811715505e-1f;
    p = p * e + 9.988342594e-1f;
    return v_max(v_set1(0.0f), x) + p * e;
}
//! v_gelu: v_erf
static inline vf v_gelu(vf x) { return 0.5f * x * (1.0f + v_erf(x * 0.707106781186547524f)); }
//! v_gelu_tanh: v_tanh
static inline vf v_gelu_tanh(vf x) {
    return 0.5f * x * (1.0f + v_tanh(0.797884560802865356f * (x + 0.044715f * x * x * x)));
}
//! v_mish: v_exp v_min v_select v_set1
/* x · tanh(log(1 + e^x)) = x · t / (t + 2) with t = e^x·(e^x + 2) */
static inline vf v_mish(vf x) {
    const vf e = v_exp(v_min(v_set1(20.0f), x)), t = e * (e + 2.0f);
    return v_select(x > 20.0f, x, x * (t / (t + 2.0f)));
}
