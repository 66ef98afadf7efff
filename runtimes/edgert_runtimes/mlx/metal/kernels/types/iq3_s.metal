// IQ3_S: half d, uchar qs[64], uchar qh[8], uchar signs[32], uchar scales[4]; w = d * (1 + 2 s) * sign * point. Point i of 32
// weights (of four each) has the index qs[i] and, above, bit i of qh; s is a half of scales, for 32 weights.
// Source: block_iq3_s of ggml-common.h, dequantize_row_iq3_s of ggml-quants.c.
inline void decode(const device uchar* block, uint part, thread float* w) {
    float step = half_at(block) * float(1 + 2 * nibble_at(block + 106, part));
    UNROLL for (uint i = 0; i < 8; ++i) {
        uint index = block[2 + 8 * part + i] | (block[66 + part] >> i & 1) << 8;
        place(grid[index], nibble_at(block + 74 + 4 * part, i), step, w + 4 * i);
    }
}
