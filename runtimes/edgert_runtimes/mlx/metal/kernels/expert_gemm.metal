// The same as expert_gemv for many pairs, best in the order of their experts: y[p] = x[p / share] W[ids[p]]^T.
// x [pairs / share, K] of T; blocks uchar [experts, N, bytes of a row]; ids [pairs]; y [pairs, N] of T.
// A group of 128 threads makes a tile of 32 pairs by 64 rows of W: threads [128 ceil(N / 64), ceil(pairs / 32)]. It goes
// through the pairs run by run of one expert. Of each run, 32 weights of K at a time lie in w_tile [32][64] and x_tile
// [32][32]; simdgroup s sums the sixteen pairs from 16 (s % 2) on by the 32 rows from 32 (s / 2) on, in eight matrices of
// 8 by 8.
threadgroup float w_tile[32 * 64];
threadgroup float x_tile[32 * 32];

uint rows = blocks_shape[1], width = x_shape[1], pairs = ids_shape[0];
uint share = pairs / x_shape[0];
uint index = thread_index_in_threadgroup, lanes = simdgroup_index_in_threadgroup;
uint first_row = 64 * threadgroup_position_in_grid.x, first_pair = 32 * threadgroup_position_in_grid.y;
uint end_pair = min(first_pair + 32, pairs);
uint pair_corner = 16 * (lanes % 2), row_corner = 32 * (lanes / 2);

for (uint start = first_pair, stop; start < end_pair; start = stop) {
    uint expert = ids[start];
    for (stop = start + 1; stop < end_pair && uint(ids[stop]) == expert;) ++stop;

    simdgroup_float8x8 sums[2][4];
    UNROLL for (uint i = 0; i < 2; ++i) {
        UNROLL for (uint j = 0; j < 4; ++j) sums[i][j] = make_filled_simdgroup_matrix<float, 8>(0.0f);
    }
    for (uint k = 0; k < width; k += 32) {
        if (index < 64) {
            uint row = min(first_row + index, rows - 1);
            float w[32];
            decode(blocks + (size_t(expert) * rows + row) * blocks_shape[2] + size_t(k / 256) * BLOCK_BYTES, k / 32 % 8, w);
            UNROLL for (uint i = 0; i < 32; ++i) w_tile[64 * i + index] = w[i];
        } else {
            for (uint at = index - 64; at < 32 * 32; at += 64) {
                uint pair = min(first_pair + at / 32, pairs - 1);
                x_tile[at] = float(x[size_t(pair / share) * width + k + at % 32]);
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint step = 0; step < 32; step += 8) {
            simdgroup_float8x8 left[2], right[4];
            UNROLL for (uint i = 0; i < 2; ++i) simdgroup_load(left[i], x_tile + 32 * (pair_corner + 8 * i) + step, 32);
            UNROLL for (uint j = 0; j < 4; ++j) simdgroup_load(right[j], w_tile + 64 * step + row_corner + 8 * j, 64);
            UNROLL for (uint i = 0; i < 2; ++i) {
                UNROLL for (uint j = 0; j < 4; ++j) simdgroup_multiply_accumulate(sums[i][j], left[i], right[j], sums[i][j]);
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    UNROLL for (uint i = 0; i < 2; ++i) {
        uint corner = 64 * (pair_corner + 8 * i) + row_corner;
        UNROLL for (uint j = 0; j < 4; ++j) simdgroup_store(sums[i][j], w_tile + corner + 8 * j, 64);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint at = index; at < 32 * 64; at += 128) {
        uint pair = first_pair + at / 64, row = first_row + at % 64;
        if (pair >= start && pair < stop && row < rows) y[size_t(pair) * rows + row] = T(w_tile[at]);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}
