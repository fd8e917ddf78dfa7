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

static inline vf v_round(vf a) { return (vf)_mm512_roundscale_ps((__m512)a, 8); }

static inline vf v_set1(float a) { return (vf)_mm512_set1_ps(a); }

/* the larger; b where either is NaN */
static inline vf v_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }

/* the smaller; b where either is NaN */
static inline vf v_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }

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

static inline float v_hmax(vf a) { return _mm512_reduce_max_ps((__m512)a); }

/* the first n lanes of a; the others hold fill */
static inline vf v_lanes(vf a, int n, float fill) { return (vf)_mm512_mask_blend_ps((__mmask16)((1u << n) - 1), _mm512_set1_ps(fill), (__m512)a); }

static inline vf v_load(const float *p) { return (vf)_mm512_loadu_ps(p); }

static inline vf v_load_n(const float *p, int n) { return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }

static inline vf v_relu(vf x) { return v_max(v_set1(0.0f), x); }

static inline void v_store_n(float *p, vf a, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)a); }

static inline float v_sum(vf a) { return _mm512_reduce_add_ps((__m512)a); }

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
        v_store_n(y + p, v1, 10);
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
        v_store_n(y + p, a[0], 2);
    }
}

/* 1 x 2 */
static void softmax_3(const float *x, float *y) {
    for (int r = 0; r < 1; r++, x += 2, y += 2) {
        vf top = v_set1(-__builtin_inff()), sum = v_set1(0.0f);
        top = v_max(top, v_lanes(v_load_n(x + 0, 2), 2, -__builtin_inff()));
        top = v_set1(v_hmax(top));
        const vf last = v_lanes(v_exp(v_load_n(x + 0, 2) - top), 2, 0.0f);
        sum += last;
        const vf scale = v_set1(1.0f / v_sum(sum));
        v_store_n(y + 0, last * scale, 2);
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
    float *t1 = (float *)(arena + 0); /* 10 */
    float *t2 = (float *)(arena + 128); /* 2 */
    float *out0 = outputs[0];
    dense_1(in0, (const float *)(weights + 0), t1);
    dense_2(t1, (const float *)(weights + 1408), t2);
    softmax_3(t2, out0);
    _mm_setcsr(state);
}
