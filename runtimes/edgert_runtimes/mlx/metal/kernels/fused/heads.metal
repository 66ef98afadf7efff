// Queries, keys and values of some rows as attention and the cache take them: heads normalised (NORM) and turned by rope (PAIRS
// pairs from element FIRST of a head on; INTERLEAVED: of neighbours, else of elements PAIRS apart).
// q [rows, HEADS SIZE], k [rows, KV_HEADS SIZE], v [rows, KV_HEADS VALUE_SIZE] of any floats; q_weight and k_weight [SIZE];
// frequencies [PAIRS or 1]; positions [rows]; numbers: eps of queries, eps of keys, the magnitude.
// queries as q, of T; keys [KV_HEADS, rows, SIZE] and values [KV_HEADS, rows, VALUE_SIZE] of the cache's type C.
// A group of 32 threads for a head of a row: threads [32 (HEADS + 2 KV_HEADS), rows].
uint head = threadgroup_position_in_grid.x, row = threadgroup_position_in_grid.y, lane = thread_index_in_simdgroup;
uint rows = q_shape[0];
if (head >= HEADS + KV_HEADS) {
    uint own = head - HEADS - KV_HEADS;
    for (uint i = lane; i < VALUE_SIZE; i += 32) {
        values[(own * rows + row) * VALUE_SIZE + i] = C(float(v[(row * KV_HEADS + own) * VALUE_SIZE + i]));
    }
} else {
    bool query = head < HEADS;
    uint own = query ? head : head - HEADS;
    uint start = (row * (query ? HEADS : KV_HEADS) + own) * SIZE;
    float factor = 1;
    if (NORM) {
        float squares = 0;
        for (uint i = lane; i < SIZE; i += 32) {
            float x = query ? float(q[start + i]) : float(k[start + i]);
            squares += x * x;
        }
        for (ushort distance = 16; distance > 0; distance /= 2) squares += simd_shuffle_xor(squares, distance);
        factor = 1 / sqrt(squares / SIZE + (query ? numbers[0] : numbers[1]));
    }
    for (uint i = lane; i < SIZE; i += 32) {
        uint place = i - FIRST;  // far beyond all pairs for elements before FIRST
        uint pair = INTERLEAVED ? place / 2 : place % max(PAIRS, 1);
        bool turned = i >= FIRST && place < 2 * PAIRS, second = INTERLEAVED ? place % 2 : place >= PAIRS;
        uint other = !turned ? i : INTERLEAVED ? (second ? i - 1 : i + 1) : (second ? i - PAIRS : i + PAIRS);
        float x = query ? float(q[start + i]) : float(k[start + i]);
        float y = query ? float(q[start + other]) : float(k[start + other]);
        if (NORM) {
            x *= factor * (query ? q_weight[i] : k_weight[i]);
            y *= factor * (query ? q_weight[other] : k_weight[other]);
        }
        if (turned) {
            float angle = float(positions[row]) * frequencies[pair];
            x = (x * metal::precise::cos(angle) + (second ? y : -y) * metal::precise::sin(angle)) * numbers[2];
        }
        if (query) queries[start + i] = T(x);
        else keys[(own * rows + row) * SIZE + i] = C(x);
    }
}
