// Fully connected layers, whatever their products are made of: what a pass is asked for, and what
// becomes of its sums.
#pragma once

#include "product.h"

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
