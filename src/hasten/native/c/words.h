//! v_max_i: types
/* the larger of whole numbers */
static inline vi v_max_i(vi a, vi b) {
#if VL == 1
    return a > b ? a : b;
#else
    const vi m = (vi)(a > b);
    return (a & m) | (b & ~m);
#endif
}
//! v_hmax_i: v_lane
static inline int32_t v_hmax_i(vi a) {
    int32_t most = V_LANE(a, 0);
    for (int i = 1; i < VL; i++) most = V_LANE(a, i) > most ? V_LANE(a, i) : most;
    return most;
}
//! v_hmax_each: v_max_i v_turn unroll
/* lane i: the largest of a[i]'s lanes */
static inline vi v_hmax_each(vi *a) {
    vf turned[VL];
    UNROLL for (int i = 0; i < VL; i++) turned[i] = (vf)a[i];
    v_turn(turned);
    vi most = (vi)turned[0];
    UNROLL for (int i = 1; i < VL; i++) most = v_max_i(most, (vi)turned[i]);
    return most;
}
//! v_store_words: v_toint v_min v_max v_set1 v_lane
/* to whole numbers of 16 bits, to nearest, saturated */
static inline void v_store_words(int16_t *p, vf a) {
    const vi b = v_toint(v_min(v_max(a, v_set1(-32768.0f)), v_set1(32767.0f)));
    for (int i = 0; i < VL; i++) p[i] = (int16_t)V_LANE(b, i);
}
//! v_load_pairs: types
/* twice as many bytes as there are lanes, each as 16 bits, two to a lane */
static inline vi v_load_pairs(const int8_t *p) {
    vi a;
#if VL == 1
    const int16_t pair[2] = {p[0], p[1]};
    __builtin_memcpy(&a, pair, sizeof a);
#else
    int8_t b __attribute__((vector_size(2 * VL)));
    int16_t c __attribute__((vector_size(4 * VL)));
    __builtin_memcpy(&b, p, sizeof b);
    c = __builtin_convertvector(b, __typeof__(c));
    a = (vi)c;
#endif
    return a;
}
//! v_pair_u8: types
/* as many bytes as there are lanes from two places, as pairs of 16-bit numbers, two to a lane */
static inline vi v_pair_u8(const uint8_t *p, const uint8_t *q) {
#if VL == 1
    return *p | *q << 16;
#else
    uint8_t a __attribute__((vector_size(VL))), b __attribute__((vector_size(VL)));
    __builtin_memcpy(&a, p, sizeof a);
    __builtin_memcpy(&b, q, sizeof b);
    return __builtin_convertvector(a, vi) | __builtin_convertvector(b, vi) << 16;
#endif
}
//! v_pair_i8: types
static inline vi v_pair_i8(const int8_t *p, const int8_t *q) {
#if VL == 1
    return (*p & 0xffff) | (int32_t)((uint32_t)*q << 16);
#else
    int8_t a __attribute__((vector_size(VL))), b __attribute__((vector_size(VL)));
    __builtin_memcpy(&a, p, sizeof a);
    __builtin_memcpy(&b, q, sizeof b);
    return (__builtin_convertvector(a, vi) & 0xffff) | __builtin_convertvector(b, vi) << 16;
#endif
}
//! v_dup2: v_set1i
/* a pair in every lane */
static inline vi v_dup2(const int16_t *p) {
    int32_t a;
    __builtin_memcpy(&a, p, 4);
    return v_set1i(a);
}
//! v_dot2: types
/* acc + the sum of both products of the 16-bit numbers of x and w, in every lane */
static inline vi v_dot2(vi acc, vi x, vi w) {
#if VL == 1
    return acc + (int16_t)(x & 0xffff) * (int16_t)(w & 0xffff) + (x >> 16) * (w >> 16);
#else
    return acc + (x << 16 >> 16) * (w << 16 >> 16) + (x >> 16) * (w >> 16);
#endif
}
//! v_row: v_load_pairs v_set1 v_tofloat
/* one row of floats times a panel of int8 weights in pairs, as float32 has it: for rows that have no 16-bit numbers.
   s: a vector of sums times ``by`` for each vector of the panel */
static __attribute__((noinline, cold)) void v_row(
    const float *x, const int depth, const int8_t *w, const int width, const float by, vf *s) {
    for (int j = 0; j < width; j++) {
        s[j] = v_set1(0.0f);
        for (int k = 0; k < depth; k++) {
            const vi two = v_load_pairs(w + (long)(k / 2 * width + j) * 2 * VL);
#if VL == 1
            const vi one = k % 2 ? two >> 16 : (int16_t)(two & 0xffff);
#else
            const vi one = k % 2 ? two >> 16 : two << 16 >> 16;
#endif
            s[j] += v_set1(x[k] * by) * v_tofloat(one);
        }
    }
}
//! v_words: v_sum v_load v_load_n v_bits v_frombits v_set1i v_max_i v_hmax_i v_hmax_each v_max v_set1 v_store v_store_words
/* at most 16 rows of floats as numbers of 16 bits, each row times a scale of its own: its largest magnitude / 32767.
   The scale of a row with a NaN or an infinity is NaN, and so is what is returned, else 0. q: rows apart by pitch;
   scale: room for whole vectors */
static inline __attribute__((always_inline)) float v_words(
    const float *x, const long stride, const int depth, const int rows, int16_t *q, const long pitch, float *scale) {
    const int whole = depth / VL * VL, rest = depth % VL;
    vf all = v_set1(0.0f);
    for (int first = 0; first < rows; first += VL) {
        const int count = rows - first < VL ? rows - first : VL;
        vi most[VL];
        float to_words[VL];
        for (int i = 0; i < VL; i++) {
            const float *row = x + (first + i) * stride;
            most[i] = v_set1i(0);
            if (i >= count) continue;
            for (int k = 0; k < whole; k += VL) most[i] = v_max_i(most[i], v_bits(v_load(row + k)) & 0x7fffffff);
            if (rest) most[i] = v_max_i(most[i], v_bits(v_load_n(row + whole, rest)) & 0x7fffffff);
        }
        /* as whole numbers, infinities are larger than all other magnitudes, and NaN is larger still */
        const vf largest = v_frombits(count == 1 ? v_set1i(v_hmax_i(most[0])) : v_hmax_each(most));
        const vf divisor = v_max(v_set1(0x1p-111f), largest);
        v_store(to_words, v_set1(32767.0f) / divisor);
        v_store(scale + first, divisor * v_set1(1.0f / 32767.0f) + (largest - largest));
        all += largest - largest;
        for (int i = 0; i < count; i++) {
            const float *row = x + (first + i) * stride;
            int16_t *to = q + (first + i) * pitch;
            for (int k = 0; k < whole; k += VL) v_store_words(to + k, v_load(row + k) * v_set1(to_words[i]));
            if (rest) v_store_words(to + whole, v_load_n(row + whole, rest) * v_set1(to_words[i]));
            if (VL == 1 && depth % 2) to[depth] = 0;
        }
    }
    return v_sum(all);
}
//! v_words_2: v_load v_load_n v_bits v_frombits v_set1i v_max_i v_hmax_i v_round v_max v_set1 v_lane v_store_words
/* a row of floats as sums of two 16-bit numbers, high + low / 32768, times a power of two that is returned: 30 bits in
   all below its largest magnitude. NaN is returned where the row has a NaN or an infinity */
static inline __attribute__((always_inline)) float v_words_2(const float *x, const int depth, int16_t *high, int16_t *low) {
    vi most = v_set1i(0);
    for (int k = 0; k < depth; k += VL)
        most = v_max_i(most, v_bits(depth - k < VL ? v_load_n(x + k, depth - k) : v_load(x + k)) & 0x7fffffff);
    const int32_t largest = v_hmax_i(most);
    const vf power = v_max(v_set1(0x1p-100f), v_frombits(v_set1i(largest & 0x7f800000)));
    const vf to_words = v_set1(0x1p13f) / power;
    for (int k = 0; k < depth; k += VL) {
        const vf a = (depth - k < VL ? v_load_n(x + k, depth - k) : v_load(x + k)) * to_words;
        const vf whole = v_round(a);
        v_store_words(high + k, whole);
        v_store_words(low + k, (a - whole) * v_set1(0x1p15f));
    }
    if (VL == 1 && depth % 2) high[depth] = low[depth] = 0;
    const vf limit = v_frombits(v_set1i(largest));
    return V_LANE(power * v_set1(0x1p-13f) + (limit - limit), 0);
}
//! v_row_words: v_load v_load_n v_bits v_frombits v_set1i v_max_i v_hmax_i v_max v_set1 v_lane v_store_words
/* a row of floats as whole numbers up to ``most``, times the scale that is returned: NaN where the row has a NaN or an
   infinity. q: room for whole vectors */
static inline __attribute__((always_inline)) float v_row_words(
    const float *x, const int depth, const float most, int16_t *q) {
    vi all = v_set1i(0);
    for (int k = 0; k < depth; k += VL)
        all = v_max_i(all, v_bits(depth - k < VL ? v_load_n(x + k, depth - k) : v_load(x + k)) & 0x7fffffff);
    const vf largest = v_frombits(v_set1i(v_hmax_i(all))), divisor = v_max(v_set1(0x1p-111f), largest);
    const vf to_words = v_set1(most) / divisor;
    for (int k = 0; k < depth; k += VL)
        v_store_words(q + k, (depth - k < VL ? v_load_n(x + k, depth - k) : v_load(x + k)) * to_words);
    return V_LANE(divisor * v_set1(1.0f / most) + (largest - largest), 0);
}
//! v_row_thirds: v_loadi v_set1 v_tofloat v_third_16
/* one row of floats times a panel of 16-bit weights, three in two words, as float32 has it: for rows that have no whole
   numbers. s: a vector of sums times ``by`` for each vector of the panel */
static __attribute__((noinline, cold)) void v_row_thirds(
    const float *x, const int depth, const int32_t *w, const int width, const float by, vf *s) {
    for (int j = 0; j < width; j++) {
        s[j] = v_set1(0.0f);
        for (int k = 0; k < depth; k++) {
            const int32_t *const at = w + (long)(k / 6 * width + j) * 2 * VL;
            const vi one = v_loadi(at), two = v_loadi(at + VL), words[3] = {one, two, v_third_16(one, two)};
            const vi pair = words[k % 6 / 2];
#if VL == 1
            const vi number = k % 2 ? pair >> 16 : (int16_t)(pair & 0xffff);
#else
            const vi number = k % 2 ? pair >> 16 : pair << 16 >> 16;
#endif
            s[j] += v_set1(x[k] * by) * v_tofloat(number);
        }
    }
}
//! v_largest: v_load v_load_n v_bits v_set1i v_max_i v_hmax_i
/* the largest magnitude in rows of floats; an infinity or NaN where there is one: as whole numbers they are larger still */
static inline float v_largest(const float *x, const long stride, const int count, const int rows) {
    vi a = v_set1i(0), b = a;
    for (int r = 0; r < rows; r++, x += stride) {
        int k = 0;
        for (; k + 2 * VL <= count; k += 2 * VL) {
            a = v_max_i(a, v_bits(v_load(x + k)) & 0x7fffffff);
            b = v_max_i(b, v_bits(v_load(x + k + VL)) & 0x7fffffff);
        }
        for (; k < count; k += VL)
            a = v_max_i(a, v_bits(count - k < VL ? v_load_n(x + k, count - k) : v_load(x + k)) & 0x7fffffff);
    }
    const int32_t most = v_hmax_i(v_max_i(a, b));
    float found;
    __builtin_memcpy(&found, &most, sizeof found);
    return found;
}
