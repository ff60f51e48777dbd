// Response norms across channels and over pixels, both ways, each in one pass over memory.
//
// d = k + alpha * (sum of squares in the window), y = x * d^-beta. Backward, with
// m = dy * d^-beta and q = m * x / d: dx = m - 2 alpha beta x * (sum of q in the mirrored window).
#include "vector.h"

#include <type_traits>
#include <vector>

extern "C" struct Norm {
  Map x, d, dy, out;  // `out` is y forward, dx backward; `dy` is backward's alone
  long size;
  double k, alpha, beta;
  long threads;
  scalar* scratch;
  long scratch_thread;
};

namespace {
constexpr long STREAMED_BYTES = 16 << 20;  // larger results leave the caches before they are read
constexpr long PIXELS = 16;                // at a time: their squares stay in L1

long padded_row(const Map& x) { return padded(x.channels); }

bool streams(const Map& out) {
  return out.images * out.height * out.width * out.channels * long(sizeof(scalar)) >
         STREAMED_BYTES;
}

template <class Lanes> INLINE void put(scalar* p, vec v, Lanes lanes, bool streaming) {
  if (std::is_same_v<Lanes, Whole> && streaming)
    stream(p, v);
  else
    lanes.store(p, v);
}

// d^-beta, and 1 / d.
struct Powers {
  vec power, inverse;
};

struct ThreeQuarters {
  INLINE Powers operator()(vec d) const {
    const vec root = inverse_root(d), power = root * (root * inverse_root(root));
    return {d == all(INFINITY) ? vec{} : power, root * root};
  }
};

struct Any {
  scalar beta;
  INLINE Powers operator()(vec d) const {
    vec power;
    for (long i = 0; i < WIDTH; i++) power[i] = std::pow(d[i], -beta);
    return {power, scalar(1) / d};
  }
};

template <class Run> void with_power(const Norm& n, Run&& run) {
  if (n.beta == 0.75)
    run(ThreeQuarters{});
  else
    run(Any{scalar(n.beta)});
}

// Sum of `size` neighbours, the first at p.
INLINE vec window(const scalar* p, long size, long step) {
  if (size == 5)
    return load(p) + load(p + step) + load(p + 2 * step) + load(p + 3 * step) +
           load(p + 4 * step);
  vec sum = load(p);
  for (long i = 1; i < size; i++) sum += load(p + i * step);
  return sum;
}

// m, and q into `to`. Lanes that are no channels take d = 1, so that nothing becomes NaN.
template <class Power, class Lanes>
INLINE vec gradients(Power power, const scalar* x, const scalar* d,
                     const scalar* dy, Lanes lanes, scalar* to) {
  vec total = lanes.load(d);
  for (long lane = lanes.count; lane < WIDTH; lane++) total[lane] = 1;
  const Powers p = power(total);
  const vec m = lanes.load(dy) * p.power;
  store(to, m * lanes.load(x) * p.inverse);
  return m;
}

// A few pixels of a row. `squares` holds them with zeros between: room for windows over an edge.
template <bool BACKWARD, class Power>
void across_pixels(const Norm& n, Power power, long image, long i, long begin, long end,
                   scalar* squares, long pitch, bool streaming) {
  const long channels = n.x.channels, half = n.size / 2;
  const long before = BACKWARD ? n.size - 1 - half : half;
  const scalar k = n.k, alpha = n.alpha, factor = -2 * n.alpha * n.beta;
  const scalar *x = n.x.at(image, i, begin), *dy = n.dy.at(image, i, begin);
  scalar *d = n.d.at(image, i, begin), *out = n.out.at(image, i, begin);
  for (long j = 0; j < end - begin; j++) {
    scalar* to = squares + j * pitch;
    each_vector(channels, [&](long c, auto lanes) {
      const scalar* from = x + j * n.x.pixel + c;
      if constexpr (BACKWARD) {
        store(to + c + PIXELS * pitch, gradients(power, from, d + j * n.d.pixel + c,
                                                 dy + j * n.dy.pixel + c, lanes, to + c));
      } else {
        const vec v = lanes.load(from);
        store(to + c, v * v);
      }
    });
  }
  for (long j = 0; j < end - begin; j++) {
    const scalar* from = squares + j * pitch;
    each_vector(channels, [&](long c, auto lanes) {
      const vec v = lanes.load(x + j * n.x.pixel + c), sum = window(from + c - before, n.size, 1);
      scalar* to = out + j * n.out.pixel + c;
      if constexpr (BACKWARD) {
        put(to, load(from + c + PIXELS * pitch) + factor * v * sum, lanes, streaming);
      } else {
        // The next pixels are asked for while these are written past the caches.
        __builtin_prefetch(x + (j + PIXELS) * n.x.pixel + c);
        const vec total = k + alpha * sum;
        put(d + j * n.d.pixel + c, total, lanes, streaming);
        put(to, v * power(total).power, lanes, streaming);
      }
    });
  }
}

template <bool BACKWARD> void across(const Norm& n) {
  const long gap = padded(n.size), pitch = padded_row(n.x) + gap;
  const bool streaming = streams(n.out);
  with_power(n, [&](auto power) {
#pragma omp parallel num_threads(n.threads)
    {
      scalar* memory = n.scratch + omp_get_thread_num() * n.scratch_thread;
      std::fill(memory, memory + n.scratch_thread, scalar(0));
#pragma omp for schedule(dynamic, 8) nowait
      for (long row = 0; row < n.x.images * n.x.height; row++)
        for (long j = 0; j < n.x.width; j += PIXELS)
          across_pixels<BACKWARD>(n, power, row / n.x.height, row % n.x.height, j,
                                  std::min(j + PIXELS, n.x.width), memory + gap, pitch, streaming);
      streamed();
    }
  });
}

// Whether the pixels of a row touch: then it is one pixel of as many channels.
bool touching(const Norm& n) {
  const long channels = n.x.channels;
  return channels == padded_row(n.x) && n.x.pixel == channels && n.d.pixel == channels &&
         n.dy.pixel == channels && n.out.pixel == channels;
}

// One image: rows are summed along, then the last `size` of these sums down.
template <bool BACKWARD, class Power>
void over_image(const Norm& n, Power power, long image, scalar* memory, bool streaming) {
  const long height = n.x.height, width = n.x.width, size = n.size;
  const long wide = padded_row(n.x), row = width * wide, half = size / 2;
  const long before = BACKWARD ? size - 1 - half : half, after = size - 1 - before;
  const bool flat = touching(n);
  const long pixels = flat ? 1 : width, channels = flat ? row : n.x.channels;
  const scalar k = n.k, alpha = n.alpha, factor = -2 * n.alpha * n.beta;
  scalar* squares = memory + before * wide;  // zeros at both ends
  scalar* sums = memory + (width + size - 1) * wide;
  scalar* kept = sums + size * row;
  std::vector<const scalar*> rows(size);
  for (long i = 0; i < height + after; i++) {
    if (i < height) {
      for (long j = 0; j < pixels; j++) {
        const scalar *x = n.x.at(image, i, j), *d = n.d.at(image, i, j), *dy = n.dy.at(image, i, j);
        scalar *to = squares + j * wide, *direct = kept + i % size * row + j * wide;
        each_vector(channels, [&](long c, auto lanes) {
          if constexpr (BACKWARD) {
            store(direct + c, gradients(power, x + c, d + c, dy + c, lanes, to + c));
          } else {
            const vec v = lanes.load(x + c);
            store(to + c, v * v);
          }
        });
      }
      scalar* sum = sums + i % size * row;
      const scalar *x = n.x.at(image, i + 1, 0), *d = n.d.at(image, i + 1, 0),
                   *dy = n.dy.at(image, i + 1, 0);
      for (long at = 0; at < row; at += WIDTH) {
        store(sum + at, window(squares + at - before * wide, size, wide));
        // Sums need no memory beyond the caches: the next row is asked for meanwhile.
        __builtin_prefetch(x + at);
        if constexpr (BACKWARD) {
          __builtin_prefetch(d + at);
          __builtin_prefetch(dy + at);
        }
      }
    }
    const long o = i - after;
    if (o < 0) continue;
    const long first = std::max(0l, o - before);
    const long present = std::min(height - 1, o + after) - first + 1;
    for (long r = 0; r < present; r++) rows[r] = sums + (first + r) % size * row;
    const auto finish = [&](auto total) {
      for (long j = 0; j < pixels; j++) {
        const scalar *x = n.x.at(image, o, j), *direct = kept + o % size * row + j * wide;
        scalar *d = n.d.at(image, o, j), *out = n.out.at(image, o, j);
        each_vector(channels, [&](long c, auto lanes) {
          const vec v = lanes.load(x + c), sum = total(j * wide + c);
          if constexpr (BACKWARD) {
            put(out + c, load(direct + c) + factor * v * sum, lanes, streaming);
          } else {
            const vec raised = k + alpha * sum;
            put(d + c, raised, lanes, streaming);
            put(out + c, v * power(raised).power, lanes, streaming);
          }
        });
      }
    };
    if (present == 5) {
      // Registers hold these, where every store may change what lies in the vector.
      const scalar *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3], *r4 = rows[4];
      finish([=](long at) {
        return load(r0 + at) + load(r1 + at) + load(r2 + at) + load(r3 + at) + load(r4 + at);
      });
    } else {
      finish([&](long at) {
        vec sum = load(rows[0] + at);
        for (long r = 1; r < present; r++) sum += load(rows[r] + at);
        return sum;
      });
    }
  }
}

template <bool BACKWARD> void over(const Norm& n) {
  const bool streaming = streams(n.out);
  with_power(n, [&](auto power) {
#pragma omp parallel num_threads(n.threads)
    {
      scalar* memory = n.scratch + omp_get_thread_num() * n.scratch_thread;
      std::fill(memory, memory + n.scratch_thread, scalar(0));
#pragma omp for schedule(dynamic) nowait
      for (long image = 0; image < n.x.images; image++)
        over_image<BACKWARD>(n, power, image, memory, streaming);
      streamed();
    }
  });
}
}  // namespace

extern "C" {
void norm_across_forward(const Norm* n) { across<false>(*n); }
void norm_across_backward(const Norm* n) { across<true>(*n); }
void norm_over_forward(const Norm* n) { over<false>(*n); }
void norm_over_backward(const Norm* n) { over<true>(*n); }
}
