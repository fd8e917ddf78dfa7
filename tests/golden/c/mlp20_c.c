/* mlp20: compiled by hasten for c.
   input 0: float32 1x20
   output 0: float32 1x2
   weights: 1112 bytes; arena: 256 bytes. */
#include <math.h>
#include <stdint.h>
#include <string.h>
#define VL 1 /* plain C: one value at a time */
#define PAUSE() ((void)0)
typedef float vf;
typedef int32_t vi;

static inline float v_hmax(vf a) { return a; }

/* where all but the first four lanes hold -infinity */
static inline float v_hmax4(vf a) { return v_hmax(a); }

static inline vf v_load(const float *p) { return *p; }

/* the larger; b where either is NaN */
static inline vf v_max(vf a, vf b) { return a > b ? a : b; }

static inline vf v_set1(float a) { return a; }

static inline vf v_relu(vf x) { return v_max(v_set1(0.0f), x); }

static inline void v_store(float *p, vf a) { *p = a; }

static inline float v_sum(vf a) { return a; }

/* where all but the first four lanes hold 0 */
static inline float v_sum4(vf a) { return v_sum(a); }

/* the last bits of t added to the exponent of a: a · 2^n where they are n and the result is a normal number */
static inline vf v_raise(vf a, vf t) {
    uint32_t b, n;
    memcpy(&b, &a, sizeof b);
    memcpy(&n, &t, sizeof n);
    b += n << 23;
    memcpy(&a, &b, sizeof a);
    return a;
}

static inline vf v_select(vi m, vf a, vf b) { return m ? a : b; }

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

/* 20 -> 10, relu */
static void dense_1(const float *restrict x, const float *restrict w, float *restrict y) {
    for (int i = 0; i < 2; i++) {
        const int p = 0 + i * 5;
        const float *restrict b = w + (long)i * 105;
        vf a[5];
        for (int j = 0; j < 5; j++) a[j] = v_load(b + j * VL); /* the bias */
        for (int k = 0; k < 20; k++)
            for (int j = 0; j < 5; j++) a[j] += v_set1(x[k]) * v_load(b + (k + 1) * 5 + j * VL);
        for (int j = 0; j < 5; j++) {
            const vf v1 = v_relu(a[j]);
            v_store(y + p + j * VL, v1);
        }
    }
}

/* 10 -> 2 */
static void dense_2(const float *restrict x, const float *restrict w, float *restrict y) {
    { /* columns 0 to 1 */
        const int p = 0;
        const float *restrict b = w;
        vf a[8];
        for (int j = 0; j < 2; j++) a[j] = v_load(b + j * VL); /* the bias */
        for (int j = 2; j < 8; j++) a[j] = v_set1(0.0f);
        for (int k = 0; k < 8; k += 4)
            for (int s = 0; s < 4; s++)
                for (int j = 0; j < 2; j++) a[s * 2 + j] += v_set1(x[k + s]) * v_load(b + (k + s + 1) * 2 + j * VL);
        for (int s = 0; s < 2; s++)
            for (int j = 0; j < 2; j++) a[s * 2 + j] += v_set1(x[8 + s]) * v_load(b + (9 + s) * 2 + j * VL);
        for (int j = 0; j < 4; j++) a[j] += a[4 + j];
        for (int j = 0; j < 2; j++) a[j] += a[2 + j];
        for (int j = 0; j < 2; j++) {
            v_store(y + p + j * VL, a[j]);
        }
    }
}

/* 1 x 2 */
static void softmax_3(const float *x, float *y) {
    for (int r = 0; r < 1; r++, x += 2, y += 2) {
        vf top = v_set1(-__builtin_inff()), sum = v_set1(0.0f);
        for (int i = 0; i < 2; i += VL) top = v_max(top, v_load(x + i));
        top = v_set1(v_hmax4(top));
        for (int i = 0; i < 2; i += VL) {
            const vf e = v_weight(v_load(x + i), top);
            sum += e;
            v_store(y + i, e);
        }
        const vf scale = v_set1(1.0f / v_sum4(sum));
        for (int i = 0; i < 2; i += VL) v_store(y + i, v_load(y + i) * scale);
    }
}

#define API __attribute__((visibility("default")))
extern const unsigned char hasten_weight_data[];
API const unsigned char *hasten_weights(void);
const unsigned char *hasten_weights(void) { return hasten_weight_data; }
API void hasten_run(const unsigned char *weights, unsigned char *arena, const void *const *inputs, void *const *outputs);
void hasten_run(const unsigned char *weights, unsigned char *arena, const void *const *inputs, void *const *outputs) {
    const float *in0 = inputs[0];
    float *t1 = (float *)(arena + 0); /* 10 */
    float *t2 = (float *)(arena + 128); /* 2 */
    float *out0 = outputs[0];
    dense_1(in0, (const float *)(weights + 0), t1);
    dense_2(t1, (const float *)(weights + 960), t2);
    softmax_3(t2, out0);
}
