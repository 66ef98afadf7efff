// Q3_K: uchar hmask[32], uchar qs[64], uchar scales[12], half d; w = d * (scale - 32) * (q - 4), a scale for every 16 weights.
// Of weight 128 h + 32 s + l, the low two bits are bits 2 s, 2 s + 1 of byte 32 h + l of qs, the third is bit 4 h + s of
// hmask[l]. The low four bits of scale g are in half g / 8 of scales[g % 8], the upper two in bits 2 (g / 4) and the next of
// scales[8 + g % 4]. Source: block_q3_K of ggml-common.h, dequantize_row_q3_K of ggml-quants.c.
inline void decode(const device uchar* block, uint part, thread float* w) {
    uint h = part / 4, s = part % 4;
    const device uchar* scales = block + 96;
    float d = half_at(block + 108);
    UNROLL for (uint i = 0; i < 32; i += 4) {
        uint g = 2 * part + i / 16;
        uint scale = (scales[g % 8] >> 4 * (g / 8) & 15) | (scales[8 + g % 4] >> 2 * (g / 4) & 3) << 4;
        float step = d * (float(scale) - 32);
        uint q = (word_at(block + 32 + 32 * h + i) >> 2 * s & 0x03030303) | (word_at(block + i) >> part & 0x01010101) << 2;
        UNROLL for (uint j = 0; j < 4; ++j) w[i + j] = step * (byte_of(q, j) - 4);
    }
}
