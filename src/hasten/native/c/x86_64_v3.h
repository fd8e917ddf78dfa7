//! types:
#include <immintrin.h>
#include <stdint.h>
#define VL 8 /* float32 values per vector (AVX2) */
#define PAUSE() _mm_pause()
typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
//! v_first: types
/* a mask of the first n lanes */
static inline __m256i v_first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
//! v_load_n: types v_first
static inline vf v_load_n(const float *p, int n) { return (vf)_mm256_maskload_ps(p, v_first(n)); }
//! v_store_n: types v_first
/* 1, 2 or 4 lanes without a mask: what was stored by mask waits for the cache before it is read again */
static inline void v_store_n(float *p, vf a, int n) {
    if (__builtin_constant_p(n) && (n & (n - 1)) == 0) __builtin_memcpy(p, &a, sizeof(float) * (unsigned)n);
    else _mm256_maskstore_ps(p, v_first(n), (__m256)a);
}
//! v_sum: types
static inline float v_sum(vf a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128((__m256)a), _mm256_extractf128_ps((__m256)a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
//! v_hmax: types
static inline float v_hmax(vf a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128((__m256)a), _mm256_extractf128_ps((__m256)a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
//! v_sum4: types
/* of the first four lanes */
static inline float v_sum4(vf a) {
    __m128 s = _mm256_castps256_ps128((__m256)a);
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
//! v_hmax4: types
/* of the first four lanes */
static inline float v_hmax4(vf a) {
    __m128 s = _mm256_castps256_ps128((__m256)a);
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
//! v_hmin: types
static inline float v_hmin(vf a) {
    __m128 s = _mm_min_ps(_mm256_castps256_ps128((__m256)a), _mm256_extractf128_ps((__m256)a, 1));
    s = _mm_min_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_min_ss(s, _mm_movehdup_ps(s)));
}
//! v_low: types
/* the first halves of a and b, interleaved */
static inline vf v_low(vf a, vf b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
//! v_high: types
/* the second halves */
static inline vf v_high(vf a, vf b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
//! v_in_line: bytes
/* from the order of v_pack_u8 to that of the vectors packed: a[0]'s lanes first */
static inline vb v_in_line(vb a) {
    return (vb)_mm256_permutevar8x32_epi32((__m256i)a, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
//! v_max_i: types
/* the larger of whole numbers */
static inline vi v_max_i(vi a, vi b) { return (vi)_mm256_max_epi32((__m256i)a, (__m256i)b); }
//! v_store_words: types
/* to whole numbers of 16 bits, to nearest, saturated */
static inline void v_store_words(int16_t *p, vf a) {
    const __m256i b = _mm256_cvtps_epi32((__m256)a);
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1)));
}
//! v_fused: types
/* a·b + c, rounded once */
static inline vf v_fused(vf a, vf b, vf c) {
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
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
