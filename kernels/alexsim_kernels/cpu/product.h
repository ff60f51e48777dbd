// The micro-kernel: every product of matrices here is made of it.
//
// `C[i][j] = sum over k of a[i * row + k * step] * b[k * b_step + j]`: a few rows of C, a few
// vectors wide, held in registers; `a` is broadcast from memory. As its distances are free, `a` may
// lie either way round: forward and input gradients read along rows, weight gradients along
// columns. Sums run in the order of k, whatever block an element stands in.
#pragma once

#include "vector.h"

// Vectors of a panel of columns, and the rows that fill the registers beside each.
#if defined(__AVX512F__)
constexpr int PANEL = 4;
constexpr int ROWS[] = {0, 12, 12, 9, 6};
#else
constexpr int PANEL = 2;
constexpr int ROWS[] = {0, 12, 6};
#endif

struct Operand {
  const scalar* data;
  long row, step;
};

// Writes sums to memory, or adds them.
struct Store {
  scalar* c;
  long row;
  bool add;
  INLINE void operator()(long i, long j, vec sum) const {
    scalar* p = c + i * row + j;
    store(p, add ? load(p) + sum : sum);
  }
};

template <int M, int N, class Sink>
static INLINE void micro_kernel(long depth, const scalar* a, long row, long step, const scalar* b,
                                long b_step, long first, const Sink& sink) {
  vec sum[M][N];
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) sum[i][j] = vec{};
  for (long k = 0; k < depth; k++, a += step, b += b_step) {
    vec columns[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) columns[j] = load(b + WIDTH * j);
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) {
#pragma GCC unroll 4
      for (int j = 0; j < N; j++) sum[i][j] += a[i * row] * columns[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) sink(first + i, WIDTH * j, sum[i][j]);
}

// The last rows, fewer than M + 1.
template <int M, int N, class Sink>
static void few_rows(long rows, long depth, const scalar* a, long row, long step, const scalar* b,
                     long b_step, long first, const Sink& sink) {
  if (rows == M) return micro_kernel<M, N>(depth, a, row, step, b, b_step, first, sink);
  if constexpr (M > 1) few_rows<M - 1, N>(rows, depth, a, row, step, b, b_step, first, sink);
}

template <int N, class Sink>
static void panel_rows(long rows, long depth, Operand a, const scalar* b, long b_step,
                       const Sink& sink) {
  constexpr int M = ROWS[N];
  for (long i = 0; i < rows; i += M)
    few_rows<M, N>(std::min<long>(M, rows - i), depth, a.data + i * a.row, a.row, a.step, b,
                   b_step, i, sink);
}

// All rows of a panel of `vectors` vectors.
template <class Sink>
static void panel(long vectors, long rows, long depth, Operand a, const scalar* b, long b_step,
                  const Sink& sink) {
  switch (vectors) {
    case 1: return panel_rows<1>(rows, depth, a, b, b_step, sink);
    case 2: return panel_rows<2>(rows, depth, a, b, b_step, sink);
#if defined(__AVX512F__)
    case 3: return panel_rows<3>(rows, depth, a, b, b_step, sink);
    case 4: return panel_rows<4>(rows, depth, a, b, b_step, sink);
#endif
  }
}

// Columns cut into panels: as wide as registers allow, the last takes what is left.
struct Panels {
  long vectors, wide, count;
  explicit Panels(long columns) : vectors(padded(columns) / WIDTH) {
    wide = PANEL == 4 && vectors % 4 && vectors % 3 == 0 ? 3 : PANEL;
    count = (vectors + wide - 1) / wide;
  }
  long first(long index) const { return index * wide * WIDTH; }                  // column
  long width(long index) const { return std::min(wide, vectors - index * wide); }  // in vectors
  // Where a column of row `k` lies when each panel is packed by itself.
  long packed(long depth, long k, long column) const {
    const long index = column / (wide * WIDTH), begin = first(index);
    return begin * depth + k * width(index) * WIDTH + column - begin;
  }
};
