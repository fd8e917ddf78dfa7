/* conv8: compiled by hasten for zen4.
   input 0: float32 1x12x16x3
   output 0: float32 1x3x4x8
   weights: 960 bytes; arena: 1600 bytes. */
#include <immintrin.h>
#include <stdint.h>
#define VL 16 /* float32 values per vector (AVX-512) */
#define PAUSE() _mm_pause()
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));

#define UNROLL _Pragma("GCC unroll 64") /* this loop is written out by the compiler */

#define VL8 8 /* float32 values per vector of half the width */
typedef float vf8 __attribute__((vector_size(32)));
typedef int32_t vi8 __attribute__((vector_size(32)));

static inline vf8 v8_load(const float *p) { return (vf8)_mm256_loadu_ps(p); }

/* the larger; b where either is NaN */
static inline vf8 v8_max(vf8 a, vf8 b) { return (vf8)_mm256_max_ps((__m256)a, (__m256)b); }

static inline vf8 v8_set1(float a) { return (vf8)_mm256_set1_ps(a); }

static inline vf8 v8_relu(vf8 x) { return v8_max(v8_set1(0.0f), x); }

static inline void v8_store(float *p, vf8 a) { _mm256_storeu_ps(p, (__m256)a); }

/* 3x3 stride 2, 3 -> 8, 6x8, relu */
static void conv_1(const float *restrict x, const float *restrict weight, float *y) {
    for (int r = 0; r < 6; r++) {
        const int o0 = r;
        const int low0 = o0 * 2 - 1 < 0 ? -(o0 * 2 - 1) : 0;
        const int high0 = o0 * 2 - 1 >= 10 ? 12 - (o0 * 2 - 1) : 3; /* taps within the input */
        const int row = o0 * 64; /* output */
        {
            const int column = 0; /* first output channel */
            const float *w = weight;
            {
                vf8 a[8]; /* 8 pixels x 1 vectors */
                UNROLL for (int i = 0; i < 8; i++) a[i] = v8_load(w);
                for (int k0 = low0; k0 < high0; k0++) {
                    const float *at = x + (o0 * 2 - 1 + k0) * 48;
                    const float *v = w + 8 + k0 * 72;
                    for (int c = 0; c < 3; c++) {
                        vf8 b[3];
                        UNROLL for (int j = 0; j < 3; j++) b[j] = v8_load(v + j * VL8);
                        UNROLL for (int q = 0; q < 16; q++) {
                            const vf8 in = v8_set1(at[q * 3 + c]);
                            UNROLL for (int k = 0; k < 3; k++) {
                                const int n = q + 1 - k, i = n / 2; /* the pixel whose tap k lies here */
                                if (n >= 0 && n % 2 == 0 && i < 8) {
                                    a[i] += in * b[k];
                                }
                            }
                        }
                        v += 24;
                    }
                }
                UNROLL for (int i = 0; i < 8; i++) {
                    const int e = row + i * 8 + column;
                    const vf8 v1 = v8_relu(a[i]);
                    v8_store(y + e, v1);
                }
            }
        }
    }
}

/* max of 2x2 stride 2, 8 channels, 3x4 */
static void pool_2(const float *restrict x, float *y) {
    for (int r = 0; r < 3; r++) {
        const int o0 = r;
        const int row = o0 * 32; /* output */
        {
            const int column = 0; /* first output channel */
            {
                vf8 a[4]; /* 4 pixels x 1 vectors */
                UNROLL for (int i = 0; i < 4; i++) a[i] = v8_set1(-__builtin_inff());
                for (int k0 = 0; k0 < 2; k0++) {
                    const float *at = x + (o0 * 2 + k0) * 64 + column;
                    {
                        UNROLL for (int q = 0; q < 8; q++) {
                            UNROLL for (int k = 0; k < 2; k++) {
                                const int n = q - k, i = n / 2; /* the pixel whose tap k lies here */
                                if (n >= 0 && n % 2 == 0 && i < 4) {
                                    a[i] = v8_max(a[i], v8_load(at + q * 8));
                                }
                            }
                        }
                    }
                }
                UNROLL for (int i = 0; i < 4; i++) {
                    const int e = row + i * 8 + column;
                    v8_store(y + e, a[i]);
                }
            }
        }
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
    float *t1 = (float *)(arena + 0); /* 384 */
    float *out0 = outputs[0];
    conv_1(in0, (const float *)(weights + 0), t1);
    pool_2(t1, out0);
    _mm_setcsr(state);
}
