// Products of matrices: what they are made of is in micro_kernel.h.
#pragma once

#include "vector.h"

// Vectors of a panel of columns: with as many rows beside them as fill the registers.
#if defined(__AVX512F__)
constexpr long PANEL = 4;
#else
constexpr long PANEL = 2;
#endif
constexpr long PANEL_ROWS = 6;

// Distances of rows of the product, and of what is summed.
template <class Item> struct OperandOf {
  const Item* data;
  long row, step;
};
typedef OperandOf<scalar> Operand;

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
