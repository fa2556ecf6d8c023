// The CPU kernels that kernels.py builds on first use: float32, memory order (B,H,W,C), any batch.
//
// No intrinsics: GCC's and Clang's vector types become AVX-512, AVX2 or NEON as the machine has it (-march=native).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

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

// How many pieces of that size hold as many
constexpr int64_t pieces(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Memory that a thread keeps from call to call; it grows to the largest size asked for.
float* scratch(int64_t floats) {
    thread_local std::unique_ptr<float, decltype(&std::free)> kept(nullptr, &std::free);
    thread_local int64_t size = 0;
    if (floats > size) {
        size = pieces(floats, 16) * 16;
        kept.reset(static_cast<float*>(std::aligned_alloc(64, size * sizeof(float))));
    }
    return kept.get();
}

// --- Winograd F(4x4, 3x3) (Lavin and Gray 2016): 36 multiplications for 16 outputs instead of 144 ---

constexpr int64_t TILES = N == 16 ? 8 : 4;  // that one run of `multiply` takes: its sums of 3 vectors fill the registers

// The points of interpolation are 0, +-A, +-B and infinity. The usual 1 and 2 have twice the rounding error.
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
            asm("" : "+v"(kept));  // in a register: GCC would load it anew for every tile
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
    int64_t step;   // 2: outputs are those of the four sub-pixels of a y that is twice as large along both axes
    int64_t pitch;  // floats from pixel to pixel of y
    bool after;  // the residual is added after the activation

    // Tiles [first, first + count), count at most `room`, a multiple of TILES; of the outputs the panels [begin, end).
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

// --- What a block sees: both frames warped by the flow so far, at the block's own size and nowhere else ---

typedef Vector<4>::type V4;
typedef Vector<8>::type V8;
typedef int32_t I __attribute__((vector_size(N * sizeof(int32_t))));

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

// sharp.py, nearer
inline V nearer(V flow, V share) {
    const V fraction = flow - rounded(flow);
    return flow + share * fraction * (4 * fraction * fraction - 1);
}

// Of a row of floats, in place
inline void sigmoids(float* values, int64_t count) {
    int64_t done = 0;
    for (; done + N <= count; done += N) store<V>(values + done, sigmoid(load<V>(values + done)));
    if (done == count) return;
    float rest[N] = {};
    std::copy_n(values + done, count - done, rest);
    store<V>(rest, sigmoid(load<V>(rest)));
    std::copy_n(rest, count - done, values + done);
}

// Where a row or column of the frame lies in a map `factor` times smaller (bilinear, align_corners=False).
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

// What one block said: (batch,height,width,channels), 4 of flow, then the mask's logit, then features.
struct Change {
    const float* data;
    int64_t channels, factor;  // how many times larger the frame is
    float gain;                // its flow in pixels of the frame is gain * flow
    int64_t packed;            // 2, 4: (batch,height/packed,width/packed,packed,packed,channels), to be shuffled; else 1
    int64_t height, width;

    // The first channel of row y; that of column x is `column(x)` floats on.
    const float* start(int64_t b, int64_t y) const {
        const int64_t line = width * packed * channels;  // of all sub-pixels
        return data + (b * height + y) / packed * line + y % packed * packed * channels;
    }

    int64_t column(int64_t x) const {
        const int64_t bits = packed / 2;  // of a place among sub-pixels
        return ((x >> bits << 2 * bits) + (x & (packed - 1))) * channels;
    }

    // One row of channels [from, from + count), between the rows of `place`: out (width,count)
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
    const float *side0, *side1;  // (batch,height,width,stride): colour, features, what makes it a whole vector
    int64_t batch, height, width, stride;
    const Change* changes;
    int64_t count;
    std::vector<std::vector<Place>> columns;  // of each change, for each column of the frame

    Estimate(const float* side0, const float* side1, const int64_t* size, const Change* changes, int64_t count)
        : side0(side0), side1(side1), batch(size[0]), height(size[1]), width(size[2]), stride(size[3]),
          changes(changes), count(count), columns(count) {
        for (int64_t i = 0; i < count; i++)
            for (int64_t x = 0; x < width; x++)
                columns[i].push_back(Place(x, changes[i].factor, changes[i].width));
    }

    // The flow along row y of the frame, (width,4); `row` has room for width * 4 floats
    void flow_row(int64_t b, int64_t y, float* flow, float* row) const {
        std::fill(flow, flow + 4 * width, 0.0f);
        for (int64_t i = 0; i < count; i++) {
            changes[i].row(b, Place(y, changes[i].factor, changes[i].height), 0, 4, changes[i].gain, row);
            const Place* places = columns[i].data();
            for (int64_t x = 0; x < width; x++) {
                const V4 v = load<V4>(row + 4 * places[x].first), next = load<V4>(row + 4 * places[x].second);
                store<V4>(flow + 4 * x, load<V4>(flow + 4 * x) + (v + places[x].weight * (next - v)));
            }
        }
    }

    // Floats that a row of (width,4) takes, with what the last vector reaches beyond it
    int64_t fours() const { return 4 * width + 16; }

    // use(i, v): where shifts (width,4) px, x and y on either side, lead along their axes from row y, a vector from the
    // i-th on; at most so far beyond the border. No shifts: the pixels themselves. Rounded as linspace and grid_sample
    // round, to which -1 and 1 are the first and the last pixel: by 1e-4 px beyond the 1024th, more than all else.
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
            v = v > least ? v : least;  // not a number: there
            use(i, v < most ? v : most);
        }
    }

    // Row y sampled bilinearly: the first of two pixels along each axis, and how much of the second, (width,4) each
    void bilinears(const float* shifts, int64_t y, int32_t* first, float* share) const {
        I most;  // the second is inside too
        for (int64_t i = 0; i < N; i++) most[i] = std::max<int64_t>((i % 2 ? height : width) - 2, 0);
        follow(shifts, y, 0, [=](int64_t i, V v) {
            const I whole = __builtin_convertvector(v, I), at = whole < most ? whole : most;
            __builtin_memcpy(first + i, &at, sizeof at);
            store<V>(share + i, v - __builtin_convertvector(at, V));
        });
    }

    // out[0..n) += weight * the side at a place that `bilinears` found
    template <class T, int64_t n>
    void add(const float* side, int64_t b, const int32_t* first, const float* share, float weight, T* out) const {
        const int64_t right = width > 1 ? stride : 0, down = height > 1 ? width * stride : 0;
        const float* p = side + ((b * height + first[1]) * width + first[0]) * stride;
        const float w11 = share[0] * share[1] * weight, w10 = share[1] * weight - w11, w01 = share[0] * weight - w11;
        const float w00 = weight - w01 - w10 - w11;
        for (int64_t c = 0; c < n; c++, p += sizeof(T) / sizeof(float))
            out[c] += w00 * load<T>(p) + w01 * load<T>(p + right) + w10 * load<T>(p + down) + w11 * load<T>(p + right + down);
    }

    // Row y sampled by cubics (Keys, 1981, a = -0.75): the first of four pixels along each axis, from -3 to its size, and
    // the weights of the four, a row of (width,4) each. first may be shifts.
    void cubics(const float* shifts, int64_t y, float* first, float* weights) const {
        constexpr float a = -0.75f;
        follow(shifts, y, 2, [=](int64_t i, V v) {  // farther out all four are the border
            const V near = rounded(v), whole = near > v ? near - 1 : near, f = v - whole;
            const V of_four[4] = {f * (a + f * (-2 * a + f * a)), 1 + f * f * (-a - 3 + f * (a + 2)),
                                  f * (-a + f * (2 * a + 3 + f * (-a - 2))), f * f * (a - f * a)};
            store<V>(first + i, whole - 1);
            for (int64_t k = 0; k < 4; k++) store<V>(weights + k * fours() + i, of_four[k]);
        });
    }

    // The colours of a place that `cubics` found, the border repeated; weights: of its first pixel across, and down
    V4 cubic(const float* side, int64_t b, int64_t left, int64_t top, const float* across, const float* down) const {
        V4 total = {};
        if (left >= 0 && left + 3 < width && top >= 0 && top + 3 < height) {
            const float* line = side + ((b * height + top) * width + left) * stride;
            for (int64_t j = 0; j < 4; j++, line += width * stride) {
                V4 row = {};
                for (int64_t i = 0; i < 4; i++) row += across[i * fours()] * load<V4>(line + i * stride);
                total += down[j * fours()] * row;
            }
            return total;
        }
        for (int64_t j = 0; j < 4; j++) {
            const float* line = side + (b * height + std::clamp<int64_t>(top + j, 0, height - 1)) * width * stride;
            V4 row = {};
            for (int64_t i = 0; i < 4; i++)
                row += across[i * fours()] * load<V4>(line + std::clamp<int64_t>(left + i, 0, width - 1) * stride);
            total += down[j * fours()] * row;
        }
        return total;
    }
};

struct Inputs : Estimate {
    int64_t colours;  // channels of a side that count: colour and features
    int64_t factor;   // the frame is this many times larger than the block's input
    bool again;       // the frames themselves follow
    float time;       // negative: none
    int64_t rest;     // mask and features that the last change (or, with `sum`, all changes) brings
    bool sum;
    int64_t outputs;

    // Values that count, and where there is room, quicker, what makes them whole vectors
    template <class T, int64_t n>
    static float* put(float* out, const T (&values)[n], int64_t count, bool room) {
        if (room)
            for (int64_t i = 0; i < n; i++) store<T>(out + i * sizeof(T) / sizeof(float), values[i]);
        else
            std::copy_n(reinterpret_cast<const float*>(values), count, out);
        return out + count;
    }

    // Row y of the block's input, (width/factor, outputs); a side's pixel is `vectors` of T
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
                    add<T, vectors>(side0, b, firsts + at, shares + at, weight, warped0);
                    add<T, vectors>(side1, b, firsts + at + 2, shares + at + 2, weight, warped1);
                    if (again) {
                        frame0[0] += weight * load<V4>(side0 + ((b * height + py) * width + px) * stride);
                        frame1[0] += weight * load<V4>(side1 + ((b * height + py) * width + px) * stride);
                    }
                }
            float* p = out + x * outputs;
            const bool room = x + 1 < wide;  // for up to a pixel more, which what follows overwrites
            p = put(put(p, warped0, colours, room), warped1, colours, room);
            if (again) p = put(put(p, frame0, 3, room), frame1, 3, room);
            if (time >= 0) *p = time;
            if (count) store<V4>(out + (x + 1) * outputs - 4, total * (weight / factor));
        }
        for (int64_t i = std::max<int64_t>(first, 0); i < count; i++) {
            const Change& change = changes[i];
            const int64_t ratio = change.factor / factor;  // down to this size from the frame's: the same as straight up
            change.row(b, Place(y, ratio, change.height), 4, rest, 1, brought);
            for (int64_t x = 0; x < wide; x++) {
                const Place place(x, ratio, change.width);
                const float *left = brought + place.first * rest, *right = brought + place.second * rest;
                float* p = out + (x + 1) * outputs - 4 - rest;
                if (i == first)
                    mix(left, right, place.weight, 1, rest, p);
                else
                    for (int64_t c = 0; c < rest; c++) p[c] += left[c] + place.weight * (right[c] - left[c]);
            }
        }
    }
};

// --- Warping of planes, (batch,channels,height,width), and its gradients, for training: four channels at a time ---

// Where the pixels of one row of a warped image come from: the upper left one of each four, and how far beyond it.
struct Sources {
    std::vector<int32_t> at;              // pixels from the first
    std::vector<float> right, down;       // in 0..1, weights of the right and the lower neighbours
    std::vector<float> moves_x, moves_y;  // 1; 0 where the border is repeated: the flow does not matter there

    explicit Sources(int64_t width) : at(width), right(width), down(width), moves_x(width), moves_y(width) {}

    // Row y of flow planes (2,height,width) of images of that size, both at least 2
    void find(const float* flow, int64_t y, int64_t height, int64_t width) {
        const float *fx = flow + y * width, *fy = fx + height * width;
        const float last_x = width - 1, last_y = height - 1;
        const int32_t line = width;
        for (int32_t x = 0; x < line; x++) {
            const float whole_x = std::floor(fx[x]), whole_y = std::floor(fy[x]);
            const float left = x + whole_x, top = y + whole_y;  // the fraction by itself: exact at any width
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

// Four of the planes of one image, from `first` on; where there are fewer, zeros.
struct Four {
    const float* planes[4];
    int64_t there;

    Four(const float* image, int64_t first, int64_t channels, int64_t area, const float* zeros) {
        there = std::min<int64_t>(4, channels - first);
        for (int64_t c = 0; c < 4; c++) planes[c] = c < there ? image + (first + c) * area : zeros;
    }

    // Pixels [from, from + count) as (count,4)
    void pack(int64_t from, int64_t count, float* out) const {
        const float *a = planes[0] + from, *b = planes[1] + from, *c = planes[2] + from, *d = planes[3] + from;
        for (int64_t x = 0; x < count; x++) store<V4>(out + 4 * x, V4{a[x], b[x], c[x], d[x]});
    }

    // The opposite, into planes (4,area) or as many as are there
    void unpack(const float* in, int64_t count, int64_t area, float* out) const {
        for (int64_t c = 0; c < there; c++)
            for (int64_t x = 0; x < count; x++) out[c * area + x] = in[4 * x + c];
    }
};

}  // namespace

extern "C" {

// How many floats a vector has: the panels of `u` are as wide.
int64_t vector_width() { return N; }

// y = act(conv3x3(x) + bias [+ residual]) [+ residual]; act(v) = v > 0 ? v : slope * v; a slope per channel.
// x (batch,height,width,inputs), y (..,outputs; `pitch` floats from pixel to pixel), residual (..,outputs), both counts
// from N to 4096; u: transformed weights (36,panels,inputs,N). step 2: the outputs are (2,2,C), C a multiple of N, and y
// is (batch,2*height,2*width,C); without a residual.
void winograd(const float* x, const float* u, const float* bias, const float* slope, const float* residual, float* y,
              int64_t batch, int64_t height, int64_t width, int64_t inputs, int64_t outputs, int64_t step,
              int64_t pitch, int64_t after, int64_t threads) {
    const Convolution work{x,     u,      bias,    slope, residual, y,         batch, height,
                           width, inputs, outputs, step,  pitch,    after != 0};
    const int64_t tiles = batch * pieces(height, 4) * pieces(width, 4), panels = pieces(outputs, N);
    const int64_t cache = 180000 / (36 * (inputs + outputs)) / TILES * TILES;  // floats: most of a core's 1 MB
    const int64_t most = std::clamp<int64_t>(cache, 16, 48);
    // of few tiles each thread takes all, and some of the outputs
    const bool few = 2 * tiles <= TILES * threads && outputs % N == 0;
    const int64_t parts = few ? std::min(threads, panels) : 1;
    const int64_t runs = few ? pieces(tiles, most) : pieces(tiles, most * threads) * threads;  // as many for each thread
    const int64_t room = pieces(pieces(tiles, runs), TILES) * TILES, each = pieces(panels, parts);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads)
    for (int64_t begin = 0; begin < panels; begin += each)
        for (int64_t first = 0; first < tiles; first += room)
            work.tiles(first, std::min(room, tiles - first), room, begin, std::min(begin + each, panels));
}

// Rows [from, to) of what a block sees, (batch,to-from,width/factor,outputs); rows outside are zeros.
// size: batch, height, width, stride of the sides; shape: colours, factor, again, rest, sum, outputs.
void block_inputs(float* out, const float* side0, const float* side1, const int64_t* size, const Change* changes,
                  int64_t count, const int64_t* shape, float time, int64_t from, int64_t to, int64_t threads) {
    const Inputs inputs{{side0, side1, size, changes, count}, shape[0], shape[1], shape[2] != 0, time, shape[3],
                        shape[4] != 0, shape[5]};
    const int64_t line = inputs.width / inputs.factor * inputs.outputs, high = inputs.height / inputs.factor;
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

// The whole estimate at the frame's size, planes: image (batch,3,H,W), flow (batch,4,H,W), mask (batch,1,H,W) in 0..1.
// sharp: the last change brings after its mask how far each side is sampled by cubics, then how far nearer to pixels.
void finish(float* image, float* flow, float* mask, const float* side0, const float* side1,
            const int64_t* size, const Change* changes, int64_t count, int64_t sum, int64_t sharp, int64_t threads) {
    const Estimate all(side0, side1, size, changes, count);
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
            const Change& change = changes[k];
            change.row(b, Place(y, change.factor, change.height), 4, 1, 1, brought);
            for (int64_t x = 0; x < all.width; x++) {
                const Place& place = all.columns[k][x];
                const float v = brought[place.first] + place.weight * (brought[place.second] - brought[place.first]);
                m[x] = k == (sum ? 0 : count - 1) ? v : m[x] + v;
            }
        }
        sigmoids(m, all.width);
        const Change& last = changes[count - 1];
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
            all.add<V4, 1>(side0, b, firsts + 4 * x, shares + 4 * x, 1, &warped0);
            all.add<V4, 1>(side1, b, firsts + 4 * x + 2, shares + 4 * x + 2, 1, &warped1);
            if (sharp) {
                warped0 += 2 * g[0] * (all.cubic(side0, b, at[0], at[1], w, w + 1) - warped0);
                warped1 += 2 * g[1] * (all.cubic(side1, b, at[2], at[3], w + 2, w + 3) - warped1);
            }
            const V4 blended = warped1 + m[x] * (warped0 - warped1);
            for (int64_t c = 0; c < 3; c++) colour[c * plane + x] = blended[c];
            for (int64_t c = 0; c < 4; c++) moved[c * plane + x] = f[c];
        }
    }
}

// sharp.py, smoothed: out = image, planes (batch,3,H,W), by the last four channels of the last change
void smooth(float* out, const float* image, const int64_t* size, const Change* changes, int64_t count,
            int64_t threads) {
    const Change& last = changes[count - 1];
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

// out (batch,height,width,stride) = image (batch,height,width,3), then features, then zeros. Features of C channels are
// packed: (batch,height/2,width/2,2,2,C).
void make_side(float* out, const float* image, const float* features, const int64_t* size, int64_t channels,
               int64_t threads) {
    const int64_t batch = size[0], height = size[1], width = size[2], stride = size[3];
    const Change packed{features, channels, 1, 1, 2, height, width};
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
                const float v = from[x] > 0 ? from[x] : 0;  // not a number: 0
                to[x * channels] = static_cast<uint8_t>(std::nearbyint((v < 1 ? v : 1) * 255));
            }
        }
}

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

// The gradients of warp_planes from that of its output: of the flow, and of the planes unless that is null.
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
