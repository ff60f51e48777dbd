// Fully connected layers, whatever their products are made of: what a pass is asked for, and what
// becomes of its sums.
#pragma once

#include "micro_kernel.h"

extern "C" struct Linear {
  scalar *x, *w, *dy, *bias, *out;  // out: y, dx or dw; dy is the gradient's
  long images, inputs, units;
  long x_row, w_row, dy_row, out_row;  // distances of rows
  long relu, add, threads;
  // The update: out is the increment, w the weights; w too is moved where `apply` says so.
  long update, apply;
  double momentum, decay, rate;
  scalar *packed, *block;
  long block_thread;
};

// Units of y, whose sums lie as `[unit][image]`.
static inline void finish_units(const Linear& l, long first, long here, const scalar* sums,
                                long pitch) {
  for (long m = 0; m < l.images; m++) {
    scalar* y = l.out + m * l.out_row + first;
    for (long i = 0; i < here; i++) {
      scalar value = sums[i * pitch + m];
      if (l.bias) value += l.bias[first + i];
      if (l.add) value += y[i];
      y[i] = l.relu && value < scalar(0) ? scalar(0) : value;
    }
  }
}

// Columns of dx, whose sums lie as they will.
static inline void finish_inputs(const Linear& l, long first, long columns, const scalar* sums,
                                 long pitch) {
  for (long m = 0; m < l.images; m++)
    for (long c = 0; c < columns; c += WIDTH) {
      scalar* to = l.out + m * l.out_row + first + c;
      vec v = load(sums + m * pitch + c);
      if (l.add) v += load_part(to, columns - c);
      store_part(to, v, columns - c);
    }
}

// Asks for a block of memory, a line a step, while a product is made: it is packed or updated next.
// Measured on Zen 4, one thread, fc6: the update takes 50 ms with it and 58 without, of bfloat16 28
// and 36, forward 25 and 30.
template <bool WRITTEN> struct Ahead {
  const scalar* data;
  long row, rows, columns;  // none, where rows are not positive
  long c = 0;
  INLINE void step() {
    if (rows <= 0) return;
    __builtin_prefetch(data + c, WRITTEN, 2);  // into the second cache
    if ((c += WIDTH) >= columns) c = 0, rows--, data += row;
  }
};

// What `finish` will read.
struct AheadOfUpdate {
  Ahead<true> out;
  Ahead<false> w;
  AheadOfUpdate(const Linear& l, long unit, long units, long first, long columns)
      : out{l.out + unit * l.out_row + first, l.out_row, l.update ? units : 0, columns},
        w{l.w + unit * l.w_row + first, l.w_row, l.update ? units : 0, columns} {}
  INLINE void step() { out.step(), w.step(); }
};

// Stores sums of units of dw, or: inc = momentum inc - decay rate w - rate sum; w = w + inc.
static inline void finish(const Linear& l, long unit, long units, long first, long columns,
                          const scalar* sums, long pitch) {
  const scalar momentum = l.momentum, shrink = l.decay * l.rate, rate = l.rate;
  for (long i = 0; i < units; i++) {
    scalar* out = l.out + (unit + i) * l.out_row + first;
    scalar* w = l.w + (unit + i) * l.w_row + first;
    each_vector(columns, [&](long c, auto lanes) {
      vec v = load(sums + i * pitch + c);
      if (l.update) {
        const vec weight = lanes.load(w + c);
        v = momentum * lanes.load(out + c) - shrink * weight - rate * v;
        if (l.apply) lanes.store(w + c, weight + v);
      } else if (l.add) {
        v += lanes.load(out + c);
      }
      lanes.store(out + c, v);
    });
  }
}

// The gradient of the bias, by all threads, none of which waits.
static inline void sum_gradients(const Linear& l) {
#pragma omp for schedule(static) nowait
  for (long n = 0; n < l.units; n++) {
    scalar sum = l.add ? l.bias[n] : scalar(0);
    for (long m = 0; m < l.images; m++) sum += l.dy[m * l.dy_row + n];
    l.bias[n] = sum;
  }
}
