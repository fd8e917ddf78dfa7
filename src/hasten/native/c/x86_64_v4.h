//! types:
#include <immintrin.h>
#include <stdint.h>
#define VL 16 /* float32 values per vector (AVX-512) */
#define PAUSE() _mm_pause()
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
//! v_first: types
/* a mask of the first n lanes */
static inline __mmask16 v_first(int n) { return (__mmask16)((1u << n) - 1); }
//! v_load_n: types
static inline vf v_load_n(const float *p, int n) { return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
//! v_store_n: types
/* half and quarter vectors without a mask: what was stored by mask waits for the cache before it is read again */
static inline void v_store_n(float *p, vf a, int n) {
    if (__builtin_constant_p(n) && n == 8) _mm256_storeu_ps(p, _mm512_castps512_ps256((__m512)a));
    else if (__builtin_constant_p(n) && n == 4) _mm_storeu_ps(p, _mm512_castps512_ps128((__m512)a));
    else _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)a);
}
//! v_round: types
static inline vf v_round(vf a) { return (vf)_mm512_roundscale_ps((__m512)a, 8); }
//! v_floor: types
static inline vf v_floor(vf a) { return (vf)_mm512_roundscale_ps((__m512)a, 9); }
//! v_ceil: types
static inline vf v_ceil(vf a) { return (vf)_mm512_roundscale_ps((__m512)a, 10); }
//! v_shrink: types
static inline vf v_shrink(vf a, vf t) {
    const __mmask16 seen = _mm512_cmp_ps_mask((__m512)t, _mm512_set1_ps(12582913.0f), _CMP_NLT_UQ);
    return (vf)_mm512_maskz_scalef_ps(seen, (__m512)a, (__m512)(t - 12583039.0f));
}
//! v_sum: types
static inline float v_sum(vf a) { return _mm512_reduce_add_ps((__m512)a); }
//! v_hmax: types
static inline float v_hmax(vf a) { return _mm512_reduce_max_ps((__m512)a); }
//! v_hmin: types
static inline float v_hmin(vf a) { return _mm512_reduce_min_ps((__m512)a); }
//! v_lanes: types
/* the first n lanes of a; the others hold fill */
static inline vf v_lanes(vf a, int n, float fill) { return (vf)_mm512_mask_blend_ps((__mmask16)((1u << n) - 1), _mm512_set1_ps(fill), (__m512)a); }
//! v_loadi: types
static inline vi v_loadi(const int32_t *p) { return (vi)_mm512_loadu_si512(p); }
//! v_store_b: types v_first
/* the low bytes of the first n lanes */
static inline void v_store_b(uint8_t *p, vi a, int n) {
    const __m128i b = _mm512_cvtepi32_epi8((__m512i)a);
    if (n == VL) _mm_storeu_si128((__m128i *)p, b);
    else _mm_mask_storeu_epi8(p, v_first(n), b);
}
//! v_low: types
/* the first halves of a and b, interleaved */
static inline vf v_low(vf a, vf b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
//! v_high: types
/* the second halves */
static inline vf v_high(vf a, vf b) {
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
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
//! v_hmax_i: types
static inline int32_t v_hmax_i(vi a) { return _mm512_reduce_max_epi32((__m512i)a); }
//! v_store_words: types
/* to whole numbers of 16 bits, to nearest, saturated */
static inline void v_store_words(int16_t *p, vf a) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32((__m512)a)));
}
