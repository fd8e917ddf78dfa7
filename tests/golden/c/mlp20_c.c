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

static inline vf v_round(vf a) { return rintf(a); }

static inline vi v_toint(vf a) { return (vi)rintf(a); }

static inline vf v_frombits(vi a) {
    vf b;
    memcpy(&b, &a, sizeof b);
    return b;
}

static inline vf v_select(vi m, vf a, vf b) { return m ? a : b; }

/* a · 2^n, n whole, from -150 to 0; zero below 2^-126 */
static inline vf v_shrink(vf a, vf n) {
    return v_select(n < -126.0f, v_set1(0.0f), a * v_frombits((v_toint(n) + 127) << 23));
}

/* e^(x - top) for x <= top, exact beside what weighs 1: what a softmax sums; 2^f by a polynomial on |f| <= ½ */
static inline vf v_weight(vf x, vf top) {
    const vf d = v_max(v_set1(-104.0f), x - top), n = v_round(d * 1.44269504088896341f);
    const vf f = d * 1.44269504088896341f - n;
    vf p = v_set1(1.326471451e-3f);
    p = p * f + 9.671513923e-3f;
    p = p * f + 5.550733954e-2f;
    p = p * f + 2.402224243e-1f;
    p = p * f + 6.931470037e-1f;
    return v_shrink(p * f + 1.0f, n);
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
