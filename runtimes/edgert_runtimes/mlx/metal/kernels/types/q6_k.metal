// Q6_K: uchar ql[128], uchar qh[64], char scales[16], half d; w = d * scale * (q - 32), a scale for every 16 weights.
// Of weight 128 h + 32 s + l, the low four bits are in byte 64 h + 32 (s % 2) + l of ql (the low half for s < 2), the upper
// two in bits 2 s, 2 s + 1 of byte 32 h + l of qh. Source: block_q6_K of ggml-common.h.
inline void decode(const device uchar* block, uint part, thread float* w) {
    uint h = part / 4, s = part % 4;
    const device uchar* low = block + 64 * h + 32 * (s % 2);
    const device uchar* high = block + 128 + 32 * h;
    float d = half_at(block + 208);
    UNROLL for (uint i = 0; i < 32; i += 4) {
        float step = d * float(int8_t(block[192 + 2 * part + i / 16]));
        uint q = (word_at(low + i) >> 4 * (s / 2) & 0x0F0F0F0F) | (word_at(high + i) >> 2 * s & 0x03030303) << 4;
        UNROLL for (uint j = 0; j < 4; ++j) w[i + j] = step * (byte_of(q, j) - 32);
    }
}
