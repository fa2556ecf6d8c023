// Holds the estimate of flow and mask so far: the sum of the outputs of the blocks, each kept at its own size.

#pragma once

#include <vector>
#include "vectors.h"

namespace {

// The position of a row or column of the frame in a map `factor` times smaller (bilinear, align_corners=False).
struct Place {
    int32_t first, second;
    float weight;  // of the second

    Place(int64_t position, int64_t factor, int64_t size) {
        const float at = std::max((position + 0.5f) / factor - 0.5f, 0.0f);
        first = static_cast<int32_t>(std::min(static_cast<int64_t>(at), size - 1));
        second = static_cast<int32_t>(std::min<int64_t>(first + 1, size - 1));
        weight = at - first;
    }
};

// out = scale * (a + weight * (b - a)), of `count` floats
inline void mix(const float* a, const float* b, float weight, float scale, int64_t count, float* out) {
    int64_t c = 0;
    for (; c + 8 <= count; c += 8) {
        const V8 v = load<V8>(a + c);
        store<V8>(out + c, scale * (v + weight * (load<V8>(b + c) - v)));
    }
    for (; c < count; c++) out[c] = scale * (a[c] + weight * (b[c] - a[c]));
}

// The output of one block: (batch,height,width,channels), 4 of flow, then the mask's logit, then features.
struct BlockOutput {
    const float* data;
    int64_t channels, factor;  // the frame is `factor` times larger
    float gain;                // gain * flow is in pixels of the frame
    // 2 or 4: data is (batch,height/packed,width/packed,packed,packed,channels) and needs a pixel shuffle; else 1
    int64_t packed;
    int64_t height, width;

    // The address of the first channel of row y; column x begins `column(x)` floats later.
    const float* start(int64_t b, int64_t y) const {
        const int64_t line = width * packed * channels;  // in floats, with all sub-pixels
        return data + (b * height + y) / packed * line + y % packed * packed * channels;
    }

    int64_t column(int64_t x) const {
        const int64_t bits = packed / 2;  // of the position among sub-pixels
        return ((x >> bits << 2 * bits) + (x & (packed - 1))) * channels;
    }

    // Interpolates channels [from, from + count) between the two rows of `place`: out (width,count).
    void row(int64_t b, const Place& place, int64_t from, int64_t count, float scale, float* out) const {
        const float *above = start(b, place.first) + from, *below = start(b, place.second) + from;
        for (int64_t x = 0; x < width; x++, out += count) {
            const float *p = above + column(x), *q = below + column(x);
            if (count == 4) {
                const V4 v = load<V4>(p);
                store<V4>(out, scale * (v + place.weight * (load<V4>(q) - v)));
            } else {
                mix(p, q, place.weight, scale, count, out);
            }
        }
    }
};

struct Estimate {
    const float *map0, *map1;  // (batch,height,width,stride): colour, features, zeros up to a whole vector
    int64_t batch, height, width, stride;
    const BlockOutput* outputs;
    int64_t count;
    std::vector<std::vector<Place>> columns;  // for each output and each column of the frame

    Estimate(const float* map0, const float* map1, const int64_t* size, const BlockOutput* outputs, int64_t count)
        : map0(map0), map1(map1), batch(size[0]), height(size[1]), width(size[2]), stride(size[3]),
          outputs(outputs), count(count), columns(count) {
        for (int64_t i = 0; i < count; i++)
            for (int64_t x = 0; x < width; x++)
                columns[i].push_back(Place(x, outputs[i].factor, outputs[i].width));
    }

    // Computes the flow along row y of the frame, (width,4) px; `row` has room for width * 4 floats.
    void flow_row(int64_t b, int64_t y, float* flow, float* row) const {
        std::fill(flow, flow + 4 * width, 0.0f);
        for (int64_t i = 0; i < count; i++) {
            outputs[i].row(b, Place(y, outputs[i].factor, outputs[i].height), 0, 4, outputs[i].gain, row);
            const Place* places = columns[i].data();
            for (int64_t x = 0; x < width; x++) {
                const V4 v = load<V4>(row + 4 * places[x].first), next = load<V4>(row + 4 * places[x].second);
                store<V4>(flow + 4 * x, load<V4>(flow + 4 * x) + (v + places[x].weight * (next - v)));
            }
        }
    }

    // The floats of a row of (width,4), and room for what the last vector writes beyond it
    int64_t fours() const { return 4 * width + 16; }

    // Calls use(i, v) with v = the positions (px) from which the pixels of row y are sampled, N at a time from the
    // i-th: pixel + shift, with shifts (width,4) px, x and y to each of the two frames, clamped to `beyond` px outside the
    // border. Without shifts: the pixels themselves. Rounded as linspace and grid_sample round, for which -1 and 1 are
    // the first and the last pixel: 1e-4 px from the 1024th pixel on, more than every other error.
    template <class F>
    void follow(const float* shifts, int64_t y, float beyond, F use) const {
        V here, next, last;
        for (int64_t i = 0; i < N; i++) {
            here[i] = i % 2 ? y : i / 4;
            next[i] = i % 2 ? 0 : N / 4;
            last[i] = (i % 2 ? height : width) - 1;
        }
        const V some = last > 1 ? last : V{} + 1, step = 2 / some, half = last / 2, half_some = some / 2;
        const V least = V{} - beyond, most = last + beyond;
        for (int64_t i = 0; i < 4 * width; i += N, here += next) {
            V v = here;
            if (shifts) {
                const V grid = here < half ? step * here - 1 : 1 - step * (last - here);
                v = (grid + load<V>(shifts + i) / half_some + 1) * half;
            }
            v = v > least ? v : least;  // NaN becomes `least`
            use(i, v < most ? v : most);
        }
    }

    // For bilinear sampling of row y: the first of two pixels along each axis, and the weight of the second, (width,4)
    // each.
    void bilinears(const float* shifts, int64_t y, int32_t* first, float* share) const {
        I most;  // the last first pixel whose second is inside too
        for (int64_t i = 0; i < N; i++) most[i] = std::max<int64_t>((i % 2 ? height : width) - 2, 0);
        follow(shifts, y, 0, [=](int64_t i, V v) {
            const I whole = __builtin_convertvector(v, I), at = whole < most ? whole : most;
            __builtin_memcpy(first + i, &at, sizeof at);
            store<V>(share + i, v - __builtin_convertvector(at, V));
        });
    }

    // out[0..n) += weight * the feature map, sampled at a position that `bilinears` computed
    template <class T, int64_t n>
    void add(const float* map, int64_t b, const int32_t* first, const float* share, float weight, T* out) const {
        const int64_t right = width > 1 ? stride : 0, down = height > 1 ? width * stride : 0;
        const float* p = map + ((b * height + first[1]) * width + first[0]) * stride;
        const float w11 = share[0] * share[1] * weight, w10 = share[1] * weight - w11, w01 = share[0] * weight - w11;
        const float w00 = weight - w01 - w10 - w11;
        for (int64_t c = 0; c < n; c++, p += sizeof(T) / sizeof(float))
            out[c] += w00 * load<T>(p) + w01 * load<T>(p + right) + w10 * load<T>(p + down) +
                      w11 * load<T>(p + right + down);
    }

    // For bicubic sampling of row y (Keys, 1981, a = -0.75): the first of four pixels along each axis, from -3 to its
    // size, and the weights of the four, a row of (width,4) each. `first` and `shifts` may be the same memory.
    void cubics(const float* shifts, int64_t y, float* first, float* weights) const {
        constexpr float a = -0.75f;
        follow(shifts, y, 2, [=](int64_t i, V v) {  // beyond 2 px outside, all four are the border
            const V near = rounded(v), whole = near > v ? near - 1 : near, f = v - whole;
            const V of_four[4] = {f * (a + f * (-2 * a + f * a)), 1 + f * f * (-a - 3 + f * (a + 2)),
                                  f * (-a + f * (2 * a + 3 + f * (-a - 2))), f * f * (a - f * a)};
            store<V>(first + i, whole - 1);
            for (int64_t k = 0; k < 4; k++) store<V>(weights + k * fours() + i, of_four[k]);
        });
    }

    // The colours at a position that `cubics` computed, the border repeated; across and down: the weights of its first
    // pixel along each axis.
    V4 cubic(const float* map, int64_t b, int64_t left, int64_t top, const float* across, const float* down) const {
        V4 total = {};
        if (left >= 0 && left + 3 < width && top >= 0 && top + 3 < height) {
            const float* line = map + ((b * height + top) * width + left) * stride;
            for (int64_t j = 0; j < 4; j++, line += width * stride) {
                V4 row = {};
                for (int64_t i = 0; i < 4; i++) row += across[i * fours()] * load<V4>(line + i * stride);
                total += down[j * fours()] * row;
            }
            return total;
        }
        for (int64_t j = 0; j < 4; j++) {
            const float* line = map + (b * height + std::clamp<int64_t>(top + j, 0, height - 1)) * width * stride;
            V4 row = {};
            for (int64_t i = 0; i < 4; i++)
                row += across[i * fours()] * load<V4>(line + std::clamp<int64_t>(left + i, 0, width - 1) * stride);
            total += down[j * fours()] * row;
        }
        return total;
    }
};

}  // namespace
