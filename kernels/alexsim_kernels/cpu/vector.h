// Vectors of one register, for float and double, by GCC's vector types.
//
// SCALAR is float or double: one library is built for each. A width of 64 bytes needs the 32
// registers of AVX-512: anywhere else 32 bytes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

typedef SCALAR scalar;

#if defined(__AVX512F__)
constexpr long VECTOR_BYTES = 64;
#else
constexpr long VECTOR_BYTES = 32;
#endif
constexpr long WIDTH = VECTOR_BYTES / sizeof(scalar);
constexpr long LANES = 16;  // channels in memory are padded to whole multiples of it, everywhere

typedef scalar vec __attribute__((vector_size(VECTOR_BYTES)));
typedef scalar vec_anywhere
    __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(scalar)), may_alias));

static INLINE vec load(const scalar* p) { return *reinterpret_cast<const vec_anywhere*>(p); }
static INLINE void store(scalar* p, vec v) { *reinterpret_cast<vec_anywhere*>(p) = v; }
static INLINE vec all(scalar value) { return vec{} + value; }

// The first `count` values, then zeros.
static INLINE vec load_part(const scalar* p, long count) {
  if (count >= WIDTH) return load(p);
  scalar lanes[WIDTH] = {};
  for (long i = 0; i < count; i++) lanes[i] = p[i];
  return load(lanes);
}

static INLINE void store_part(scalar* p, vec v, long count) {
  if (count >= WIDTH) return store(p, v);
  scalar lanes[WIDTH];
  store(lanes, v);
  for (long i = 0; i < count; i++) p[i] = lanes[i];
}

// How many lanes of a vector are channels: all, known when compiled, or the first few.
struct Whole {
  static constexpr long count = WIDTH;
  INLINE vec load(const scalar* p) const { return ::load(p); }
  INLINE void store(scalar* p, vec v) const { ::store(p, v); }
};

struct Part {
  long count;
  INLINE vec load(const scalar* p) const { return load_part(p, count); }
  INLINE void store(scalar* p, vec v) const { store_part(p, v, count); }
};

// `body(c, lanes)` for each vector of channels.
template <class Body> static INLINE void each_vector(long channels, Body&& body) {
  long c = 0;
  for (; c + WIDTH <= channels; c += WIDTH) body(c, Whole{});
  if (c < channels) body(c, Part{channels - c});
}

// Past the caches, where the address is aligned: for results that do not fit there.
static INLINE void stream(scalar* p, vec v) {
#if defined(__AVX512F__)
  if ((reinterpret_cast<uintptr_t>(p) & (VECTOR_BYTES - 1)) == 0) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
    return;
  }
#elif defined(__AVX__)
  if ((reinterpret_cast<uintptr_t>(p) & (VECTOR_BYTES - 1)) == 0) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
    return;
  }
#endif
  store(p, v);
}

// What was streamed is in memory before another thread goes on.
static INLINE void streamed() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

static INLINE vec relu(vec v) { return v < scalar(0) ? vec{} : v; }  // NaN stays NaN

// One over the square root: an estimate of 12 or 14 bits and Newton steps where there is such an
// instruction. Where a step makes NaN (of 0 and of infinity) the estimate is exact.
static INLINE vec inverse_root(vec d) {
#if defined(__AVX512F__)
  if constexpr (sizeof(scalar) == 4) {
    const vec y = (vec)_mm512_maskz_rsqrt14_ps(0xffff, (__m512)d);
    const vec z = y * (scalar(1.5) - scalar(0.5) * d * y * y);
    return z == z ? z : y;
  }
#elif defined(__AVX__)
  if constexpr (sizeof(scalar) == 4) {
    const vec y = (vec)_mm256_rsqrt_ps((__m256)d);
    vec z = y * (scalar(1.5) - scalar(0.5) * d * y * y);
    z = z * (scalar(1.5) - scalar(0.5) * d * z * z);
    return z == z ? z : y;
  }
#endif
  vec y;
  for (long i = 0; i < WIDTH; i++) y[i] = scalar(1) / std::sqrt(d[i]);
  return y;
}

static INLINE long padded(long channels) { return (channels + LANES - 1) / LANES * LANES; }

// Images whose channels lie next to each other; distances of images, rows and pixels in values.
struct Map {
  scalar* data;
  long images, channels, height, width;
  long image, row, pixel;
  scalar* at(long n, long i, long j) const { return data + n * image + i * row + j * pixel; }
};
