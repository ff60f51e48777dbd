// Batch normalisation: each direction one pass over memory for the sums and one that writes.
//
// Pixels are cut into slices by the shape alone, which follow in their order, whatever the number of
// threads. A slice sums differences to a pivot, the mean of its first pixels, and their squares. The
// pivot is no farther from the slice's mean than a few of its deviations, so that what is taken off
// the squares for it is of their size: no digits are lost, however large the mean. Slices are put
// together as Chan, Golub and LeVeque do (1979, "Updating formulae and a pairwise algorithm").
#include "vector.h"

extern "C" struct BatchNorm {
  Map x, dy, out;  // `out` is y forward, dx backward; `dy` is backward's alone
  const scalar *weight, *bias;
  scalar *mean, *rstd;                 // of the minibatch: written forward, read backward
  scalar *running_mean, *running_var;  // moved by training, read at test
  scalar *dweight, *dbias;             // written with the sums, read with the input's gradient
  double epsilon, momentum;
  long training, relu, add, threads;
  long slices;                // of all pixels
  scalar *partial, *factors;  // `[slice][3][padded channels]`; `[4][padded channels]`
};

namespace {
constexpr long STREAMED_BYTES = 16 << 20;  // larger results leave the caches before they are read
constexpr long PIVOT_PIXELS = 16;

// Pixels by their number; quickly where all are as far apart.
struct Pixels {
  Map map;
  bool even;

  explicit Pixels(const Map& m)
      : map(m), even(m.row == m.width * m.pixel && m.image == m.height * m.row) {}
  INLINE scalar* at(long number) const {
    if (even) return map.data + number * map.pixel;
    const long in_image = map.height * map.width, rest = number % in_image;
    return map.at(number / in_image, rest / map.width, rest % map.width);
  }
};

long pixels(const BatchNorm& n) { return n.x.images * n.x.height * n.x.width; }

struct Two {
  vec a, b;
};

// Adds two values of each pixel, `pair(x, dy, channel, lanes)`, to two rows of sums. Pixel by pixel,
// as memory is fastest read in its order.
template <class Pair>
void add_pairs(long channels, const Pixels& x, const Pixels& dy, long first, long last,
               scalar* sums, Pair&& pair) {
  scalar* second = sums + padded(channels);
  for (long i = first; i < last; i++) {
    const scalar *p = x.at(i), *g = dy.at(i);
    each_vector(channels, [&](long c, auto lanes) {
      const Two two = pair(p + c, g + c, c, lanes);
      store(sums + c, load(sums + c) + two.a);
      store(second + c, load(second + c) + two.b);
    });
  }
}

// `run(first, last, three rows of zeros)` for each slice of the pixels.
template <class Run> void each_slice(const BatchNorm& n, Run&& run) {
  const long size = 3 * padded(n.x.channels), count = pixels(n);
#pragma omp for schedule(static)
  for (long s = 0; s < n.slices; s++) {
    scalar* rows = n.partial + s * size;
    std::fill(rows, rows + size, scalar(0));
    run(count * s / n.slices, count * (s + 1) / n.slices, rows);
  }
}

// Differences to the pivot, their squares, and the pivot.
void slice_statistics(const BatchNorm& n, long first, long last, scalar* rows) {
  const long channels = n.x.channels, wide = padded(channels);
  const long some = std::min(PIVOT_PIXELS, last - first);
  const Pixels x(n.x);
  scalar* pivot = rows + 2 * wide;
  add_pairs(channels, x, x, first, first + some, rows,
            [](const scalar* p, const scalar*, long, auto lanes) {
              return Two{lanes.load(p), vec{}};
            });
  for (long c = 0; c < wide; c += WIDTH)
    store(pivot + c, load(rows + c) / scalar(some)), store(rows + c, vec{});
  add_pairs(channels, x, x, first, last, rows,
            [&](const scalar* p, const scalar*, long c, auto lanes) {
              const vec apart = lanes.load(p) - lanes.load(pivot + c);
              return Two{apart, apart * apart};
            });
}

// What a pixel's value is less, times and plus.
struct Factors {
  scalar *mean, *scale, *shift, *of_dy;
  explicit Factors(const BatchNorm& n)
      : mean(n.factors), scale(mean + padded(n.x.channels)), shift(scale + padded(n.x.channels)),
        of_dy(shift + padded(n.x.channels)) {}
  void forward(const BatchNorm& n, long c, scalar by, scalar rstd) const {
    mean[c] = by, scale[c] = n.weight[c] * rstd, shift[c] = n.bias[c];
  }
  void backward(const BatchNorm& n, long c) const {
    const double times = double(n.weight[c]) * n.rstd[c], count = pixels(n);
    mean[c] = n.mean[c];
    scale[c] = -times * n.rstd[c] * n.dweight[c] / count;
    shift[c] = -times * n.dbias[c] / count;
    of_dy[c] = times;
  }
};

// Mean and 1 / sqrt(variance + epsilon) of the minibatch, and its share of the running statistics:
// there the variance is unbiased.
void finish_statistics(const BatchNorm& n) {
  const long wide = padded(n.x.channels), count = pixels(n);
#pragma omp for schedule(static)
  for (long c = 0; c < n.x.channels; c++) {
    double mean = 0, squares = 0;
    for (long s = 0; s < n.slices; s++) {
      const scalar* rows = n.partial + 3 * s * wide + c;
      const double before = count * s / n.slices, after = count * (s + 1) / n.slices;
      const double here = after - before, from_pivot = rows[0] / here;
      const double apart = rows[2 * wide] + from_pivot - mean;
      squares += rows[wide] - from_pivot * from_pivot * here + apart * apart * before * here / after;
      mean += apart * here / after;
    }
    squares = squares < 0 ? 0 : squares;  // NaN stays NaN
    n.mean[c] = mean;
    n.rstd[c] = 1 / std::sqrt(squares / count + n.epsilon);
    n.running_mean[c] += n.momentum * (mean - n.running_mean[c]);
    n.running_var[c] += n.momentum * (squares / std::max(count - 1, 1l) - n.running_var[c]);
    Factors(n).forward(n, c, n.mean[c], n.rstd[c]);
  }
}

// Writes `value(x, dy, channel, lanes)` of each pixel.
template <class Value> void each_pixel(const BatchNorm& n, const Map& gradients, Value&& value) {
  const Pixels x(n.x), dy(gradients), out(n.out);
  const long count = pixels(n);
  const bool streaming = count * n.x.channels * long(sizeof(scalar)) > STREAMED_BYTES;
#pragma omp for schedule(static) nowait
  for (long i = 0; i < count; i++) {
    const scalar *p = x.at(i), *g = dy.at(i);
    scalar* to = out.at(i);
    each_vector(n.x.channels, [&](long c, auto lanes) {
      vec v = value(p + c, g + c, c, lanes);
      if (n.add) v += lanes.load(to + c);
      if (n.relu) v = relu(v);
      if (streaming && lanes.count == WIDTH)
        stream(to + c, v);
      else
        lanes.store(to + c, v);
    });
  }
  streamed();
}

void add_gradients(const BatchNorm& n) {
  const long channels = n.x.channels, wide = padded(channels);
  const Pixels x(n.x), dy(n.dy);
  each_slice(n, [&](long first, long last, scalar* rows) {
    add_pairs(channels, x, dy, first, last, rows,
              [&](const scalar* p, const scalar* g, long c, auto lanes) {
                const vec gradient = lanes.load(g);
                return Two{gradient, gradient * (lanes.load(p) - lanes.load(n.mean + c))};
              });
  });
#pragma omp for schedule(static)
  for (long c = 0; c < channels; c++) {
    double shift = 0, scale = 0;
    for (long s = 0; s < n.slices; s++) {
      shift += n.partial[3 * s * wide + c];
      scale += n.partial[(3 * s + 1) * wide + c];
    }
    n.dbias[c] = shift;
    n.dweight[c] = scale * n.rstd[c];
    if (n.weight) Factors(n).backward(n, c);
  }
}
}  // namespace

extern "C" {
// y = scale * (x - mean) * rstd + shift.
void batch_norm_forward(const BatchNorm* given) {
  const BatchNorm& n = *given;
  const Factors f(n);
  if (!n.training)
    for (long c = 0; c < n.x.channels; c++)
      f.forward(n, c, n.running_mean[c], 1 / std::sqrt(n.running_var[c] + n.epsilon));
#pragma omp parallel num_threads(n.threads)
  {
    if (n.training) {
      each_slice(n, [&](long first, long last, scalar* rows) {
        slice_statistics(n, first, last, rows);
      });
      finish_statistics(n);
    }
    each_pixel(n, n.x, [&](const scalar* p, const scalar*, long c, auto lanes) {
      return (lanes.load(p) - load(f.mean + c)) * load(f.scale + c) + load(f.shift + c);
    });
  }
}

void batch_norm_sums(const BatchNorm* n) {
#pragma omp parallel num_threads(n->threads)
  add_gradients(*n);
}

// dx = scale rstd (dy - dbias / M - (x - mean) rstd dweight / M) for M pixels; its sums before it
// where they are asked for.
void batch_norm_grad_input(const BatchNorm* given, long with_sums) {
  const BatchNorm& n = *given;
  const Factors f(n);
  if (!with_sums)
    for (long c = 0; c < n.x.channels; c++) f.backward(n, c);
#pragma omp parallel num_threads(n.threads)
  {
    if (with_sums) add_gradients(n);
    each_pixel(n, n.dy, [&](const scalar* p, const scalar* g, long c, auto lanes) {
      return lanes.load(g) * load(f.of_dy + c) +
             ((lanes.load(p) - load(f.mean + c)) * load(f.scale + c) + load(f.shift + c));
    });
  }
}
}
