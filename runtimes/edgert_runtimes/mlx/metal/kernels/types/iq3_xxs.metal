// IQ3_XXS: half d, uchar qs[64], uint rest[8]; w = d * (1/2 + s) / 2 * sign * point. qs[i] names a point of four weights; for
// every 32 weights, rest has four times seven signs and above them s.
// Source: block_iq3_xxs of ggml-common.h, dequantize_row_iq3_xxs of ggml-quants.c.
inline void decode(const device uchar* block, uint part, thread float* w) {
    const device uchar* index = block + 2 + 8 * part;
    uint rest = word_at(block + 66 + 4 * part);
    float step = half_at(block) * (0.5f + float(rest >> 28)) * 0.5f;
    UNROLL for (uint i = 0; i < 8; ++i) place(grid[index[i]], with_parity(rest >> 7 * (i / 2)) >> 4 * (i % 2), step, w + 4 * i);
}
