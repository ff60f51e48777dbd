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

// As many channels from `c` and filters from `k`, zeros where there are none: `[channels][filters]`
// of each tap, whose planes lie `plane` values apart.
static inline void read_filters(const Filters& f, long c, long channels, long k, long filters,
                                scalar* dense, long plane) {
  for (long lane = 0; lane < filters; lane++)
    for (long r = 0; r < f.rows; r++)
      for (long s = 0; s < f.columns; s++) {
        scalar* to = dense + (r * f.columns + s) * plane + lane;
        const long real = k + lane < f.filters ? std::min(channels, f.channels - c) : 0;
        if (f.fold == 1) {
          const scalar* from = f.at(k + lane, c, r, s);
          for (long i = 0; i < real; i++) to[i * filters] = from[i * f.channel];
        } else {
          for (long i = 0; i < real; i++) {
            const scalar* from = f.at(k + lane, c + i, r, s);
            to[i * filters] = from ? *from : scalar(0);
          }
        }
        for (long i = real; i < channels; i++) to[i * filters] = scalar(0);
      }
}

// Where sums of a slice of a weight gradient lie, vector by vector; those of biases come last.
struct Sums {
  long tap, channel, vector;  // distances in values
  long bias, size;
  Sums(const Filters& f, long tap, long channel, long vector)
      : tap(tap), channel(channel), vector(vector),
        bias(f.rows * f.columns * f.channels * padded(f.filters)), size(bias + padded(f.filters)) {}
  long at(long t, long c, long k) const { return t * tap + c * channel + k / WIDTH * vector; }
};

// `[channels][vectors of filters][taps]`: whoever has all taps of a vector writes them in a row.
static inline Sums by_vectors(const Filters& f) {
  const long taps = f.rows * f.columns;
  return Sums(f, WIDTH, taps * padded(f.filters), taps * WIDTH);
}

// `[taps][channels][filters]`: rows of a matrix.
static inline Sums by_taps(const Filters& f) {
  const long wide = padded(f.filters);
  return Sums(f, f.channels * wide, wide, WIDTH);
}

// Adds slices' sums of one group in their order, and stores them, or adds them to what is there.
// By all threads of a region, none of which waits.
static inline void write_filters(const Filters& f, scalar* bias, const scalar* sums,
                                 const Sums& layout, long slices, bool add) {
  const auto total = [&](long place) {
    vec sum = load(sums + place);
    for (long slice = 1; slice < slices; slice++) sum += load(sums + slice * layout.size + place);
    return sum;
  };
  const auto write = [&](long k, long c, long r, long s) {
    const vec sum = total(layout.at(r * f.columns + s, c, k));
    for (long lane = 0; lane < std::min(WIDTH, f.filters - k); lane++)
      if (scalar* to = f.at(k + lane, c, r, s)) *to = add ? *to + sum[lane] : sum[lane];
  };
#pragma omp for schedule(dynamic, 4) collapse(2) nowait
  for (long k = 0; k < padded(f.filters); k += WIDTH)
    for (long c = 0; c < f.channels; c++)
      for (long r = 0; r < f.rows; r++)
        for (long s = 0; s < f.columns; s++) write(k, c, r, s);
  if (!bias) return;
#pragma omp for schedule(static) nowait
  for (long k = 0; k < f.filters; k += WIDTH) {
    const vec sum = total(layout.bias + k);
    const long count = std::min(WIDTH, f.filters - k);
    store_part(bias + k, add ? load_part(bias + k, count) + sum : sum, count);
  }
}
