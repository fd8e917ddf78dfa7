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
//! v_tanh: v_exp
static inline vf v_tanh(vf x) { return 2.0f / (1.0f + v_exp(-2.0f * x)) - 1.0f; }
//! v_elu: v_exp v_select v_min v_set1
static inline vf v_elu(vf x, vf alpha) { return v_select(x > 0.0f, x, alpha * (v_exp(v_min(v_set1(0.0f), x)) - 1.0f)); }
