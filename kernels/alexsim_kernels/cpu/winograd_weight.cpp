// Weight gradients by Winograd's method: sums over all tiles.
//
// Chunks of tiles are cut into slices, each with sums of its own, which are added in order at the
// end. How they are cut follows from the shape, so that any number of threads makes the same bits;
// and no thread waits for another before the end.
#include "winograd.h"

namespace {
// Sums of a chunk, of the channels in `part`: stored, or added to what is there.
template <class T>
void grad_weight_chunk(const Winograd& w, const Chunk& chunk, Channels part, scalar* sums,
                       bool add) {
  const Panels panels(w.y.channels);
  const Sums layout = by_vectors(w.filters);
  scalar* products = w.transformed + omp_get_thread_num() * w.transformed_room;
  transform_input<T>(w, chunk, part);
  for (long t = 0; t < chunk.count; t++)
    T::grad_output(w.y, chunk.results + t * w.result_pitch, chunk.result_plane,
                   Place(chunk.set, chunk.first + t));
  for (long index = 0; index < panels.count; index++) {
    const long k = panels.first(index), vectors = panels.width(index);
    const long most = panels.rows(index);
    for (long c = 0; c < part.count; c += most) {
      const long rows = std::min(most, part.count - c), plane = rows * vectors * WIDTH + STAGGER;
      for (long p = 0; p < T::Q; p++)
        panel(vectors, rows, chunk.count, {chunk.tiles + p * chunk.plane + c, 1, w.tile_pitch},
              chunk.results + p * chunk.result_plane + k, w.result_pitch,
              Store{products + p * plane, vectors * WIDTH, false});
      for (long i = 0; i < rows; i++)
        for (long v = 0; v < vectors; v++)
          T::grad_filter(products + (i * vectors + v) * WIDTH, plane,
                         sums + layout.at(0, part.first + c + i, k + v * WIDTH), add);
    }
  }
  if (!w.bias || part.first) return;
  const scalar* ones = chunk.results + (T::QW + 1) * chunk.result_plane;  // points (1, 1): sums
  for (long k = 0; k < w.y.channels; k++) {
    scalar sum = add ? sums[layout.bias + k] : scalar(0);
    for (long t = 0; t < chunk.count; t++) sum += ones[t * w.result_pitch + k];
    sums[layout.bias + k] = sum;
  }
}

// One of the slices of a group: some of the chunks of all sets, in order.
void grad_weight_slice(const Winograd& w, long slice, Channels part, scalar* sums) {
  long chunks = 0, number = 0;
  for (long i = 0; i < w.sets; i++) chunks += w.chunks(w.set[i]);
  const long begin = chunks * slice / w.slices, end = chunks * (slice + 1) / w.slices;
  for (long i = 0; i < w.sets; i++)
    with_tiles(w.set[i], w.taps, [&](auto tiles) {
      for (long chunk = 0; chunk < w.chunks(w.set[i]); chunk++, number++)
        if (number >= begin && number < end)
          grad_weight_chunk<decltype(tiles)>(w, Chunk(w, w.set[i], chunk), part, sums,
                                             number > begin);
    });
}
}  // namespace

extern "C" void winograd_grad_weight(const Winograd* whole, long filter_group) {
  const Winograd& w = *whole;
  const Sums layout = by_vectors(w.filters);
  const long blocks = padded(w.filters.channels) / LANES;
#pragma omp parallel num_threads(w.threads)
  {
#pragma omp for schedule(dynamic)
    for (long task = 0; task < w.groups * w.slices * w.parts; task++) {
      const long number = task / w.parts, part = task % w.parts;
      const long first = blocks * part / w.parts * LANES;
      const long last = std::min(blocks * (part + 1) / w.parts * LANES, w.filters.channels);
      grad_weight_slice(group(w, number / w.slices, filter_group), number % w.slices,
                        {first, last - first}, w.sums + number * layout.size);
    }
    for (long g = 0; g < w.groups; g++) {
      const Winograd part = group(w, g, filter_group);
      write_filters(part.filters, part.bias, w.sums + g * w.slices * layout.size, layout, w.slices,
                    w.add);
    }
  }
}
