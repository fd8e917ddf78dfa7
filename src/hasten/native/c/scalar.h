//! s_bits: types
static inline uint32_t s_bits(float a) {
    uint32_t b;
    __builtin_memcpy(&b, &a, sizeof b);
    return b;
}
//! s_float: types
static inline float s_float(uint32_t a) {
    float b;
    __builtin_memcpy(&b, &a, sizeof b);
    return b;
}
//! s_from_f16: s_float
/* float16 bits to float; none of the steps makes a denormal float, which a call counts as zero */
static inline float s_from_f16(uint16_t h) {
    const uint32_t sign = h & 0x8000, low = h & 0x7fff;
    const float small = (float)(int)low * 0x1p-24f;
    const uint32_t large = low >= 0x7c00 ? (low << 13) + 0x70000000u : (low << 13) + 0x38000000u;
    const float size = low < 0x400 ? small : s_float(large);
    return sign ? -size : size;
}
//! s_order: s_bits
/* an integer in the order of the floats: both zeros are 0, NaN is the largest */
static inline int32_t s_order(float a) {
    const int32_t b = (int32_t)s_bits(a), k = b ^ (b >> 31 & 0x7fffffff);
    return a != a ? 0x7fffffff : k == -1 ? 0 : k;
}
//! d_order: types
static inline int64_t d_order(double a) {
    int64_t b;
    __builtin_memcpy(&b, &a, sizeof b);
    const int64_t k = b ^ (b >> 63 & 0x7fffffffffffffff);
    return a != a ? 0x7fffffffffffffff : k == -1 ? 0 : k;
}
//! s_to_f16: s_bits
/* float to float16 bits, to nearest, ties to even */
static inline uint16_t s_to_f16(float a) {
    const uint32_t u = s_bits(a), sign = u >> 16 & 0x8000, x = u & 0x7fffffff;
    if (x > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (x >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    if (x < 0x38800000) return (uint16_t)(sign | (s_bits(__builtin_fabsf(a) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | ((x - 0x38000000 + 0xfff + (x >> 13 & 1)) >> 13));
}
//! s_from_bf16: s_float
static inline float s_from_bf16(uint16_t h) { return s_float((uint32_t)h << 16); }
//! s_to_bf16: s_bits
/* float to bfloat16 bits, to nearest, ties to even */
static inline uint16_t s_to_bf16(float a) {
    const uint32_t u = s_bits(a);
    return a != a ? 0x7fc0 : (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
//! s_from_small: s_float
/* bits of a float of eight bits or fewer to float; the same for every type, which its constants tell apart */
static inline float s_from_small(uint32_t h, int mantissa, int bias, uint32_t sign, uint32_t infinity, uint32_t nan) {
    const uint32_t bits = h & (2 * sign - 1), low = bits & (sign - 1);
    const float small = (float)(int)low * s_float((uint32_t)(128 - bias - mantissa) << 23);
    const float large = s_float((low << (23 - mantissa)) + ((uint32_t)(127 - bias) << 23));
    const float size = low >> mantissa ? large : small;
    if (bits == nan || low == nan || low > infinity) return __builtin_nanf("");
    if (low == infinity) return bits & sign ? -__builtin_inff() : __builtin_inff();
    return bits & sign ? -size : size;
}
//! s_to_small: s_bits s_float
/* float to a float of eight bits or fewer, to nearest, ties to even; past the largest it is infinite, or what stands for
   that. Where NaN is minus zero there is no other minus zero. */
static inline uint8_t s_to_small(float a, int mantissa, int bias, uint32_t sign, uint32_t largest, uint32_t infinity,
                                 uint32_t nan) {
    const uint32_t u = s_bits(a), x = u & 0x7fffffff, minus = u >> 31 ? sign : 0;
    const int drop = 23 - mantissa;
    const float unit = s_float((uint32_t)(151 - bias - mantissa) << 23); /* its last place is the least number */
    uint32_t code;
    if (x > 0x7f800000) return (uint8_t)(minus | nan);
    if (x < (uint32_t)(128 - bias) << 23) code = s_bits(__builtin_fabsf(a) + unit) - s_bits(unit);
    else code = (x - ((uint32_t)(127 - bias) << 23) + ((1u << (drop - 1)) - 1) + (x >> drop & 1)) >> drop;
    if (code > largest) code = infinity;
    return (uint8_t)(code == 0 && nan == sign ? 0 : minus | code);
}
//! s_from_exponent: s_float
/* a power of two by its exponent; the least one is denormal */
static inline float s_from_exponent(uint32_t h) {
    return s_float(h == 0 ? 0x400000 : h == 255 ? 0x7fc00000 : h << 23);
}
//! s_power: s_bits s_from_exponent
/* the power of two that a is rounded to, its sign dropped; past the last exponent NaN, as infinity is. Halfway below
   the normal numbers lies one of the powers, which is no tie. */
static inline float s_power(float a, uint32_t more, uint32_t ties_up, uint32_t last) {
    const uint32_t x = s_bits(a) & 0x7fffffff, rounded = (x + more + (ties_up & (x > 0x7fffff))) >> 23;
    return s_from_exponent(x >= 0x7f800000 ? 255 : rounded > last ? last : rounded);
}
//! s_idiv: types
/* towards zero; division by zero gives zero */
static inline int64_t s_idiv(int64_t a, int64_t b) {
    return b == 0 ? 0 : b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
}
//! s_udiv: types
static inline uint64_t s_udiv(uint64_t a, uint64_t b) { return b == 0 ? 0 : a / b; }
//! s_ifmod: types
/* remainder with the sign of a */
static inline int64_t s_ifmod(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }
//! s_imod: s_ifmod
/* remainder with the sign of b */
static inline int64_t s_imod(int64_t a, int64_t b) {
    const int64_t r = s_ifmod(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
//! s_umod: types
static inline uint64_t s_umod(uint64_t a, uint64_t b) { return b == 0 ? 0 : a % b; }
//! s_ipow: types
/* modulo 2^64; 1 / a^-b towards zero where b is negative */
static inline int64_t s_ipow(int64_t a, int64_t b) {
    if (b < 0) return a == 1 ? 1 : a == -1 ? (b & 1 ? -1 : 1) : 0;
    uint64_t r = 1, f = (uint64_t)a;
    for (; b; b >>= 1, f *= f) if (b & 1) r *= f;
    return (int64_t)r;
}
//! s_index: types
/* an index as ONNX counts it, negative ones from the end; held to the axis, so that nothing outside is ever read */
static inline int64_t s_index(int64_t i, int64_t n) {
    i = i < 0 ? i + n : i;
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}
//! s_reflect: types
/* a position mirrored at both ends as often as it takes to lie between them; NaN stays */
static inline float s_reflect(float a, float low, float high) {
    const float range = high - low;
    if (range <= 0) return low;
    const float past = a < low ? low - a : a > high ? a - high : 0;
    const float turns = __builtin_floorf(past / range);
    const float rest = past - turns * range;
    const int even = turns == 2 * __builtin_floorf(turns / 2);
    if (a < low) return even ? low + rest : high - rest;
    if (a > high) return even ? high - rest : low + rest;
    return a;
}
//! s_clamped: types
/* towards zero, held to the range of the integer; NaN becomes zero */
#define S_CLAMPED(name, from, to, low, high, below, above) \
    static inline to name(from a) { return a != a ? 0 : a <= below ? low : a >= above ? high : (to)a; }
//! s_int8_float: s_clamped
S_CLAMPED(s_int8_float, float, int8_t, INT8_MIN, INT8_MAX, -128.0f, 128.0f)
//! s_int8_double: s_clamped
S_CLAMPED(s_int8_double, double, int8_t, INT8_MIN, INT8_MAX, -128.0, 128.0)
//! s_uint8_float: s_clamped
S_CLAMPED(s_uint8_float, float, uint8_t, 0, UINT8_MAX, 0.0f, 256.0f)
//! s_uint8_double: s_clamped
S_CLAMPED(s_uint8_double, double, uint8_t, 0, UINT8_MAX, 0.0, 256.0)
//! s_int16_float: s_clamped
S_CLAMPED(s_int16_float, float, int16_t, INT16_MIN, INT16_MAX, -32768.0f, 32768.0f)
//! s_int16_double: s_clamped
S_CLAMPED(s_int16_double, double, int16_t, INT16_MIN, INT16_MAX, -32768.0, 32768.0)
//! s_uint16_float: s_clamped
S_CLAMPED(s_uint16_float, float, uint16_t, 0, UINT16_MAX, 0.0f, 65536.0f)
//! s_uint16_double: s_clamped
S_CLAMPED(s_uint16_double, double, uint16_t, 0, UINT16_MAX, 0.0, 65536.0)
//! s_int32_float: s_clamped
S_CLAMPED(s_int32_float, float, int32_t, INT32_MIN, INT32_MAX, -2147483648.0f, 2147483648.0f)
//! s_int32_double: s_clamped
S_CLAMPED(s_int32_double, double, int32_t, INT32_MIN, INT32_MAX, -2147483648.0, 2147483648.0)
//! s_uint32_float: s_clamped
S_CLAMPED(s_uint32_float, float, uint32_t, 0, UINT32_MAX, 0.0f, 4294967296.0f)
//! s_uint32_double: s_clamped
S_CLAMPED(s_uint32_double, double, uint32_t, 0, UINT32_MAX, 0.0, 4294967296.0)
//! s_int64_float: s_clamped
S_CLAMPED(s_int64_float, float, int64_t, INT64_MIN, INT64_MAX, -9.223372036854776e+18f, 9.223372036854776e+18f)
//! s_int64_double: s_clamped
S_CLAMPED(s_int64_double, double, int64_t, INT64_MIN, INT64_MAX, -9.223372036854776e+18, 9.223372036854776e+18)
//! s_uint64_float: s_clamped
S_CLAMPED(s_uint64_float, float, uint64_t, 0, UINT64_MAX, 0.0f, 1.8446744073709552e+19f)
//! s_uint64_double: s_clamped
S_CLAMPED(s_uint64_double, double, uint64_t, 0, UINT64_MAX, 0.0, 1.8446744073709552e+19)
