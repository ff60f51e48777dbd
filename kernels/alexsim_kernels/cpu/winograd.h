// Convolutions of stride 1 by Winograd's method, on tiles of several sizes: what passes share.
//
// A thread takes a chunk of tiles through all of it: input transform, q * q products of matrices,
// output transform; what lies between stays in its caches.
#pragma once

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
  // Scratch. Tiles and results are `[q * q][tiles][pitch]`, in rooms of `*_room` values for each
  // thread. Transformed filters are all threads'; in a weight gradient each has a room of its own.
  scalar *sums, *transformed, *tiles, *results, *folded;
  long tile_pitch, result_pitch;
  long transformed_room, tiles_room, results_room, folded_room;

  long count(const TileSet& tiles) const { return x.images * tiles.down * tiles.across; }
  long chunks(const TileSet& tiles) const { return (count(tiles) + tiles.tiles - 1) / tiles.tiles; }
};
}

namespace {
constexpr long STAGGER = 16;  // planes of tiles start in different cache sets
const scalar zeros[LANES] = {};

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

// Some tiles of a set that a thread takes at a time, and its scratch for them.
struct Chunk {
  const TileSet& set;
  long first, count, plane, result_plane;
  scalar *tiles, *results;
  Chunk(const Winograd& w, const TileSet& set, long number)
      : set(set), first(number * set.tiles), count(std::min(set.tiles, w.count(set) - first)),
        plane(set.tiles * w.tile_pitch + STAGGER),
        result_plane(set.tiles * w.result_pitch + STAGGER),
        tiles(w.tiles + omp_get_thread_num() * w.tiles_room),
        results(w.results + omp_get_thread_num() * w.results_room) {}
};

// Channels of the input that a task takes.
struct Channels {
  long first, count;
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

  // One vector of filters of one channel; taps lie `tap` values apart, products `plane`.
  static void filter(const scalar* dense, long tap, scalar* to, long plane) {
    vec g[R * R], half[QH * R], u[Q];
    for (int i = 0; i < R * R; i++) g[i] = load(dense + i * tap);
    for (int j = 0; j < R; j++) Down::filter(g + j, R, half + j, R);
    for (int i = 0; i < QH; i++) Across::filter(half + i * R, 1, u + i * QW, 1);
    for (int p = 0; p < Q; p++) store(to + p * plane, u[p]);
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

  static void output(const Winograd& w, const scalar* from, long plane, Place at) {
    const Map y = w.y;
    const scalar* bias = w.bias;
    const bool add = w.add, negative_to_zero = w.relu;
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
          if (add) v += load_part(to + j * y.pixel, count);
          if (negative_to_zero) v = relu(v);
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

  // The gradient of one vector of filters of one channel: `[taps]`, stored or added.
  static void grad_filter(const scalar* products, long plane, scalar* to, bool add) {
    vec half[R * QW], g[R * R];
    const vec* u = reinterpret_cast<const vec*>(products);
    plane /= WIDTH;
    for (int j = 0; j < QW; j++) Down::grad_filter(u + j * plane, QW * plane, half + j, QW);
    for (int i = 0; i < R; i++) Across::grad_filter(half + i * QW, 1, g + i * R, 1);
    for (int i = 0; i < R * R; i++, to += WIDTH) store(to, add ? load(to) + g[i] : g[i]);
  }
};

// `run(Tiles<...>{})` for the size of a set's tiles.
template <class Run> void with_tiles(const TileSet& set, long taps, Run&& run) {
  switch (set.height * 100 + set.width * 10 + taps) {
    case 443: return run(Tiles<4, 4, 3>{});
    case 453: return run(Tiles<4, 5, 3>{});
    case 543: return run(Tiles<5, 4, 3>{});
    case 553: return run(Tiles<5, 5, 3>{});
    case 445: return run(Tiles<4, 4, 5>{});
  }
}

template <class T> void transform_input(const Winograd& w, const Chunk& chunk, Channels part) {
  const bool inside = w.filters.fold > 1;  // the padding is in the folded image
  Folded folded{w, w.folded + omp_get_thread_num() * w.folded_room};
  for (long t = 0; t < chunk.count; t++) {
    const Place at(chunk.set, chunk.first + t);
    Map x = folded.map(at.image);
    x.data += part.first, x.channels = part.count;
    T::input(x, at.top - (inside ? 0 : w.pad_top), at.left - (inside ? 0 : w.pad_left),
             chunk.tiles + t * w.tile_pitch, chunk.plane);
  }
}

// What one group sees of it.
inline Winograd group(const Winograd& w, long g, long filter_group) {
  Winograd part = w;
  part.filters.data += g * filter_group;
  part.x.channels = w.x.channels / w.groups, part.x.data += g * part.x.channels;
  part.y.channels = w.y.channels / w.groups, part.y.data += g * part.y.channels;
  if (w.bias) part.bias += g * part.y.channels;
  return part;
}
}  // namespace
