// Q2_K: uchar scales[16], uchar qs[64], half d, half dmin; w = d * scale * q - dmin * minimum. scales[g] holds the scale (low
// half) and the minimum of 16 weights; weight 128 h + 32 s + l has bits 2 s, 2 s + 1 of byte 32 h + l of qs.
// Source: block_q2_K of ggml-common.h.
inline void decode(const device uchar* block, uint part, thread float* w) {
    uint h = part / 4, s = part % 4;
    float d = half_at(block + 80), dmin = half_at(block + 82);
    UNROLL for (uint i = 0; i < 32; i += 4) {
        uint scale = block[2 * part + i / 16];
        float step = d * float(scale & 15), least = dmin * float(scale >> 4);
        uint q = word_at(block + 16 + 32 * h + i) >> 2 * s & 0x03030303;
        UNROLL for (uint j = 0; j < 4; ++j) w[i + j] = step * byte_of(q, j) - least;
    }
}
