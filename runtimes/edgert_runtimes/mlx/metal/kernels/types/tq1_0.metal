// TQ1_0: uchar qs[48], uchar qh[4], half d; w = d * (digit - 1). A byte holds digits in base 3, the first the highest, as
// ceil(256 n / 243): digit number n is the upper byte of 3 * (byte * 3^n mod 256). Weight 32 n + m < 160 is digit n of qs[m],
// weight 160 + 16 n + m < 240 that of qs[32 + m], weight 240 + 4 n + m that of qh[m].
// Source: block_tq1_0 of ggml-common.h, dequantize_row_tq1_0 of ggml-quants.c.
constant uint powers_of_three[5] = {1, 3, 9, 27, 81};

inline void decode(const device uchar* block, uint part, thread float* w) {
    float d = half_at(block + 52);
    UNROLL for (uint i = 0; i < 32; ++i) {
        uint at, number;  // of the byte, and of its digit
        uint rest = 32 * part + i;
        if (rest < 160) {
            at = i;
            number = part;
        } else if (rest < 240) {
            at = 32 + rest % 16;
            number = (rest - 160) / 16;
        } else {
            at = 48 + rest % 4;
            number = (rest - 240) / 4;
        }
        uint digit = (block[at] * powers_of_three[number] & 255) * 3 >> 8;
        w[i] = d * (float(digit) - 1);
    }
}
