// Target pixels of a convolution, and the source pixels that their taps see.
//
// A target pixel (i, j) of a grid reads source pixels (i * source_down + row, ...) of its taps.
// The forward pass is such a grid; the gradient of the input is one for each place of a pixel
// between strides, whose taps are those that meet it there.
#pragma once

#include "vector.h"

extern "C" {
struct Tap {
  long row, column;  // of the source, from where the target pixel stands
  long r, s;         // of the filter
};

struct Grid {
  long rows, columns;            // target pixels
  long top, left, down, across;  // where they stand in the target, and their steps
  long source_down, source_across;
};
}

struct Pixel {
  long image, i, j;
  Pixel(const Grid& grid, long number) {
    const long in_image = grid.rows * grid.columns, rest = number % in_image;
    image = number / in_image, i = rest / grid.columns, j = rest % grid.columns;
  }
};

// Null where it is outside.
static INLINE const scalar* source_pixel(const Map& source, const Grid& grid, const Pixel& at,
                                         const Tap& tap) {
  const long r = at.i * grid.source_down + tap.row;
  const long s = at.j * grid.source_across + tap.column;
  const bool inside = r >= 0 && r < source.height && s >= 0 && s < source.width;
  return inside ? source.at(at.image, r, s) : nullptr;
}

static INLINE scalar* target_pixel(const Map& target, const Grid& grid, const Pixel& at) {
  return target.at(at.image, grid.top + at.i * grid.down, grid.left + at.j * grid.across);
}
