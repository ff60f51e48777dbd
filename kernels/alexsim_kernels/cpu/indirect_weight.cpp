// Gradients of weights: see indirect.h.
//
// The gradient of a tap's filters is one product of matrices, whose rows are filters (of dy) and
// whose columns are channels (of x), summed over pixels. Its blocks, and slices of the pixels, are
// cut by the shape alone, so that threads never meet: each block of a slice is a task with sums of
// its own, and slices are added in their order.
#include "indirect.h"

namespace {
struct Block {
  long g, slice, tap;
  long filter, filters, channel, channels;  // within the group

  Block(const Indirect& d, long task) {
    const long all_channels = d.source.channels / d.groups;
    const long all_filters = d.target.channels / d.groups;
    const long across = (all_channels + d.channel_block - 1) / d.channel_block;
    const long down = (all_filters + d.filter_block - 1) / d.filter_block;
    tap = task % d.taps, task /= d.taps;
    channel = task % across * d.channel_block, task /= across;
    filter = task % down * d.filter_block, task /= down;
    slice = task % d.slices, g = task / d.slices;
    channels = std::min(d.channel_block, all_channels - channel);
    filters = std::min(d.filter_block, all_filters - filter);
  }

  static long tasks(const Indirect& d) { return d.groups * d.slices * in_slice(d); }

  static long in_slice(const Indirect& d) {
    const long across = (d.source.channels / d.groups + d.channel_block - 1) / d.channel_block;
    const long down = (d.target.channels / d.groups + d.filter_block - 1) / d.filter_block;
    return down * across * d.taps;
  }
};

struct Rows {
  const scalar **x, **dy;  // pixels of a block's channels and filters
};

void point(const Indirect& d, const Block& block, long first, long here, const Rows& to) {
  const long channel = block.g * (d.source.channels / d.groups) + block.channel;
  const long filter = block.g * (d.target.channels / d.groups) + block.filter;
  point_sources(d, d.tap[block.tap], first, here, channel, to.x);
  point_targets(d, first, here, filter, to.dy);
}

// `M` filters from `filter` by a panel of channels; `columns` are pointers to its first.
template <int M, int N>
INLINE void micro_kernel(long pixels, const scalar* const* dy, long filter,
                         const scalar* const* columns, long column, Store to) {
#pragma GCC unroll 8
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) __builtin_prefetch(to.c + i * to.row + WIDTH * j, 1, 3);
  vec sum[M][N];
#pragma GCC unroll 8
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) sum[i][j] = vec{};
  for (long p = 0; p < pixels; p++) {
    const scalar *a = dy[p] + filter, *b = columns[p] + column;
    vec x[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) x[j] = load(b + WIDTH * j);
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) {
#pragma GCC unroll 4
      for (int j = 0; j < N; j++) sum[i][j] += a[i] * x[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) {
      scalar* c = to.c + i * to.row + WIDTH * j;
      store(c, to.add ? load(c) + sum[i][j] : sum[i][j]);
    }
}

// The last panel's channels with zeros behind them, so that whole vectors can be read.
const scalar** copy_edge(const Block& block, long column, long here, const Rows& at,
                         const scalar** pointers, scalar* memory) {
  constexpr long ROW = PANEL * WIDTH;
  for (long i = 0; i < here; i++) {
    pointers[i] = memory + i * ROW;
    for (long c = 0; c < ROW; c += WIDTH)
      store(memory + i * ROW + c, column + c < block.channels
                                      ? load_part(at.x[i] + column + c, block.channels - column - c)
                                      : vec{});
  }
  return pointers;
}

// Some pixels into a block's sums.
void product(const Indirect& d, const Block& block, long here, const Rows& at, long soon,
             const Rows& next, const scalar** edge, scalar* memory, scalar* sums, bool add) {
  const long wide = padded(d.channel_block);
  const Panels panels(block.channels);
  long asked = 0, call = 0;
  const long calls = panels.count * ((block.filters + PANEL_ROWS - 1) / PANEL_ROWS);
  for (long index = 0; index < panels.count; index++) {
    const long vectors = panels.width(index);
    long column = panels.first(index);
    scalar* to = sums + column;
    const scalar** x = at.x;
    if (column + vectors * WIDTH > block.channels) {
      x = copy_edge(block, column, here, at, edge, memory);
      column = 0;
    }
    with_width(vectors, [&](auto rows, auto width) {
      row_groups<rows>(block.filters, [&](long k, auto group) {
        for (call++; asked < soon && asked * calls < soon * call; asked++) {
          prefetch(next.x[asked], block.channels);
          prefetch(next.dy[asked], block.filters);
        }
        micro_kernel<group, width>(here, at.dy, k, x, column, Store{to + k * wide, wide, add});
      });
    });
  }
}

void add_bias(const Indirect& d, const Block& block, long here, const Rows& at, bool add) {
  const long filters = d.target.channels / d.groups;
  scalar* sums = d.bias_sums + (block.g * d.slices + block.slice) * padded(filters) + block.filter;
  each_vector(block.filters, [&](long k, auto lanes) {
    vec sum = add ? lanes.load(sums + k) : vec{};
    for (long i = 0; i < here; i++) sum += lanes.load(at.dy[i] + k);
    lanes.store(sums + k, sum);
  });
}

// Rows of a block's gradients, from the sums of `slices` slices, each `next` values behind the last.
void finish(const Indirect& d, const Block& block, long first, long last, const scalar* sums,
            long slices, long next) {
  const long wide = padded(d.channel_block);
  const Filters& f = d.filters;
  const Tap& tap = d.tap[block.tap];
  for (long k = first; k < last; k++) {
    scalar* to = f.data + block.g * d.filter_group + (block.filter + k) * f.filter +
                 block.channel * f.channel + tap.r * f.row + tap.s * f.column;
    each_vector(block.channels, [&](long c, auto lanes) {
      vec sum = load(sums + k * wide + c);
      for (long s = 1; s < slices; s++) sum += load(sums + s * next + k * wide + c);
      scalar* values = to + c * f.channel;
      if (f.channel == 1) {
        lanes.store(values, d.add ? lanes.load(values) + sum : sum);
      } else {
        for (long lane = 0; lane < lanes.count; lane++) {
          scalar* value = values + lane * f.channel;
          *value = d.add ? *value + sum[lane] : sum[lane];
        }
      }
    });
  }
}

void finish_bias(const Indirect& d) {
  const long filters = d.target.channels / d.groups, wide = padded(filters);
#pragma omp for schedule(static) nowait
  for (long k = 0; k < d.target.channels; k++) {
    const scalar* sums = d.bias_sums + k / filters * d.slices * wide + k % filters;
    scalar sum = sums[0];
    for (long s = 1; s < d.slices; s++) sum += sums[s * wide];
    d.bias[k] = d.add ? d.bias[k] + sum : sum;
  }
}

void run(const Indirect& d, const Block& block, Rows tables[2], const scalar** edge,
         scalar* memory, scalar* sums) {
  const long count = d.source.images * d.grid.rows * d.grid.columns;
  const long begin = count * block.slice / d.slices, end = count * (block.slice + 1) / d.slices;
  const bool bias = d.bias && block.channel == 0 && block.tap == 0;
  point(d, block, begin, std::min(d.pixels, end - begin), tables[0]);
  for (long first = begin; first < end; first += d.pixels, std::swap(tables[0], tables[1])) {
    const long here = std::min(d.pixels, end - first);
    const long soon = std::min(d.pixels, end - first - here);
    point(d, block, first + here, soon, tables[1]);
    if (bias) add_bias(d, block, here, tables[0], first > begin);
    product(d, block, here, tables[0], soon, tables[1], edge, memory, sums, first > begin);
  }
}
}  // namespace

extern "C" void indirect_grad_weight(const Indirect* given) {
  const Indirect& d = *given;
  const long tasks = Block::tasks(d), size = d.filter_block * padded(d.channel_block);
  // Where nothing is left to add, a task writes its gradients itself.
  const bool alone = d.slices == 1 && d.taps == 1;
#pragma omp parallel num_threads(d.threads)
  {
    const long thread = omp_get_thread_num();
    const scalar** table = d.table + thread * d.table_thread;
    Rows tables[2] = {{table, table + d.pixels}, {table + 2 * d.pixels, table + 3 * d.pixels}};
#pragma omp single
    std::fill(d.zeros, d.zeros + padded(d.source.channels), scalar(0));
#pragma omp for schedule(dynamic)
    for (long task = 0; task < tasks; task++) {
      const Block block(d, task);
      scalar* sums = d.sums + (alone ? thread : task) * size;
      run(d, block, tables, table + 4 * d.pixels, d.edges + thread * d.pixels * PANEL * WIDTH, sums);
      if (alone) finish(d, block, 0, block.filters, sums, 1, 0);
    }
    if (!alone) {
      const long in_slice = Block::in_slice(d), next = in_slice * size;
      // All taps of a filter together: they are neighbours in memory.
#pragma omp for schedule(static) collapse(2) nowait
      for (long part = 0; part < d.groups * in_slice / d.taps; part++)
        for (long k = 0; k < d.filter_block; k++)
          for (long t = 0; t < d.taps; t++) {
            const long blocks = in_slice / d.taps;
            const long task = (part / blocks * d.slices * blocks + part % blocks) * d.taps + t;
            const Block block(d, task);
            if (k < block.filters) finish(d, block, k, k + 1, d.sums + task * size, d.slices, next);
          }
    }
    if (d.bias) finish_bias(d);
  }
}
