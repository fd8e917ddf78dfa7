/* conv: compiled by hasten for x86-64-v4.
   input 0: float32 1x12x16x3
   output 0: float32 1x3x4x16
   weights: 1856 bytes; arena: 3136 bytes. */
#include <immintrin.h>
#include <stdint.h>
#define VL 16 /* float32 values per vector (AVX-512) */
#define PAUSE() _mm_pause()
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));

#define UNROLL _Pragma("GCC unroll 64") /* this loop is written out by the compiler */

static inline vf v_load(const float *p) { return (vf)_mm512_loadu_ps(p); }

/* the larger; b where either is NaN */
static inline vf v_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }

static inline vf v_set1(float a) { return (vf)_mm512_set1_ps(a); }

static inline vf v_relu(vf x) { return v_max(v_set1(0.0f), x); }

static inline void v_store(float *p, vf a) { _mm512_storeu_ps(p, (__m512)a); }

/* 3x3 stride 2, 3 -> 16, 6x8, relu */
static void conv_1(const float *restrict x, const float *restrict weight, float *y) {
    for (int r = 0; r < 6; r++) {
        const int o0 = r;
        const int low0 = o0 * 2 - 1 < 0 ? -(o0 * 2 - 1) : 0;
        const int high0 = o0 * 2 - 1 >= 10 ? 12 - (o0 * 2 - 1) : 3; /* taps within the input */
        const int row = o0 * 128; /* output */
        {
            const int column = 0; /* first output channel */
            const float *w = weight;
            {
                vf a[8]; /* 8 pixels x 1 vectors */
                UNROLL for (int i = 0; i < 8; i++) a[i] = v_load(w);
                for (int k0 = low0; k0 < high0; k0++) {
                    const float *at = x + (o0 * 2 - 1 + k0) * 48;
                    const float *v = w + 16 + k0 * 144;
                    for (int c = 0; c < 3; c++) {
                        vf b[3];
                        UNROLL for (int j = 0; j < 3; j++) b[j] = v_load(v + j * VL);
                        UNROLL for (int q = 0; q < 16; q++) {
                            const vf in = v_set1(at[q * 3 + c]);
                            UNROLL for (int k = 0; k < 3; k++) {
                                const int n = q + 1 - k, i = n / 2; /* the pixel whose tap k lies here */
                                if (n >= 0 && n % 2 == 0 && i < 8) {
                                    a[i] += in * b[k];
                                }
                            }
                        }
                        v += 48;
                    }
                }
                UNROLL for (int i = 0; i < 8; i++) {
                    const int e = row + i * 16 + column;
                    const vf v1 = v_relu(a[i]);
                    v_store(y + e, v1);
                }
            }
        }
    }
}

/* max of 2x2 stride 2, 16 channels, 3x4 */
static void pool_2(const float *restrict x, float *y) {
    for (int r = 0; r < 3; r++) {
        const int o0 = r;
        const int row = o0 * 64; /* output */
        {
            const int column = 0; /* first output channel */
            {
                vf a[4]; /* 4 pixels x 1 vectors */
                UNROLL for (int i = 0; i < 4; i++) a[i] = v_set1(-__builtin_inff());
                for (int k0 = 0; k0 < 2; k0++) {
                    const float *at = x + (o0 * 2 + k0) * 128 + column;
                    {
                        UNROLL for (int q = 0; q < 8; q++) {
                            UNROLL for (int k = 0; k < 2; k++) {
                                const int n = q - k, i = n / 2; /* the pixel whose tap k lies here */
                                if (n >= 0 && n % 2 == 0 && i < 4) {
                                    a[i] = v_max(a[i], v_load(at + q * 16));
                                }
                            }
                        }
                    }
                }
                UNROLL for (int i = 0; i < 4; i++) {
                    const int e = row + i * 16 + column;
                    v_store(y + e, a[i]);
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
    float *t1 = (float *)(arena + 0); /* 768 */
    float *out0 = outputs[0];
    conv_1(in0, (const float *)(weights + 0), t1);
    pool_2(t1, out0);
    _mm_setcsr(state);
}
