// Images of bytes, normalised: out = (byte + noise - mean) / deviation * factor, every operation
// rounded by itself, so that the bits are those of any other program that does the same.
//
// A thread takes rows of images, one at a time. What differs between channels lies ready as rows of
// pixels, so that three channels fill vectors; a mirrored row is turned in L1 first.
#include "vector.h"

#include <vector>

extern "C" struct Upload {
  const unsigned char* pixels;
  const scalar *mean, *deviation, *noise, *factor;  // all but the mean may be null
  const unsigned char* mirrored;
  scalar* out;
  long images, height, width, channels, threads;
};

namespace {
constexpr long STREAMED_BYTES = 16 << 20;  // larger results leave the caches before they are read

// `[width][channels]`: the same values for every pixel.
void repeat(const scalar* values, long width, long channels, scalar* row) {
  for (long w = 0; w < width; w++)
    for (long c = 0; c < channels; c++) row[w * channels + c] = values[c];
}

// Pixels of a row from right to left.
void turn(const unsigned char* from, long width, long channels, unsigned char* to) {
  long w = 0;
  if (channels == 3) {
    // Five pixels at a time: the byte before them comes with them, the last that is written is not
    // theirs, and the next write puts it right.
    typedef unsigned char sixteen __attribute__((vector_size(16), aligned(1), may_alias));
    const sixteen order = {13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, 0};
    for (; w + 5 < width; w += 5)
      *reinterpret_cast<sixteen*>(to + w * 3) = __builtin_shuffle(
          *reinterpret_cast<const sixteen*>(from + (width - 5 - w) * 3 - 1), order);
  }
  for (; w < width; w++)
    for (long c = 0; c < channels; c++) to[w * channels + c] = from[(width - 1 - w) * channels + c];
}

INLINE vec floating(const unsigned char* p) {
  vec v;
  for (long i = 0; i < WIDTH; i++) v[i] = scalar(int(p[i]));
  return v;
}

template <bool DIVIDED>
void row(const unsigned char* from, const scalar* noise, const scalar* mean,
         const scalar* deviation, scalar factor, scalar* out, long count, bool streaming) {
  long i = 0;
  for (; i + WIDTH <= count; i += WIDTH) {
    vec v = floating(from + i) + load(noise + i) - load(mean + i);
    if (DIVIDED) v /= load(deviation + i);
    v *= factor;
    if (streaming)
      stream(out + i, v);
    else
      store(out + i, v);
  }
  for (; i < count; i++) {
    scalar v = scalar(from[i]) + noise[i] - mean[i];
    if (DIVIDED) v /= deviation[i];
    out[i] = v * factor;
  }
}
}  // namespace

extern "C" void upload(const Upload* description) {
  const Upload& u = *description;
  const long values = u.width * u.channels;
  const bool streaming = u.images * u.height * values * long(sizeof(scalar)) > STREAMED_BYTES;
#pragma omp parallel num_threads(u.threads)
  {
    std::vector<scalar> noise(values), deviation(values);
    std::vector<unsigned char> turned(values);
    if (u.deviation) repeat(u.deviation, u.width, u.channels, deviation.data());
    long last = -1;
#pragma omp for schedule(dynamic, 32)
    for (long index = 0; index < u.images * u.height; index++) {
      const long image = index / u.height, offset = index % u.height * values;
      if (u.noise && image != last)
        repeat(u.noise + image * u.channels, u.width, u.channels, noise.data());
      last = image;
      const unsigned char* from = u.pixels + index * values;
      if (u.mirrored && u.mirrored[image]) {
        turn(from, u.width, u.channels, turned.data());
        from = turned.data();
      }
      (u.deviation ? row<true> : row<false>)(
          from, noise.data(), u.mean + offset, deviation.data(),
          u.factor ? u.factor[image] : scalar(1), u.out + index * values, values, streaming);
    }
    streamed();
  }
}
