// Pools: the largest value or the mean of windows, both ways.
//
// Windows are spans of rows and columns, already cut off at the image's edges. Backward scatters
// into a band of rows that stays in cache, and writes each row once, when no window needs it more.
#include "vector.h"

extern "C" struct Pool {
  Map x, y, dy, dx;
  const long *row_begin, *row_end, *column_begin, *column_end;  // of each output row and column
  const scalar* share;  // of means, `[rows][columns]`: one over the pixels that count
  long first, add, threads;
  scalar* band;
  long band_rows;
};

namespace {
constexpr long STREAMED_BYTES = 16 << 20;

INLINE vec larger(vec a, vec b) { return (b > a) | (b != b) ? b : a; }  // NaN wins

template <class Take>
void each_window(const Pool& p, long n, long i, Take&& take) {
  for (long j = 0; j < p.y.width; j++)
    for (long c = 0; c < p.y.channels; c += WIDTH)
      take(j, c, std::min(WIDTH, p.y.channels - c), p.y.at(n, i, j) + c);
}

template <class Run> void each_row(const Pool& p, Run&& run) {
#pragma omp parallel for schedule(static) num_threads(p.threads)
  for (long row = 0; row < p.y.images * p.y.height; row++)
    run(row / p.y.height, row % p.y.height);
}

void write_row(const Pool& p, long n, long row, scalar* band, bool streaming) {
  const long wide = padded(p.dx.channels);
  scalar* from = band + row % p.band_rows * p.dx.width * wide;
  for (long j = 0; j < p.dx.width; j++, from += wide) {
    scalar* to = p.dx.at(n, row, j);
    for (long c = 0; c < p.dx.channels; c += WIDTH) {
      const long count = std::min(WIDTH, p.dx.channels - c);
      vec v = load(from + c);
      store(from + c, vec{});
      if (p.add) v += load_part(to + c, count);
      if (streaming && count == WIDTH)
        stream(to + c, v);
      else
        store_part(to + c, v, count);
    }
  }
}

// `scatter(n, i, j, c, count, band)` adds the gradients of a window to the rows of the band.
template <class Scatter> void backward(const Pool& p, Scatter&& scatter) {
  const long size = p.band_rows * p.dx.width * padded(p.dx.channels);
  const bool streaming = !p.add && p.dx.images * p.dx.height * p.dx.width * p.dx.channels *
                                           long(sizeof(scalar)) > STREAMED_BYTES;
#pragma omp parallel num_threads(p.threads)
  {
    scalar* band = p.band + omp_get_thread_num() * size;
    std::fill(band, band + size, scalar(0));
#pragma omp for schedule(static)
    for (long n = 0; n < p.dx.images; n++) {
      long written = 0;
      for (long i = 0; i < p.dy.height; i++) {
        while (written < p.row_begin[i]) write_row(p, n, written++, band, streaming);
        for (long j = 0; j < p.dy.width; j++)
          for (long c = 0; c < p.dy.channels; c += WIDTH)
            scatter(n, i, j, c, std::min(WIDTH, p.dy.channels - c), band);
      }
      while (written < p.dx.height) write_row(p, n, written++, band, streaming);
    }
    streamed();
  }
}

template <bool FIRST>
INLINE void route(const Pool& p, long n, long i, long j, long c, long count, scalar* band) {
  const long wide = padded(p.dx.channels);
  const vec top = load_part(p.y.at(n, i, j) + c, count);
  const vec gradient = load_part(p.dy.at(n, i, j) + c, count);
  auto open = gradient == gradient;  // windows whose maximum is still to come
  open = open | ~open;
  for (long r = p.row_begin[i]; r < p.row_end[i]; r++)
    for (long s = p.column_begin[j]; s < p.column_end[j]; s++) {
      const vec x = load_part(p.x.at(n, r, s) + c, count);
      auto hit = (x == top) | (x != x);
      if constexpr (FIRST) {
        hit = hit & open;
        open = open & ~hit;
      }
      scalar* to = band + (r % p.band_rows * p.dx.width + s) * wide + c;
      store(to, load(to) + (hit ? gradient : vec{}));
    }
}
}  // namespace

extern "C" void max_pool_forward(const Pool* pool) {
  const Pool& p = *pool;
  each_row(p, [&](long n, long i) {
    each_window(p, n, i, [&](long j, long c, long count, scalar* y) {
      vec top = all(-INFINITY);
      for (long r = p.row_begin[i]; r < p.row_end[i]; r++)
        for (long s = p.column_begin[j]; s < p.column_end[j]; s++)
          top = larger(top, load_part(p.x.at(n, r, s) + c, count));
      store_part(y, top, count);
    });
  });
}

extern "C" void max_pool_backward(const Pool* pool) {
  const Pool& p = *pool;
  if (p.first)
    backward(p, [&](auto... at) { route<true>(p, at...); });
  else
    backward(p, [&](auto... at) { route<false>(p, at...); });
}

extern "C" void average_pool_forward(const Pool* pool) {
  const Pool& p = *pool;
  each_row(p, [&](long n, long i) {
    each_window(p, n, i, [&](long j, long c, long count, scalar* y) {
      vec sum{};
      for (long r = p.row_begin[i]; r < p.row_end[i]; r++)
        for (long s = p.column_begin[j]; s < p.column_end[j]; s++)
          sum += load_part(p.x.at(n, r, s) + c, count);
      store_part(y, sum * p.share[i * p.y.width + j], count);
    });
  });
}

extern "C" void average_pool_backward(const Pool* pool) {
  const Pool& p = *pool;
  backward(p, [&](long n, long i, long j, long c, long count, scalar* band) {
    const vec share = load_part(p.dy.at(n, i, j) + c, count) * p.share[i * p.dy.width + j];
    for (long r = p.row_begin[i]; r < p.row_end[i]; r++)
      for (long s = p.column_begin[j]; s < p.column_end[j]; s++) {
        scalar* to = band + (r % p.band_rows * p.dx.width + s) * padded(p.dx.channels) + c;
        store(to, load(to) + share);
      }
  });
}
