// Types whose codes name points of a grid. `grid` has the points' coordinates as signed bytes, four to a word; it is made
// from edgert_quant's tables.

// Four weights: step * coordinates of a word of the grid, negative where bit j of `signs` is set.
inline void place(uint word, uint signs, float step, thread float* w) {
    UNROLL for (uint j = 0; j < 4; ++j) {
        float value = step * signed_byte_of(word, j);
        w[j] = signs >> j & 1 ? -value : value;
    }
}

// Seven stored signs and the eighth, which makes the number of negative ones even.
inline uint with_parity(uint signs) {
    signs &= 127;
    return signs | (popcount(signs) & 1) << 7;
}
