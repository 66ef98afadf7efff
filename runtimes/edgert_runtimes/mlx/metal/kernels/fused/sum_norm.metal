// total = a + b, or where USED is not 0, a + the sum of the USED rows of b weighted by shares; and total normalised by its root mean
// square.
// a [rows, WIDTH]; b [rows, WIDTH] or [rows, USED, WIDTH] of any floats; shares [rows, USED]; weight [WIDTH]; numbers: eps.
// total and normal [rows, WIDTH] of float; cast [rows, WIDTH], normal as T.
// A group of 256 threads for a row: threads [256, rows].
threadgroup float squares[8];

uint row = threadgroup_position_in_grid.y, thread_index = thread_index_in_threadgroup;
uint used = USED ? USED : 1;
float square = 0;
for (uint i = thread_index; i < WIDTH; i += 256) {
    float x = float(a[row * WIDTH + i]);
    for (uint u = 0; u < used; ++u) {
        float part = float(b[(row * used + u) * WIDTH + i]);
        x += USED ? float(shares[row * used + u]) * part : part;
    }
    total[row * WIDTH + i] = x;
    square += x * x;
}
for (ushort distance = 16; distance > 0; distance /= 2) square += simd_shuffle_xor(square, distance);
if (thread_index_in_simdgroup == 0) squares[simdgroup_index_in_threadgroup] = square;
threadgroup_barrier(mem_flags::mem_threadgroup);
square = 0;
for (uint i = 0; i < 8; ++i) square += squares[i];
float factor = 1 / sqrt(square / WIDTH + numbers[0]);
for (uint i = thread_index; i < WIDTH; i += 256) {
    float x = total[row * WIDTH + i] * factor * weight[i];
    normal[row * WIDTH + i] = x;
    cast[row * WIDTH + i] = T(x);
}
