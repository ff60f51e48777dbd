// Forward passes and gradients of inputs by Winograd's method; see winograd.h.
#include "winograd.h"

namespace {
// One tile set of one group; sets of a group follow each other.
struct Item {
  long group;
  const TileSet& set;
  long plane, bank;  // values of the transformed filters: of each product, and of all
  Item(const Winograd& w, long number) : group(number / w.sets), set(w.set[number % w.sets]) {
    const long q = w.taps - 1, products = (set.height + q) * (set.width + q);
    plane = w.filters.channels * padded(w.filters.filters) + STAGGER;
    bank = products * plane;
  }
};

// Filters of some items, item behind item; each is read once for all sets of its group.
void transform_filters(const Winograd& w, long begin, long end, long filter_group) {
  constexpr long MOST_TAPS = 25, CHANNELS = 4;
  const long channels = w.filters.channels;
  const Panels panels(w.filters.filters);
#pragma omp for schedule(dynamic) collapse(3)
  for (long g = begin / w.sets; g <= (end - 1) / w.sets; g++)
    for (long index = 0; index < panels.count; index++)
      for (long c0 = 0; c0 < channels; c0 += CHANNELS) {
        const long k0 = panels.first(index), width = panels.width(index) * WIDTH;
        const long plane = CHANNELS * width + STAGGER;
        scalar dense[MOST_TAPS * (CHANNELS * PANEL * WIDTH + STAGGER)];
        Filters f = w.filters;
        f.data += g * filter_group;
        read_filters(f, c0, CHANNELS, k0, width, dense, plane);
        scalar* bank = w.transformed + k0 * channels + c0 * width;
        for (long number = begin; number < end; number++) {
          const Item item(w, number);
          if (item.group == g)
            with_tiles(item.set, w.taps, [&](auto tiles) {
              for (long i = 0; i < std::min(CHANNELS, channels - c0) * width; i += WIDTH)
                tiles.filter(dense + i, plane, bank + i, item.plane);
            });
          bank += item.bank;
        }
      }
}

template <class T>
void correlate_chunk(const Winograd& w, const Chunk& chunk, const scalar* bank, long plane) {
  const long channels = w.filters.channels;
  const Panels panels(w.y.channels);
  transform_input<T>(w, chunk, {0, channels});
  for (long p = 0; p < T::Q; p++)
    for (long index = 0; index < panels.count; index++) {
      const long k = panels.first(index), vectors = panels.width(index);
      panel(vectors, chunk.count, channels, {chunk.tiles + p * chunk.plane, w.tile_pitch, 1},
            bank + p * plane + k * channels, vectors * WIDTH,
            Store{chunk.results + p * chunk.result_plane + k, w.result_pitch, false});
    }
  for (long t = 0; t < chunk.count; t++)
    T::output(w, chunk.results + t * w.result_pitch, chunk.result_plane,
              Place(chunk.set, chunk.first + t));
}

// All chunks of some items.
void correlate(const Winograd& w, long begin, long end, long filter_group) {
  long chunks = 0;
  for (long number = begin; number < end; number++) chunks += w.chunks(Item(w, number).set);
#pragma omp for schedule(dynamic)
  for (long task = 0; task < chunks; task++) {
    long number = begin, chunk = task;
    const scalar* bank = w.transformed;
    for (; chunk >= w.chunks(Item(w, number).set); number++) {
      chunk -= w.chunks(Item(w, number).set);
      bank += Item(w, number).bank;
    }
    const Item item(w, number);
    const Winograd part = group(w, item.group, filter_group);
    with_tiles(item.set, w.taps, [&](auto tiles) {
      correlate_chunk<decltype(tiles)>(part, Chunk(part, item.set, chunk), bank, item.plane);
    });
  }
}
}  // namespace

// As many items at a time as have room for their filters: threads meet before and after each lot.
extern "C" void winograd_correlate(const Winograd* whole, long filter_group) {
  const Winograd& w = *whole;
  const long items = w.groups * w.sets;
#pragma omp parallel num_threads(w.threads)
  for (long begin = 0, end = 0; begin < items; begin = end) {
    for (long room = w.transformed_room; end < items && room >= Item(w, end).bank; end++)
      room -= Item(w, end).bank;
    transform_filters(w, begin, end, filter_group);
    correlate(w, begin, end, filter_group);
  }
}
