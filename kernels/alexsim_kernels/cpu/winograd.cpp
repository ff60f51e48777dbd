// Convolutions of stride 1 by Winograd's method, on tiles of several sizes.
//
// A thread takes some tiles through all of it: input transform, q * q products of matrices, output
// transform; what lies between stays in its caches. Weight gradients are sums over all tiles: their
// chunks are cut into slices, each with sums of its own, which are added in order at the end. How
// they are cut does not depend on the number of threads, and no thread waits for another before.
#include "filters.h"
#include "product.h"
#include "transforms.h"

extern "C" {
// Tiles of one size: `down` x `across` of them in each image, from output (top, left).
struct TileSet {
  long height, width, top, down, left, across;
  long tiles;  // that are transformed at a time
};

struct Winograd {
  Map x, y;
  Filters filters;  // of the first group
  long groups, taps;
  long pad_top, pad_left;
  scalar* bias;  // or null: values forward, sums backward
  long relu, add;
  long sets, threads;
  const TileSet* set;
  // Of a weight gradient: slices of its tiles, and parts of a slice by channels.
  long slices, parts;
  // Scratch. Tiles are `[q * q][tiles][pitch]`; each thread's stands `*_thread` behind the last.
  // `dense` is filters `[r][r][channels][padded filters]`; of a weight gradient the sums of each
  // group's slices.
  scalar *dense, *transformed, *tiles, *products, *folded;
  long tile_pitch, product_pitch;
  long transformed_thread, tiles_thread, products_thread, folded_thread;
};
}

namespace {
constexpr long STAGGER = 16;  // planes of tiles start in different cache sets
const scalar zeros[LANES] = {};

// Channels of the input that a task takes.
struct Channels {
  long first, count;
};

// Where a set's tile number `t` stands.
struct Place {
  long image, top, left;
  Place(const TileSet& set, long t) {
    const long in_image = set.down * set.across, rest = t % in_image;
    image = t / in_image;
    top = set.top + rest / set.across * set.height;
    left = set.left + rest % set.across * set.width;
  }
};

// An image with blocks of `fold` x `fold` pixels as channels, its padding inside; one at a time.
struct Folded {
  const Winograd& w;
  scalar* memory;
  long image = -1;

  Map map(long n) {
    if (w.filters.fold == 1) {
      Map whole = w.x;
      whole.data = w.x.at(n, 0, 0);
      return whole;
    }
    const long fold = w.filters.fold, channels = fold * fold * w.x.channels;
    const long height = w.y.height + w.taps - 1, width = w.y.width + w.taps - 1;
    if (image != n) fill(n, fold, height, width);
    image = n;
    return Map{memory, 1, channels, height, width, 0, width * channels, channels};
  }

  // Runs of a block's row are written in the order of memory: whole vectors may reach into the next.
  void fill(long n, long fold, long height, long width) {
    const long inner = w.x.channels, run = fold * inner;
    const long before_last = height * width * fold - (LANES + run - 1) / run;
    const bool short_runs = run <= LANES && w.x.pixel == inner;
    scalar* to = memory;
    for (long i = 0, number = 0; i < height; i++)
      for (long j = 0; j < width; j++)
        for (long block_row = 0; block_row < fold; block_row++, number++, to += run) {
          const long r = i * fold + block_row - w.pad_top, s = j * fold - w.pad_left;
          const bool inside = r >= 0 && r < w.x.height;
          if (inside && short_runs && s >= 0 && s * inner + LANES <= w.x.width * inner &&
              number < before_last) {
            const scalar* from = w.x.at(n, r, s);
            for (long c = 0; c < LANES; c += WIDTH) store(to + c, load(from + c));
          } else {
            for (long column = s; column < s + fold; column++) {
              const bool here = inside && column >= 0 && column < w.x.width;
              const scalar* from = here ? w.x.at(n, r, column) : nullptr;
              for (long c = 0; c < inner; c++)
                to[(column - s) * inner + c] = from ? from[c] : scalar(0);
            }
          }
        }
  }
};

template <int MH, int MW, int R> struct Tiles {
  static constexpr int QH = MH + R - 1, QW = MW + R - 1, Q = QH * QW;
  using Down = Transform<MH, R>;
  using Across = Transform<MW, R>;

  static void filters(const Winograd& w) {
    const long channels = w.filters.channels, wide = padded(w.filters.filters);
    const Panels panels(w.filters.filters);
#pragma omp for schedule(static)
    for (long c = 0; c < channels; c++)
      for (long k = 0; k < wide; k += WIDTH) {
        vec g[R * R], half[QH * R], u[Q];
        for (int i = 0; i < R * R; i++) g[i] = load(w.dense + (i * channels + c) * wide + k);
        for (int j = 0; j < R; j++) Down::filter(g + j, R, half + j, R);
        for (int i = 0; i < QH; i++) Across::filter(half + i * R, 1, u + i * QW, 1);
        scalar* to = w.transformed + panels.packed(channels, c, k);
        for (int p = 0; p < Q; p++) store(to + p * channels * wide, u[p]);
      }
  }

  // Pixels outside the image are null: zeros. So any padding is.
  static void input(const Map& x, long top, long left, scalar* to, long plane) {
    const scalar* pixel[Q];
    for (long i = 0; i < QH; i++)
      for (long j = 0; j < QW; j++) {
        const long r = top + i, s = left + j;
        const bool inside = r >= 0 && r < x.height && s >= 0 && s < x.width;
        pixel[i * QW + j] = inside ? x.data + r * x.row + s * x.pixel : nullptr;
      }
    long c = 0;
    for (; c + WIDTH <= x.channels; c += WIDTH)
      input_vector(to + c, plane, [&](int p) { return load(pixel[p] ? pixel[p] + c : zeros); });
    if (c < x.channels)
      input_vector(to + c, plane, [&](int p) {
        return pixel[p] ? load_part(pixel[p] + c, x.channels - c) : vec{};
      });
  }

  template <class Load> static INLINE void input_vector(scalar* to, long plane, Load&& pixel) {
    vec half[Q];
    for (int i = 0; i < QH; i++) {
      vec d[QW];
#pragma GCC unroll 8
      for (int j = 0; j < QW; j++) d[j] = pixel(i * QW + j);
      Across::input(d, 1, half + i * QW, 1);
    }
    for (int j = 0; j < QW; j++) {
      vec v[QH];
      Down::input(half + j, QW, v, 1);
#pragma GCC unroll 8
      for (int i = 0; i < QH; i++) store(to + (i * QW + j) * plane, v[i]);
    }
  }

  static void output(const Winograd& w, const Map& y, const scalar* bias, const scalar* from,
                     long plane, Place at) {
    const long rows = std::min<long>(MH, y.height - at.top);
    const long columns = std::min<long>(MW, y.width - at.left);
    for (long k = 0; k < y.channels; k += WIDTH) {
      const long count = std::min(WIDTH, y.channels - k);
      vec half[MH * QW];
      for (int j = 0; j < QW; j++) {
        vec m[QH];
#pragma GCC unroll 8
        for (int i = 0; i < QH; i++) m[i] = load(from + (i * QW + j) * plane + k);
        Down::output(m, 1, half + j, QW);
      }
      const vec shift = bias ? load_part(bias + k, count) : vec{};
      for (long i = 0; i < rows; i++) {
        vec values[MW];
        Across::output(half + i * QW, 1, values, 1);
        scalar* to = y.at(at.image, at.top + i, at.left) + k;
#pragma GCC unroll 8
        for (long j = 0; j < MW; j++) {
          if (j >= columns) break;
          vec v = values[j] + shift;
          if (w.add) v += load_part(to + j * y.pixel, count);
          if (w.relu) v = relu(v);
          store_part(to + j * y.pixel, v, count);
        }
      }
    }
  }

  static void grad_output(const Map& dy, scalar* to, long plane, Place at) {
    const long rows = std::min<long>(MH, dy.height - at.top);
    const long columns = std::min<long>(MW, dy.width - at.left);
    for (long k = 0; k < dy.channels; k += WIDTH) {
      const long count = std::min(WIDTH, dy.channels - k);
      vec half[MH * QW];
      for (long i = 0; i < MH; i++) {
        vec d[MW];
        const scalar* from = i < rows ? dy.at(at.image, at.top + i, at.left) + k : zeros;
#pragma GCC unroll 8
        for (long j = 0; j < MW; j++)
          d[j] = i < rows && j < columns ? load_part(from + j * dy.pixel, count) : vec{};
        Across::grad_output(d, 1, half + i * QW, 1);
      }
      for (int j = 0; j < QW; j++) {
        vec m[QH];
        Down::grad_output(half + j, QW, m, 1);
#pragma GCC unroll 8
        for (int i = 0; i < QH; i++) store(to + (i * QW + j) * plane + k, m[i]);
      }
    }
  }

  // The gradient of `rows` channels and `columns` filters from their products, at most a panel's.
  static void grad_filters(const scalar* products, long rows, long columns, scalar* to,
                           const Sums& sums, bool add) {
    const long plane = (rows * columns + STAGGER) / WIDTH;
    for (long c = 0; c < rows; c++)
      for (long k = 0; k < columns; k += WIDTH) {
        vec half[R * QW], g[R * R];
        const vec* u = reinterpret_cast<const vec*>(products + c * columns + k);
        for (int j = 0; j < QW; j++) Down::grad_filter(u + j * plane, QW * plane, half + j, QW);
        for (int i = 0; i < R; i++) Across::grad_filter(half + i * QW, 1, g + i * R, 1);
        for (int i = 0; i < R * R; i++) {
          scalar* sum = to + sums.at(i, c, k);
          store(sum, add ? load(sum) + g[i] : g[i]);
        }
      }
  }

  static void correlate(const Winograd& w, const TileSet& set, const Map& y, const scalar* bias) {
    const long thread = omp_get_thread_num(), channels = w.filters.channels;
    const long wide = padded(y.channels), count = w.x.images * set.down * set.across;
    const long plane = set.tiles * w.tile_pitch + STAGGER;
    const long product_plane = set.tiles * w.product_pitch + STAGGER;
    const Panels panels(y.channels);
    scalar* tiles = w.tiles + thread * w.tiles_thread;
    scalar* products = w.products + thread * w.products_thread;
    Folded folded{w, w.folded + thread * w.folded_thread};
    const bool inside = w.filters.fold > 1;  // the padding is in the folded image
    filters(w);
#pragma omp for schedule(dynamic)
    for (long first = 0; first < count; first += set.tiles) {
      const long here = std::min(set.tiles, count - first);
      for (long t = 0; t < here; t++) {
        const Place at(set, first + t);
        input(folded.map(at.image), at.top - (inside ? 0 : w.pad_top),
              at.left - (inside ? 0 : w.pad_left), tiles + t * w.tile_pitch, plane);
      }
      for (long p = 0; p < Q; p++)
        for (long index = 0; index < panels.count; index++) {
          const long k = panels.first(index), vectors = panels.width(index);
          panel(vectors, here, channels, {tiles + p * plane, w.tile_pitch, 1},
                w.transformed + p * channels * wide + k * channels, vectors * WIDTH,
                Store{products + p * product_plane + k, w.product_pitch, false});
        }
      for (long t = 0; t < here; t++)
        output(w, y, bias, products + t * w.product_pitch, product_plane, Place(set, first + t));
    }
  }

  // A chunk of tiles from `first`, of `w`'s channels from `channel`: stored to `sums`, or added.
  static void grad_weight(const Winograd& w, const TileSet& set, long first, Channels part,
                          scalar* sums, bool add) {
    const long thread = omp_get_thread_num();
    const long here = std::min(set.tiles, w.x.images * set.down * set.across - first);
    const long plane = set.tiles * w.tile_pitch + STAGGER;
    const long product_plane = set.tiles * w.product_pitch + STAGGER;
    const Panels panels(w.y.channels);
    const Sums layout = by_vectors(w.filters);
    const bool inside = w.filters.fold > 1;
    scalar* tiles = w.tiles + thread * w.tiles_thread;
    scalar* results = w.products + thread * w.products_thread;
    scalar* products = w.transformed + thread * w.transformed_thread;
    Folded folded{w, w.folded + thread * w.folded_thread};
    for (long t = 0; t < here; t++) {
      const Place at(set, first + t);
      Map x = folded.map(at.image);
      x.data += part.first, x.channels = part.count;
      input(x, at.top - (inside ? 0 : w.pad_top), at.left - (inside ? 0 : w.pad_left),
            tiles + t * w.tile_pitch, plane);
      grad_output(w.y, results + t * w.product_pitch, product_plane, at);
    }
    for (long index = 0; index < panels.count; index++) {
      const long k = panels.first(index), vectors = panels.width(index);
      const long most = panels.rows(index);
      for (long c = 0; c < part.count; c += most) {
        const long rows = std::min(most, part.count - c);
        for (long p = 0; p < Q; p++)
          panel(vectors, rows, here, {tiles + p * plane + c, 1, w.tile_pitch},
                results + p * product_plane + k, w.product_pitch,
                Store{products + p * (rows * vectors * WIDTH + STAGGER), vectors * WIDTH, false});
        grad_filters(products, rows, vectors * WIDTH, sums + layout.at(0, part.first + c, k),
                     layout, add);
      }
    }
    if (!w.bias || part.first) return;
    scalar* bias = sums + layout.bias;
    for (long k = 0; k < w.y.channels; k++) {  // a tile's product with the points (1, 1) is its sum
      scalar sum = add ? bias[k] : scalar(0);
      for (long t = 0; t < here; t++)
        sum += results[(QW + 1) * product_plane + t * w.product_pitch + k];
      bias[k] = sum;
    }
  }
};

template <class Run> void each_set(const Winograd& w, Run&& run) {
  for (long i = 0; i < w.sets; i++) {
    const TileSet& set = w.set[i];
    switch (set.height * 100 + set.width * 10 + w.taps) {
      case 443: run(Tiles<4, 4, 3>{}, set); break;
      case 453: run(Tiles<4, 5, 3>{}, set); break;
      case 543: run(Tiles<5, 4, 3>{}, set); break;
      case 553: run(Tiles<5, 5, 3>{}, set); break;
      case 445: run(Tiles<4, 4, 5>{}, set); break;
    }
  }
}

// What one group sees of it.
Winograd group(const Winograd& w, long g, long filter_group) {
  Winograd part = w;
  part.filters.data += g * filter_group;
  part.x.channels = w.x.channels / w.groups, part.x.data += g * part.x.channels;
  part.y.channels = w.y.channels / w.groups, part.y.data += g * part.y.channels;
  if (w.bias) part.bias += g * part.y.channels;
  return part;
}
// Chunks of all sets, in order, are cut into slices of as many.
void slice(const Winograd& w, long number, Channels part, scalar* sums) {
  const auto tiles_of = [&](const TileSet& set) { return w.x.images * set.down * set.across; };
  long chunks = 0, chunk = 0;
  for (long i = 0; i < w.sets; i++)
    chunks += (tiles_of(w.set[i]) + w.set[i].tiles - 1) / w.set[i].tiles;
  const long begin = chunks * number / w.slices, end = chunks * (number + 1) / w.slices;
  each_set(w, [&](auto tiles, const TileSet& set) {
    for (long first = 0; first < tiles_of(set); first += set.tiles, chunk++)
      if (chunk >= begin && chunk < end)
        tiles.grad_weight(w, set, first, part, sums, chunk > begin);
  });
}
}  // namespace

extern "C" void winograd_correlate(const Winograd* whole, long filter_group) {
#pragma omp parallel num_threads(whole->threads)
  for (long g = 0; g < whole->groups; g++) {
    const Winograd w = group(*whole, g, filter_group);
    read_filters(w.filters, w.dense);
    each_set(w, [&](auto tiles, const TileSet& set) { tiles.correlate(w, set, w.y, w.bias); });
  }
}

extern "C" void winograd_grad_weight(const Winograd* whole, long filter_group) {
  const Winograd& w = *whole;
  const Sums layout = by_vectors(w.filters);
  const long size = layout.size, tasks = w.slices * w.parts;
#pragma omp parallel num_threads(w.threads)
  {
#pragma omp for schedule(dynamic)
    for (long task = 0; task < w.groups * tasks; task++) {
      const long number = task / w.parts, part = task % w.parts;
      const long vectors = padded(w.filters.channels) / LANES;
      const long first = vectors * part / w.parts * LANES;
      const long last = std::min(vectors * (part + 1) / w.parts * LANES, w.filters.channels);
      slice(group(w, number / w.slices, filter_group), number % w.slices, {first, last - first},
            w.dense + number * size);
    }
    for (long g = 0; g < w.groups; g++) {
      const Winograd here = group(w, g, filter_group);
      write_filters(here.filters, here.bias, w.dense + g * w.slices * size, layout, w.slices,
                    w.add);
    }
  }
}
