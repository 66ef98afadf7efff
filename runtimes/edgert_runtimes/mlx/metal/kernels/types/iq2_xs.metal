// IQ2_XS: half d, ushort qs[32], uchar scales[8]; w = d * (1/2 + s) / 4 * sign * point. The low nine bits of qs[i] name the
// point of eight weights, the upper seven are their signs; s is a half of scales, for 16 weights.
// Source: block_iq2_xs of ggml-common.h, dequantize_row_iq2_xs of ggml-quants.c.
inline void decode(const device uchar* block, uint part, thread float* w) {
    float d = half_at(block);
    UNROLL for (uint i = 0; i < 4; ++i) {
        uint q = short_at(block + 2 + 8 * part + 2 * i);
        float step = d * (0.5f + float(nibble_at(block + 66, 2 * part + i / 2))) * 0.25f;
        uint index = q & 511, signs = with_parity(q >> 9);
        place(grid[2 * index], signs, step, w + 8 * i);
        place(grid[2 * index + 1], signs >> 4, step, w + 8 * i + 4);
    }
}
