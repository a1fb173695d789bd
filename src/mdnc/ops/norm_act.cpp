// Norm and activation over planes on a CPU; norm_act.py holds the same in torch and the maths.
//
// Built at run time by norm_act_cpp.py. Tensors are (N, C, L) in one of two layouts: planes, where the L values of a plane
// lie side by side, and channels last, where the C channels of a position do. Moments and sums are taken of each
// plane, over chunks of a fixed length, and joined in their order, first within a plane and then over the planes that
// share their moments: results depend neither on the number of threads nor on the run. Of an instance norm in planes all
// is done while the plane is in the cache.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace {

// Numbers to the compiler, which vectorises neither loops that write structures nor, without AVX512-FP16, _Float16.
enum class bfloat16 : uint16_t {};
enum class float16 : uint16_t {};

inline uint32_t bits_of(float value) { return __builtin_bit_cast(uint32_t, value); }
inline float of_bits(uint32_t bits) { return __builtin_bit_cast(float, bits); }

// Given to the compiler: types of x, of the activation, and of statistics and sums.
using X = MDNC_X;
using Z = MDNC_Z;
using W = MDNC_W;

template <typename T> inline W wide(T value) { return W(value); }
template <> inline W wide(bfloat16 value) { return W(of_bits(uint32_t(value) << 16)); }
template <> inline W wide(float16 value) {
    uint32_t bits = uint32_t(value);
    float size = of_bits((bits & 0x7fff) << 13) * of_bits(239 << 23);  // the exponent's bias is 15, not 127
    return W(of_bits(bits_of(size) | (-uint32_t(size >= 65536) & 0x7f800000) | (bits & 0x8000) << 16));
}

// To the nearest, of two the even one.
template <typename T> inline T narrow(W value) { return T(value); }
template <> inline bfloat16 narrow(W value) {
    uint32_t bits = bits_of(float(value)), rounded = bits + 0x7fff + ((bits >> 16) & 1);
    return bfloat16(uint16_t((value == value ? rounded : 0x7fc00000) >> 16));
}
template <> inline float16 narrow(W value) {
    uint32_t bits = bits_of(float(value)), size = bits & 0x7fffffff;
    uint32_t normal = (size - (112 << 23) + 0xfff + ((size >> 13) & 1)) >> 13;
    uint32_t small = bits_of(of_bits(size) + 0.5f) - bits_of(0.5f);  // the sum rounds to multiples of 2^-24
    uint32_t tiny = -uint32_t(size < (113 << 23)), nan = -uint32_t(size > 0x7f800000);
    uint32_t found = (tiny & small) | (~tiny & std::min<uint32_t>(normal, 0x7c00)) | (nan & 0x7e00);
    return float16(uint16_t(found | (bits >> 16 & 0x8000)));
}
template <typename T> inline W rounded(W value) { return wide(narrow<T>(value)); }

enum Activator { NONE, RELU, PRELU, ELU, GELU, SILU };  // a leaky ReLU is a PReLU without slopes of its own
enum Norm { INSTANCE, GROUP, BATCH, FIXED };

constexpr int64_t PLANE_CHUNK = 4096;    // values of a plane summed at once, forward
constexpr int64_t SUM_CHUNK = 512;       // and backward
constexpr int64_t POSITIONS_CHUNK = 16384;    // values of a sample, channels last: 64 KiB of floats stay in the L2 cache
constexpr int64_t CHANNELS_CHUNK = 256;  // channels whose sums and constants stay in the L1 cache
constexpr int64_t WORTH_A_THREAD = 16384;

// What is done, to which tensors. Null pointers: no such parameter.
struct Work {
    const X* x;
    const Z* g;         // gradient of the activation
    Z* z;
    X* gx;              // may overwrite g
    W *mean, *rate;     // (N, C); (C) of the norms that share their moments over samples
    const W *scale, *shift, *slope;       // (C)
    W *gscale, *gshift, *gslope;          // (C)
    W *running_mean, *running_variance;   // (C)
    int64_t n, c, length, groups;
    double eps, alpha, momentum;
    Norm norm;
    int threads;

    int64_t planes() const { return n * c; }
    bool shared() const { return norm == BATCH || norm == FIXED; }
    int64_t moments_of(int64_t plane) const { return shared() ? plane % c : plane; }

    int team() const { return n * c * length < 2 * WORTH_A_THREAD ? 1 : threads; }
    W scale_of(int64_t channel) const { return scale ? scale[channel] : W(1); }
    W shift_of(int64_t channel) const { return shift ? shift[channel] : W(0); }
    W slope_of(int64_t channel) const { return slope ? slope[channel] : W(alpha); }
};

// h, rounded as the tensors of norm_act.py are.
inline W hidden(W x, W mean, W rate, W shift) {
    W h = rounded<X>((x - mean) * rate + shift);
    return std::is_same<X, Z>::value ? h : rounded<Z>(h);
}

// e^x = power · (1 + rest), where power is one of 2; after Cephes, in steps that the compiler takes for many values at
// once.
struct Exponential {
    float power, rest;

    explicit Exponential(float x) {
        x = std::min(std::max(x, -87.0f), 88.0f);
        float n = std::floor(x * 1.44269504f + 0.5f);
        float r = x - n * 0.693359375f + n * 2.12194440e-4f;
        float y = 1.9875691500e-4f;
        y = y * r + 1.3981999507e-3f;
        y = y * r + 8.3334519073e-3f;
        y = y * r + 4.1665795894e-2f;
        y = y * r + 1.6666665459e-1f;
        y = y * r + 5.0000001201e-1f;
        rest = y * r * r + r;
        power = __builtin_bit_cast(float, (int32_t(n) + 127) << 23);
    }
};

inline float exponential(float x) {
    Exponential e(x);
    return e.power * e.rest + e.power;
}
inline float exponential_less_one(float x) {
    Exponential e(x);
    return e.power * e.rest + (e.power - 1.0f);
}
// The normal distribution below x: ½ erfc(z) = ½ t P(t) e^(-z²) with z = |x| / √2 and t = 1 / (1 + 0.4 z), as Abramowitz and
// Stegun, 7.1.26, with P fitted to 7e-8 of the value.
inline float below(float x, float bell) {
    float t = 1.0f / (1.0f + 0.28284271f * std::abs(x)), p = 0.0419418035f;
    p = p * t - 0.14358913f;
    p = p * t + 0.090559443f;
    p = p * t + 0.0806835715f;
    p = p * t + 0.0846027014f;
    p = p * t + 0.191415135f;
    p = p * t + 0.202369641f;
    p = p * t + 0.226379133f;
    p = p * t + 0.225637768f;
    float tail = 0.5f * t * p * bell;
    return x > 0 ? 1.0f - tail : tail;
}
inline double exponential(double x) { return std::exp(x); }
inline double exponential_less_one(double x) { return std::expm1(x); }
inline double below(double x, double) { return 0.5 * std::erfc(-x * 0.70710678118654752); }
inline W bell(W x) { return exponential(W(-0.5) * x * x); }  // of which GELU and its slope are made

template <Activator A> inline W active(W h, W slope) {
    if (A == PRELU) return h > 0 ? h : slope * h;
    if (A == ELU) return h > 0 ? h : slope * exponential_less_one(h);
    if (A == GELU) return h * below(h, bell(h));
    if (A == SILU) return h * (W(1) / (W(1) + exponential(-h)));  // quicker than a division of h
    if (A == RELU) return h > 0 ? h : (h == h ? W(0) : h);  // NaN stays NaN
    return h;
}

template <Activator A> inline W passed(W g, W h, W slope) {
    if (A == PRELU) return h > 0 ? g : slope * g;
    if (A == RELU) return h > 0 ? g : W(0);
    if (A == ELU) return h > 0 ? g : g * slope * exponential(h);
    if (A == GELU) {
        W height = bell(h);
        return g * (below(h, height) + h * height * W(0.3989422804014327));
    }
    if (A == SILU) {
        W s = W(1) / (W(1) + exponential(-h));
        return g * s * (W(1) + h * (W(1) - s));
    }
    return g;
}

// Mean and summed squared deviations of a part of a plane, and of the whole from its parts (Chan, Golub, LeVeque 1983).
struct Parts {
    double mean, squares;
    int64_t count;

    void join(Parts next) {
        double off = next.mean - mean, share = double(next.count) / double(count + next.count);
        mean += off * share;
        squares += next.squares + off * off * share * double(count);
        count += next.count;
    }
    W rate(double eps) const { return W(1 / std::sqrt(squares / double(count) + eps)); }
};

// The moments of the planes, joined over those that share them; what a batch norm remembers is brought up to date.
void join_planes(const Work& to, const std::vector<Parts>& planes) {
    auto keep = [&to](int64_t slot, const Parts& all) {
        to.mean[slot] = W(all.mean);
        to.rate[slot] = all.rate(to.eps);
    };
    if (to.norm == INSTANCE) {
        for (int64_t plane = 0; plane < to.planes(); ++plane) keep(plane, planes[plane]);
    } else if (to.norm == GROUP) {
        int64_t each = to.c / to.groups;
        for (int64_t first = 0; first < to.planes(); first += each) {
            Parts all = {0, 0, 0};
            for (int64_t plane = first; plane < first + each; ++plane) all.join(planes[plane]);
            for (int64_t plane = first; plane < first + each; ++plane) keep(plane, all);
        }
    } else {
        for (int64_t channel = 0; channel < to.c; ++channel) {
            Parts all = {0, 0, 0};
            for (int64_t sample = 0; sample < to.n; ++sample) all.join(planes[sample * to.c + channel]);
            keep(channel, all);
            if (!to.running_mean) continue;
            W &mean = to.running_mean[channel], &variance = to.running_variance[channel];
            mean = W(to.momentum * all.mean + (1 - to.momentum) * mean);
            variance = W(to.momentum * all.squares / double(all.count - 1) + (1 - to.momentum) * variance);
        }
    }
}

// ---- Planes: the values of a plane side by side ----

Parts plane_part(const X* x, int64_t count) {
    W sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += wide(x[i]);
    W mean = sum / W(count);
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < count; ++i) {
        W off = wide(x[i]) - mean;
        squares += off * off;
    }
    return {mean, squares, count};
}

Parts plane_moments(const Work& to, int64_t plane) {
    const X* x = to.x + plane * to.length;
    Parts all = {0, 0, 0};
    for (int64_t start = 0; start < to.length; start += PLANE_CHUNK)
        all.join(plane_part(x + start, std::min(PLANE_CHUNK, to.length - start)));
    return all;
}

template <Activator A> void planes_apply(const Work& to, int64_t plane) {
    int64_t channel = plane % to.c;
    const X* x = to.x + plane * to.length;
    Z* z = to.z + plane * to.length;
    int64_t slot = to.moments_of(plane);
    W mean = to.mean[slot], rate = to.rate[slot] * to.scale_of(channel);
    W shift = to.shift_of(channel), slope = to.slope_of(channel);
#pragma omp simd
    for (int64_t i = 0; i < to.length; ++i) z[i] = narrow<Z>(active<A>(hidden(wide(x[i]), mean, rate, shift), slope));
}

template <Activator A> void planes_forward(const Work& to, bool known) {
    bool alone = to.norm == INSTANCE;
    if (!known && !alone) {
        std::vector<Parts> planes(to.planes());
#pragma omp parallel for num_threads(to.team()) schedule(static)
        for (int64_t plane = 0; plane < to.planes(); ++plane) planes[plane] = plane_moments(to, plane);
        join_planes(to, planes);
    }
#pragma omp parallel for num_threads(to.team()) schedule(static)
    for (int64_t plane = 0; plane < to.planes(); ++plane) {
        if (!known && alone) {
            Parts all = plane_moments(to, plane);
            to.mean[plane] = W(all.mean);
            to.rate[plane] = all.rate(to.eps);
        }
        planes_apply<A>(to, plane);
    }
}

// Sums over a plane: of the gradient behind the activation, of its product with x - mean, and for the slope.
struct Sums {
    W plain, moment, slope;
};

// What the gradient of a plane is less by: a constant, and a multiple of the normalised values.
struct Share {
    W level, tilt;
};

Share plane_share(const Work& to, int64_t plane, Sums sums) {
    W rate = to.rate[plane] * to.scale_of(plane % to.c);
    return {rate * sums.plain / W(to.length), rate * (sums.moment * to.rate[plane]) / W(to.length)};
}

// Of all planes: their own where they have moments of their own, else that of all that share them.
std::vector<Share> shares(const Work& to, const std::vector<Sums>& sums) {
    std::vector<Share> found(to.planes(), Share{0, 0});
    if (to.norm == INSTANCE)
        for (int64_t plane = 0; plane < to.planes(); ++plane) found[plane] = plane_share(to, plane, sums[plane]);
    if (to.norm == INSTANCE || to.norm == FIXED) return found;
    // Planes first, first + step, ... share their moments.
    auto spread = [&](int64_t first, int64_t count, int64_t step) {
        double level = 0, tilt = 0;
        W rate = to.rate[to.moments_of(first)];
        for (int64_t at = 0, plane = first; at < count; ++at, plane += step) {
            level += double(to.scale_of(plane % to.c)) * sums[plane].plain;
            tilt += double(to.scale_of(plane % to.c)) * (sums[plane].moment * rate);
        }
        double values = double(count) * double(to.length);
        Share all = {W(rate * (level / values)), W(rate * (tilt / values))};
        for (int64_t at = 0, plane = first; at < count; ++at, plane += step) found[plane] = all;
    };
    int64_t each = to.norm == GROUP ? to.c / to.groups : 1;
    if (to.norm == GROUP)
        for (int64_t first = 0; first < to.planes(); first += each) spread(first, each, 1);
    else
        for (int64_t channel = 0; channel < to.c; ++channel) spread(channel, to.n, to.c);
    return found;
}

template <Activator A> Sums plane_sums(const Work& to, int64_t plane) {
    int64_t channel = plane % to.c;
    const X* x = to.x + plane * to.length;
    const Z* g = to.g + plane * to.length;
    int64_t slot = to.moments_of(plane);
    W mean = to.mean[slot], rate = to.rate[slot] * to.scale_of(channel);
    W shift = to.shift_of(channel), slope = to.slope_of(channel);
    Sums all = {0, 0, 0};
    // Values first, sums of them next: of a loop that rounds to bfloat16 and sums, GCC 12 makes wrong code.
    W off[SUM_CHUNK], below[SUM_CHUNK], low[SUM_CHUNK];
    for (int64_t start = 0; start < to.length; start += SUM_CHUNK) {
        int64_t count = std::min(SUM_CHUNK, to.length - start);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {
            W here = wide(x[start + i]), up = wide(g[start + i]), h = hidden(here, mean, rate, shift);
            off[i] = here - mean;
            below[i] = passed<A>(up, h, slope);
            low[i] = up * std::min(h, W(0));
        }
        W s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s1, s2, s3)
        for (int64_t i = 0; i < count; ++i) {
            s1 += below[i];
            s2 += below[i] * off[i];
            s3 += low[i];
        }
        all = {all.plain + s1, all.moment + s2, all.slope + s3};
    }
    return all;
}

template <Activator A> void plane_gradient(const Work& to, int64_t plane, Share share) {
    int64_t channel = plane % to.c;
    const X* x = to.x + plane * to.length;
    const Z* g = to.g + plane * to.length;
    X* gx = to.gx + plane * to.length;
    int64_t slot = to.moments_of(plane);
    W mean = to.mean[slot], rate = to.rate[slot] * to.scale_of(channel);
    W shift = to.shift_of(channel), slope = to.slope_of(channel);
    W own = to.rate[slot];
#pragma omp simd
    for (int64_t i = 0; i < to.length; ++i) {
        W here = wide(x[i]), h = hidden(here, mean, rate, shift);
        gx[i] = narrow<X>(rate * passed<A>(wide(g[i]), h, slope) - share.level - share.tilt * ((here - mean) * own));
    }
}

// Gradients of the parameters from the sums of all planes, (N, C).
void parameter_gradients(const Work& to, const std::vector<Sums>& sums) {
    for (int64_t channel = 0; channel < to.c; ++channel) {
        W scale = 0, shift = 0, slope = 0;
        for (int64_t sample = 0; sample < to.n; ++sample) {
            int64_t plane = sample * to.c + channel;
            scale += sums[plane].moment * to.rate[to.moments_of(plane)];
            shift += sums[plane].plain;
            slope += sums[plane].slope;
        }
        to.gscale[channel] = scale;
        to.gshift[channel] = shift;
        to.gslope[channel] = slope;
    }
}

template <Activator A> void planes_backward(const Work& to) {
    std::vector<Sums> sums(to.planes());
    bool alone = to.norm == INSTANCE;
#pragma omp parallel for num_threads(to.team()) schedule(static)
    for (int64_t plane = 0; plane < to.planes(); ++plane) {
        sums[plane] = plane_sums<A>(to, plane);
        if (alone) plane_gradient<A>(to, plane, plane_share(to, plane, sums[plane]));
    }
    if (!alone) {
        std::vector<Share> found = shares(to, sums);
#pragma omp parallel for num_threads(to.team()) schedule(static)
        for (int64_t plane = 0; plane < to.planes(); ++plane) plane_gradient<A>(to, plane, found[plane]);
    }
    parameter_gradients(to, sums);
}

// ---- Channels last: the channels of a position side by side ----

// A stretch of positions and of channels of one sample.
struct Tile {
    int64_t sample, part, start, end, first, last;
};

struct Tiling {
    int64_t positions, parts, blocks;
    const Work& to;

    explicit Tiling(const Work& work) : to(work) {
        positions = std::max<int64_t>(4, POSITIONS_CHUNK / std::min(work.c, CHANNELS_CHUNK));
        parts = (work.length + positions - 1) / positions;
        blocks = (work.c + CHANNELS_CHUNK - 1) / CHANNELS_CHUNK;
    }
    int64_t count() const { return to.n * parts * blocks; }
    Tile operator[](int64_t index) const {
        int64_t block = index % blocks, part = index / blocks % parts, sample = index / blocks / parts;
        int64_t start = part * positions, first = block * CHANNELS_CHUNK;
        return {sample, part, start, std::min(start + positions, to.length), first, std::min(first + CHANNELS_CHUNK, to.c)};
    }
    int64_t slot(const Tile& tile) const { return (tile.sample * parts + tile.part) * to.c + tile.first; }
};

// The constants of a tile's channels.
struct Channels {
    W mean[CHANNELS_CHUNK], rate[CHANNELS_CHUNK], shift[CHANNELS_CHUNK], slope[CHANNELS_CHUNK];

    Channels(const Work& to, const Tile& tile) {
        for (int64_t c = tile.first; c < tile.last; ++c) {
            int64_t slot = to.moments_of(tile.sample * to.c + c), i = c - tile.first;
            mean[i] = to.mean[slot];
            rate[i] = to.rate[slot] * to.scale_of(c);
            shift[i] = to.shift_of(c);
            slope[i] = to.slope_of(c);
        }
    }
};

int64_t offset(const Work& to, const Tile& tile, int64_t row) {
    return (tile.sample * to.length + row) * to.c + tile.first;
}

void channels_last_part(const Work& to, const Tile& tile, W* mean, W* squares) {
    int64_t width = tile.last - tile.first, count = tile.end - tile.start;
    W sum[CHANNELS_CHUNK] = {}, square[CHANNELS_CHUNK] = {};
    int64_t row = tile.start;
    for (; row + 4 <= tile.end; row += 4) {  // four positions for each visit to the sums
        const X *a = to.x + offset(to, tile, row), *b = a + to.c, *c = b + to.c, *d = c + to.c;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) sum[i] += (wide(a[i]) + wide(b[i])) + (wide(c[i]) + wide(d[i]));
    }
    for (; row < tile.end; ++row) {
        const X* a = to.x + offset(to, tile, row);
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) sum[i] += wide(a[i]);
    }
    for (int64_t i = 0; i < width; ++i) sum[i] /= W(count);
    for (row = tile.start; row + 4 <= tile.end; row += 4) {
        const X *a = to.x + offset(to, tile, row), *b = a + to.c, *c = b + to.c, *d = c + to.c;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
            W p = wide(a[i]) - sum[i], q = wide(b[i]) - sum[i], r = wide(c[i]) - sum[i], s = wide(d[i]) - sum[i];
            square[i] += (p * p + q * q) + (r * r + s * s);
        }
    }
    for (; row < tile.end; ++row) {
        const X* a = to.x + offset(to, tile, row);
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
            W p = wide(a[i]) - sum[i];
            square[i] += p * p;
        }
    }
    std::copy(sum, sum + width, mean);
    std::copy(square, square + width, squares);
}

void channels_last_moments(const Work& to) {
    Tiling tiles(to);
    std::vector<W> mean(to.n * tiles.parts * to.c), squares(mean.size());
    std::vector<Parts> planes(to.planes());
#pragma omp parallel for num_threads(to.team()) schedule(static)
    for (int64_t index = 0; index < tiles.count(); ++index) {
        Tile tile = tiles[index];
        channels_last_part(to, tile, &mean[tiles.slot(tile)], &squares[tiles.slot(tile)]);
    }
#pragma omp parallel for num_threads(to.team()) schedule(static)
    for (int64_t sample = 0; sample < to.n; ++sample) {
        for (int64_t channel = 0; channel < to.c; ++channel) {
            Parts all = {0, 0, 0};
            for (int64_t part = 0; part < tiles.parts; ++part) {
                int64_t slot = (sample * tiles.parts + part) * to.c + channel;
                all.join({mean[slot], squares[slot], std::min(tiles.positions, to.length - part * tiles.positions)});
            }
            planes[sample * to.c + channel] = all;
        }
    }
    join_planes(to, planes);
}

template <Activator A> void channels_last_forward(const Work& to, bool known) {
    if (!known) channels_last_moments(to);
    Tiling tiles(to);
#pragma omp parallel for num_threads(to.team()) schedule(static)
    for (int64_t index = 0; index < tiles.count(); ++index) {
        Tile tile = tiles[index];
        Channels at(to, tile);
        int64_t width = tile.last - tile.first;
        for (int64_t row = tile.start; row < tile.end; ++row) {
            int64_t here = offset(to, tile, row);
            const X* x = to.x + here;
            Z* z = to.z + here;
#pragma omp simd
            for (int64_t i = 0; i < width; ++i) {
                W h = hidden(wide(x[i]), at.mean[i], at.rate[i], at.shift[i]);
                z[i] = narrow<Z>(active<A>(h, at.slope[i]));
            }
        }
    }
}

template <Activator A> void channels_last_sums(const Work& to, const Tile& tile, Sums* sums) {
    Channels at(to, tile);
    int64_t width = tile.last - tile.first;
    W s1[CHANNELS_CHUNK] = {}, s2[CHANNELS_CHUNK] = {}, s3[CHANNELS_CHUNK] = {};
    for (int64_t row = tile.start; row < tile.end; ++row) {
        const X* x = to.x + offset(to, tile, row);
        const Z* g = to.g + offset(to, tile, row);
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
            W here = wide(x[i]), up = wide(g[i]), h = hidden(here, at.mean[i], at.rate[i], at.shift[i]);
            W below = passed<A>(up, h, at.slope[i]);
            s1[i] += below;
            s2[i] += below * (here - at.mean[i]);
            if (A == PRELU) s3[i] += up * std::min(h, W(0));
        }
    }
    for (int64_t i = 0; i < width; ++i) sums[i] = {s1[i], s2[i], s3[i]};
}

template <Activator A> void channels_last_gradient(const Work& to, const Tile& tile, const std::vector<Share>& shares) {
    Channels at(to, tile);
    int64_t width = tile.last - tile.first;
    W level[CHANNELS_CHUNK], tilt[CHANNELS_CHUNK], own[CHANNELS_CHUNK];
    for (int64_t i = 0; i < width; ++i) {
        int64_t plane = tile.sample * to.c + tile.first + i;
        level[i] = shares[plane].level;
        tilt[i] = shares[plane].tilt;
        own[i] = to.rate[to.moments_of(plane)];
    }
    for (int64_t row = tile.start; row < tile.end; ++row) {
        int64_t there = offset(to, tile, row);
        const X* x = to.x + there;
        const Z* g = to.g + there;
        X* gx = to.gx + there;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
            W here = wide(x[i]), h = hidden(here, at.mean[i], at.rate[i], at.shift[i]);
            W standard = (here - at.mean[i]) * own[i];
            gx[i] = narrow<X>(at.rate[i] * passed<A>(wide(g[i]), h, at.slope[i]) - level[i] - tilt[i] * standard);
        }
    }
}

template <Activator A> void channels_last_backward(const Work& to) {
    Tiling tiles(to);
    std::vector<Sums> parts(to.n * tiles.parts * to.c), sums(to.n * to.c, Sums{0, 0, 0});
#pragma omp parallel for num_threads(to.team()) schedule(static)
    for (int64_t index = 0; index < tiles.count(); ++index) {
        Tile tile = tiles[index];
        channels_last_sums<A>(to, tile, &parts[tiles.slot(tile)]);
    }
    for (int64_t sample = 0; sample < to.n; ++sample)
        for (int64_t part = 0; part < tiles.parts; ++part)
            for (int64_t channel = 0; channel < to.c; ++channel) {
                const Sums& own = parts[(sample * tiles.parts + part) * to.c + channel];
                Sums& all = sums[sample * to.c + channel];
                all = {all.plain + own.plain, all.moment + own.moment, all.slope + own.slope};
            }
    std::vector<Share> found = shares(to, sums);
#pragma omp parallel for num_threads(to.team()) schedule(static)
    for (int64_t index = 0; index < tiles.count(); ++index) channels_last_gradient<A>(to, tiles[index], found);
    parameter_gradients(to, sums);
}

// ---- What norm_act_cpp.py calls ----

template <Activator A> void run(const Work& to, int job, bool channels_last) {
    if (job == 2)
        channels_last ? channels_last_backward<A>(to) : planes_backward<A>(to);
    else
        channels_last ? channels_last_forward<A>(to, job == 1) : planes_forward<A>(to, job == 1);
}

}  // namespace

// In the order of norm_act_cpp.py's _Call.
struct Call {
    const void *x, *g;
    void *out, *mean, *rate;
    const void *scale, *shift, *slope;
    void *gscale, *gshift, *gslope, *running_mean, *running_variance;
    int64_t n, c, length, groups;
    double eps, alpha, momentum;
    int32_t job, activator, norm, channels_last, threads;  // job: 0 forward, 1 forward with the moments known, 2 backward
};

extern "C" void norm_act(const Call* how) {
    Work to = {
        (const X*)how->x, (const Z*)how->g,
        (Z*)how->out, (X*)how->out, (W*)how->mean, (W*)how->rate,
        (const W*)how->scale, (const W*)how->shift, (const W*)how->slope,
        (W*)how->gscale, (W*)how->gshift, (W*)how->gslope, (W*)how->running_mean, (W*)how->running_variance,
        how->n, how->c, how->length, how->groups, how->eps, how->alpha, how->momentum, Norm(how->norm), how->threads,
    };
#ifdef MDNC_SMOOTH  // built by themselves, and only where a network has one
    if (how->activator == ELU) run<ELU>(to, how->job, how->channels_last);
    if (how->activator == GELU) run<GELU>(to, how->job, how->channels_last);
    if (how->activator == SILU) run<SILU>(to, how->job, how->channels_last);
#else
    if (how->activator == NONE) run<NONE>(to, how->job, how->channels_last);
    if (how->activator == RELU) run<RELU>(to, how->job, how->channels_last);
    if (how->activator == PRELU) run<PRELU>(to, how->job, how->channels_last);
#endif
}
