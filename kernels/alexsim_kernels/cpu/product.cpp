// See product.h.
#include "product.h"

namespace {
template <int M, int N>
INLINE void micro_kernel(long depth, Operand a, const scalar* b, long b_step, Store to) {
  vec sum[M][N];
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) sum[i][j] = vec{};
  for (long k = 0; k < depth; k++, a.data += a.step, b += b_step) {
    vec columns[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) columns[j] = load(b + WIDTH * j);
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) {
#pragma GCC unroll 4
      for (int j = 0; j < N; j++) sum[i][j] += a.data[i * a.row] * columns[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) {
      scalar* c = to.c + i * to.row + WIDTH * j;
      store(c, to.add ? load(c) + sum[i][j] : sum[i][j]);
    }
}

// As many rows at a time as fill the registers; then 4, 2 and 1.
template <int M, int N>
void all_rows(long rows, long depth, Operand a, const scalar* b, long b_step, Store to) {
  while (rows >= M) {
    micro_kernel<M, N>(depth, a, b, b_step, to);
    a.data += M * a.row, to.c += M * to.row, rows -= M;
  }
  if constexpr (M > 1)
    if (rows) all_rows<(M > 4 ? 4 : M / 2), N>(rows, depth, a, b, b_step, to);
}
}  // namespace

void panel(long vectors, long rows, long depth, Operand a, const scalar* b, long b_step,
           Store to) {
  switch (vectors) {
    case 1: return all_rows<12, 1>(rows, depth, a, b, b_step, to);
#if defined(__AVX512F__)
    case 2: return all_rows<12, 2>(rows, depth, a, b, b_step, to);
    case 3: return all_rows<9, 3>(rows, depth, a, b, b_step, to);
    case 4: return all_rows<6, 4>(rows, depth, a, b, b_step, to);
#else
    case 2: return all_rows<6, 2>(rows, depth, a, b, b_step, to);
#endif
  }
}

// Every thread repeats a product of its own operands: what the registers reach.
extern "C" void micro_kernel_rate(const scalar* a, const scalar* b, scalar* c, long rows,
                                  long depth, long columns, long repeats, long threads) {
  const Panels panels(columns);
#pragma omp parallel num_threads(threads)
  {
    const long thread = omp_get_thread_num();
    for (long i = 0; i < repeats; i++)
      for (long index = 0; index < panels.count; index++) {
        const long k = panels.first(index), vectors = panels.width(index);
        panel(vectors, rows, depth, {a + thread * rows * depth, depth, 1},
              b + (thread * columns + k) * depth, vectors * WIDTH,
              Store{c + thread * rows * columns + k, columns, false});
      }
  }
}
