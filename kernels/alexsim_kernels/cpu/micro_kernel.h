// The micro-kernel: every product of matrices here is made of it.
//
// `C[i][j] = sum over k of a[i * row + k * step] * b[k * b_step + j]`: a few rows of C, a few
// vectors wide, held in registers; `a` is broadcast from memory. As its distances are free, `a` may
// lie either way round: forward and input gradients read along rows, weight gradients along
// columns. Sums run in the order of k, whatever block an element stands in.
//
// `Kind` says what an item of `a` and `b` is, and how it is multiplied: values, or pairs of bfloat16.
#pragma once

#include "product.h"

// Values of the library's type.
struct Values {
  typedef scalar item;
  typedef vec items;
  static INLINE items load(const item* p) { return ::load(p); }
  static INLINE vec add(vec sum, item a, items b) { return sum + a * b; }
};

// What a product does beside, once for each k: nothing, or a line of memory that is asked for.
struct Nothing {
  INLINE void step() const {}
};

template <class Kind, int M, int N, class Beside>
INLINE void micro_kernel(long depth, OperandOf<typename Kind::item> a,
                         const typename Kind::item* b, long b_step, Store to, Beside& beside) {
  Beside here = beside;  // in registers
  vec sum[M][N];
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) sum[i][j] = vec{};
  for (long k = 0; k < depth; k++, a.data += a.step, b += b_step) {
    here.step();
    typename Kind::items columns[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) columns[j] = Kind::load(b + WIDTH * j);
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) {
#pragma GCC unroll 4
      for (int j = 0; j < N; j++) sum[i][j] = Kind::add(sum[i][j], a.data[i * a.row], columns[j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) {
      scalar* c = to.c + i * to.row + WIDTH * j;
      store(c, to.add ? load(c) + sum[i][j] : sum[i][j]);
    }
  beside = here;
}

// As many rows at a time as fill the registers; then 4, 2 and 1.
template <class Kind, int M, int N, class Beside>
void all_rows(long rows, long depth, OperandOf<typename Kind::item> a,
              const typename Kind::item* b, long b_step, Store to, Beside& beside) {
  while (rows >= M) {
    micro_kernel<Kind, M, N>(depth, a, b, b_step, to, beside);
    a.data += M * a.row, to.c += M * to.row, rows -= M;
  }
  if constexpr (M > 1)
    if (rows) all_rows<Kind, (M > 4 ? 4 : M / 2), N>(rows, depth, a, b, b_step, to, beside);
}

// All rows of a panel of `vectors` vectors, at most PANEL.
template <class Kind, class Beside>
void panel_of(long vectors, long rows, long depth, OperandOf<typename Kind::item> a,
              const typename Kind::item* b, long b_step, Store to, Beside&& beside) {
  switch (vectors) {
    case 1: return all_rows<Kind, 12, 1>(rows, depth, a, b, b_step, to, beside);
#if defined(__AVX512F__)
    case 2: return all_rows<Kind, 12, 2>(rows, depth, a, b, b_step, to, beside);
    case 3: return all_rows<Kind, 9, 3>(rows, depth, a, b, b_step, to, beside);
    case 4: return all_rows<Kind, 6, 4>(rows, depth, a, b, b_step, to, beside);
#else
    case 2: return all_rows<Kind, 6, 2>(rows, depth, a, b, b_step, to, beside);
#endif
  }
}

// Every thread repeats a product of its own operands: what the registers reach.
template <class Kind>
void repeat_products(const typename Kind::item* a, const typename Kind::item* b, scalar* c,
                     long rows, long depth, long columns, long repeats, long threads) {
  const Panels panels(columns);
#pragma omp parallel num_threads(threads)
  {
    const long thread = omp_get_thread_num();
    for (long i = 0; i < repeats; i++)
      for (long index = 0; index < panels.count; index++) {
        const long k = panels.first(index), vectors = panels.width(index);
        panel_of<Kind>(vectors, rows, depth, {a + thread * rows * depth, depth, 1},
                       b + (thread * columns + k) * depth, vectors * WIDTH,
                       Store{c + thread * rows * columns + k, columns, false}, Nothing{});
      }
  }
}
