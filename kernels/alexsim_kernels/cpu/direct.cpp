// Convolutions of any shape: products of matrices whose left operand is gathered from the image
// some rows at a time, and sums channel by channel where each channel has a filter of its own.
#include "filters.h"
#include "grid.h"
#include "product.h"

extern "C" {
struct Direct {
  Map source, target;
  Filters filters;  // of the first group
  long groups, filter_group;
  Grid grid;
  long taps;
  long run;  // taps that follow each other in memory where all are inside
  const Tap* tap;
  scalar* bias;  // or null
  long relu, add, threads;
  long block;                       // target pixels at a time
  long tap_block, channel_block;    // how the sums are cut, for the caches
  long slices, parts;               // of a weight gradient: of its pixels, and each by filters
  scalar *packed, *gathered, *sums, *results;
  long depth_pitch, result_pitch;   // of gathered and result rows
  long gathered_thread, sums_thread, results_thread;
};
}

namespace {
constexpr long MOST_TAPS = 256;  // of a depthwise filter; algorithm.py knows it too

INLINE const scalar* source_pixel(const Direct& d, const Pixel& at, const Tap& tap) {
  return source_pixel(d.source, d.grid, at, tap);
}

INLINE scalar* target_pixel(const Direct& d, const Pixel& at) {
  return target_pixel(d.target, d.grid, at);
}

// Null gives zeros.
INLINE void copy(const scalar* from, scalar* to, long count) {
  if (!from) {
    std::fill(to, to + count, scalar(0));
  } else if (count < WIDTH) {
    for (long i = 0; i < count; i++) to[i] = from[i];
  } else {
    for (long i = 0; i + WIDTH <= count; i += WIDTH) store(to + i, load(from + i));
    store(to + count - WIDTH, load(from + count - WIDTH));
  }
}

// What `taps` taps from the first see of `count` channels of a group, tap by tap.
INLINE void gather(const Direct& d, const Pixel& at, long first_tap, long taps, long channel,
                   long count, scalar* to) {
  for (long t = first_tap; t < first_tap + taps; t += d.run) {
    const long s = at.j * d.grid.source_across + d.tap[t].column;
    const scalar* from = source_pixel(d, at, d.tap[t]);
    if (d.run > 1 && from && s + d.run <= d.source.width) {
      copy(from, to, d.run * count);
      to += d.run * count;
    } else {
      for (long i = t; i < t + d.run; i++, to += count) {
        from = source_pixel(d, at, d.tap[i]);
        copy(from ? from + channel : nullptr, to, count);
      }
    }
  }
}

// Whether the source's pixels are rows of a matrix already.
bool is_matrix(const Direct& d) {
  const Map& x = d.source;
  return d.taps == 1 && d.tap[0].row == 0 && d.tap[0].column == 0 && d.grid.source_down == 1 &&
         d.grid.source_across == 1 && d.grid.rows == x.height && d.grid.columns == x.width &&
         x.row == x.width * x.pixel && x.image == x.height * x.row;
}

// Filters of all groups as panels: `[group][cut of the sum][panel][values of the cut]`.
void pack(const Direct& d, long channels, long filters) {
  const long wide = padded(filters), depth = d.taps * channels;
  const Panels panels(filters);
#pragma omp for schedule(dynamic) collapse(2)
  for (long g = 0; g < d.groups; g++)
    for (long k = 0; k < wide; k += LANES)
      for (long t0 = 0; t0 < d.taps; t0 += d.tap_block)
        for (long c0 = 0; c0 < channels; c0 += d.channel_block) {
          const long taps = std::min(d.tap_block, d.taps - t0);
          const long count = std::min(d.channel_block, channels - c0);
          scalar* cut = d.packed + g * depth * wide + (t0 * channels + c0 * taps) * wide;
          Filters f = d.filters;
          f.data += g * d.filter_group;
          for (long t = 0; t < taps; t++)
            for (long c = 0; c < count; c++)
              for (long lane = 0; lane < LANES; lane++) {
                const bool real = k + lane < filters;
                cut[panels.packed(taps * count, t * count + c, k + lane)] =
                    real ? *f.at(k + lane, c0 + c, d.tap[t0 + t].r, d.tap[t0 + t].s) : scalar(0);
              }
        }
}

void write_block(const Direct& d, long g, long first, long here, const scalar* sums) {
  const long filters = d.target.channels / d.groups;
  for (long i = 0; i < here; i++) {
    scalar* to = target_pixel(d, Pixel(d.grid, first + i)) + g * filters;
    for (long k = 0; k < filters; k += WIDTH) {
      const long count = std::min(WIDTH, filters - k);
      vec v = load(sums + i * d.result_pitch + k);
      if (d.bias) v += load_part(d.bias + g * filters + k, count);
      if (d.add) v += load_part(to + k, count);
      store_part(to + k, d.relu ? relu(v) : v, count);
    }
  }
}

// One block of pixels of one group, all filters.
void product_block(const Direct& d, long g, long first, long here, bool matrix) {
  const long thread = omp_get_thread_num();
  const long channels = d.source.channels / d.groups, filters = d.target.channels / d.groups;
  const long wide = padded(filters), depth = d.taps * channels;
  const Panels panels(filters);
  scalar* gathered = d.gathered + thread * d.gathered_thread;
  scalar* sums = d.sums + thread * d.sums_thread;
  if (d.taps == 0) std::fill(sums, sums + here * d.result_pitch, scalar(0));
  for (long t0 = 0; t0 < d.taps; t0 += d.tap_block)
    for (long c0 = 0; c0 < channels; c0 += d.channel_block) {
      const long taps = std::min(d.tap_block, d.taps - t0);
      const long count = std::min(d.channel_block, channels - c0);
      Operand rows{gathered, d.depth_pitch, 1};
      if (matrix) {
        rows = {d.source.data + first * d.source.pixel + g * channels + c0, d.source.pixel, 1};
      } else {
        for (long i = 0; i < here; i++)
          gather(d, Pixel(d.grid, first + i), t0, taps, g * channels + c0, count,
                 gathered + i * d.depth_pitch);
      }
      const scalar* cut = d.packed + g * depth * wide + (t0 * channels + c0 * taps) * wide;
      for (long index = 0; index < panels.count; index++) {
        const long k = panels.first(index), vectors = panels.width(index);
        panel(vectors, here, taps * count, rows, cut + k * taps * count, vectors * WIDTH,
              Store{sums + k, d.result_pitch, t0 + c0 > 0});
      }
    }
  write_block(d, g, first, here, sums);
}

// Sums of some pixels of one group and of a part of its filters, chunk by chunk; the bias's last.
void grad_weight_slice(const Direct& d, long g, long begin, long end, long part, scalar* sums) {
  constexpr long ROWS_AT_A_TIME = 96;
  const long thread = omp_get_thread_num();
  const long channels = d.source.channels / d.groups, filters = d.target.channels / d.groups;
  const long wide = padded(filters), depth = d.taps * channels;
  const Panels panels(filters);
  const long first_panel = panels.count * part / d.parts;
  const long last_panel = panels.count * (part + 1) / d.parts;
  const long k0 = panels.first(first_panel), k1 = std::min(panels.first(last_panel), wide);
  scalar* gathered = d.gathered + thread * d.gathered_thread;
  scalar* results = d.results + thread * d.results_thread;
  for (long first = begin; first < end; first += d.block) {
    const long here = std::min(d.block, end - first);
    for (long i = 0; i < here; i++) {
      const Pixel at(d.grid, first + i);
      gather(d, at, 0, d.taps, g * channels, channels, gathered + i * d.depth_pitch);
      const scalar* from = target_pixel(d, at) + g * filters;
      scalar* to = results + i * d.result_pitch;
      for (long k = k0; k < k1; k += WIDTH)
        store(to + k, k < filters ? load_part(from + k, filters - k) : vec{});
    }
    for (long index = first_panel; index < last_panel; index++)
      for (long row = 0; row < depth; row += ROWS_AT_A_TIME) {
        const long k = panels.first(index);
        panel(panels.width(index), std::min(ROWS_AT_A_TIME, depth - row), here,
              {gathered + row, 1, d.depth_pitch}, results + k, d.result_pitch,
              Store{sums + row * wide + k, wide, first > begin});
      }
    if (!d.bias) continue;
    scalar* bias = sums + depth * wide;
    for (long k = k0; k < k1; k += WIDTH) {
      vec sum = first > begin ? load(bias + k) : vec{};
      for (long i = 0; i < here; i++) sum += load(results + i * d.result_pitch + k);
      store(bias + k, sum);
    }
  }
}

// A filter per channel: `[taps][padded channels]`.
void pack_depthwise(const Direct& d) {
  const long wide = padded(d.source.channels);
#pragma omp for schedule(static)
  for (long c = 0; c < wide; c++)
    for (long t = 0; t < d.taps; t++)
      d.packed[t * wide + c] =
          c < d.source.channels
              ? d.filters.data[c * d.filter_group + d.tap[t].r * d.filters.row +
                               d.tap[t].s * d.filters.column]
              : scalar(0);
}

void depthwise_pixel(const Direct& d, const Pixel& at) {
  const long channels = d.source.channels, wide = padded(channels);
  scalar* to = target_pixel(d, at);
  const scalar *from[MOST_TAPS], *filter[MOST_TAPS];
  long taps = 0;
  for (long t = 0; t < d.taps; t++)
    if (const scalar* pixel = source_pixel(d, at, d.tap[t])) {
      from[taps] = pixel;
      filter[taps++] = d.packed + t * wide;
    }
  for (long c = 0; c < channels; c += WIDTH) {
    const long count = std::min(WIDTH, channels - c);
    vec sum = d.bias ? load_part(d.bias + c, count) : vec{};
    for (long t = 0; t < taps; t++)
      sum += load_part(from[t] + c, count) * load(filter[t] + c);
    if (d.add) sum += load_part(to + c, count);
    store_part(to + c, d.relu ? relu(sum) : sum, count);
  }
}

// The sums of some pixels: `[taps + 1][padded channels]`, the bias last.
void depthwise_sums(const Direct& d, long first, long last, scalar* sums) {
  const long channels = d.source.channels, wide = padded(channels);
  std::fill(sums, sums + (d.taps + 1) * wide, scalar(0));
  for (long number = first; number < last; number++) {
    const Pixel at(d.grid, number);
    const scalar* dy = target_pixel(d, at);
    for (long t = 0; t <= d.taps; t++) {
      const scalar* from = t < d.taps ? source_pixel(d, at, d.tap[t]) : dy;
      if (!from) continue;
      for (long c = 0; c < channels; c += WIDTH) {
        const long count = std::min(WIDTH, channels - c);
        const vec gradient = load_part(dy + c, count);
        scalar* sum = sums + t * wide + c;
        store(sum, load(sum) + (t < d.taps ? load_part(from + c, count) * gradient : gradient));
      }
    }
  }
}
}  // namespace

extern "C" void direct_product(const Direct* d) {
  const long count = d->target.images * d->grid.rows * d->grid.columns;
  const long blocks = (count + d->block - 1) / d->block;
  const bool matrix = is_matrix(*d);
#pragma omp parallel num_threads(d->threads)
  {
    pack(*d, d->source.channels / d->groups, d->target.channels / d->groups);
#pragma omp for schedule(dynamic, 4)
    for (long task = 0; task < d->groups * blocks; task++) {
      const long first = task % blocks * d->block;
      product_block(*d, task / blocks, first, std::min(d->block, count - first), matrix);
    }
  }
}

// In slices of whole blocks, whose sums are added in their order.
extern "C" void direct_grad_weight(const Direct* whole) {
  const Direct& d = *whole;
  const long count = d.source.images * d.grid.rows * d.grid.columns;
  const long blocks = (count + d.block - 1) / d.block;
  const Sums layout = by_taps(d.filters);
#pragma omp parallel num_threads(d.threads)
  {
#pragma omp for schedule(dynamic)
    for (long task = 0; task < d.groups * d.slices * d.parts; task++) {
      const long number = task / d.parts, slice = number % d.slices;
      grad_weight_slice(d, number / d.slices, blocks * slice / d.slices * d.block,
                        std::min(count, blocks * (slice + 1) / d.slices * d.block),
                        task % d.parts, d.sums + number * layout.size);
    }
    for (long g = 0; g < d.groups; g++) {
      Filters f = d.filters;
      f.data += g * d.filter_group;
      write_filters(f, d.bias ? d.bias + g * f.filters : nullptr,
                    d.sums + g * d.slices * layout.size, layout, d.slices, d.add);
    }
  }
}

extern "C" void depthwise_product(const Direct* d) {
  const long count = d->target.images * d->grid.rows * d->grid.columns;
#pragma omp parallel num_threads(d->threads)
  {
    pack_depthwise(*d);
#pragma omp for schedule(dynamic, 256)
    for (long number = 0; number < count; number++) depthwise_pixel(*d, Pixel(d->grid, number));
  }
}

// In slices of `block` pixels, whose sums are added in their order.
extern "C" void depthwise_grad_weight(const Direct* d) {
  const long count = d->source.images * d->grid.rows * d->grid.columns;
  const long slices = (count + d->block - 1) / d->block;
  const long channels = d->source.channels, wide = padded(channels), size = (d->taps + 1) * wide;
#pragma omp parallel num_threads(d->threads)
  {
#pragma omp for schedule(dynamic)
    for (long slice = 0; slice < slices; slice++)
      depthwise_sums(*d, slice * d->block, std::min(count, (slice + 1) * d->block),
                     d->sums + slice * size);
#pragma omp for schedule(static)
    for (long c = 0; c < channels; c++)
      for (long t = 0; t <= d->taps; t++) {
        if (t == d->taps && !d->bias) continue;
        scalar sum = 0;
        for (long slice = 0; slice < slices; slice++) sum += d->sums[slice * size + t * wide + c];
        scalar* to = t == d->taps ? d->bias + c
                                  : d->filters.data + c * d->filter_group +
                                        d->tap[t].r * d->filters.row +
                                        d->tap[t].s * d->filters.column;
        *to = d->add ? *to + sum : sum;
      }
  }
}
