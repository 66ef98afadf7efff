// IQ1_S: half d, uchar qs[32], ushort qh[8]; w = d * (2 s + 1) * (point +- 1/8). Point i of 32 weights (of eight each) has the
// index qs[i] and, above, bits 3 i to 3 i + 2 of qh, whose bits 12 to 14 are s; 1/8 is subtracted where bit 15 is set.
// Source: block_iq1_s of ggml-common.h, dequantize_row_iq1_s of ggml-quants.c.
inline void decode(const device uchar* block, uint part, thread float* w) {
    uint rest = short_at(block + 34 + 2 * part);
    float step = half_at(block) * float(2 * (rest >> 12 & 7) + 1);
    float shift = rest >> 15 ? -0.125f : 0.125f;
    UNROLL for (uint i = 0; i < 4; ++i) {
        uint index = block[2 + 4 * part + i] | (rest >> 3 * i & 7) << 8;
        UNROLL for (uint j = 0; j < 8; ++j) w[8 * i + j] = step * (signed_byte_of(grid[2 * index + j / 4], j % 4) + shift);
    }
}
