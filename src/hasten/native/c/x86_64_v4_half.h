//! types:
#define VL 8 /* float32 values per vector of half the width */
typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
//! v_first: types
/* a mask of the first n lanes */
static inline __mmask8 v_first(int n) { return (__mmask8)((1u << n) - 1); }
//! v_load_n: types v_first
static inline vf v_load_n(const float *p, int n) { return (vf)_mm256_maskz_loadu_ps(v_first(n), p); }
//! v_store_n: types v_first
static inline void v_store_n(float *p, vf a, int n) { _mm256_mask_storeu_ps(p, v_first(n), (__m256)a); }
//! v_scale: types
/* a · 2^n, n integral */
static inline vf v_scale(vf a, vf n) { return (vf)_mm256_scalef_ps((__m256)a, (__m256)n); }
//! v_lanes: types v_first
/* the first n lanes of a; the others hold fill */
static inline vf v_lanes(vf a, int n, float fill) { return (vf)_mm256_mask_blend_ps(v_first(n), _mm256_set1_ps(fill), (__m256)a); }
//! v_store_i: types v_first
static inline void v_store_i(int32_t *p, vi a, int n) { _mm256_mask_storeu_epi32(p, v_first(n), (__m256i)a); }
//! v_store_b: types v_first
/* the low bytes of the first n lanes */
static inline void v_store_b(uint8_t *p, vi a, int n) { _mm_mask_storeu_epi8(p, v_first(n), _mm256_cvtepi32_epi8((__m256i)a)); }
//! v_load_u8_n: types v_first
static inline vf v_load_u8_n(const uint8_t *p, int n) {
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_maskz_loadu_epi8(v_first(n), p)));
}
//! v_load_i8_n: types v_first
static inline vf v_load_i8_n(const int8_t *p, int n) {
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_maskz_loadu_epi8(v_first(n), p)));
}
//! v_dot4: types
/* acc + the sum of four products of unsigned bytes of x with signed bytes of w, in every lane */
#ifdef __AVX512VNNI__
static inline vi v_dot4(vi acc, vi x, vi w) { return (vi)_mm256_dpbusd_epi32((__m256i)acc, (__m256i)x, (__m256i)w); }
#else
static inline vi v_dot4(vi acc, vi x, vi w) {
    const __m256i a = (__m256i)x, b = (__m256i)w, even = _mm256_set1_epi16(0xff);
    const __m256i s = _mm256_madd_epi16(_mm256_and_si256(a, even), _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
    const __m256i t = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(b, 8));
    return acc + (vi)s + (vi)t;
}
#endif
//! v_rcp: types
/* about 1 / x, to 14 bits */
static inline vf v_rcp(vf x) { return (vf)_mm256_rcp14_ps((__m256)x); }
//! v_dot2: types
/* acc + the sum of both products of the 16-bit numbers of x and w, in every lane */
#ifdef __AVX512VNNI__
static inline vi v_dot2(vi acc, vi x, vi w) { return (vi)_mm256_dpwssd_epi32((__m256i)acc, (__m256i)x, (__m256i)w); }
#else
static inline vi v_dot2(vi acc, vi x, vi w) { return acc + (vi)_mm256_madd_epi16((__m256i)x, (__m256i)w); }
#endif
