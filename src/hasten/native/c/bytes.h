//! v_load_u8: types
/* as many bytes as there are lanes, as floats */
static inline vf v_load_u8(const uint8_t *p) {
#if VL == 1
    return (vf)*p;
#else
    uint8_t b __attribute__((vector_size(VL)));
    __builtin_memcpy(&b, p, sizeof b);
    return __builtin_convertvector(__builtin_convertvector(b, vi), vf);
#endif
}
//! v_load_i8: types
static inline vf v_load_i8(const int8_t *p) {
#if VL == 1
    return (vf)*p;
#else
    int8_t b __attribute__((vector_size(VL)));
    __builtin_memcpy(&b, p, sizeof b);
    return __builtin_convertvector(__builtin_convertvector(b, vi), vf);
#endif
}
//! v_load_u8_n: v_load_u8
/* n bytes and zeros */
static inline vf v_load_u8_n(const uint8_t *p, int n) {
    uint8_t b[VL] = {0};
    for (int i = 0; i < n; i++) b[i] = p[i];
    return v_load_u8(b);
}
//! v_load_i8_n: v_load_i8
static inline vf v_load_i8_n(const int8_t *p, int n) {
    int8_t b[VL] = {0};
    for (int i = 0; i < n; i++) b[i] = p[i];
    return v_load_i8(b);
}
//! v_load_bf16: types
/* bfloat16 is the upper half of a float */
static inline vf v_load_bf16(const uint16_t *p) {
#if VL == 1
    const uint32_t a = (uint32_t)*p << 16;
    vf b;
    __builtin_memcpy(&b, &a, sizeof b);
    return b;
#else
    uint16_t h __attribute__((vector_size(2 * VL)));
    __builtin_memcpy(&h, p, sizeof h);
    return (vf)(__builtin_convertvector(h, vi) << 16);
#endif
}
//! v_load_f16: types
/* float16; no denormals nor infinities among weights */
static inline vf v_load_f16(const uint16_t *p) {
#if VL == 1
    const uint32_t a = ((uint32_t)*p & 0x7fff) << 13 | ((uint32_t)*p & 0x8000) << 16;
    vf b;
    __builtin_memcpy(&b, &a, sizeof b);
    return b * 0x1p112f;
#elif defined(__F16C__) && VL == 16
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif defined(__F16C__) && VL == 8
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
    uint16_t h __attribute__((vector_size(2 * VL)));
    __builtin_memcpy(&h, p, sizeof h);
    const vi a = __builtin_convertvector(h, vi);
    return (vf)((a & 0x7fff) << 13 | (a & 0x8000) << 16) * 0x1p112f;
#endif
}
//! v_gather_u8: v_load_u8
static inline vf v_gather_u8(const uint8_t *p, long stride, int n) {
    uint8_t b[VL] = {0};
    for (int i = 0; i < n; i++) b[i] = p[i * stride];
    return v_load_u8(b);
}
//! v_gather_i8: v_load_i8
static inline vf v_gather_i8(const int8_t *p, long stride, int n) {
    int8_t b[VL] = {0};
    for (int i = 0; i < n; i++) b[i] = p[i * stride];
    return v_load_i8(b);
}
//! v_scatter_b: v_store_b
static inline void v_scatter_b(uint8_t *p, long stride, vi a, int n) {
    uint8_t b[VL];
    v_store_b(b, a, VL);
    for (int i = 0; i < n; i++) p[i * stride] = b[i];
}
//! v_low_bf16: v_frombits
/* the first of two bfloat16 in every lane */
static inline vf v_low_bf16(vi a) {
#if VL == 1
    return v_frombits((vi)((uint32_t)a << 16));
#else
    return v_frombits(a << 16);
#endif
}
//! v_high_bf16: v_frombits
static inline vf v_high_bf16(vi a) { return v_frombits(a & -65536); }
