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
//! v_fourth: types
/* what the last bytes of three words add up to, from the first byte on */
static inline vi v_fourth(vi a, vi b, vi c) {
#if VL == 1
    return (vi)((uint32_t)a << 24 ^ (uint32_t)b << 16 ^ (uint32_t)c << 8);
#else
    return a << 24 ^ b << 16 ^ c << 8;
#endif
}
//! v_third: types
/* what the last 11 bits of two words add up to, from the first bit on */
static inline vi v_third(vi a, vi b) {
#if VL == 1
    return (vi)((uint32_t)a << 21 ^ (uint32_t)b << 10);
#else
    return a << 21 ^ b << 10;
#endif
}
//! v_third_16: types
/* the same of words of 16 bits, two to a lane: their last 5 */
static inline vi v_third_16(vi a, vi b) {
#if VL == 1
    return (vi)(((uint32_t)a << 11 & 0xf800f800) ^ ((uint32_t)b << 6 & 0xffc0ffc0));
#else
    typedef uint16_t words __attribute__((vector_size(4 * VL)));
    return (vi)((words)a << 11 ^ (words)b << 6);
#endif
}
//! bytes: types
/* four times as many bytes as there are lanes */
#if VL == 1
typedef struct { uint8_t b[4]; } vb;
#else
typedef uint8_t vb __attribute__((vector_size(4 * VL)));
#endif
//! v_loadb: bytes
static inline vb v_loadb(const uint8_t *p) {
    vb a;
    __builtin_memcpy(&a, p, sizeof a);
    return a;
}
//! v_loadb_n: bytes
/* n bytes and zeros */
static inline vb v_loadb_n(const uint8_t *p, int n) {
    uint8_t b[4 * VL] = {0};
    vb a;
    for (int i = 0; i < n; i++) b[i] = p[i];
    __builtin_memcpy(&a, b, sizeof a);
    return a;
}
//! v_storeb: bytes
static inline void v_storeb(uint8_t *p, vb a) { __builtin_memcpy(p, &a, sizeof a); }
//! v_storeb_apart: bytes
/* the first half at p, the other half so many bytes behind it */
static inline void v_storeb_apart(uint8_t *p, long apart, vb a) {
    uint8_t b[4 * VL];
    __builtin_memcpy(b, &a, sizeof a);
    __builtin_memcpy(p, b, sizeof a / 2);
    __builtin_memcpy(p + apart, b + sizeof a / 2, sizeof a / 2);
}
//! v_storeb_half: bytes
/* the first half */
static inline void v_storeb_half(uint8_t *p, vb a) { __builtin_memcpy(p, &a, sizeof a / 2); }
//! v_storeb_n: bytes
/* the first n bytes */
static inline void v_storeb_n(uint8_t *p, vb a, int n) {
    uint8_t b[4 * VL];
    __builtin_memcpy(b, &a, sizeof a);
    for (int i = 0; i < n; i++) p[i] = b[i];
}
//! v_set1b: bytes
static inline vb v_set1b(int x) {
#if VL == 1
    return (vb){{(uint8_t)x, (uint8_t)x, (uint8_t)x, (uint8_t)x}};
#else
    return (vb){0} + (uint8_t)x;
#endif
}
//! v_flip: bytes
/* int8 as uint8 128 higher, and back */
static inline vb v_flip(vb a) {
#if VL == 1
    for (int i = 0; i < 4; i++) a.b[i] ^= 0x80;
    return a;
#else
    return a ^ 0x80;
#endif
}
//! v_max_u8: bytes
static inline vb v_max_u8(vb a, vb b) {
#if VL == 1
    for (int i = 0; i < 4; i++) a.b[i] = a.b[i] > b.b[i] ? a.b[i] : b.b[i];
    return a;
#else
    const vb m = (vb)(a > b);
    return (a & m) | (b & ~m);
#endif
}
//! v_min_u8: bytes
static inline vb v_min_u8(vb a, vb b) {
#if VL == 1
    for (int i = 0; i < 4; i++) a.b[i] = a.b[i] < b.b[i] ? a.b[i] : b.b[i];
    return a;
#else
    const vb m = (vb)(a < b);
    return (a & m) | (b & ~m);
#endif
}
//! v_max_i8: v_max_u8 v_flip
static inline vb v_max_i8(vb a, vb b) { return v_flip(v_max_u8(v_flip(a), v_flip(b))); }
//! v_min_i8: v_min_u8 v_flip
static inline vb v_min_i8(vb a, vb b) { return v_flip(v_min_u8(v_flip(a), v_flip(b))); }
//! v_quads: bytes
/* out[j], lane l: the bytes of a, b, c and d at place j VL + l */
static inline void v_quads(vb a, vb b, vb c, vb d, vi *out) {
    uint8_t from[4][4 * VL], to[16 * VL];
    __builtin_memcpy(from[0], &a, sizeof a);
    __builtin_memcpy(from[1], &b, sizeof a);
    __builtin_memcpy(from[2], &c, sizeof a);
    __builtin_memcpy(from[3], &d, sizeof a);
    for (int i = 0; i < 4 * VL; i++)
        for (int k = 0; k < 4; k++) to[4 * i + k] = from[k][i];
    __builtin_memcpy(out, to, sizeof to);
}
//! v_pack_u8: bytes
/* a[0 .. 3] + zero as bytes, saturated; in the order of v_quads */
static inline vb v_pack_u8(const vi *a, int zero) {
    int32_t from[4 * VL];
    uint8_t to[4 * VL];
    vb r;
    __builtin_memcpy(from, a, sizeof from);
    for (int i = 0; i < 4 * VL; i++) {
        const int v = from[i] > 1024 ? 1024 : from[i] < -1024 ? -1024 : from[i];
        to[i] = (uint8_t)(v + zero < 0 ? 0 : v + zero > 255 ? 255 : v + zero);
    }
    __builtin_memcpy(&r, to, sizeof r);
    return r;
}
//! v_pack_i8: v_pack_u8 v_flip
static inline vb v_pack_i8(const vi *a, int zero) { return v_flip(v_pack_u8(a, zero + 128)); }
//! v_in_line: bytes
/* from the order of v_pack_u8 to that of the vectors packed: a[0]'s lanes first */
static inline vb v_in_line(vb a) { return a; }
