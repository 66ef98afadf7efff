// IQ2_XXS: half d, and for every 32 weights uchar index[4], uint rest; w = d * (1/2 + s) / 4 * sign * point. Index i names a
// point of eight weights, bits 7 i to 7 i + 6 of rest their signs, its upper four bits are s.
// Source: block_iq2_xxs of ggml-common.h, dequantize_row_iq2_xxs of ggml-quants.c.
inline void decode(const device uchar* block, uint part, thread float* w) {
    const device uchar* index = block + 2 + 8 * part;
    uint rest = word_at(index + 4);
    float step = half_at(block) * (0.5f + float(rest >> 28)) * 0.25f;
    UNROLL for (uint i = 0; i < 4; ++i) {
        uint signs = with_parity(rest >> 7 * i);
        place(grid[2 * index[i]], signs, step, w + 8 * i);
        place(grid[2 * index[i] + 1], signs >> 4, step, w + 8 * i + 4);
    }
}
