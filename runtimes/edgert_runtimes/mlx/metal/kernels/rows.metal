// y[i] = row ids[i] of W. blocks uchar [N, bytes of a row]; ids [count]; y [count, K] of T.
// A thread for 32 weights: threads [K / 32, count].
uint part = thread_position_in_grid.x, index = thread_position_in_grid.y;
float w[32];
decode(blocks + size_t(ids[index]) * blocks_shape[1] + size_t(part / 8) * BLOCK_BYTES, part % 8, w);
device T* target = y + (size_t(index) * (blocks_shape[1] / BLOCK_BYTES) * 8 + part) * 32;
UNROLL for (uint i = 0; i < 32; ++i) target[i] = T(w[i]);
