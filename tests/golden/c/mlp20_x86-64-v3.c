/* mlp20: compiled by hasten for x86-64-v3.
   input 0: float32 1x20
   output 0: float32 1x2
   weights: 1824 bytes; arena: 256 bytes. */
#include <immintrin.h>
#include <stdint.h>
#define VL 8 /* float32 values per vector (AVX2) */
#define PAUSE() _mm_pause()
typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));

/* true where a number is so small that a product with it may be denormal, which takes a processor long */
static inline int near_zero(const float *x, int n) {
    int any = 0;
    for (int i = 0; i < n; i++) any |= (x[i] != 0.0f) & (x[i] > -1e-25f) & (x[i] < 1e-25f);
    return any;
}

static inline vf v_load(const float *p) { return (vf)_mm256_loadu_ps(p); }

/* a mask of the first n lanes */
static inline __m256i v_first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vf v_load_n(const float *p, int n) { return (vf)_mm256_maskload_ps(p, v_first(n)); }

/* the larger; b where either is NaN */
static inline vf v_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }

static inline vf v_set1(float a) { return (vf)_mm256_set1_ps(a); }

static inline vf v_relu(vf x) { return v_max(v_set1(0.0f), x); }

/* neighbours change places */
static inline vf v_swap(vf a) {
    vf b;
    for (int i = 0; i < VL; i++) b[i] = a[i ^ 1];
    return b;
}

/* the last bits of t added to the exponent of a: a · 2^n where they are n and the result is a normal number */
static inline vf v_raise(vf a, vf t) { return (vf)((vi)a + ((vi)t << 23)); }

static inline vf v_select(vi m, vf a, vf b) { return (vf)(((vi)a & m) | ((vi)b & ~m)); }

/* a · 2^n for t = n + 127 + 1.5·2^23, whose last bits are those of 2^n; zero below 2^-126, whatever a is there */
static inline vf v_shrink(vf a, vf t) {
    return v_select(t < 12582913.0f, v_set1(0.0f), a * v_raise(v_set1(0.0f), t));
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

/* of every pair of lanes: 1 / (1 + e^-|d|) for the larger one, d apart; NaN where an infinity is on top */
static inline vf v_softmax2(vf x) {
    const vf other = v_swap(x), d = other - x, top = v_max(x, other), t = v_weight(-v_abs(d), v_set1(0.0f));
    return v_select(d > 0.0f, t, v_set1(1.0f)) / (1.0f + (top - top) + t);
}

static inline void v_store(float *p, vf a) { _mm256_storeu_ps(p, (__m256)a); }

/* 1, 2 or 4 lanes without a mask: what was stored by mask waits for the cache before it is read again */
static inline void v_store_n(float *p, vf a, int n) {
    if (__builtin_constant_p(n) && (n & (n - 1)) == 0) __builtin_memcpy(p, &a, sizeof(float) * (unsigned)n);
    else _mm256_maskstore_ps(p, v_first(n), (__m256)a);
}

/* 20 -> 10, relu */
static void dense_1(const float *restrict x, const float *restrict w, float *restrict y) {
    { /* columns 0 to 9 */
        const int p = 0;
        const float *restrict b = w;
        vf a[8];
        for (int j = 0; j < 2; j++) a[j] = v_load(b + j * VL); /* the bias */
        for (int j = 2; j < 8; j++) a[j] = v_set1(0.0f);
        for (int k = 0; k < 20; k += 4)
            for (int s = 0; s < 4; s++)
                for (int j = 0; j < 2; j++) a[s * 2 + j] += v_set1(x[k + s]) * v_load(b + (k + s + 1) * 16 + j * VL);
        for (int j = 0; j < 4; j++) a[j] += a[4 + j];
        for (int j = 0; j < 2; j++) a[j] += a[2 + j];
        const vf v1 = v_relu(a[0]);
        v_store(y + p, v1);
        const vf v2 = v_relu(a[1]);
        v_store(y + p + 8, v2);
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
                a[s] += v_set1(x[k + s]) * v_load(b + (k + s + 1) * 8);
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
