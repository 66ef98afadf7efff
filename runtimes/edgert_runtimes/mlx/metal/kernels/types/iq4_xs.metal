// IQ4_XS: half d, ushort scales_h, uchar scales_l[4], uchar qs[128]; w = d * (scale - 32) * values[q], a scale for every 32
// weights: its low four bits are half g of scales_l, its upper two bits 2 g, 2 g + 1 of scales_h. Byte 16 g + j of qs holds
// weights 32 g + j (low half) and 32 g + 16 + j. Source: block_iq4_xs of ggml-common.h; `values` from edgert_quant.
inline void decode(const device uchar* block, uint part, thread float* w) {
    uint scale = nibble_at(block + 4, part) | (short_at(block + 2) >> 2 * part & 3) << 4;
    float step = half_at(block) * (float(scale) - 32);
    UNROLL for (uint i = 0; i < 16; i += 4) {
        uint q = word_at(block + 8 + 16 * part + i);
        UNROLL for (uint j = 0; j < 4; ++j) {
            w[i + j] = step * float(values[q >> 8 * j & 15]);
            w[i + j + 16] = step * float(values[q >> (8 * j + 4) & 15]);
        }
    }
}
