// IQ2_S: half d, uchar qs[32], uchar signs[32], uchar qh[8], uchar scales[8]; w = d * (1/2 + s) / 4 * sign * point. Point i of
// 32 weights (of eight each) has the index qs[i] and, above, bits 2 i, 2 i + 1 of qh; s is a half of scales, for 16 weights.
// Source: block_iq2_s of ggml-common.h, dequantize_row_iq2_s of ggml-quants.c.
inline void decode(const device uchar* block, uint part, thread float* w) {
    float d = half_at(block);
    UNROLL for (uint i = 0; i < 4; ++i) {
        float step = d * (0.5f + float(nibble_at(block + 74, 2 * part + i / 2))) * 0.25f;
        uint index = block[2 + 4 * part + i] | (block[66 + part] >> 2 * i & 3) << 8;
        uint signs = block[34 + 4 * part + i];
        place(grid[2 * index], signs, step, w + 8 * i);
        place(grid[2 * index + 1], signs >> 4, step, w + 8 * i + 4);
    }
}
