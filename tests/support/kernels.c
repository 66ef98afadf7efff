/* Runs the four kernels of a format, linked in as functions, in a process of their own: maybe on an emulated CPU.

   stdin:  int64 rows, k, tokens, bytes of a row, of a panel, of an activation and of the scratch memory; the rows; float32 inputs[tokens][k]
   stdout: panels; activations; float32 products[tokens][16 panels], all tokens at once, then one by one;
           float32 unpacked[rows][k] */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int64_t pack(int64_t source, int64_t stride, int64_t rows, int64_t k, int64_t panel);
int64_t gemm(int64_t rows, int64_t n_rows, int64_t xs, int64_t ys, int64_t n_tokens, int64_t k, int64_t scratch);
int64_t unpack_row(int64_t panel, int64_t lane, int64_t k, int64_t out);
int64_t quantize(int64_t x, int64_t out, int64_t k);

static char *memory(size_t size) {
    size = (size + 127) / 64 * 64;
    char *start = aligned_alloc(64, size);
    if (!start) exit(2);
    memset(start, 0xA5, size);
    return start;
}

static char *input(size_t size) {
    char *start = memory(size);
    if (fread(start, 1, size, stdin) != size) exit(3);
    return start;
}

int main(void) {
    int64_t *sizes = (int64_t *)input(7 * sizeof(int64_t));
    int64_t rows = sizes[0], k = sizes[1], tokens = sizes[2], row = sizes[3], panel = sizes[4], activation = sizes[5];
    char *scratch = memory(sizes[6]);
    int64_t n_panels = (rows + 15) / 16;
    char *raw = input(rows * row), *x = input(4 * tokens * k);
    char *panels = memory(n_panels * panel), *activations = memory(tokens * activation);
    for (int64_t i = 0; i < n_panels; i++) {
        int64_t count = rows - 16 * i < 16 ? rows - 16 * i : 16;
        pack((int64_t)(raw + 16 * i * row), row, count, k, (int64_t)(panels + i * panel));
    }
    fwrite(panels, 1, n_panels * panel, stdout);
    for (int64_t t = 0; t < tokens; t++)
        quantize((int64_t)(x + 4 * t * k), (int64_t)(activations + t * activation), k);
    fwrite(activations, 1, tokens * activation, stdout);
    int64_t *xs = (int64_t *)memory(8 * tokens), *ys = (int64_t *)memory(8 * tokens);
    char *products = memory(4 * 16 * n_panels * tokens);
    for (int64_t t = 0; t < tokens; t++) {
        xs[t] = (int64_t)(activations + t * activation);
        ys[t] = (int64_t)(products + 4 * 16 * n_panels * t);
    }
    gemm((int64_t)raw, rows, (int64_t)xs, (int64_t)ys, tokens, k, (int64_t)scratch);
    fwrite(products, 1, 4 * 16 * n_panels * tokens, stdout);
    for (int64_t t = 0; t < tokens; t++)
        gemm((int64_t)raw, rows, (int64_t)(xs + t), (int64_t)(ys + t), 1, k, (int64_t)scratch);
    fwrite(products, 1, 4 * 16 * n_panels * tokens, stdout);
    char *weights = memory(4 * k);
    for (int64_t i = 0; i < rows; i++) {
        unpack_row((int64_t)(panels + i / 16 * panel), i % 16, k, (int64_t)weights);
        fwrite(weights, 1, 4 * k, stdout);
    }
    return 0;
}
