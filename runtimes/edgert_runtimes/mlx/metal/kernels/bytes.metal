// Reading the bytes of a block. All blocks here have an even number of bytes and all of their fields even places, so that
// pieces of 16 bits are aligned; numbers are little-endian.

// For loops over an array of a thread: only where every index is a constant does the array lie in registers.
#define UNROLL _Pragma("clang loop unroll(full)")

inline uint short_at(const device uchar* p) {
    return *(const device ushort*)p;
}

inline uint word_at(const device uchar* p) {
    return short_at(p) | short_at(p + 2) << 16;
}

inline float half_at(const device uchar* p) {
    return float(as_type<half>(ushort(short_at(p))));
}

// Byte j of a word, as it is and with its sign.
inline float byte_of(uint word, uint j) {
    return float(word >> 8 * j & 255);
}

inline float signed_byte_of(uint word, uint j) {
    return float(int(word << (24 - 8 * j)) >> 24);
}

// Half i of a byte (the low one first).
inline uint nibble_at(const device uchar* p, uint i) {
    return p[i / 2] >> 4 * (i % 2) & 15;
}
