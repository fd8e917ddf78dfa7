//! types:
#include <math.h>
#include <stdint.h>
#include <string.h>
#define VL 1 /* plain C: one value at a time */
#define PAUSE() ((void)0)
typedef float vf;
typedef int32_t vi;
//! v_load: types
static inline vf v_load(const float *p) { return *p; }
//! v_store: types
static inline void v_store(float *p, vf a) { *p = a; }
//! v_load_n: types
static inline vf v_load_n(const float *p, int n) { return n ? *p : 0.0f; }
//! v_store_n: types
static inline void v_store_n(float *p, vf a, int n) { if (n) *p = a; }
//! v_set1: types
static inline vf v_set1(float a) { return a; }
//! v_max: types
/* the larger; b where either is NaN */
static inline vf v_max(vf a, vf b) { return a > b ? a : b; }
//! v_min: types
/* the smaller; b where either is NaN */
static inline vf v_min(vf a, vf b) { return a < b ? a : b; }
//! v_select: types
static inline vf v_select(vi m, vf a, vf b) { return m ? a : b; }
//! v_round: types
static inline vf v_round(vf a) { return rintf(a); }
//! v_floor: types
static inline vf v_floor(vf a) { return floorf(a); }
//! v_ceil: types
static inline vf v_ceil(vf a) { return ceilf(a); }
//! v_abs: types
static inline vf v_abs(vf a) { return fabsf(a); }
//! v_sqrt: types
static inline vf v_sqrt(vf a) { return sqrtf(a); }
//! v_scale: types
/* a · 2^n, n integral */
static inline vf v_scale(vf a, vf n) { return n == n ? ldexpf(a, (int)(n > 300 ? 300 : n < -300 ? -300 : n)) : n; }
//! v_raise: types
/* the last bits of t added to the exponent of a: a · 2^n where they are n and the result is a normal number */
static inline vf v_raise(vf a, vf t) {
    uint32_t b, n;
    memcpy(&b, &a, sizeof b);
    memcpy(&n, &t, sizeof n);
    b += n << 23;
    memcpy(&a, &b, sizeof a);
    return a;
}
//! v_sum: types
static inline float v_sum(vf a) { return a; }
//! v_hmax: types
static inline float v_hmax(vf a) { return a; }
//! v_hmin: types
static inline float v_hmin(vf a) { return a; }
//! v_lanes: types
/* the first n lanes of a; the others hold fill */
static inline vf v_lanes(vf a, int n, float fill) { return n ? a : fill; }
//! v_gather: types
/* lane i holds p[i * stride]; zero from lane n */
static inline vf v_gather(const float *p, long stride, int n) { (void)stride; return n ? *p : 0.0f; }
//! v_scatter: types
static inline void v_scatter(float *p, long stride, vf a, int n) { (void)stride; if (n) *p = a; }
//! v_toint: types
static inline vi v_toint(vf a) { return (vi)rintf(a); }
//! v_bits: types
static inline vi v_bits(vf a) {
    vi b;
    memcpy(&b, &a, sizeof b);
    return b;
}
//! v_frombits: types
static inline vf v_frombits(vi a) {
    vf b;
    memcpy(&b, &a, sizeof b);
    return b;
}
//! v_tofloat: types
static inline vf v_tofloat(vi a) { return (vf)a; }
//! v_lane: types
#define V_LANE(a, i) (a)
//! v_set1i: types
static inline vi v_set1i(int a) { return a; }
//! v_loadi: types
static inline vi v_loadi(const int32_t *p) { return *p; }
//! v_store_i: types
static inline void v_store_i(int32_t *p, vi a, int n) { if (n) *p = a; }
//! v_store_b: types
/* the low byte */
static inline void v_store_b(uint8_t *p, vi a, int n) { if (n) *p = (uint8_t)a; }
//! v_dup4: types
static inline vi v_dup4(const uint8_t *p) {
    vi a;
    memcpy(&a, p, 4);
    return a;
}
//! v_dot4: types
/* acc + the sum of four products of unsigned bytes of x with signed bytes of w */
static inline vi v_dot4(vi acc, vi x, vi w) {
    const uint32_t a = (uint32_t)x, b = (uint32_t)w;
    acc += (vi)(a & 255) * (int8_t)(b & 255);
    acc += (vi)(a >> 8 & 255) * (int8_t)(b >> 8 & 255);
    acc += (vi)(a >> 16 & 255) * (int8_t)(b >> 16 & 255);
    return acc + (vi)(a >> 24) * (int8_t)(b >> 24);
}
//! v_hmax_each: types
/* lane i: the largest of a[i]'s lanes */
static inline vi v_hmax_each(vi *a) { return a[0]; }
