//! v_scale: types
/* a · 2^n, n integral */
static inline vf v_scale(vf a, vf n) { return (vf)_mm512_scalef_ps((__m512)a, (__m512)n); }
//! v_store_i: types v_first
static inline void v_store_i(int32_t *p, vi a, int n) { _mm512_mask_storeu_epi32(p, v_first(n), (__m512i)a); }
//! v_load_u8_n: types v_first
static inline vf v_load_u8_n(const uint8_t *p, int n) {
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(v_first(n), p)));
}
//! v_load_i8_n: types v_first
static inline vf v_load_i8_n(const int8_t *p, int n) {
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(v_first(n), p)));
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
//! v_dot2: types
/* acc + the sum of both products of the 16-bit numbers of x and w, in every lane */
#ifdef __AVX512VNNI__
static inline vi v_dot2(vi acc, vi x, vi w) { return (vi)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)x, (__m512i)w); }
#else
static inline vi v_dot2(vi acc, vi x, vi w) { return acc + (vi)_mm512_madd_epi16((__m512i)x, (__m512i)w); }
#endif
//! v_last_bytes: types
/* the last bytes of three words, next to each other from the first byte on */
static inline vi v_last_bytes(vi a, vi b, vi c) {
    const __m512i two = _mm512_shrdi_epi32(_mm512_slli_epi32((__m512i)c, 24), (__m512i)b, 8);
    return (vi)_mm512_shrdi_epi32(two, (__m512i)a, 8);
}
//! v_ends: types
/* the last 11 bits of two words, next to each other from the first bit on */
static inline vi v_ends(vi a, vi b) {
    return (vi)_mm512_shrdi_epi32(_mm512_slli_epi32((__m512i)b, 21), (__m512i)a, 11);
}
//! v_third_16: types
/* the last 5 bits of words of 16, next to each other from the first bit on; or what they add up to */
static inline vi v_third_16(vi a, vi b) {
#ifdef __AVX512VBMI2__
    return (vi)_mm512_shrdi_epi16(_mm512_slli_epi16((__m512i)b, 11), (__m512i)a, 5);
#else
    return (vi)(_mm512_slli_epi16((__m512i)a, 11) ^ _mm512_slli_epi16((__m512i)b, 6));
#endif
}
