// Defines vectors of floats as GCC and Clang have them, and the memory that a thread keeps.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace {

#ifdef __AVX512F__
constexpr int64_t N = 16;  // floats in a vector
#else
constexpr int64_t N = 8;
#endif

template <int64_t n>
struct Vector {
    typedef float type __attribute__((vector_size(n * sizeof(float))));
};
typedef Vector<N>::type V;

typedef Vector<4>::type V4;
typedef Vector<8>::type V8;
typedef int32_t I __attribute__((vector_size(N * sizeof(int32_t))));

template <class T>
T load(const float* p) {
    T v;
    __builtin_memcpy(&v, p, sizeof(T));
    return v;
}

template <class T>
void store(float* p, T v) {
    __builtin_memcpy(p, &v, sizeof(T));
}

// The number of pieces of a size that hold `count`
constexpr int64_t pieces(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Memory that a thread keeps from call to call; it grows to the largest size requested.
float* scratch(int64_t floats) {
    thread_local std::unique_ptr<float, decltype(&std::free)> kept(nullptr, &std::free);
    thread_local int64_t size = 0;
    if (floats > size) {
        size = pieces(floats, 16) * 16;
        kept.reset(static_cast<float*>(std::aligned_alloc(64, size * sizeof(float))));
    }
    return kept.get();
}

// The nearest whole numbers, halves to even, of values below 2^22
template <class T>
inline T rounded(T v) {
    constexpr float shift = 3 << 22;
    return (v + shift) - shift;
}

// 1 / (1 + e^-v), within 2e-7: e^-v = 2^n e^r, |r| at most half of ln 2
inline V sigmoid(V v) {
    const V limit = V{} + 80;
    v = v > limit ? limit : v < -limit ? -limit : v;
    const V n = rounded(v * -1.44269504f), r = -v - n * 0.693359375f + n * 2.12194440e-4f;
    const V e = 1 + r * (1 + r * (1 / 2.0f + r * (1 / 6.0f + r * (1 / 24.0f + r * (1 / 120.0f + r * (1 / 720.0f))))));
    const V power = reinterpret_cast<V>((__builtin_convertvector(n, I) + 127) << 23);
    return 1 / (1 + power * e);
}

// The sigmoid of every float of a row, in place
inline void sigmoids(float* values, int64_t count) {
    int64_t done = 0;
    for (; done + N <= count; done += N) store<V>(values + done, sigmoid(load<V>(values + done)));
    if (done == count) return;
    float rest[N] = {};
    std::copy_n(values + done, count - done, rest);
    store<V>(rest, sigmoid(load<V>(rest)));
    std::copy_n(rest, count - done, values + done);
}

}  // namespace

extern "C" {

// The number of floats in a vector: the width of the panels of winograd's `u`.
int64_t vector_width() { return N; }

}
