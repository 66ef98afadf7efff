// y[p] = x[p / share] W[ids[p]]^T for few pairs p of a token and an expert that the router chose for it.
// x [pairs / share, K] of T; blocks uchar [experts, N, bytes of a row]; ids [pairs]; y [pairs, N] of T.
// Threads [8 N, rounded up to whole groups; pairs]: as in gemv.
uint rows = blocks_shape[1], width = x_shape[1], pair = thread_position_in_grid.y;
uint row = thread_position_in_grid.x / 8, part = thread_position_in_grid.x % 8;
uint share = ids_shape[0] / x_shape[0];
const device uchar* start = blocks + (size_t(ids[pair]) * rows + min(row, rows - 1)) * blocks_shape[2];

float sum;
multiply<T, 1>(start, x + size_t(pair / share) * width, width, part, &sum);
if (part == 0 && row < rows) y[size_t(pair) * rows + row] = T(sum);
