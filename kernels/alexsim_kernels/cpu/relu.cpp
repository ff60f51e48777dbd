// ReLU and its gradient, in one pass over memory.
#include "vector.h"

#include <type_traits>

extern "C" struct Relu {
  Map x, dy, out;  // backward `x` is the output; forward `dy` is not read
  long threads;
};

namespace {
constexpr long STREAMED_BYTES = 16 << 20;  // larger results leave the caches before they are read
constexpr long BLOCK = 1 << 14;            // values that a thread takes at a time
constexpr long AHEAD = 1 << 10;            // values between what is asked for and what is needed

bool dense(const Map& m) {
  return m.pixel == m.channels && m.row == m.width * m.pixel && m.image == m.height * m.row;
}

// `count` values that lie next to each other.
template <bool BACKWARD, bool STREAM>
void run(const scalar* x, const scalar* dy, scalar* out, long count) {
  each_vector(count, [=](long i, auto lanes) {
    if constexpr (STREAM) {
      __builtin_prefetch(x + i + AHEAD);
      if constexpr (BACKWARD) __builtin_prefetch(dy + i + AHEAD);
    }
    vec v = lanes.load(x + i);
    // As in PyTorch, an output that is NaN lets the gradient through.
    v = BACKWARD ? (v <= scalar(0) ? vec{} : lanes.load(dy + i)) : relu(v);
    if constexpr (STREAM && std::is_same_v<decltype(lanes), Whole>)
      stream(out + i, v);
    else
      lanes.store(out + i, v);
  });
}

template <bool BACKWARD, bool STREAM> void all_values(const Relu& r) {
  const Map &x = r.x, &dy = r.dy, &out = r.out;
  const long rows = x.images * x.height, count = rows * x.width * x.channels;
#pragma omp parallel num_threads(r.threads)
  {
    if (dense(x) && dense(dy) && dense(out)) {
#pragma omp for schedule(dynamic) nowait
      for (long i = 0; i < count; i += BLOCK)
        run<BACKWARD, STREAM>(x.data + i, dy.data + i, out.data + i, std::min(BLOCK, count - i));
    } else {
#pragma omp for schedule(dynamic, 8) nowait
      for (long row = 0; row < rows; row++)
        for (long n = row / x.height, i = row % x.height, j = 0; j < x.width; j++)
          run<BACKWARD, STREAM>(x.at(n, i, j), dy.at(n, i, j), out.at(n, i, j), x.channels);
    }
    streamed();
  }
}

template <bool BACKWARD> void relu(const Relu& r) {
  const long bytes = r.x.images * r.x.height * r.x.width * r.x.channels * long(sizeof(scalar));
  // What is written in place is in the caches already.
  if (bytes > STREAMED_BYTES && r.out.data != r.x.data && r.out.data != r.dy.data)
    all_values<BACKWARD, true>(r);
  else
    all_values<BACKWARD, false>(r);
}
}  // namespace

extern "C" {
void relu_forward(const Relu* r) { relu<false>(*r); }
void relu_backward(const Relu* r) { relu<true>(*r); }
}
