// Filter banks between any layout in memory and the dense one that kernels read.
#pragma once

#include "vector.h"

// Filter `k`, channel `c`, tap `(r, s)` lies at `k * filter + c * channel + r * row + s * column`.
// With `turned`, taps run backwards, as in the gradient of the input; the caller swaps filters and
// channels. With `fold` > 1 (space to depth) a tap of the folded image is a block of taps, and its
// channels are the block's rows, columns and channels, in this order; taps outside are zero.
struct Filters {
  scalar* data;
  long filters, channels, rows, columns;      // as the kernel sees them: folded, turned
  long filter, channel, row, column;          // distances in values
  long true_rows, true_columns, fold;
  long turned;

  // Address of a value, or null.
  INLINE scalar* at(long k, long c, long r, long s) const {
    if (turned) r = rows - 1 - r, s = columns - 1 - s;
    if (fold > 1) {
      const long inner = channels / (fold * fold), place = c / inner;
      r = r * fold + place / fold, s = s * fold + place % fold, c %= inner;
      if (r >= true_rows || s >= true_columns) return nullptr;
    }
    return data + k * filter + c * channel + r * row + s * column;
  }
};

// Dense filters `[rows][columns][channels][padded filters]`; by all threads of a region.
static inline void read_filters(const Filters& f, scalar* dense) {
  const long wide = padded(f.filters);
#pragma omp for schedule(static)
  for (long block = 0; block < wide; block += LANES)
    for (long c = 0; c < f.channels; c++)
      for (long r = 0; r < f.rows; r++)
        for (long s = 0; s < f.columns; s++) {
          scalar* to = dense + ((r * f.columns + s) * f.channels + c) * wide + block;
          for (long lane = 0; lane < LANES; lane++) {
            const scalar* from = block + lane < f.filters ? f.at(block + lane, c, r, s) : nullptr;
            to[lane] = from ? *from : scalar(0);
          }
        }
}

// The other way round; gradients of one group's filters.
static inline void write_filters(const Filters& f, const scalar* dense, bool add) {
  const long wide = padded(f.filters);
#pragma omp for schedule(static)
  for (long k = 0; k < f.filters; k++)
    for (long c = 0; c < f.channels; c++)
      for (long r = 0; r < f.rows; r++)
        for (long s = 0; s < f.columns; s++)
          if (scalar* to = f.at(k, c, r, s)) {
            const scalar value = dense[((r * f.columns + s) * f.channels + c) * wide + k];
            *to = add ? *to + value : value;
          }
}
