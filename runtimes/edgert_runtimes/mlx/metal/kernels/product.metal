// Row times row: what lane 8 r + p of a simdgroup does, whose eight lanes r share a row of W. It decodes part p (32 weights) of
// every block, so that any number of blocks keeps all lanes busy, and multiplies it with COLUMNS rows of x; then the eight
// lanes add up.

template <typename T, int COLUMNS>
inline void multiply(const device uchar* row, const device T* x, uint width, uint part, thread float* sums) {
    UNROLL for (int c = 0; c < COLUMNS; ++c) sums[c] = 0;
    for (uint k = 32 * part; k < width; k += 256) {
        float w[32];
        decode(row + size_t(k / 256) * BLOCK_BYTES, part, w);
        UNROLL for (int c = 0; c < COLUMNS; ++c) {
            const device T* from = x + size_t(c) * width + k;
            float sum = 0;
            UNROLL for (uint i = 0; i < 32; ++i) sum += w[i] * float(from[i]);
            sums[c] += sum;
        }
    }
    UNROLL for (int c = 0; c < COLUMNS; ++c) {
        for (ushort distance = 4; distance > 0; distance /= 2) sums[c] += simd_shuffle_xor(sums[c], distance);
    }
}
