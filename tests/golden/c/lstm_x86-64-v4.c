/* lstm: compiled by hasten for x86-64-v4.
   input 0: float32 5x1x3
   output 0: float32 5x1x1x20
   output 1: float32 1x1x20
   weights: 12416 bytes; arena: 3200 bytes. */
#include <immintrin.h>
#include <stdint.h>
#define VL 16 /* float32 values per vector (AVX-512) */
#define PAUSE() _mm_pause()
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));

#define UNROLL _Pragma("GCC unroll 64") /* this loop is written out by the compiler */

static inline vf v_load(const float *p) { return (vf)_mm512_loadu_ps(p); }

static inline vf v_set1(float a) { return (vf)_mm512_set1_ps(a); }

/* an even polynomial of degree 6 */
static inline vf v_tanh_divisor(vf s) {
    vf b = v_set1(3.06754149034757e-04f);
    b = b * s + 0.0303448846557834f;
    b = b * s + 0.580719265904384f;
    return b * s + 1.25274244749923f;
}

/* the larger; b where either is NaN */
static inline vf v_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }

/* the smaller; b where either is NaN */
static inline vf v_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }

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

static inline vf v_round(vf a) { return (vf)_mm512_roundscale_ps((__m512)a, 8); }

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

/* a · 2^n, n integral */
static inline vf v_scale(vf a, vf n) { return (vf)_mm512_scalef_ps((__m512)a, (__m512)n); }

static inline vf v_exp(vf x) {
    vf n, q;
    v_exp_parts(x, &n, &q);
    return v_scale(q + 1.0f, n);
}

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

static inline void v_store(float *p, vf a) { _mm512_storeu_ps(p, (__m512)a); }

/* 5 rows of 3 -> 128 */
static void dense_1(const float *restrict x, const float *restrict w, float *restrict y) {
    for (int i = 0; i < 2; i++) {
        const int p = 0 + i * 64;
        const float *restrict b = w + (long)i * 256;
        for (int t = 0; t < 1; t++) {
            const int m = t * 5;
            vf a[20];
            UNROLL for (int i = 0; i < 5; i++)
                for (int j = 0; j < 4; j++) a[i * 4 + j] = v_load(b + j * VL);
            for (int k = 0; k < 3; k++) {
                vf wk[4];
                for (int j = 0; j < 4; j++) wk[j] = v_load(b + (k + 1) * 64 + j * VL);
                UNROLL for (int i = 0; i < 5; i++) {
                    const vf xk = v_set1(x[(m + i) * 3 + k]);
                    for (int j = 0; j < 4; j++) a[i * 4 + j] += xk * wk[j];
                }
            }
            for (int i = 0; i < 5; i++) {
                for (int j = 0; j < 4; j++) {
                    v_store(y + (m + i) * 128 + p + j * VL, a[i * 4 + j]);
                }
            }
        }
    }
}

/* one time step: gates g, state h (and c) -> state n (and c) */
static inline __attribute__((always_inline)) void lstm_step_2(const float *restrict g, const float *restrict w, const float *restrict h, float *restrict n, float *restrict c, const int depth, const int first, const int last, const int back) {
    for (int i = first; i < last; i++) {
        const int u = (back ? first + last - 1 - i : i) * VL;
        const float *x = g + u * 4;
        const float *r = w + (long)u * 80;
        vf a[4];
        for (int j = 0; j < 4; j++) a[j] = v_load(x + j * VL);
        const float *hk = back ? h + depth - 1 : h;
        const float *rk = back ? r + (depth - 1) * 4 * VL : r;
        const long hop = back ? -1 : 1, skip = hop * 4 * VL;
        vf o[4];
        for (int j = 0; j < 4; j++) o[j] = v_set1(0.0f);
        for (int k = 0; k < depth / 2; k++, hk += 2 * hop, rk += 2 * skip) {
            const vf v = v_set1(hk[0]), u = v_set1(hk[hop]);
            for (int j = 0; j < 4; j++) a[j] += v * v_load(rk + j * VL);
            for (int j = 0; j < 4; j++) o[j] += u * v_load(rk + skip + j * VL);
        }
        if (depth & 1) for (int j = 0; j < 4; j++) a[j] += v_set1(*hk) * v_load(rk + j * VL);
        for (int j = 0; j < 4; j++) a[j] += o[j];
        vf state = v_load(c + u);
        v_store(n + u, v_lstm(a, &state));
        v_store(c + u, state);
    }
}

/* 5 steps x 1 rows, 20 units */
static void lstm_2(const float *g, const float *w, float *state, float *y, float *last_h) {
    for (int b = 0; b < 1; b++) {
        float *h = state, *n = state + 32, *c = state + 64;
        for (int i = 0; i < 32; i++) h[i] = 0.0f;
        for (int i = 0; i < 32; i++) c[i] = 0.0f;
        { /* the first state is zero: nothing to multiply */
            const int t = 0;
            lstm_step_2(g + ((long)t * 1 + b) * 128, w, h, n, c, 0, 0, 2, 0);
            __builtin_memcpy(y + (long)t * 20 + b * 20, n, 80);
            { float *old = h; h = n; n = old; }
        }
        for (int s = 1; s < 5; s++) {
            const int t = s;
            lstm_step_2(g + ((long)t * 1 + b) * 128, w, h, n, c, 20, 0, 2, s & 1);
            __builtin_memcpy(y + (long)t * 20 + b * 20, n, 80);
            { float *old = h; h = n; n = old; }
        }
        __builtin_memcpy(last_h + b * 20, h, 80);
    }
}

#define API __attribute__((visibility("default")))
extern const unsigned char hasten_weight_data[];
API const unsigned char *hasten_weights(void);
const unsigned char *hasten_weights(void) { return hasten_weight_data; }
API void hasten_run(const unsigned char *weights, unsigned char *arena, const void *const *inputs, void *const *outputs);
void hasten_run(const unsigned char *weights, unsigned char *arena, const void *const *inputs, void *const *outputs) {
    const unsigned state = _mm_getcsr(); /* denormals count as zero within the call */
    _mm_setcsr(state | 0x8040);
    const float *in0 = inputs[0];
    float *t1 = (float *)(arena + 0); /* 640 */
    float *t2 = (float *)(arena + 2624); /* 128 */
    float *out0 = outputs[0];
    float *out1 = outputs[1];
    dense_1(in0, (const float *)(weights + 0), t1);
    lstm_2(t1, (const float *)(weights + 2112), t2, out0, out1);
    _mm_setcsr(state);
}
