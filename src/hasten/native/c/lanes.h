//! v_load_n: types
static inline vf v_load_n(const float *p, int n) {
    vf a = {0};
    __builtin_memcpy(&a, p, sizeof(float) * (size_t)n);
    return a;
}
//! v_store_n: types
static inline void v_store_n(float *p, vf a, int n) { __builtin_memcpy(p, &a, sizeof(float) * (size_t)n); }
//! v_select: types
static inline vf v_select(vi m, vf a, vf b) { return (vf)(((vi)a & m) | ((vi)b & ~m)); }
//! v_abs: types
static inline vf v_abs(vf a) { return (vf)((vi)a & 0x7fffffff); }
//! v_scale: types v_max v_min v_set1 v_toint
/* a · 2^n, n integral; in two halves so that results near the ends of the range neither overflow nor vanish early */
static inline vf v_scale(vf a, vf n) {
    vi k = v_toint(v_max(v_set1(-252.0f), v_min(v_set1(252.0f), n)));
    vi h = k >> 1;
    return a * (vf)((h + 127) << 23) * (vf)((k - h + 127) << 23);
}
//! v_raise: types
/* the last bits of t added to the exponent of a: a · 2^n where they are n and the result is a normal number */
static inline vf v_raise(vf a, vf t) { return (vf)((vi)a + ((vi)t << 23)); }
//! v_lanes: types
/* the first n lanes of a; the others hold fill */
static inline vf v_lanes(vf a, int n, float fill) {
    for (int i = 0; i < VL; i++) if (i >= n) a[i] = fill;
    return a;
}
//! v_gather: types
/* lane i holds p[i * stride]; zero from lane n */
static inline vf v_gather(const float *p, long stride, int n) {
    vf a = {0};
    for (int i = 0; i < n; i++) a[i] = p[i * stride];
    return a;
}
//! v_scatter: types
static inline void v_scatter(float *p, long stride, vf a, int n) {
    for (int i = 0; i < n; i++) p[i * stride] = a[i];
}
//! v_swap: types
/* neighbours change places */
static inline vf v_swap(vf a) {
    vf b;
    for (int i = 0; i < VL; i++) b[i] = a[i ^ 1];
    return b;
}
//! v_softmax2: v_swap v_weight v_abs v_max v_select v_set1
/* of every pair of lanes: 1 / (1 + e^-|d|) for the larger one, d apart; NaN where an infinity is on top */
static inline vf v_softmax2(vf x) {
    const vf other = v_swap(x), d = other - x, top = v_max(x, other), t = v_weight(-v_abs(d), v_set1(0.0f));
    return v_select(d > 0.0f, t, v_set1(1.0f)) / (1.0f + (top - top) + t);
}
//! v_bits: types
static inline vi v_bits(vf a) { return (vi)a; }
//! v_frombits: types
static inline vf v_frombits(vi a) { return (vf)a; }
//! v_tofloat: types
static inline vf v_tofloat(vi a) { return __builtin_convertvector(a, vf); }
//! v_lane: types
#define V_LANE(a, i) ((a)[i])
//! v_set1i: types
static inline vi v_set1i(int a) { return (vi){0} + a; }
//! v_store_i: types
static inline void v_store_i(int32_t *p, vi a, int n) {
    for (int i = 0; i < n; i++) p[i] = a[i];
}
//! v_store_b: types
/* the low bytes of the first n lanes */
static inline void v_store_b(uint8_t *p, vi a, int n) {
    uint8_t b __attribute__((vector_size(VL))) = __builtin_convertvector(a, __typeof__(b));
    if (n == VL) __builtin_memcpy(p, &b, VL);
    else for (int i = 0; i < n; i++) p[i] = b[i];
}
//! v_turn: v_low v_high unroll
/* a[i][j] and a[j][i] change places: halves interleaved, once for every bit of the index */
static inline void v_turn(vf *a) {
    vf b[VL];
    UNROLL for (int bit = 1; bit < VL; bit *= 2) {
        UNROLL for (int i = 0; i < VL / 2; i++) {
            b[2 * i] = v_low(a[i], a[i + VL / 2]);
            b[2 * i + 1] = v_high(a[i], a[i + VL / 2]);
        }
        UNROLL for (int i = 0; i < VL; i++) a[i] = b[i];
    }
}
