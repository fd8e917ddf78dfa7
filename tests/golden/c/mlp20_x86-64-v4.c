/* mlp20: compiled by hasten for x86-64-v4.
   input 0: float32 1x20
   output 0: float32 1x2
   weights: 2176 bytes; arena: 256 bytes. */
#include <immintrin.h>
#include <stdint.h>
#define VL 16 /* float32 values per vector (AVX-512) */
#define PAUSE() _mm_pause()
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));

/* true where a number is so small that a product with it may be denormal, which takes a processor long */
static inline int near_zero(const float *x, int n) {
    int any = 0;
    for (int i = 0; i < n; i++) any |= (x[i] != 0.0f) & (x[i] > -1e-25f) & (x[i] < 1e-25f);
    return any;
}

static inline vf v_load(const float *p) { return (vf)_mm512_loadu_ps(p); }

static inline vf v_load_n(const float *p, int n) { return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }

/* the larger; b where either is NaN */
static inline vf v_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }

static inline vf v_set1(float a) { return (vf)_mm512_set1_ps(a); }

static inline vf v_relu(vf x) { return v_max(v_set1(0.0f), x); }

/* neighbours change places */
static inline vf v_swap(vf a) {
    vf b;
    for (int i = 0; i < VL; i++) b[i] = a[i ^ 1];
    return b;
}

static inline vf v_shrink(vf a, vf t) {
    const __mmask16 seen = _mm512_cmp_ps_mask((__m512)t, _mm512_set1_ps(12582913.0f), _CMP_NLT_UQ);
    return (vf)_mm512_maskz_scalef_ps(seen, (__m512)a, (__m512)(t - 12583039.0f));
}

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

static inline vf v_abs(vf a) { return (vf)((vi)a & 0x7fffffff); }

static inline vf v_select(vi m, vf a, vf b) { return (vf)(((vi)a & m) | ((vi)b & ~m)); }

/* of every pair of lanes: 1 / (1 + e^-|d|) for the larger one, d apart; NaN where an infinity is on top */
static inline vf v_softmax2(vf x) {
    const vf other = v_swap(x), d = other - x, top = v_max(x, other), t = v_weight(-v_abs(d), v_set1(0.0f));
    return v_select(d > 0.0f, t, v_set1(1.0f)) / (1.0f + (top - top) + t);
}

static inline void v_store(float *p, vf a) { _mm512_storeu_ps(p, (__m512)a); }

/* half and quarter vectors without a mask: what was stored by mask waits for the cache before it is read again */
static inline void v_store_n(float *p, vf a, int n) {
    if (__builtin_constant_p(n) && n == 8) _mm256_storeu_ps(p, _mm512_castps512_ps256((__m512)a));
    else if (__builtin_constant_p(n) && n == 4) _mm_storeu_ps(p, _mm512_castps512_ps128((__m512)a));
    else _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)a);
}

/* 20 -> 10, relu */
static void dense_1(const float *restrict x, const float *restrict w, float *restrict y) {
    { /* columns 0 to 9 */
        const int p = 0;
        const float *restrict b = w;
        vf a[8];
        a[0] = v_load(b); /* the bias */
        for (int j = 1; j < 8; j++) a[j] = v_set1(0.0f);
        for (int k = 0; k < 16; k += 8)
            for (int s = 0; s < 8; s++)
                a[s] += v_set1(x[k + s]) * v_load(b + (k + s + 1) * 16);
        for (int s = 0; s < 4; s++)
            a[s] += v_set1(x[16 + s]) * v_load(b + (17 + s) * 16);
        for (int j = 0; j < 4; j++) a[j] += a[4 + j];
        for (int j = 0; j < 2; j++) a[j] += a[2 + j];
        for (int j = 0; j < 1; j++) a[j] += a[1 + j];
        const vf v1 = v_relu(a[0]);
        v_store(y + p, v1);
    }
}

/* 10 -> 2 */
static void dense_2(const float *restrict x, const float *restrict w, float *restrict y) {
    { /* columns 0 to 1 */
        const int p = 0;
        const float *restrict b = w;
        vf a[5];
        a[0] = v_load(b); /* the bias */
        for (int j = 1; j < 5; j++) a[j] = v_set1(0.0f);
        for (int k = 0; k < 10; k += 5)
            for (int s = 0; s < 5; s++)
                a[s] += v_set1(x[k + s]) * v_load(b + (k + s + 1) * 16);
        for (int j = 0; j < 2; j++) a[j] += a[3 + j];
        for (int j = 0; j < 1; j++) a[j] += a[2 + j];
        for (int j = 0; j < 1; j++) a[j] += a[1 + j];
        v_store(y + p, a[0]);
    }
}

/* 1 x 2 */
static void softmax_3(const float *x, float *y) {
    v_store_n(y, v_softmax2(v_load_n(x, 2)), 2);
}

#define API __attribute__((visibility("default")))
extern const unsigned char hasten_weight_data[];
API const unsigned char *hasten_weights(void);
const unsigned char *hasten_weights(void) { return hasten_weight_data; }
API void hasten_run(const unsigned char *weights, unsigned char *arena, const void *const *inputs, void *const *outputs);
void hasten_run(const unsigned char *weights, unsigned char *arena, const void *const *inputs, void *const *outputs) {
    const int small = near_zero(inputs[0], 20); /* what follows may be denormal */
    const unsigned state = small ? _mm_getcsr() : 0; /* then that counts as zero within the call */
    if (small) _mm_setcsr(state | 0x8040);
    const float *in0 = inputs[0];
    float *t1 = (float *)(arena + 0); /* 10 */
    float *t2 = (float *)(arena + 128); /* 2 */
    float *out0 = outputs[0];
    dense_1(in0, (const float *)(weights + 0), t1);
    dense_2(t1, (const float *)(weights + 1408), t2);
    softmax_3(t2, out0);
    if (small) _mm_setcsr(state);
}
