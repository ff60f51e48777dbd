// Fully connected layers: y = x W' + b, its gradients, and the update of 2012 in their epilogue.
//
// A row of W is a filter: forward, W is the broadcast operand, read where it lies, and the images
// are the columns. No batch is too large or small:
// panels are as wide as it takes, though one image alone fills a sixteenth of a vector.
#include "linear.h"

namespace {
constexpr long UNITS = 48;    // units of W at a time, forward: each thread's
constexpr long DEPTH = 512;   // of a sum at a time
constexpr long INPUTS = 64;   // columns of a block of W, and of x, backward
constexpr long STRIP = 256;   // units of such a block of W

// Images as columns: `[panel][k][width]` of `columns`, zeros behind the last.
void pack_columns(const Linear& l, const Panels& panels) {
#pragma omp for schedule(dynamic, 8)
  for (long k0 = 0; k0 < l.inputs; k0 += LANES)
    for (long m = 0; m < panels.vectors * WIDTH; m++)
      for (long k = k0; k < std::min(k0 + LANES, l.inputs); k++)
        l.packed[panels.packed(l.inputs, k, m)] = m < l.images ? l.x[m * l.x_row + k] : scalar(0);
}

void forward_units(const Linear& l, const Panels& panels, long first, long here, scalar* sums) {
  const long pitch = panels.vectors * WIDTH;
  for (long k = 0; k < l.inputs; k += DEPTH)
    for (long index = 0; index < panels.count; index++) {
      const long m = panels.first(index), vectors = panels.width(index);
      panel(vectors, here, std::min(DEPTH, l.inputs - k),
            {l.w + first * l.w_row + k, l.w_row, 1},
            l.packed + m * l.inputs + k * vectors * WIDTH, vectors * WIDTH,
            Store{sums + m, pitch, k > 0});
    }
  finish_units(l, first, here, sums, pitch);
}

// A block of columns of x or W, zeros behind the last.
void copy_columns(const scalar* from, long row, long rows, long columns, scalar* to, long wide) {
  for (long i = 0; i < rows; i++)
    for (long c = 0; c < wide; c += WIDTH)
      store(to + i * wide + c, c < columns ? load_part(from + i * row + c, columns - c) : vec{});
}

void grad_input_columns(const Linear& l, long first, scalar* block) {
  const long columns = std::min(INPUTS, l.inputs - first), wide = padded(columns);
  const Panels panels(columns);
  scalar* sums = block + STRIP * INPUTS;
  for (long n = 0; n < l.units; n += STRIP) {
    const long units = std::min(STRIP, l.units - n);
    copy_columns(l.w + n * l.w_row + first, l.w_row, units, columns, block, wide);
    for (long index = 0; index < panels.count; index++) {
      const long k = panels.first(index);
      panel(panels.width(index), l.images, units, {l.dy + n, l.dy_row, 1}, block + k, wide,
            Store{sums + k, wide, n > 0});
    }
  }
  finish_inputs(l, first, columns, sums, wide);
}

// dy as strips of a few units: `[strip][image][unit]`.
void pack_strips(const Linear& l) {
#pragma omp for schedule(dynamic, 8)
  for (long n = 0; n < l.units; n += PANEL_ROWS)
    for (long m = 0; m < l.images; m++)
      for (long i = 0; i < PANEL_ROWS; i++)
        l.packed[(n * l.images) + m * PANEL_ROWS + i] =
            n + i < l.units ? l.dy[m * l.dy_row + n + i] : scalar(0);
}

void grad_weight_columns(const Linear& l, long first, long columns, scalar* block) {
  const long wide = padded(columns);
  const Panels panels(columns);
  copy_columns(l.x + first, l.x_row, l.images, columns, block, wide);
  scalar sums[PANEL_ROWS * PANEL * WIDTH];
  for (long n = 0; n < l.units; n += PANEL_ROWS)
    for (long index = 0; index < panels.count; index++) {
      const long k = panels.first(index), pitch = panels.width(index) * WIDTH;
      const long units = std::min(PANEL_ROWS, l.units - n), here = std::min(pitch, columns - k);
      AheadOfUpdate ahead(l, n, units, first + k, here);
      panel_of<Values>(panels.width(index), units, l.images,
                       {l.packed + n * l.images, 1, PANEL_ROWS}, block + k, wide,
                       Store{sums, pitch, false}, ahead);
      finish(l, n, units, first + k, here, sums, pitch);
    }
}
}  // namespace

extern "C" void linear_forward(const Linear* layer) {
  const Linear& l = *layer;
  const Panels panels(l.images);
#pragma omp parallel num_threads(l.threads)
  {
    scalar* sums = l.block + omp_get_thread_num() * l.block_thread;
    pack_columns(l, panels);
#pragma omp for schedule(dynamic)
    for (long n = 0; n < l.units; n += UNITS)
      forward_units(l, panels, n, std::min(UNITS, l.units - n), sums);
  }
}

extern "C" void linear_grad_input(const Linear* layer) {
#pragma omp parallel for schedule(dynamic) num_threads(layer->threads)
  for (long k = 0; k < layer->inputs; k += INPUTS)
    grad_input_columns(*layer, k, layer->block + omp_get_thread_num() * layer->block_thread);
}

extern "C" void linear_grad_weight(const Linear* layer) {
  const Linear& l = *layer;
#pragma omp parallel num_threads(l.threads)
  {
    scalar* block = l.block + omp_get_thread_num() * l.block_thread;
    pack_strips(l);
    if (l.bias) sum_gradients(l);
#pragma omp for schedule(dynamic)
    for (long k = 0; k < l.inputs; k += 4 * INPUTS)
      grad_weight_columns(l, k, std::min(4 * INPUTS, l.inputs - k), block);
  }
}
