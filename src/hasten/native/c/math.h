//! v_relu: v_max v_set1
static inline vf v_relu(vf x) { return v_max(v_set1(0.0f), x); }
//! v_exp: v_round v_scale v_set1
/* e^x: x = n·ln 2 + f, a degree-7 polynomial for e^f, then the exponent */
static inline vf v_exp(vf x) {
    vf n = v_round(x * 1.44269504088896341f);
    vf f = x - n * 0.693145751953125f;
    f = f - n * 1.428606765330187e-06f;
    vf p = v_set1(1.9875691500e-4f);
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    return v_scale(p * (f * f) + (f + 1.0f), n);
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
//! v_lstm: v_tanh_parts
/* h' = σ(o)·tanh c', c' = σ(f)·c + σ(i)·tanh g; σ(x) = (q + p) / 2q with p / q = tanh(x / 2): products share a division */
static inline vf v_lstm(const vf *a, vf *c) {
    vf ip, iq, op, oq, fp, fq, gp, gq, cp, cq;
    v_tanh_parts(0.5f * a[0], &ip, &iq);
    v_tanh_parts(0.5f * a[1], &op, &oq);
    v_tanh_parts(0.5f * a[2], &fp, &fq);
    v_tanh_parts(a[3], &gp, &gq);
    const vf state = ((fq + fp) * *c) / (fq + fq) + ((iq + ip) * gp) / ((iq + iq) * gq);
    *c = state;
    v_tanh_parts(state, &cp, &cq);
    return ((oq + op) * cp) / ((oq + oq) * cq);
}
//! v_elu: v_exp v_select v_min v_set1
static inline vf v_elu(vf x, vf alpha) { return v_select(x > 0.0f, x, alpha * (v_exp(v_min(v_set1(0.0f), x)) - 1.0f)); }
//! unroll:
#define UNROLL _Pragma("GCC unroll 64") /* this loop is written out by the compiler */
