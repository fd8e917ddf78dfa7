//! types:
#include <immintrin.h>
#include <stdint.h>
#define VL 16 /* float32 values per vector (AVX-512) */
#define PAUSE() _mm_pause()
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
//! v_load: types
static inline vf v_load(const float *p) { return (vf)_mm512_loadu_ps(p); }
//! v_store: types
static inline void v_store(float *p, vf a) { _mm512_storeu_ps(p, (__m512)a); }
//! v_load_n: types
static inline vf v_load_n(const float *p, int n) { return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
//! v_store_n: types
/* half and quarter vectors without a mask: what was stored by mask waits for the cache before it is read again */
static inline void v_store_n(float *p, vf a, int n) {
    if (__builtin_constant_p(n) && n == 8) _mm256_storeu_ps(p, _mm512_castps512_ps256((__m512)a));
    else if (__builtin_constant_p(n) && n == 4) _mm_storeu_ps(p, _mm512_castps512_ps128((__m512)a));
    else _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)a);
}
//! v_set1: types
static inline vf v_set1(float a) { return (vf)_mm512_set1_ps(a); }
//! v_max: types
/* the larger; b where either is NaN */
static inline vf v_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
//! v_min: types
/* the smaller; b where either is NaN */
static inline vf v_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
//! v_select: types
static inline vf v_select(vi m, vf a, vf b) { return (vf)(((vi)a & m) | ((vi)b & ~m)); }
//! v_round: types
static inline vf v_round(vf a) { return (vf)_mm512_roundscale_ps((__m512)a, 8); }
//! v_floor: types
static inline vf v_floor(vf a) { return (vf)_mm512_roundscale_ps((__m512)a, 9); }
//! v_ceil: types
static inline vf v_ceil(vf a) { return (vf)_mm512_roundscale_ps((__m512)a, 10); }
//! v_abs: types
static inline vf v_abs(vf a) { return (vf)((vi)a & 0x7fffffff); }
//! v_sqrt: types
static inline vf v_sqrt(vf a) { return (vf)_mm512_sqrt_ps((__m512)a); }
//! v_scale: types
/* a · 2^n, n integral */
static inline vf v_scale(vf a, vf n) { return (vf)_mm512_scalef_ps((__m512)a, (__m512)n); }
//! v_shrink: types
static inline vf v_shrink(vf a, vf n) { return (vf)_mm512_scalef_ps((__m512)a, (__m512)n); }
//! v_sum: types
static inline float v_sum(vf a) { return _mm512_reduce_add_ps((__m512)a); }
//! v_hmax: types
static inline float v_hmax(vf a) { return _mm512_reduce_max_ps((__m512)a); }
//! v_sum4: types
/* of the first four lanes */
static inline float v_sum4(vf a) {
    __m128 s = _mm512_castps512_ps128((__m512)a);
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
//! v_hmax4: types
/* of the first four lanes */
static inline float v_hmax4(vf a) {
    __m128 s = _mm512_castps512_ps128((__m512)a);
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
//! v_hmin: types
static inline float v_hmin(vf a) { return _mm512_reduce_min_ps((__m512)a); }
//! v_lanes: types
/* the first n lanes of a; the others hold fill */
static inline vf v_lanes(vf a, int n, float fill) { return (vf)_mm512_mask_blend_ps((__mmask16)((1u << n) - 1), _mm512_set1_ps(fill), (__m512)a); }
//! v_gather: types
/* lane i holds p[i * stride]; zero from lane n */
static inline vf v_gather(const float *p, long stride, int n) {
    vf a = {0};
    for (int i = 0; i < n; i++) a[i] = p[i * stride];
    return a;
}
//! v_scatter: types
static inline void v_scatter(float *p, long stride, vf a, int n) {
    for (int i = 0; i < n; i++) p[i * stride] = a[i];
}
//! v_toint: types
static inline vi v_toint(vf a) { return (vi)_mm512_cvtps_epi32((__m512)a); }
//! v_bits: types
static inline vi v_bits(vf a) { return (vi)a; }
//! v_frombits: types
static inline vf v_frombits(vi a) { return (vf)a; }
//! v_tofloat: types
static inline vf v_tofloat(vi a) { return __builtin_convertvector(a, vf); }
//! v_lane: types
#define V_LANE(a, i) ((a)[i])
//! v_set1i: types
static inline vi v_set1i(int a) { return (vi){0} + a; }
//! v_loadi: types
static inline vi v_loadi(const int32_t *p) { return (vi)_mm512_loadu_si512(p); }
//! v_store_i: types
static inline void v_store_i(int32_t *p, vi a, int n) { _mm512_mask_storeu_epi32(p, (__mmask16)((1u << n) - 1), (__m512i)a); }
//! v_store_b: types
/* the low bytes of the first n lanes */
static inline void v_store_b(uint8_t *p, vi a, int n) {
    const __m128i b = _mm512_cvtepi32_epi8((__m512i)a);
    if (n == VL) _mm_storeu_si128((__m128i *)p, b);
    else _mm_mask_storeu_epi8(p, (__mmask16)((1u << n) - 1), b);
}
//! v_load_u8_n: types
static inline vf v_load_u8_n(const uint8_t *p, int n) {
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8((__mmask16)((1u << n) - 1), p)));
}
//! v_load_i8_n: types
static inline vf v_load_i8_n(const int8_t *p, int n) {
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8((__mmask16)((1u << n) - 1), p)));
}
//! v_dup4: types
static inline vi v_dup4(const uint8_t *p) {
    int32_t a;
    __builtin_memcpy(&a, p, 4);
    return (vi)_mm512_set1_epi32(a);
}
//! v_dot4: types
/* acc + the sum of four products of unsigned bytes of x with signed bytes of w, in every lane */
#ifdef __AVX512VNNI__
static inline vi v_dot4(vi acc, vi x, vi w) { return (vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)x, (__m512i)w); }
#else
static inline vi v_dot4(vi acc, vi x, vi w) {
    const __m512i a = (__m512i)x, b = (__m512i)w, even = _mm512_set1_epi16(0xff);
    const __m512i s = _mm512_madd_epi16(_mm512_and_si512(a, even), _mm512_srai_epi16(_mm512_slli_epi16(b, 8), 8));
    const __m512i t = _mm512_madd_epi16(_mm512_srli_epi16(a, 8), _mm512_srai_epi16(b, 8));
    return acc + (vi)s + (vi)t;
}
#endif
//! v_rcp: types
/* about 1 / x, to 14 bits */
static inline vf v_rcp(vf x) { return (vf)_mm512_rcp14_ps((__m512)x); }
//! v_turn: types unroll
/* a[i][j] and a[j][i] change places: halves interleaved, once for every bit of the index */
static inline void v_turn(vf *a) {
    vf b[VL];
    UNROLL for (int stage = 0; stage < 4; stage++) {
        UNROLL for (int i = 0; i < VL / 2; i++) {
            b[2 * i] = __builtin_shufflevector(a[i], a[i + VL / 2], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + VL / 2], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        UNROLL for (int i = 0; i < VL; i++) a[i] = b[i];
    }
}
//! v_max_i8: bytes
static inline vb v_max_i8(vb a, vb b) { return (vb)_mm512_max_epi8((__m512i)a, (__m512i)b); }
//! v_min_i8: bytes
static inline vb v_min_i8(vb a, vb b) { return (vb)_mm512_min_epi8((__m512i)a, (__m512i)b); }
//! v_quads: bytes
/* out[j], lane l: the bytes of a, b, c and d at one place; each 128 bits by themselves */
static inline void v_quads(vb a, vb b, vb c, vb d, vi *out) {
    const __m512i s = _mm512_unpacklo_epi8((__m512i)a, (__m512i)b), t = _mm512_unpackhi_epi8((__m512i)a, (__m512i)b);
    const __m512i u = _mm512_unpacklo_epi8((__m512i)c, (__m512i)d), v = _mm512_unpackhi_epi8((__m512i)c, (__m512i)d);
    out[0] = (vi)_mm512_unpacklo_epi16(s, u);
    out[1] = (vi)_mm512_unpackhi_epi16(s, u);
    out[2] = (vi)_mm512_unpacklo_epi16(t, v);
    out[3] = (vi)_mm512_unpackhi_epi16(t, v);
}
//! v_halves: bytes
static inline __m512i v_halves(vi a, vi b, int zero) {
    return _mm512_adds_epi16(_mm512_packs_epi32((__m512i)a, (__m512i)b), _mm512_set1_epi16((short)zero));
}
//! v_pack_u8: v_halves
/* a[0 .. 3] + zero as bytes, saturated; in the order of v_quads */
static inline vb v_pack_u8(const vi *a, int zero) {
    return (vb)_mm512_packus_epi16(v_halves(a[0], a[1], zero), v_halves(a[2], a[3], zero));
}
//! v_pack_i8: v_halves
static inline vb v_pack_i8(const vi *a, int zero) {
    return (vb)_mm512_packs_epi16(v_halves(a[0], a[1], zero), v_halves(a[2], a[3], zero));
}
//! v_in_line: bytes
/* from the order of v_pack_u8 to that of the vectors packed: a[0]'s lanes first */
static inline vb v_in_line(vb a) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return (vb)_mm512_permutexvar_epi32(order, (__m512i)a);
}
//! v_loadb_n: bytes
/* n bytes and zeros */
static inline vb v_loadb_n(const uint8_t *p, int n) { return (vb)_mm512_maskz_loadu_epi8(~0ull >> (64 - n), p); }
//! v_storeb_n: bytes
/* the first n bytes, n not 0 */
static inline void v_storeb_n(uint8_t *p, vb a, int n) { _mm512_mask_storeu_epi8(p, ~0ull >> (64 - n), (__m512i)a); }
//! v_max_i: types
/* the larger of whole numbers */
static inline vi v_max_i(vi a, vi b) { return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b); }
//! v_hmax_i: types
static inline int32_t v_hmax_i(vi a) { return _mm512_reduce_max_epi32((__m512i)a); }
//! v_store_words: types
/* to whole numbers of 16 bits, to nearest, saturated */
static inline void v_store_words(int16_t *p, vf a) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32((__m512)a)));
}
//! v_dot2: types
/* acc + the sum of both products of the 16-bit numbers of x and w, in every lane */
#ifdef __AVX512VNNI__
static inline vi v_dot2(vi acc, vi x, vi w) { return (vi)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)x, (__m512i)w); }
#else
static inline vi v_dot2(vi acc, vi x, vi w) { return acc + (vi)_mm512_madd_epi16((__m512i)x, (__m512i)w); }
#endif
//! v_dot4_split: types
/* the same where weights are 16-bit numbers: of the even bytes, and of the odd ones */
static inline vi v_dot4_split(vi acc, vi x, vi even, vi odd) {
    const __m512i s = _mm512_madd_epi16(_mm512_and_si512((__m512i)x, _mm512_set1_epi16(0xff)), (__m512i)even);
    return acc + (vi)s + (vi)_mm512_madd_epi16(_mm512_srli_epi16((__m512i)x, 8), (__m512i)odd);
}
