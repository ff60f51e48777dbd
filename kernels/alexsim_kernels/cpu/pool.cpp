// Pools: the largest value or the mean of windows, both ways.
//
// Windows are spans of rows and columns, already cut off at the image's edges. Backward scatters
// into a band of rows that stays in cache, and writes each row once, when no window needs it more.
#include "vector.h"

#include <type_traits>
#include <vector>

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

// NaN wins.
INLINE vec larger(vec a, vec b) {
  const vec top = b > a ? b : a;
  return b != b ? b : top;
}

// `take(n, i, j, rows)` for each window; `rows` are the image's at its first column.
template <class Take> void each_window(const Pool& p, Take&& take) {
#pragma omp parallel num_threads(p.threads)
  {
    std::vector<const scalar*> rows(p.x.height);
#pragma omp for schedule(dynamic, 8)
    for (long row = 0; row < p.y.images * p.y.height; row++) {
      const long n = row / p.y.height, i = row % p.y.height;
      const long count = p.row_end[i] - p.row_begin[i];
      for (long r = 0; r < count; r++) rows[r] = p.x.at(n, p.row_begin[i] + r, 0);
      for (long j = 0; j < p.y.width; j++) take(n, i, j, count, rows.data());
    }
  }
}

// Folds the values of a window, channel by channel.
template <class Lanes, class Fold>
INLINE vec fold_window(const Pool& p, long j, long c, Lanes lanes, long height,
                       const scalar* const* rows, vec value, Fold&& fold) {
  const long first = p.column_begin[j] * p.x.pixel + c, last = p.column_end[j] * p.x.pixel + c;
  for (long r = 0; r < height; r++)
    for (long at = first; at < last; at += p.x.pixel)
      value = fold(value, lanes.load(rows[r] + at));
  return value;
}

void write_row(const Pool& p, long n, long row, scalar* band, bool streaming) {
  const long wide = padded(p.dx.channels);
  scalar* from = band + row % p.band_rows * p.dx.width * wide;
  for (long j = 0; j < p.dx.width; j++, from += wide) {
    scalar* to = p.dx.at(n, row, j);
    each_vector(p.dx.channels, [&](long c, auto lanes) {
      vec v = load(from + c);
      store(from + c, vec{});
      if (p.add) v += lanes.load(to + c);
      if (std::is_same_v<decltype(lanes), Whole> && streaming)
        stream(to + c, v);
      else
        lanes.store(to + c, v);
    });
  }
}

// `scatter(n, i, j, height, band, x)` adds the gradients of a window to its rows of the band; `x`
// are those of the image, where there is one.
template <class Scatter> void backward(const Pool& p, Scatter&& scatter) {
  const long row_size = p.dx.width * padded(p.dx.channels), size = p.band_rows * row_size;
  const bool streaming = !p.add && p.dx.images * p.dx.height * p.dx.width * p.dx.channels *
                                           long(sizeof(scalar)) > STREAMED_BYTES;
#pragma omp parallel num_threads(p.threads)
  {
    scalar* memory = p.band + omp_get_thread_num() * size;
    std::fill(memory, memory + size, scalar(0));
    std::vector<scalar*> band(p.band_rows);
    std::vector<const scalar*> x(p.band_rows);
#pragma omp for schedule(dynamic) nowait
    for (long n = 0; n < p.dx.images; n++) {
      long written = 0;
      for (long i = 0; i < p.dy.height; i++) {
        while (written < p.row_begin[i]) write_row(p, n, written++, memory, streaming);
        const long height = p.row_end[i] - p.row_begin[i];
        for (long r = 0; r < height; r++) {
          band[r] = memory + (p.row_begin[i] + r) % p.band_rows * row_size;
          if (p.x.data) x[r] = p.x.at(n, p.row_begin[i] + r, 0);
        }
        for (long j = 0; j < p.dy.width; j++) scatter(n, i, j, height, band.data(), x.data());
      }
      while (written < p.dx.height) write_row(p, n, written++, memory, streaming);
    }
    streamed();
  }
}

// What is left of the gradient goes to a value that is the maximum, or NaN. SIDE is the window's,
// both ways, where it is known when this is compiled, or 0.
template <bool FIRST, int SIDE>
INLINE void route(const Pool& p, long n, long i, long j, long height, scalar* const* band,
                  const scalar* const* rows) {
  const long wide = padded(p.dx.channels), pixel = p.x.pixel, first = p.column_begin[j];
  const long last = SIDE ? first + SIDE : p.column_end[j];
  const scalar *y = p.y.at(n, i, j), *dy = p.dy.at(n, i, j);
  if (SIDE) height = SIDE;
  each_vector(p.dy.channels, [=](long c, auto lanes) {
    const vec top = lanes.load(y + c);
    vec gradient = lanes.load(dy + c);
#pragma GCC unroll 3
    for (long r = 0; r < height; r++)
#pragma GCC unroll 3
      for (long s = first; s < last; s++) {
        const vec x = lanes.load(rows[r] + s * pixel + c);
        vec taken = x != x ? gradient : vec{};
        taken = x == top ? gradient : taken;
        if constexpr (FIRST) {
          gradient = x != x ? vec{} : gradient;
          gradient = x == top ? vec{} : gradient;
        }
        scalar* to = band[r] + s * wide + c;
        store(to, load(to) + taken);
      }
  });
}
}  // namespace

extern "C" void max_pool_forward(const Pool* pool) {
  const Pool& p = *pool;
  each_window(p, [&](long n, long i, long j, long height, const scalar* const* rows) {
    scalar* y = p.y.at(n, i, j);
    each_vector(p.y.channels, [&](long c, auto lanes) {
      lanes.store(y + c, fold_window(p, j, c, lanes, height, rows, all(-INFINITY), larger));
    });
  });
}

extern "C" void average_pool_forward(const Pool* pool) {
  const Pool& p = *pool;
  const auto plus = [](vec a, vec b) { return a + b; };
  each_window(p, [&](long n, long i, long j, long height, const scalar* const* rows) {
    const scalar share = p.share[i * p.y.width + j];
    scalar* y = p.y.at(n, i, j);
    each_vector(p.y.channels, [&](long c, auto lanes) {
      lanes.store(y + c, share * fold_window(p, j, c, lanes, height, rows, vec{}, plus));
    });
  });
}

extern "C" void max_pool_backward(const Pool* pool) {
  const Pool& p = *pool;
  const auto run = [&](auto first) {
    backward(p, [&](long n, long i, long j, long height, auto... rows) {
      if (height == 3 && p.column_end[j] - p.column_begin[j] == 3)
        route<first, 3>(p, n, i, j, height, rows...);
      else
        route<first, 0>(p, n, i, j, height, rows...);
    });
  };
  if (p.first)
    run(std::true_type{});
  else
    run(std::false_type{});
}

extern "C" void average_pool_backward(const Pool* pool) {
  const Pool& p = *pool;
  backward(p, [&](long n, long i, long j, long height, scalar* const* band, const scalar* const*) {
    const scalar share = p.share[i * p.dy.width + j];
    each_vector(p.dy.channels, [&](long c, auto lanes) {
      const vec part = share * lanes.load(p.dy.at(n, i, j) + c);
      for (long r = 0; r < height; r++)
        for (long s = p.column_begin[j]; s < p.column_end[j]; s++) {
          scalar* to = band[r] + s * padded(p.dx.channels) + c;
          store(to, load(to) + part);
        }
    });
  });
}
