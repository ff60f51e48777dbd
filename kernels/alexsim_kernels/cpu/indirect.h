// Convolutions as products of matrices whose rows are read where they lie, through a table of
// pointers to pixels: nothing is gathered (Dukhan, "The Indirect Convolution Algorithm", 2019).
#pragma once

#include "filters.h"
#include "grid.h"
#include "product.h"

#include <type_traits>

extern "C" struct Indirect {
  Map source, target;
  Filters filters;  // of the first group
  long groups, filter_group;
  Grid grid;
  long taps;
  const Tap* tap;
  scalar* bias;  // or null
  long relu, add, threads;
  long pixels;                     // at a time
  long tap_block, channel_block;   // how sums are cut for the caches; channels of a block of gradients
  long filter_block, slices;       // filters of a block of gradients; slices of all pixels
  scalar *packed, *zeros;          // filters; a pixel outside
  const scalar** table;            // of each thread
  long table_thread;
  scalar *sums, *bias_sums, *edges;  // gradients: of blocks; of slices; last channels, of each thread
};

namespace {
// Calls `run` with the number of rows that the micro-kernel takes next, for all of them.
template <int MOST, class Run> INLINE void row_groups(long rows, Run&& run) {
  long i = 0;
  for (; i + MOST <= rows; i += MOST) run(i, std::integral_constant<int, MOST>{});
  for (; i + 2 <= rows; i += 2) run(i, std::integral_constant<int, 2>{});
  if (i < rows) run(i, std::integral_constant<int, 1>{});
}

// A panel's width as a constant, and the rows that fill the registers with it.
template <class Run> INLINE void with_width(long vectors, Run&& run) {
  using std::integral_constant;
  switch (vectors) {
    case 1: return run(integral_constant<int, 8>{}, integral_constant<int, 1>{});
#if defined(__AVX512F__)
    case 2: return run(integral_constant<int, 8>{}, integral_constant<int, 2>{});
    case 3: return run(integral_constant<int, 8>{}, integral_constant<int, 3>{});
    case 4: return run(integral_constant<int, 6>{}, integral_constant<int, 4>{});
#else
    case 2: return run(integral_constant<int, 6>{}, integral_constant<int, 2>{});
#endif
  }
}

INLINE void prefetch(const scalar* from, long count) {
  constexpr long LINE = 64 / sizeof(scalar);
  for (long c = 0; c < count; c += LINE) __builtin_prefetch(from + c, 0, 2);
}

// Pointers to what a tap sees from `here` target pixels on: a channel of them, or zeros outside.
INLINE void point_sources(const Indirect& d, const Tap& tap, long first, long here, long channel,
                          const scalar** to) {
  while (here > 0) {
    const Pixel at(d.grid, first);
    const long run = std::min(here, d.grid.columns - at.j);
    const long r = at.i * d.grid.source_down + tap.row;
    const bool inside = r >= 0 && r < d.source.height;
    const scalar* row = d.source.data + at.image * d.source.image + r * d.source.row + channel;
    for (long j = 0; j < run; j++) {
      const long s = (at.j + j) * d.grid.source_across + tap.column;
      to[j] = inside && s >= 0 && s < d.source.width ? row + s * d.source.pixel : d.zeros;
    }
    first += run, here -= run, to += run;
  }
}

template <class Pointer>
INLINE void point_targets(const Indirect& d, long first, long here, long channel, Pointer* to) {
  while (here > 0) {
    const Pixel at(d.grid, first);
    const long run = std::min(here, d.grid.columns - at.j);
    scalar* row = target_pixel(d.target, d.grid, at) + channel;
    for (long j = 0; j < run; j++) to[j] = row + j * d.grid.across * d.target.pixel;
    first += run, here -= run, to += run;
  }
}
}  // namespace
