// Convolves by Winograd F(4x4, 3x3) (Lavin and Gray 2016): 36 multiplications for 16 outputs instead of 144

#pragma once

#include "vectors.h"

namespace {

constexpr int64_t TILES = N == 16 ? 8 : 4;  // of one call of `multiply`: their sums of 3 vectors fill the registers

// The points of interpolation are 0, +-A, +-B and infinity. The usual 1 and 2 double the rounding error.
constexpr float A = 11.0f / 16, B = 3.0f / 2, A2 = A * A, B2 = B * B;

// x[0..5] (stride apart) -> B^T x
inline void input_transform(const V* x, int64_t stride, V* y, int64_t out) {
    const V a = x[0], b = x[stride], c = x[2 * stride], d = x[3 * stride], e = x[4 * stride], f = x[5 * stride];
    const V even = e - B2 * c, odd = A * (d - B2 * b), even2 = e - A2 * c, odd2 = B * (d - A2 * b);
    y[0] = A2 * B2 * a - (A2 + B2) * c + e;
    y[out] = even + odd;
    y[2 * out] = even - odd;
    y[3 * out] = even2 + odd2;
    y[4 * out] = even2 - odd2;
    y[5 * out] = A2 * B2 * b - (A2 + B2) * d + f;
}

// m[0..5] (stride apart) -> A^T m
inline void output_transform(const V* m, int64_t stride, V* y, int64_t out) {
    const V b = m[stride], c = m[2 * stride], d = m[3 * stride], e = m[4 * stride];
    const V sum = b + c, difference = b - c, sum2 = d + e, difference2 = d - e;
    y[0] = m[0] + sum + sum2;
    y[out] = A * difference + B * difference2;
    y[2 * out] = A2 * sum + B2 * sum2;
    y[3 * out] = A * A2 * difference + B * B2 * difference2 + m[5 * stride];
}

// TILES rows of a (row stride sa) by `vectors` panels of u (k,N) -> TILES rows of c (row stride sc)
template <int64_t vectors>
inline void multiply(const float* a, int64_t sa, const float* u, int64_t k, float* c, int64_t sc) {
    V sum[TILES][vectors] = {};
    for (int64_t i = 0; i < k; i++) {
        V w[vectors];
        for (int64_t v = 0; v < vectors; v++) {
            V kept = load<V>(u + (v * k + i) * N);
            asm("" : "+v"(kept));  // keeps it in a register: GCC would load it again for every tile
            w[v] = kept;
        }
        for (int64_t t = 0; t < TILES; t++)
            for (int64_t v = 0; v < vectors; v++) sum[t][v] += a[t * sa + i] * w[v];
    }
    for (int64_t t = 0; t < TILES; t++)
        for (int64_t v = 0; v < vectors; v++) store<V>(c + t * sc + v * N, sum[t][v]);
}

struct Convolution {
    const float *x, *u, *bias, *slope, *residual;
    float* y;
    int64_t batch, height, width, inputs, outputs;
    int64_t step;   // 2: the outputs are the four sub-pixels of a y that is twice as large along both axes
    int64_t pitch;  // floats from pixel to pixel of y
    bool after;  // the residual is added after the activation

    // Computes tiles [first, first + count), count at most `room`, a multiple of TILES, and of their outputs the panels
    // [begin, end).
    void tiles(int64_t first, int64_t count, int64_t room, int64_t begin, int64_t end) const {
        const int64_t panels = pieces(outputs, N), wide = pieces(width, 4), high = pieces(height, 4);
        const int64_t row_in = inputs, row_out = panels * N;
        const int64_t plane_in = room * row_in + N, plane_out = room * row_out + N;  // odd lines: no cache conflicts
        float* transformed = scratch(36 * (plane_in + plane_out));
        float* products = transformed + 36 * plane_in;
        static const float zeros[4096] = {};

        for (int64_t t = 0; t < count; t++) {
            const int64_t tile = first + t, left = tile % wide * 4 - 1, top = tile / wide % high * 4 - 1;
            const float* image = x + tile / (wide * high) * height * width * inputs;
            const float* from[36];
            for (int64_t i = 0; i < 36; i++) {
                const int64_t row = top + i / 6, column = left + i % 6;
                const bool inside = row >= 0 && row < height && column >= 0 && column < width;
                from[i] = inside ? image + (row * width + column) * inputs : zeros;
            }
            for (int64_t c = 0; c < inputs; c += N) {
                const int64_t at = std::min(c, inputs - N);
                V e[36], line[6];
                for (int64_t j = 0; j < 6; j++) {
                    for (int64_t i = 0; i < 6; i++) line[i] = load<V>(from[6 * i + j] + at);
                    input_transform(line, 1, e + j, 6);
                }
                for (int64_t i = 0; i < 6; i++) {
                    input_transform(e + 6 * i, 1, line, 1);
                    float* to = transformed + 6 * i * plane_in + t * row_in + at;
                    for (int64_t j = 0; j < 6; j++) store<V>(to + j * plane_in, line[j]);
                }
            }
        }
        for (int64_t i = 0; i < 36; i++) {
            const float* panel = u + (i * row_out + begin * N) * inputs;
            for (int64_t p = begin; p < end;) {
                const int64_t left = end - p, n = left == 4 || left == 2 ? 2 : std::min<int64_t>(left, 3);
                for (int64_t t = 0; t < count; t += TILES) {
                    const float* a = transformed + i * plane_in + t * row_in;
                    float* c = products + i * plane_out + t * row_out + p * N;
                    if (n == 3) multiply<3>(a, row_in, panel, inputs, c, row_out);
                    if (n == 2) multiply<2>(a, row_in, panel, inputs, c, row_out);
                    if (n == 1) multiply<1>(a, row_in, panel, inputs, c, row_out);
                }
                panel += n * inputs * N;
                p += n;
            }
        }
        for (int64_t t = 0; t < count; t++) {
            const int64_t tile = first + t, left = tile % wide * 4, top = tile / wide % high * 4;
            const int64_t image = tile / (wide * high) * height, corner = (image + top) * width + left;
            const int64_t rows = std::min<int64_t>(4, height - top), columns = std::min<int64_t>(4, width - left);
            for (int64_t c = begin * N; c < std::min(end * N, outputs); c += N) {
                const int64_t at = std::min(c, outputs - N), each = outputs / (step * step), sub_pixel = at / each;
                const int64_t row = (image + top) * step + sub_pixel / step, column = left * step + sub_pixel % step;
                float* to = y + (row * step * width + column) * pitch + at % each;
                V e[24], line[6];
                for (int64_t j = 0; j < 6; j++) {
                    const float* m = products + j * plane_out + t * row_out + at;
                    for (int64_t i = 0; i < 6; i++) line[i] = load<V>(m + 6 * i * plane_out);
                    output_transform(line, 1, e + j, 6);
                }
                const V b = load<V>(bias + at), s = load<V>(slope + at);
                for (int64_t i = 0; i < rows; i++) {
                    output_transform(e + 6 * i, 1, line, 1);
                    for (int64_t j = 0; j < columns; j++) {
                        const int64_t pixel = corner + i * width + j;
                        V v = line[j] + b;
                        if (residual && !after) v += load<V>(residual + pixel * outputs + at);
                        v = v > 0 ? v : v * s;
                        if (residual && after) v += load<V>(residual + pixel * outputs + at);
                        store<V>(to + (i * step * width + j) * step * pitch, v);
                    }
                }
            }
        }
    }
};

}  // namespace

extern "C" {

// y = act(conv3x3(x) + bias [+ residual]) [+ residual]; act(v) = v > 0 ? v : slope * v; one slope for each channel.
// x (batch,height,width,inputs), y (..,outputs; `pitch` floats from pixel to pixel), residual (..,outputs), both counts
// from N to 4096; u: transformed weights (36,panels,inputs,N). step 2: the outputs are (2,2,C), C a multiple of N, and
// y is (batch,2*height,2*width,C); without a residual.
void winograd(const float* x, const float* u, const float* bias, const float* slope, const float* residual, float* y,
              int64_t batch, int64_t height, int64_t width, int64_t inputs, int64_t outputs, int64_t step,
              int64_t pitch, int64_t after, int64_t threads) {
    const Convolution work{x,     u,      bias,    slope, residual, y,         batch, height,
                           width, inputs, outputs, step,  pitch,    after != 0};
    const int64_t tiles = batch * pieces(height, 4) * pieces(width, 4), panels = pieces(outputs, N);
    // tiles whose floats fill most of a core's 1 MB
    const int64_t cache = 180000 / (36 * (inputs + outputs)) / TILES * TILES;
    const int64_t most = std::clamp<int64_t>(cache, 16, 48);
    // where tiles are few, each thread computes all of them, but only some of the outputs
    const bool few = 2 * tiles <= TILES * threads && outputs % N == 0;
    const int64_t parts = few ? std::min(threads, panels) : 1;
    // the same number for each thread
    const int64_t runs = few ? pieces(tiles, most) : pieces(tiles, most * threads) * threads;
    const int64_t room = pieces(pieces(tiles, runs), TILES) * TILES, each = pieces(panels, parts);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads)
    for (int64_t begin = 0; begin < panels; begin += each)
        for (int64_t first = 0; first < tiles; first += room)
            work.tiles(first, std::min(room, tiles - first), room, begin, std::min(begin + each, panels));
}

// x (pixels,channels) = x > 0 ? x : slope * x
void activate(float* x, const float* slope, int64_t pixels, int64_t channels, int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < pixels; i++) {
        float* p = x + i * channels;
        int64_t c = 0;
        for (; c + N <= channels; c += N) {
            const V v = load<V>(p + c);
            store<V>(p + c, v > 0 ? v : v * load<V>(slope + c));
        }
        for (; c < channels; c++) p[c] = std::max(p[c], 0.0f) + slope[c] * std::min(p[c], 0.0f);  // no branch
    }
}

}
