// Forward passes and gradients of the input: see indirect.h.
//
// A thread takes its share of the target pixels through all filters, some pixels at a time: their
// pointers lie in a table `[tap][pixel]`. Panels of filters are read once for all of these; what the
// next pixels will read is asked for meanwhile.
#include "indirect.h"

namespace {
constexpr long STREAMED_BYTES = 16 << 20;  // larger results leave the caches before they are read

struct Pointers {
  const scalar** sources;  // [tap][pixel]
  scalar** targets;
};

// How a panel's sums leave the registers.
struct Finish {
  long column, columns;  // first filter, and how many there are
  const scalar* bias;    // or null
  bool add, relu, streaming;
};

template <int M, int N>
INLINE void write(const vec (&sum)[M][N], scalar* const* targets, const Finish& to) {
  const bool plain = !to.bias && !to.relu && to.columns == N * WIDTH;
  if (plain) {
#pragma GCC unroll 8
    for (int i = 0; i < M; i++)
#pragma GCC unroll 4
      for (int j = 0; j < N; j++) {
        scalar* c = targets[i] + to.column + WIDTH * j;
        const vec v = to.add ? load(c) + sum[i][j] : sum[i][j];
        if (to.streaming)
          stream(c, v);
        else
          store(c, v);
      }
    return;
  }
  scalar tile[M][N * WIDTH];
#pragma GCC unroll 8
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) store(tile[i] + WIDTH * j, sum[i][j]);
  for (long i = 0; i < M; i++)
    each_vector(to.columns, [&](long k, auto lanes) {
      vec v = load(tile[i] + k);
      scalar* c = targets[i] + to.column + k;
      if (to.bias) v += lanes.load(to.bias + to.column + k);
      if (to.add) v += lanes.load(c);
      lanes.store(c, to.relu ? relu(v) : v);
    });
}

// `taps` rows of the table, `channels` values of each of its pixels, by a packed panel.
template <int M, int N>
INLINE void micro_kernel(long taps, long channels, const scalar* const* sources, long table_row,
                         long channel, const scalar* b, scalar* const* targets,
                         const Finish& to) {
  vec sum[M][N];
#pragma GCC unroll 8
  for (int i = 0; i < M; i++)
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) sum[i][j] = vec{};
  for (long t = 0; t < taps; t++, sources += table_row) {
    const scalar* a[M];
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) a[i] = sources[i] + channel;
    for (long c = 0; c < channels; c++, b += N * WIDTH) {
      vec columns[N];
#pragma GCC unroll 4
      for (int j = 0; j < N; j++) columns[j] = load(b + WIDTH * j);
#pragma GCC unroll 8
      for (int i = 0; i < M; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) sum[i][j] += a[i][c] * columns[j];
      }
    }
  }
  write(sum, targets, to);
}

// Rows become columns: blocks of half as many lanes are exchanged between pairs of rows, over and
// over.
template <long HALF = WIDTH / 2> INLINE void transpose(vec (&rows)[WIDTH]) {
  decltype(vec{} == vec{}) first, second;
#pragma GCC unroll 16
  for (long lane = 0; lane < WIDTH; lane++) {
    first[lane] = lane & HALF ? WIDTH + lane - HALF : lane;
    second[lane] = lane & HALF ? WIDTH + lane : lane + HALF;
  }
#pragma GCC unroll 16
  for (long i = 0; i < WIDTH; i++)
    if (!(i & HALF)) {
      const vec a = rows[i], b = rows[i + HALF];
      rows[i] = __builtin_shuffle(a, b, first);
      rows[i + HALF] = __builtin_shuffle(a, b, second);
    }
  if constexpr (HALF > 1) transpose<HALF / 2>(rows);
}

// One tap's values of some channels: rows of a vector of filters, zeros behind the last.
INLINE void pack_tap(long channels, long filters, const scalar* from, long filter, long channel,
                     scalar* to, long to_row) {
  long c = 0;
  if (filters == WIDTH && filter == 1)
    for (; c < channels; c++) store(to + c * to_row, load(from + c * channel));
  if (filters == WIDTH && channel == 1)
    for (; c + WIDTH <= channels; c += WIDTH) {
      vec rows[WIDTH];
      for (long i = 0; i < WIDTH; i++) rows[i] = load(from + i * filter + c);
      transpose(rows);
      for (long i = 0; i < WIDTH; i++) store(to + (c + i) * to_row, rows[i]);
    }
  for (; c < channels; c++)
    for (long i = 0; i < WIDTH; i++)
      to[c * to_row + i] = i < filters ? from[i * filter + c * channel] : scalar(0);
}

// Filters of all groups as panels: `[group][cut of the sum][panel][values of the cut]`.
void pack(const Indirect& d, long channels, long filters) {
  const long wide = padded(filters), depth = d.taps * channels;
  const Panels panels(filters);
#pragma omp for schedule(static) collapse(3) nowait
  for (long g = 0; g < d.groups; g++)
    for (long k = 0; k < wide; k += WIDTH)
      for (long c = 0; c < channels; c += LANES)
        for (long t = 0; t < d.taps; t++) {
          const long t0 = t / d.tap_block * d.tap_block, c0 = c / d.channel_block * d.channel_block;
          const long taps = std::min(d.tap_block, d.taps - t0);
          const long count = std::min(d.channel_block, channels - c0);
          scalar* cut = d.packed + g * depth * wide + (t0 * channels + c0 * taps) * wide;
          const scalar* from = d.filters.data + g * d.filter_group + k * d.filters.filter +
                               c * d.filters.channel + d.tap[t].r * d.filters.row +
                               d.tap[t].s * d.filters.column;
          const long width = panels.width(k / (panels.wide * WIDTH)) * WIDTH;
          pack_tap(std::min(LANES, channels - c), std::clamp(filters - k, 0l, WIDTH), from,
                   d.filters.filter, d.filters.channel,
                   cut + panels.packed(taps * count, (t - t0) * count + c - c0, k), width);
        }
}

void point(const Indirect& d, long g, long first, long here, const Pointers& to) {
  const long channel = g * (d.source.channels / d.groups);
  for (long t = 0; t < d.taps; t++)
    point_sources(d, d.tap[t], first, here, channel, to.sources + t * d.pixels);
  point_targets(d, first, here, g * (d.target.channels / d.groups), to.targets);
}

// Some pixels by some panels of a group's filters; `next` are the pixels after them.
void product(const Indirect& d, long g, long here, const Pointers& at, long soon,
             const Pointers& next, long first_panel, long last_panel, bool streaming) {
  const long channels = d.source.channels / d.groups, filters = d.target.channels / d.groups;
  const long wide = padded(filters), depth = d.taps * channels;
  const Panels panels(filters);
  for (long index = first_panel; index < last_panel; index++) {
    const long k = panels.first(index), vectors = panels.width(index);
    for (long t0 = 0; t0 < d.taps; t0 += d.tap_block)
      for (long c0 = 0; c0 < channels; c0 += d.channel_block) {
        const long taps = std::min(d.tap_block, d.taps - t0);
        const long count = std::min(d.channel_block, channels - c0);
        const bool first = t0 + c0 == 0, last = t0 + taps == d.taps && c0 + count == channels;
        const scalar* b = d.packed + g * depth * wide + (t0 * channels + c0 * taps) * wide +
                          k * taps * count;
        const Finish to{k, std::min(vectors * WIDTH, filters - k),
                        last && d.bias ? d.bias + g * filters : nullptr, d.add || !first,
                        d.relu && last, streaming && first && last && !d.add};
        // Each panel asks for its share of what the next pixels read.
        const long ask = count * (index - first_panel) / (last_panel - first_panel);
        const long asked = count * (index + 1 - first_panel) / (last_panel - first_panel);
        with_width(vectors, [&](auto rows, auto width) {
          row_groups<rows>(here, [&](long i, auto group) {
            for (long t = t0; t < t0 + taps; t++)
              for (long j = i; j < std::min(i + group, soon); j++)
                prefetch(next.sources[t * d.pixels + j] + c0 + ask, asked - ask);
            if (first && !to.streaming)
              for (long j = 0; j < group; j++)
                for (long line = 0; line < to.columns; line += WIDTH)
                  __builtin_prefetch(at.targets[i + j] + k + line, 1, 3);
            micro_kernel<group, width>(taps, count, at.sources + t0 * d.pixels + i, d.pixels, c0, b,
                                       at.targets + i, to);
          });
        });
      }
  }
}

// Pixels that no tap meets.
void clear(const Indirect& d, long count, bool streaming) {
#pragma omp for schedule(static) nowait
  for (long i = 0; i < count; i++) {
    scalar* to = target_pixel(d.target, d.grid, Pixel(d.grid, i));
    each_vector(d.target.channels, [&](long c, auto lanes) {
      vec v = d.add ? lanes.load(to + c) : vec{};
      if (d.bias) v += lanes.load(d.bias + c);
      if (d.relu) v = relu(v);
      if (streaming && lanes.count == WIDTH)
        stream(to + c, v);
      else
        lanes.store(to + c, v);
    });
  }
  streamed();
}

// A thread's share of a grid.
void share(const Indirect& d) {
  const long filters = d.target.channels / d.groups;
  const long count = d.target.images * d.grid.rows * d.grid.columns;
  const Map& y = d.target;
  const bool streaming =
      y.images * y.height * y.width * y.channels * long(sizeof(scalar)) > STREAMED_BYTES;
  if (d.taps == 0) return clear(d, count, streaming);
  const long thread = omp_get_thread_num(), threads = omp_get_num_threads();
  const Panels panels(filters);
  // Few pixels: threads part the panels as well.
  long across = 1;
  while (threads % (2 * across) == 0 && panels.count >= 2 * across &&
         count * across < d.pixels * threads / 2)
    across *= 2;
  const long down = threads / across, part = thread / across, side = thread % across;
  const long groups_of_rows = (count + PANEL_ROWS - 1) / PANEL_ROWS;
  const long begin = groups_of_rows * part / down * PANEL_ROWS;
  const long end = std::min(count, groups_of_rows * (part + 1) / down * PANEL_ROWS);
  Pointers tables[2];
  for (long i = 0; i < 2; i++) {
    tables[i].sources = d.table + thread * d.table_thread + i * (d.taps + 1) * d.pixels;
    tables[i].targets = const_cast<scalar**>(tables[i].sources + d.taps * d.pixels);
  }
  const long blocks = std::max(1l, (end - begin + d.pixels - 1) / d.pixels);
  const long even = (end - begin + blocks * PANEL_ROWS - 1) / (blocks * PANEL_ROWS) * PANEL_ROWS;
  for (long g = 0; g < d.groups; g++) {
    point(d, g, begin, std::min(even, end - begin), tables[0]);
    for (long first = begin; first < end; first += even, std::swap(tables[0], tables[1])) {
      const long here = std::min(even, end - first);
      const long soon = std::min(even, end - first - here);
      point(d, g, first + here, soon, tables[1]);
      product(d, g, here, tables[0], soon, tables[1], panels.count * side / across,
              panels.count * (side + 1) / across, streaming);
    }
  }
  streamed();
}
}  // namespace

// All grids of a pass; threads meet once, when the filters are packed.
extern "C" void indirect_product(const Indirect* grids, long count) {
  const long channels = grids->source.channels / grids->groups;
  const long filters = grids->target.channels / grids->groups;
#pragma omp parallel num_threads(grids->threads)
  {
#pragma omp single nowait
    std::fill(grids->zeros, grids->zeros + channels, scalar(0));
    for (long i = 0; i < count; i++) pack(grids[i], channels, filters);
#pragma omp barrier
    for (long i = 0; i < count; i++) share(grids[i]);
  }
}
