// The experts with the largest logits, of equals those that come first, and their weights by softmax: over the chosen (NORMALIZED) or
// all of them, times numbers[0].
// logits [rows, EXPERTS]; chosen [rows, USED] and shares [rows, USED], the largest first; peaks [rows, 1]: the largest logit, or NaN
// where one is (it is never chosen before a number).
// A group of 256 threads for a row: threads [256, rows].
threadgroup float best[USED];
threadgroup uint damaged;

uint row = threadgroup_position_in_grid.y, thread_index = thread_index_in_threadgroup, start = row * EXPERTS;
if (thread_index == 0) damaged = 0;
threadgroup_barrier(mem_flags::mem_threadgroup);
for (uint e = thread_index; e < EXPERTS; e += 256) {
    float own = float(logits[start + e]);
    if (own != own) {
        damaged = 1;
        own = -INFINITY;
    }
    uint rank = 0;
    for (uint i = 0; i < EXPERTS; ++i) {
        float other = float(logits[start + i]);
        if (other != other) other = -INFINITY;
        rank += other > own || (other == own && i < e);
    }
    if (rank < USED) {
        best[rank] = own;
        chosen[row * USED + rank] = e;
    }
}
threadgroup_barrier(mem_flags::mem_threadgroup);
if (thread_index < USED) {
    float whole = 0;
    if (NORMALIZED) {
        for (uint i = 0; i < USED; ++i) whole += metal::precise::exp(best[i] - best[0]);
    } else {
        for (uint i = 0; i < EXPERTS; ++i) whole += metal::precise::exp(float(logits[start + i]) - best[0]);
    }
    shares[row * USED + thread_index] = numbers[0] * metal::precise::exp(best[thread_index] - best[0]) / whole;
}
if (thread_index == 0) peaks[row] = damaged ? NAN : best[0];
