//! types:
#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#define VL 4 /* float32 values per vector (NEON) */
#define PAUSE() __asm__ volatile("yield")
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
//! v_load: types
static inline vf v_load(const float *p) { return (vf)vld1q_f32(p); }
//! v_store: types
static inline void v_store(float *p, vf a) { vst1q_f32(p, (float32x4_t)a); }
//! v_set1: types
static inline vf v_set1(float a) { return (vf)vdupq_n_f32(a); }
//! v_max: types
/* the larger; NaN where either is NaN */
static inline vf v_max(vf a, vf b) { return (vf)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
//! v_min: types
/* the smaller; NaN where either is NaN */
static inline vf v_min(vf a, vf b) { return (vf)vminq_f32((float32x4_t)a, (float32x4_t)b); }
//! v_round: types
static inline vf v_round(vf a) { return (vf)vrndnq_f32((float32x4_t)a); }
//! v_floor: types
static inline vf v_floor(vf a) { return (vf)vrndmq_f32((float32x4_t)a); }
//! v_ceil: types
static inline vf v_ceil(vf a) { return (vf)vrndpq_f32((float32x4_t)a); }
//! v_sqrt: types
static inline vf v_sqrt(vf a) { return (vf)vsqrtq_f32((float32x4_t)a); }
//! v_toint: types
static inline vi v_toint(vf a) { return (vi)vcvtnq_s32_f32((float32x4_t)a); }
//! v_sum: types
static inline float v_sum(vf a) { return vaddvq_f32((float32x4_t)a); }
//! v_hmax: types
static inline float v_hmax(vf a) { return vmaxvq_f32((float32x4_t)a); }
//! v_hmin: types
static inline float v_hmin(vf a) { return vminvq_f32((float32x4_t)a); }
//! v_loadi: types
static inline vi v_loadi(const int32_t *p) { return (vi)vld1q_s32(p); }
//! v_dup4: types
static inline vi v_dup4(const uint8_t *p) {
    int32_t a;
    __builtin_memcpy(&a, p, 4);
    return (vi)vdupq_n_s32(a);
}
//! v_dot4: types
/* acc + the sum of four products of signed bytes, in every lane */
#ifdef __ARM_FEATURE_DOTPROD
static inline vi v_dot4(vi acc, vi x, vi w) { return (vi)vdotq_s32((int32x4_t)acc, (int8x16_t)x, (int8x16_t)w); }
#else
static inline vi v_dot4(vi acc, vi x, vi w) {
    const int8x16_t a = (int8x16_t)x, b = (int8x16_t)w;
    const int32x4_t s = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    const int32x4_t t = vpaddlq_s16(vmull_s8(vget_high_s8(a), vget_high_s8(b)));
    return acc + (vi)vpaddq_s32(s, t);
}
#endif
//! v_rcp: types
/* about 1 / x: an estimate of 8 bits, and one step of Newton's; x neither 0 nor infinite */
static inline vf v_rcp(vf x) {
    const float32x4_t y = vrecpeq_f32((float32x4_t)x);
    return (vf)vmulq_f32(y, vrecpsq_f32((float32x4_t)x, y));
}
//! v_low: types
/* the first halves of a and b, interleaved */
static inline vf v_low(vf a, vf b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
//! v_high: types
/* the second halves */
static inline vf v_high(vf a, vf b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
//! v_max_i8: bytes
static inline vb v_max_i8(vb a, vb b) { return (vb)vmaxq_s8((int8x16_t)a, (int8x16_t)b); }
//! v_min_i8: bytes
static inline vb v_min_i8(vb a, vb b) { return (vb)vminq_s8((int8x16_t)a, (int8x16_t)b); }
//! v_quads: bytes
/* out[j], lane l: the bytes of a, b, c and d at place j VL + l */
static inline void v_quads(vb a, vb b, vb c, vb d, vi *out) {
    const uint16x8_t s = (uint16x8_t)vzip1q_u8((uint8x16_t)a, (uint8x16_t)b), u = (uint16x8_t)vzip1q_u8((uint8x16_t)c, (uint8x16_t)d);
    const uint16x8_t t = (uint16x8_t)vzip2q_u8((uint8x16_t)a, (uint8x16_t)b), v = (uint16x8_t)vzip2q_u8((uint8x16_t)c, (uint8x16_t)d);
    out[0] = (vi)vzip1q_u16(s, u);
    out[1] = (vi)vzip2q_u16(s, u);
    out[2] = (vi)vzip1q_u16(t, v);
    out[3] = (vi)vzip2q_u16(t, v);
}
//! v_halves: bytes
static inline int16x8_t v_halves(vi a, vi b, int zero) {
    const int16x8_t both = vcombine_s16(vqmovn_s32((int32x4_t)a), vqmovn_s32((int32x4_t)b));
    return vqaddq_s16(both, vdupq_n_s16((int16_t)zero));
}
//! v_pack_u8: v_halves
/* a[0 .. 3] + zero as bytes, saturated; in the order of v_quads */
static inline vb v_pack_u8(const vi *a, int zero) {
    return (vb)vcombine_u8(vqmovun_s16(v_halves(a[0], a[1], zero)), vqmovun_s16(v_halves(a[2], a[3], zero)));
}
//! v_pack_i8: v_halves
static inline vb v_pack_i8(const vi *a, int zero) {
    return (vb)vcombine_s8(vqmovn_s16(v_halves(a[0], a[1], zero)), vqmovn_s16(v_halves(a[2], a[3], zero)));
}
//! v_fused: types
/* a·b + c, rounded once */
static inline vf v_fused(vf a, vf b, vf c) {
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
//! v_gelu_rest: v_fused v_set1
/* a² + n·2·ln 2, what rounding a² loses put back */
static inline vf v_gelu_rest(vf a, vf n) {
    const vf s = a * a;
    return v_fused(n, v_set1(1.38629436f), s) + v_fused(a, a, -s);
}
//! v_gelu_power: v_fused v_set1
/* 2u / ln 2 = a·(c + d·a²) = -n + f, whole n: returns f, t holds n in its last bits. Up to 126, so that what rounding c,
   d, a² and their sum loses is put back */
static inline vf v_gelu_power(vf a, vf *t) {
    const vf s = a * a, d = v_set1(0.10294324f), v = v_fused(s, d, v_set1(2.3022079467773438f));
    const vf constants = s * -2.016198430e-09f + 2.513669815e-07f;
    const vf lost = v_fused(s, d, 2.3022079467773438f - v) + (v_fused(a, a, -s) * d + constants);
    *t = v_fused(-a, v, v_set1(12582912.0f));
    return v_fused(a, v, *t - 12582912.0f) + a * lost;
}
//! v_tanh_divisor: v_set1
/* an even polynomial of degree 6 */
static inline vf v_tanh_divisor(vf s) {
    vf b = v_set1(3.06754149034757e-04f);
    b = b * s + 0.0303448846557834f;
    b = b * s + 0.580719265904384f;
    return b * s + 1.25274244749923f;
}
