// Computes the image at the end: both frames warped, blended and smoothed; and converts it to bytes.

#pragma once

#include "estimate.h"

namespace {

// `nearer` of networks/sharp.py
inline V nearer(V flow, V share) {
    const V fraction = flow - rounded(flow);
    return flow + share * fraction * (4 * fraction * fraction - 1);
}

}  // namespace

extern "C" {

// Computes the estimate at the frame's size, planes: image (batch,3,H,W), flow (batch,4,H,W), mask (batch,1,H,W) in
// 0..1.
// sharp: after the mask, the last output has 2 gates of bicubic sampling and 2 gates of `nearer` (networks/sharp.py).
void finish(float* image, float* flow, float* mask, const float* map0, const float* map1,
            const int64_t* size, const BlockOutput* outputs, int64_t count, int64_t sum, int64_t sharp,
            int64_t threads) {
    const Estimate all(map0, map1, size, outputs, count);
    const int64_t plane = all.height * all.width;
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < all.batch * all.height; i++) {
        const int64_t b = i / all.height, y = i % all.height;
        const int64_t row = all.fours();
        float* flows = scratch(10 * row);
        float *brought = flows + row, *gates = brought + row, *places = gates + row, *weights = places + row;
        float* shares = weights + 4 * row;
        int32_t* firsts = reinterpret_cast<int32_t*>(shares + row);
        all.flow_row(b, y, flows, brought);
        float* m = mask + b * plane + y * all.width;
        for (int64_t k = sum ? 0 : count - 1; k < count; k++) {
            const BlockOutput& output = outputs[k];
            output.row(b, Place(y, output.factor, output.height), 4, 1, 1, brought);
            for (int64_t x = 0; x < all.width; x++) {
                const Place& place = all.columns[k][x];
                const float v = brought[place.first] + place.weight * (brought[place.second] - brought[place.first]);
                m[x] = k == (sum ? 0 : count - 1) ? v : m[x] + v;
            }
        }
        sigmoids(m, all.width);
        const BlockOutput& last = outputs[count - 1];
        if (sharp) {
            last.row(b, Place(y, last.factor, last.height), 5, 4, 1, brought);
            for (int64_t x = 0; x < all.width; x++) {
                const Place& place = all.columns[count - 1][x];
                const V4 v = load<V4>(brought + 4 * place.first), next = load<V4>(brought + 4 * place.second);
                store<V4>(gates + 4 * x, v + place.weight * (next - v));
            }
            sigmoids(gates, 4 * all.width);
            for (int64_t x = 0; x < 4 * all.width; x += 4)
                store<V4>(places + x, V4{gates[x + 2], gates[x + 2], gates[x + 3], gates[x + 3]});
            for (int64_t i = 0; i < 4 * all.width; i += N)
                store<V>(places + i, nearer(load<V>(flows + i), load<V>(places + i)));
            all.cubics(places, y, places, weights);
        }
        all.bilinears(flows, y, firsts, shares);
        float* colour = image + 3 * b * plane + y * all.width;
        float* moved = flow + 4 * b * plane + y * all.width;
        for (int64_t x = 0; x < all.width; x++) {
            const float *f = flows + 4 * x, *g = gates + 4 * x, *at = places + 4 * x, *w = weights + 4 * x;
            V4 warped0 = {}, warped1 = {};
            all.add<V4, 1>(map0, b, firsts + 4 * x, shares + 4 * x, 1, &warped0);
            all.add<V4, 1>(map1, b, firsts + 4 * x + 2, shares + 4 * x + 2, 1, &warped1);
            if (sharp) {
                warped0 += 2 * g[0] * (all.cubic(map0, b, at[0], at[1], w, w + 1) - warped0);
                warped1 += 2 * g[1] * (all.cubic(map1, b, at[2], at[3], w + 2, w + 3) - warped1);
            }
            const V4 blended = warped1 + m[x] * (warped0 - warped1);
            for (int64_t c = 0; c < 3; c++) colour[c * plane + x] = blended[c];
            for (int64_t c = 0; c < 4; c++) moved[c * plane + x] = f[c];
        }
    }
}

// `smoothed` of networks/sharp.py: image and out are planes (batch,3,H,W); the gates are the last four channels of the
// last output.
void smooth(float* out, const float* image, const int64_t* size, const BlockOutput* outputs, int64_t count,
            int64_t threads) {
    const BlockOutput& last = outputs[count - 1];
    const int64_t batch = size[0], height = size[1], width = size[2], plane = height * width;
    std::vector<Place> places;
    for (int64_t x = 0; x < width; x++) places.push_back(Place(x, last.factor, last.width));
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < batch * height; i++) {
        const int64_t b = i / height, y = i % height;
        float* shares = scratch(9 * width + 6);
        float *brought = shares + 4 * width, *line = brought + 4 * width + 3;
        last.row(b, Place(y, last.factor, last.height), last.channels - 4, 4, 1, brought);
        for (int64_t x = 0; x < width; x++) {
            const V4 v = load<V4>(brought + 4 * places[x].first), next = load<V4>(brought + 4 * places[x].second);
            const V4 gate = v + places[x].weight * (next - v);
            for (int64_t k = 0; k < 4; k++) shares[k * width + x] = gate[k];
        }
        sigmoids(shares, 4 * width);
        for (int64_t i = 0; i < 4 * width; i++) shares[i] = 2 * shares[i] - 1;
        for (int64_t c = 0; c < 3; c++) {
            const float* from = image + (3 * b + c) * plane;
            const float* rows[7];
            for (int64_t k = 0; k < 7; k++) rows[k] = from + std::clamp<int64_t>(y + k - 3, 0, height - 1) * width;
            std::copy_n(rows[3], width, line);
            std::fill_n(line - 3, 3, line[0]);
            std::fill_n(line + width, 3, line[width - 1]);
            float* to = out + (3 * b + c) * plane + y * width;
#pragma omp simd
            for (int64_t x = 0; x < width; x++) {
                const float here = line[x];
                float value = here;
                for (int64_t k = 0; k < 2; k++) {  // across, down
                    const float near = k ? rows[2][x] + rows[4][x] : line[x - 1] + line[x + 1];
                    const float middle = k ? rows[1][x] + rows[5][x] : line[x - 2] + line[x + 2];
                    const float far = k ? rows[0][x] + rows[6][x] : line[x - 3] + line[x + 3];
                    const float once = (near + 2 * here) / 4, twice = (far + 2 * middle + 3 * near + 4 * here) / 16;
                    const float *fine = shares + 2 * k * width, *coarse = fine + width;
                    value += fine[x] * (once - here) + coarse[x] * (twice - once);
                }
                to[x] = value;
            }
        }
    }
}

// out (height,width,channels) = 255 * image (channels,height,width; `plane` floats from channel to channel, `line` from
// row to row), clamped to 0..255, rounded to nearest
void to_bytes(uint8_t* out, const float* image, const int64_t* size, int64_t plane, int64_t line, int64_t threads) {
    const int64_t channels = size[0], height = size[1], width = size[2];
#pragma omp parallel for num_threads(threads)
    for (int64_t y = 0; y < height; y++)
        for (int64_t c = 0; c < channels; c++) {
            const float* from = image + c * plane + y * line;
            uint8_t* to = out + y * width * channels + c;
            for (int64_t x = 0; x < width; x++) {
                const float v = from[x] > 0 ? from[x] : 0;  // NaN becomes 0
                to[x * channels] = static_cast<uint8_t>(std::nearbyint((v < 1 ? v : 1) * 255));
            }
        }
}

}
