// The micro-kernel: every product of matrices here is made of it.
//
// `C[i][j] = sum over k of a[i * row + k * step] * b[k * b_step + j]`: a few rows of C, a few
// vectors wide, held in registers; `a` is broadcast from memory. As its distances are free, `a` may
// lie either way round: forward and input gradients read along rows, weight gradients along
// columns. Sums run in the order of k, whatever block an element stands in.
#pragma once

#include "vector.h"

// Vectors of a panel of columns: with as many rows beside them as fill the registers.
#if defined(__AVX512F__)
constexpr long PANEL = 4;
#else
constexpr long PANEL = 2;
#endif
constexpr long PANEL_ROWS = 6;

struct Operand {
  const scalar* data;
  long row, step;
};

// Where sums go, or are added.
struct Store {
  scalar* c;
  long row;
  bool add;
};

// All rows of a panel of `vectors` vectors, at most PANEL.
void panel(long vectors, long rows, long depth, Operand a, const scalar* b, long b_step, Store to);

// Columns cut into panels: as wide as registers allow, the last takes what is left.
struct Panels {
  long vectors, wide, count;
  explicit Panels(long columns) : vectors(padded(columns) / WIDTH) {
    wide = PANEL == 4 && vectors % 4 && vectors % 3 == 0 ? 3 : PANEL;
    count = (vectors + wide - 1) / wide;
  }
  long first(long index) const { return index * wide * WIDTH; }                  // column
  long width(long index) const { return std::min(wide, vectors - index * wide); }  // in vectors
  // Rows of a block of sums that stay in a core's caches: twice those that fill the registers.
  long rows(long index) const { return width(index) == 3 ? 18 : 12; }
  // Where a column of row `k` lies when each panel is packed by itself.
  long packed(long depth, long k, long column) const {
    const long index = column / (wide * WIDTH), begin = first(index);
    return begin * depth + k * width(index) * WIDTH + column - begin;
  }
};
