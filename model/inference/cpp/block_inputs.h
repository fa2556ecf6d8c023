// Computes the inputs of a block, only at the size at which the block works.

#pragma once

#include "estimate.h"

namespace {

struct Inputs : Estimate {
    int64_t colours;  // used channels of a feature map: colour and features
    int64_t factor;   // the frame is this many times larger than the block's input
    bool again;       // the block also takes both frames unwarped
    float time;       // negative: none
    int64_t rest;     // mask and features, of the last output or, with `sum`, of all outputs
    bool sum;
    int64_t channels;

    // Writes `count` floats; where there is room, whole vectors, which is faster.
    template <class T, int64_t n>
    static float* put(float* out, const T (&values)[n], int64_t count, bool room) {
        if (room)
            for (int64_t i = 0; i < n; i++) store<T>(out + i * sizeof(T) / sizeof(float), values[i]);
        else
            std::copy_n(reinterpret_cast<const float*>(values), count, out);
        return out + count;
    }

    // Computes row y of the block's input, (width/factor,channels); a pixel of a feature map is `vectors` values of T.
    template <class T, int64_t vectors>
    void row(int64_t b, int64_t y, float* out) const {
        const int64_t n = factor == 1 ? 1 : 2, low = factor == 1 ? 0 : factor / 2 - 1, wide = width / factor;
        const float weight = 1.0f / (n * n);
        float* flows = scratch(3 * n * fours() + std::max(4 * width, (wide + 1) * rest));
        float *shares = flows + n * fours(), *brought = shares + 2 * n * fours();
        int32_t* firsts = reinterpret_cast<int32_t*>(shares + n * fours());
        for (int64_t j = 0; j < n; j++) {
            flow_row(b, y * factor + low + j, flows + j * fours(), brought);
            const float* shifts = count ? flows + j * fours() : nullptr;
            bilinears(shifts, y * factor + low + j, firsts + j * fours(), shares + j * fours());
        }
        const int64_t first = sum ? 0 : count - 1;
        for (int64_t x = 0; x < wide; x++) {
            T warped0[vectors] = {}, warped1[vectors] = {};
            V4 frame0[1] = {}, frame1[1] = {}, total = {};
            for (int64_t j = 0; j < n; j++)
                for (int64_t i = 0; i < n; i++) {
                    const int64_t py = y * factor + low + j, px = x * factor + low + i;
                    const int64_t at = j * fours() + 4 * px;
                    total += load<V4>(flows + at);
                    add<T, vectors>(map0, b, firsts + at, shares + at, weight, warped0);
                    add<T, vectors>(map1, b, firsts + at + 2, shares + at + 2, weight, warped1);
                    if (again) {
                        frame0[0] += weight * load<V4>(map0 + ((b * height + py) * width + px) * stride);
                        frame1[0] += weight * load<V4>(map1 + ((b * height + py) * width + px) * stride);
                    }
                }
            float* p = out + x * channels;
            const bool room = x + 1 < wide;  // for a part of the next pixel, which is written later
            p = put(put(p, warped0, colours, room), warped1, colours, room);
            if (again) p = put(put(p, frame0, 3, room), frame1, 3, room);
            if (time >= 0) *p = time;
            if (count) store<V4>(out + (x + 1) * channels - 4, total * (weight / factor));
        }
        for (int64_t i = std::max<int64_t>(first, 0); i < count; i++) {
            const BlockOutput& output = outputs[i];
            const int64_t ratio = output.factor / factor;  // of the output's size to this one
            output.row(b, Place(y, ratio, output.height), 4, rest, 1, brought);
            for (int64_t x = 0; x < wide; x++) {
                const Place place(x, ratio, output.width);
                const float *left = brought + place.first * rest, *right = brought + place.second * rest;
                float* p = out + (x + 1) * channels - 4 - rest;
                if (i == first)
                    mix(left, right, place.weight, 1, rest, p);
                else
                    for (int64_t c = 0; c < rest; c++) p[c] += left[c] + place.weight * (right[c] - left[c]);
            }
        }
    }
};

}  // namespace

extern "C" {

// Computes rows [from, to) of a block's input, (batch,to-from,width/factor,channels); rows outside it are zeros.
// size: batch, height, width, stride of the feature maps; shape: colours, factor, again, rest, sum, channels.
void block_inputs(float* out, const float* map0, const float* map1, const int64_t* size, const BlockOutput* outputs,
                  int64_t count, const int64_t* shape, float time, int64_t from, int64_t to, int64_t threads) {
    const Inputs inputs{{map0, map1, size, outputs, count}, shape[0], shape[1], shape[2] != 0, time, shape[3],
                        shape[4] != 0, shape[5]};
    const int64_t line = inputs.width / inputs.factor * inputs.channels, high = inputs.height / inputs.factor;
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < inputs.batch * (to - from); i++) {
        const int64_t y = from + i % (to - from);
        if (y < 0 || y >= high)
            std::fill(out + i * line, out + (i + 1) * line, 0.0f);
        else if (inputs.stride == 4)
            inputs.row<V4, 1>(i / (to - from), y, out + i * line);
        else if (inputs.stride == 8)
            inputs.row<V8, 1>(i / (to - from), y, out + i * line);
        else if (inputs.stride == 16)
            inputs.row<V8, 2>(i / (to - from), y, out + i * line);
        else
            inputs.row<V8, 4>(i / (to - from), y, out + i * line);
    }
}

// out (batch,height,width,stride) = image (batch,height,width,3), then features, then zeros. Features of C channels are
// packed: (batch,height/2,width/2,2,2,C).
void make_map(float* out, const float* image, const float* features, const int64_t* size, int64_t channels,
               int64_t threads) {
    const int64_t batch = size[0], height = size[1], width = size[2], stride = size[3];
    const BlockOutput packed{features, channels, 1, 1, 2, height, width};
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < batch * height; i++) {
        const int64_t b = i / height, y = i % height;
        for (int64_t x = 0; x < width; x++) {
            float* p = out + (i * width + x) * stride;
            std::copy_n(image + 3 * (i * width + x), 3, p);
            if (channels) std::copy_n(packed.start(b, y) + packed.column(x), channels, p + 3);
            for (int64_t c = 3 + channels; c < stride; c++) p[c] = 0;
        }
    }
}

}
