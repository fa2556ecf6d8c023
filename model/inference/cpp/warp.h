// Warps planes, (batch,channels,height,width), and computes the gradients, for training: four channels at a time

#pragma once

#include "estimate.h"

namespace {

// The four pixels from which each pixel of a row of a warped image comes: the upper left one, and the weights.
struct Sources {
    std::vector<int32_t> at;              // the index of the upper left pixel
    std::vector<float> right, down;       // in 0..1, weights of the right and the lower neighbours
    std::vector<float> moves_x, moves_y;  // 1; 0 where the border is repeated and the flow has no gradient

    explicit Sources(int64_t width) : at(width), right(width), down(width), moves_x(width), moves_y(width) {}

    // Computes them for row y of flow planes (2,height,width); height and width are at least 2.
    void find(const float* flow, int64_t y, int64_t height, int64_t width) {
        const float *fx = flow + y * width, *fy = fx + height * width;
        const float last_x = width - 1, last_y = height - 1;
        const int32_t line = width;
        for (int32_t x = 0; x < line; x++) {
            const float whole_x = std::floor(fx[x]), whole_y = std::floor(fy[x]);
            const float left = x + whole_x, top = y + whole_y;  // without the fraction: exact at any width
            const bool in_x = left >= 0 && left < last_x, in_y = top >= 0 && top < last_y;
            moves_x[x] = in_x && (left > 0 || fx[x] > whole_x) ? 1.0f : 0.0f;
            moves_y[x] = in_y && (top > 0 || fy[x] > whole_y) ? 1.0f : 0.0f;
            right[x] = in_x ? fx[x] - whole_x : left < 0 ? 0.0f : 1.0f;
            down[x] = in_y ? fy[x] - whole_y : top < 0 ? 0.0f : 1.0f;
            const int32_t column = std::max(0.0f, std::min(left, last_x - 1));
            const int32_t row = std::max(0.0f, std::min(top, last_y - 1));
            at[x] = row * line + column;
        }
    }
};

// Four planes of one image, from `first` on; missing ones are zeros.
struct Four {
    const float* planes[4];
    int64_t count_of_planes;

    Four(const float* image, int64_t first, int64_t channels, int64_t area, const float* zeros) {
        count_of_planes = std::min<int64_t>(4, channels - first);
        for (int64_t c = 0; c < 4; c++) planes[c] = c < count_of_planes ? image + (first + c) * area : zeros;
    }

    // Writes pixels [from, from + count) as (count,4).
    void pack(int64_t from, int64_t count, float* out) const {
        const float *a = planes[0] + from, *b = planes[1] + from, *c = planes[2] + from, *d = planes[3] + from;
        for (int64_t x = 0; x < count; x++) store<V4>(out + 4 * x, V4{a[x], b[x], c[x], d[x]});
    }

    // Writes pixels (count,4) into planes (4,area), or as many planes as exist.
    void unpack(const float* in, int64_t count, int64_t area, float* out) const {
        for (int64_t c = 0; c < count_of_planes; c++)
            for (int64_t x = 0; x < count; x++) out[c * area + x] = in[4 * x + c];
    }
};

}  // namespace

extern "C" {

// out (batch,height,width,C; `pitch` floats from pixel to pixel) = image (..,C) warped by two planes of flow
// (batch,2,height,width; `step` floats from sample to sample); C is a multiple of 16
void warp(float* out, const float* image, const float* flow, const int64_t* size, int64_t step, int64_t pitch,
          int64_t threads) {
    const Estimate one(image, image, size, nullptr, 0);
    const int64_t plane = one.height * one.width;
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < one.batch * one.height; i++) {
        const int64_t b = i / one.height, y = i % one.height;
        const float* f = flow + b * step + y * one.width;
        float* shifts = scratch(2 * one.fours());
        int32_t* firsts = reinterpret_cast<int32_t*>(shifts + one.fours());
        for (int64_t x = 0; x < one.width; x++) store<V4>(shifts + 4 * x, V4{f[x], f[plane + x], 0, 0});
        one.bilinears(shifts, y, firsts, shifts);
        for (int64_t x = 0; x < one.width; x++)
            for (int64_t c = 0; c < one.stride; c += 16) {
                V8 v[2] = {};
                one.add<V8, 2>(image + c, b, firsts + 4 * x, shifts + 4 * x, 1, v);
                std::copy_n(reinterpret_cast<const float*>(v), 16, out + (i * one.width + x) * pitch + c);
            }
    }
}

// out (batch,channels,height,width) = planes of that shape warped by flow (batch,2,height,width)
void warp_planes(float* out, const float* planes, const float* flow, const int64_t* size, int64_t threads) {
    const int64_t batch = size[0], channels = size[1], height = size[2], width = size[3], area = height * width;
#pragma omp parallel for num_threads(threads)
    for (int64_t b = 0; b < batch; b++) {
        Sources from(width);
        const std::vector<float> zeros(area);
        float* packed = scratch(4 * (area + width));
        float* row = packed + 4 * area;
        for (int64_t c = 0; c < channels; c += 4) {
            const Four four(planes + b * channels * area, c, channels, area, zeros.data());
            four.pack(0, area, packed);
            for (int64_t y = 0; y < height; y++) {
                from.find(flow + 2 * b * area, y, height, width);
                for (int64_t x = 0; x < width; x++) {
                    const float *p = packed + 4 * from.at[x], *q = p + 4 * width;
                    const V4 above = load<V4>(p) + from.right[x] * (load<V4>(p + 4) - load<V4>(p));
                    const V4 below = load<V4>(q) + from.right[x] * (load<V4>(q + 4) - load<V4>(q));
                    store<V4>(row + 4 * x, above + from.down[x] * (below - above));
                }
                four.unpack(row, width, area, out + (b * channels + c) * area + y * width);
            }
        }
    }
}

// Computes the gradients of warp_planes from the gradient of its output: of the flow, and of the planes unless
// `of_planes` is null.
void warp_planes_backward(float* of_flow, float* of_planes, const float* of_out, const float* planes,
                          const float* flow, const int64_t* size, int64_t threads) {
    const int64_t batch = size[0], channels = size[1], height = size[2], width = size[3], area = height * width;
#pragma omp parallel for num_threads(threads)
    for (int64_t b = 0; b < batch; b++) {
        Sources from(width);
        const std::vector<float> zeros(area);
        float* packed = scratch(8 * area + 4 * width);
        float *sums = packed + 4 * area, *row = sums + 4 * area;
        std::fill_n(of_flow + 2 * b * area, 2 * area, 0.0f);
        for (int64_t c = 0; c < channels; c += 4) {
            const Four four(planes + b * channels * area, c, channels, area, zeros.data());
            const Four given(of_out + b * channels * area, c, channels, area, zeros.data());
            four.pack(0, area, packed);
            if (of_planes) std::fill_n(sums, 4 * area, 0.0f);
            for (int64_t y = 0; y < height; y++) {
                from.find(flow + 2 * b * area, y, height, width);
                given.pack(y * width, width, row);
                float *gx = of_flow + 2 * b * area + y * width, *gy = gx + area;
                for (int64_t x = 0; x < width; x++) {
                    const float *p = packed + 4 * from.at[x], *q = p + 4 * width;
                    const V4 g = load<V4>(row + 4 * x), left = load<V4>(q) - load<V4>(p);
                    const V4 above = load<V4>(p + 4) - load<V4>(p), below = load<V4>(q + 4) - load<V4>(q);
                    const V4 across = g * (above + from.down[x] * (below - above));
                    const V4 along = g * (left + from.right[x] * (below - above));
                    gx[x] += from.moves_x[x] * (across[0] + across[1] + across[2] + across[3]);
                    gy[x] += from.moves_y[x] * (along[0] + along[1] + along[2] + along[3]);
                }
                for (int64_t x = 0; x < (of_planes ? width : 0); x++) {
                    float *p = sums + 4 * from.at[x], *q = p + 4 * width;
                    const V4 lower = from.down[x] * load<V4>(row + 4 * x), upper = load<V4>(row + 4 * x) - lower;
                    const V4 w11 = from.right[x] * lower, w01 = from.right[x] * upper;
                    store<V4>(p, load<V4>(p) + (upper - w01));
                    store<V4>(p + 4, load<V4>(p + 4) + w01);
                    store<V4>(q, load<V4>(q) + (lower - w11));
                    store<V4>(q + 4, load<V4>(q + 4) + w11);
                }
            }
            if (of_planes) four.unpack(sums, area, area, of_planes + (b * channels + c) * area);
        }
    }
}

}
