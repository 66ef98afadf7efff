// Attention of rows that are decoding, each of a sequence of its own, over blocks of the cache: row r attends to positions up to
// positions[r]; where REACH is not 0, to so many, or where they are CHUNKED, to those since the last multiple of it.
// Position p is at slot tables[r, p / BLOCK] BLOCK + p % BLOCK.
// queries [rows, HEADS SIZE]; keys [1, KV_HEADS, slots, SIZE]; values [1, KV_HEADS, slots, VALUE_SIZE]; tables [rows, blocks];
// positions [rows]; sinks [HEADS] (used where SINKS); numbers: the scale and the cap of scores (used where CAPPED).
// y [rows, HEADS VALUE_SIZE] of T.
// A group of GROUPS simdgroups for a head of a row: threads [32 GROUPS HEADS, rows]. Each simdgroup takes every GROUPS-th
// position, its lanes share the elements of a head; at the end the simdgroups' sums are put together.
// Only where every index is a constant does an array of a thread lie in registers.
#define UNROLL _Pragma("clang loop unroll(full)")
threadgroup float maxima[GROUPS];
threadgroup float totals[GROUPS];
threadgroup float parts[GROUPS * VALUE_SIZE];

uint head = threadgroup_position_in_grid.x, row = threadgroup_position_in_grid.y;
uint group = simdgroup_index_in_threadgroup, lane = thread_index_in_simdgroup;
uint kv_head = head / (HEADS / KV_HEADS), slots = keys_shape[2], blocks = tables_shape[1];
int last = positions[row], first = REACH == 0 ? 0 : CHUNKED ? last - last % max(REACH, 1) : max(0, last - REACH + 1);

float query[(SIZE + 31) / 32], sums[(VALUE_SIZE + 31) / 32];
UNROLL for (uint i = 0; i < (SIZE + 31) / 32; ++i) {
    query[i] = 32 * i + lane < SIZE ? numbers[0] * float(queries[(row * HEADS + head) * SIZE + 32 * i + lane]) : 0;
}
UNROLL for (uint i = 0; i < (VALUE_SIZE + 31) / 32; ++i) sums[i] = 0;
float maximum = -INFINITY, total = 0;
if (SINKS && group == 0) {
    maximum = float(sinks[head]);
    total = 1;
}
for (int p = first + int(group); p <= last; p += GROUPS) {
    uint slot = uint(tables[row * blocks + p / BLOCK]) * BLOCK + p % BLOCK;
    size_t key = (size_t(kv_head) * slots + slot) * SIZE, value = (size_t(kv_head) * slots + slot) * VALUE_SIZE;
    float score = 0;
    UNROLL for (uint i = 0; i < (SIZE + 31) / 32; ++i) {
        if (32 * i + lane < SIZE) score += query[i] * float(keys[key + 32 * i + lane]);
    }
    for (ushort distance = 16; distance > 0; distance /= 2) score += simd_shuffle_xor(score, distance);
    if (CAPPED) score = numbers[1] * metal::precise::tanh(score / numbers[1]);
    float higher = max(maximum, score);
    float shrink = metal::precise::exp(maximum - higher), weight = metal::precise::exp(score - higher);
    maximum = higher;
    total = total * shrink + weight;
    UNROLL for (uint i = 0; i < (VALUE_SIZE + 31) / 32; ++i) {
        if (32 * i + lane < VALUE_SIZE) sums[i] = sums[i] * shrink + weight * float(values[value + 32 * i + lane]);
    }
}
if (lane == 0) {
    maxima[group] = maximum;
    totals[group] = total;
}
UNROLL for (uint i = 0; i < (VALUE_SIZE + 31) / 32; ++i) {
    if (32 * i + lane < VALUE_SIZE) parts[group * VALUE_SIZE + 32 * i + lane] = sums[i];
}
threadgroup_barrier(mem_flags::mem_threadgroup);
float highest = maxima[0], whole = 0;
for (uint g = 1; g < GROUPS; ++g) highest = max(highest, maxima[g]);
for (uint g = 0; g < GROUPS; ++g) whole += totals[g] * metal::precise::exp(maxima[g] - highest);
for (uint i = thread_index_in_threadgroup; i < VALUE_SIZE; i += 32 * GROUPS) {
    float sum = 0;
    for (uint g = 0; g < GROUPS; ++g) sum += parts[g * VALUE_SIZE + i] * metal::precise::exp(maxima[g] - highest);
    y[(row * HEADS + head) * VALUE_SIZE + i] = T(sum / whole);
}
