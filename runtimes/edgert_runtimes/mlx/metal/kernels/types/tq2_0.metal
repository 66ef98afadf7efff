// TQ2_0: uchar qs[64], half d; w = d * (q - 1); weight 128 h + 32 s + l has bits 2 s, 2 s + 1 of byte 32 h + l.
// Source: block_tq2_0 of ggml-common.h.
inline void decode(const device uchar* block, uint part, thread float* w) {
    float d = half_at(block + 64);
    UNROLL for (uint i = 0; i < 32; i += 4) {
        uint q = word_at(block + 32 * (part / 4) + i) >> 2 * (part % 4) & 0x03030303;
        UNROLL for (uint j = 0; j < 4; ++j) w[i + j] = d * (byte_of(q, j) - 1);
    }
}
