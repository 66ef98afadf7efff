// y = x W^T for few rows. x [COLUMNS, K] of T; blocks uchar [N, bytes of a row]; y [COLUMNS, N] of T.
// A thread for each part of a row of W: threads [8 N, rounded up to whole groups].
uint rows = blocks_shape[0], width = x_shape[1];
uint row = thread_position_in_grid.x / 8, part = thread_position_in_grid.x % 8;
const device uchar* start = blocks + size_t(min(row, rows - 1)) * blocks_shape[1];

float sums[COLUMNS];
multiply<T, COLUMNS>(start, x, width, part, sums);
if (part == 0 && row < rows) {
    UNROLL for (int c = 0; c < COLUMNS; ++c) y[size_t(c) * rows + row] = T(sums[c]);
}
