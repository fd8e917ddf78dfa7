//! types:
#include <immintrin.h>
#include <stdint.h>
#define VL 8 /* float32 values per vector (AVX2) */
#define PAUSE() _mm_pause()
typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
//! v_load: types
static inline vf v_load(const float *p) { return (vf)_mm256_loadu_ps(p); }
//! v_store: types
static inline void v_store(float *p, vf a) { _mm256_storeu_ps(p, (__m256)a); }
//! v_first: types
/* a mask of the first n lanes */
static inline __m256i v_first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
//! v_load_n: types v_first
static inline vf v_load_n(const float *p, int n) { return (vf)_mm256_maskload_ps(p, v_first(n)); }
//! v_store_n: types v_first
static inline void v_store_n(float *p, vf a, int n) { _mm256_maskstore_ps(p, v_first(n), (__m256)a); }
//! v_set1: types
static inline vf v_set1(float a) { return (vf)_mm256_set1_ps(a); }
//! v_max: types
/* the larger; b where either is NaN */
static inline vf v_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
//! v_min: types
/* the smaller; b where either is NaN */
static inline vf v_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
//! v_select: types
static inline vf v_select(vi m, vf a, vf b) { return (vf)(((vi)a & m) | ((vi)b & ~m)); }
//! v_round: types
static inline vf v_round(vf a) { return (vf)_mm256_round_ps((__m256)a, 8); }
//! v_floor: types
static inline vf v_floor(vf a) { return (vf)_mm256_round_ps((__m256)a, 9); }
//! v_ceil: types
static inline vf v_ceil(vf a) { return (vf)_mm256_round_ps((__m256)a, 10); }
//! v_abs: types
static inline vf v_abs(vf a) { return (vf)((vi)a & 0x7fffffff); }
//! v_sqrt: types
static inline vf v_sqrt(vf a) { return (vf)_mm256_sqrt_ps((__m256)a); }
//! v_toint: types
static inline vi v_toint(vf a) { return (vi)_mm256_cvtps_epi32((__m256)a); }
//! v_scale: types v_max v_min v_set1 v_toint
/* a · 2^n, n integral; in two halves so that results near the ends of the range neither overflow nor vanish early */
static inline vf v_scale(vf a, vf n) {
    vi k = v_toint(v_max(v_set1(-252.0f), v_min(v_set1(252.0f), n)));
    vi h = k >> 1;
    return a * (vf)((h + 127) << 23) * (vf)((k - h + 127) << 23);
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
//! v_lanes: types
/* the first n lanes of a; the others hold fill */
static inline vf v_lanes(vf a, int n, float fill) {
    for (int i = 0; i < VL; i++) if (i >= n) a[i] = fill;
    return a;
}
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
static inline vi v_loadi(const int32_t *p) { return (vi)_mm256_loadu_si256((const __m256i *)p); }
//! v_store_i: types
static inline void v_store_i(int32_t *p, vi a, int n) {
    for (int i = 0; i < n; i++) p[i] = a[i];
}
//! v_store_b: types
/* the low bytes of the first n lanes */
static inline void v_store_b(uint8_t *p, vi a, int n) {
    uint8_t b __attribute__((vector_size(VL))) = __builtin_convertvector(a, __typeof__(b));
    if (n == VL) __builtin_memcpy(p, &b, VL);
    else for (int i = 0; i < n; i++) p[i] = b[i];
}
//! v_dup4: types
static inline vi v_dup4(const uint8_t *p) {
    int32_t a;
    __builtin_memcpy(&a, p, 4);
    return (vi)_mm256_set1_epi32(a);
}
//! v_dot4: types
/* acc + the sum of four products of unsigned bytes of x with signed bytes of w, in every lane; widened to 16 bits first,
   since the instruction that multiplies bytes saturates */
static inline vi v_dot4(vi acc, vi x, vi w) {
    const __m256i a = (__m256i)x, b = (__m256i)w, even = _mm256_set1_epi16(0xff);
    const __m256i s = _mm256_madd_epi16(_mm256_and_si256(a, even), _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
    const __m256i t = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(b, 8));
    return acc + (vi)s + (vi)t;
}
//! v_rcp: types
/* about 1 / x: an estimate of 12 bits, and one step of Newton's; x neither 0 nor infinite */
static inline vf v_rcp(vf x) {
    const vf y = (vf)_mm256_rcp_ps((__m256)x);
    return y * (2.0f - x * y);
}
//! v_turn: types unroll
/* a[i][j] and a[j][i] change places: halves interleaved, once for every bit of the index */
static inline void v_turn(vf *a) {
    vf b[VL];
    UNROLL for (int stage = 0; stage < 3; stage++) {
        UNROLL for (int i = 0; i < VL / 2; i++) {
            b[2 * i] = __builtin_shufflevector(a[i], a[i + VL / 2], 0, 8, 1, 9, 2, 10, 3, 11);
            b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + VL / 2], 4, 12, 5, 13, 6, 14, 7, 15);
        }
        UNROLL for (int i = 0; i < VL; i++) a[i] = b[i];
    }
}
//! v_max_i8: bytes
static inline vb v_max_i8(vb a, vb b) { return (vb)_mm256_max_epi8((__m256i)a, (__m256i)b); }
//! v_min_i8: bytes
static inline vb v_min_i8(vb a, vb b) { return (vb)_mm256_min_epi8((__m256i)a, (__m256i)b); }
//! v_quads: bytes
/* out[j], lane l: the bytes of a, b, c and d at one place; each 128 bits by themselves */
static inline void v_quads(vb a, vb b, vb c, vb d, vi *out) {
    const __m256i s = _mm256_unpacklo_epi8((__m256i)a, (__m256i)b), t = _mm256_unpackhi_epi8((__m256i)a, (__m256i)b);
    const __m256i u = _mm256_unpacklo_epi8((__m256i)c, (__m256i)d), v = _mm256_unpackhi_epi8((__m256i)c, (__m256i)d);
    out[0] = (vi)_mm256_unpacklo_epi16(s, u);
    out[1] = (vi)_mm256_unpackhi_epi16(s, u);
    out[2] = (vi)_mm256_unpacklo_epi16(t, v);
    out[3] = (vi)_mm256_unpackhi_epi16(t, v);
}
//! v_halves: bytes
static inline __m256i v_halves(vi a, vi b, int zero) {
    return _mm256_adds_epi16(_mm256_packs_epi32((__m256i)a, (__m256i)b), _mm256_set1_epi16((short)zero));
}
//! v_pack_u8: v_halves
/* a[0 .. 3] + zero as bytes, saturated; in the order of v_quads */
static inline vb v_pack_u8(const vi *a, int zero) {
    return (vb)_mm256_packus_epi16(v_halves(a[0], a[1], zero), v_halves(a[2], a[3], zero));
}
//! v_pack_i8: v_halves
static inline vb v_pack_i8(const vi *a, int zero) {
    return (vb)_mm256_packs_epi16(v_halves(a[0], a[1], zero), v_halves(a[2], a[3], zero));
}
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
//! v_dot2: types
/* acc + the sum of both products of the 16-bit numbers of x and w, in every lane */
static inline vi v_dot2(vi acc, vi x, vi w) { return acc + (vi)_mm256_madd_epi16((__m256i)x, (__m256i)w); }
//! v_dot4_split: types
/* the same where weights are 16-bit numbers: of the even bytes, and of the odd ones */
static inline vi v_dot4_split(vi acc, vi x, vi even, vi odd) {
    const __m256i s = _mm256_madd_epi16(_mm256_and_si256((__m256i)x, _mm256_set1_epi16(0xff)), (__m256i)even);
    return acc + (vi)s + (vi)_mm256_madd_epi16(_mm256_srli_epi16((__m256i)x, 8), (__m256i)odd);
}
