// Whole residual blocks of small tensors on a CPU, forward and backward, in one call each: what takes long there is
// to call, not to compute.
//
// Built at run time by small_blocks.py. Maps lie in rows, (N, L1, L2, L3, C) with the channels innermost. A unit is
// norm → activation → convolution. The activated maps are written into a frame of zeros, so that a convolution is a
// product of matrices for each of its taps, over rows that are read where they lie. Sums are joined in the order of
// samples and positions, whatever the threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "vectors.h"

namespace {

constexpr int ROWS = LANES == 16 ? 8 : 4;  // of a product
constexpr int AXES = 3;
constexpr int64_t WORTH_A_THREAD = 1 << 20;  // multiply-adds, or as much other work

inline Vector load_or(const float* at, int64_t i, float other) { return at ? load(at + i) : Vector{} + other; }

}  // namespace

// As small_blocks.py has them.
struct Unit {
    int64_t c, o, in[AXES], out[AXES], width[AXES], stride[AXES], padding[AXES], norm;
    double eps, alpha;  // alpha: of all channels, where there is no slope of each; 1 for no activation
};
struct Tensors {  // of a unit: null where there is no such parameter, or no gradient of it is wanted
    const float *scale, *shift, *slope, *kernel, *bias;
    float *gscale, *gshift, *gslope, *gkernel, *gbias;
    float *x, *mean, *rate;  // its input, null for the shortcut, and the moments of its norm's input, (N, C)
};
struct Block {
    int64_t n, units, adds, threads;  // adds: 0 nothing, 1 the input, 2 a shortcut, the last of the units
};
enum Adds { NOTHING, INPUT, SHORTCUT };

namespace {

inline int64_t volume(const int64_t* size) { return size[0] * size[1] * size[2]; }

struct Frame {  // of zeros around a unit's activated maps
    int64_t size[AXES];
    explicit Frame(const Unit& of) {
        for (int a = 0; a < AXES; ++a) size[a] = of.in[a] + 2 * of.padding[a];
    }
    int64_t row(int64_t i, int64_t j, int64_t k) const { return (i * size[1] + j) * size[2] + k; }
};

// A convolution: where the rows lie that an output position reads, and how far its taps are off.
struct Reach {
    std::vector<int64_t> at, taps;
    int64_t frame;  // values of a sample

    Reach(const Unit& of, int64_t n) {
        Frame outer(of);
        frame = volume(outer.size) * of.c;
        at.reserve(n * volume(of.out));
        for (int64_t sample = 0; sample < n; ++sample)
            for (int64_t i = 0; i < of.out[0]; ++i)
                for (int64_t j = 0; j < of.out[1]; ++j)
                    for (int64_t k = 0; k < of.out[2]; ++k)
                        at.push_back(
                            sample * frame + outer.row(i * of.stride[0], j * of.stride[1], k * of.stride[2]) * of.c);
        for (int64_t i = 0; i < of.width[0]; ++i)
            for (int64_t j = 0; j < of.width[1]; ++j)
                for (int64_t k = 0; k < of.width[2]; ++k) taps.push_back(outer.row(i, j, k) * of.c);
    }
    int64_t count() const { return int64_t(at.size()); }
};

int team(int64_t work, int64_t threads) { return int(std::clamp<int64_t>(work / WORTH_A_THREAD, 1, threads)); }

// f(part) for each; parts are shared out in order.
template <typename F> void share(int64_t count, int threads, F f) {
    if (threads < 2) {
        for (int64_t i = 0; i < count; ++i) f(i);
        return;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; ++i) f(i);
}

// f(first, how many) over the registers of a row.
template <typename F> inline void over_columns(int64_t channels, F f) {
    int64_t j = 0;
    for (; j + 2 * LANES <= channels; j += 2 * LANES) f(j, std::integral_constant<int, 2>());
    if (j < channels) f(j, std::integral_constant<int, 1>());
}

// f(first, how many) over rows.
template <typename F> inline void over_rows(int64_t first, int64_t last, F f) {
    for (; first + ROWS <= last; first += ROWS) f(first, std::integral_constant<int, ROWS>());
    for (; first < last; ++first) f(first, std::integral_constant<int, 1>());
}

constexpr int64_t PART = 32;  // positions that a thread takes at a time

// y (positions, o) = what they read of `maps` times weights (taps, c, o), plus the bias.
void convolve(
    const Unit& of, const Reach& reach, const float* maps, const float* weights, const float* bias, float* y,
    int threads) {
    share((reach.count() + PART - 1) / PART, threads, [&](int64_t part) {
        over_columns(of.o, [&](int64_t j, auto columns) {
            over_rows(part * PART, std::min((part + 1) * PART, reach.count()), [&](int64_t i, auto rows) {
                constexpr int M = decltype(rows)::value, N = decltype(columns)::value;
                Vector sum[M][N];
                for (int r = 0; r < M; ++r)
                    for (int v = 0; v < N; ++v) sum[r][v] = load_or(bias, j + v * LANES, 0);
                const float* right = weights + j;
                for (int64_t tap : reach.taps) {
                    const float* left[M];
                    for (int r = 0; r < M; ++r) left[r] = maps + reach.at[i + r] + tap;
                    for (int64_t k = 0; k < of.c; ++k, right += of.o)
                        for (int v = 0; v < N; ++v) {
                            Vector term = load(right + v * LANES);
                            for (int r = 0; r < M; ++r) sum[r][v] += left[r][k] * term;
                        }
                }
                for (int r = 0; r < M; ++r)
                    for (int v = 0; v < N; ++v) store(y + (i + r) * of.o + j + v * LANES, sum[r][v]);
            });
        });
    });
}

// To the rows of `maps` that a position reads: its gradient g (positions, o) times weights (taps, o, c).
void convolve_back(
    const Unit& of, const Reach& reach, int64_t n, const float* g, const float* weights, float* maps, int threads) {
    int64_t each = reach.count() / n;
    share(n, threads, [&](int64_t sample) {
        for (size_t tap = 0; tap < reach.taps.size(); ++tap)
            over_columns(of.c, [&](int64_t j, auto columns) {
                over_rows(sample * each, (sample + 1) * each, [&](int64_t i, auto rows) {
                    constexpr int M = decltype(rows)::value, N = decltype(columns)::value;
                    Vector sum[M][N] = {};
                    const float *right = weights + tap * of.o * of.c + j, *left = g + i * of.o;
                    for (int64_t k = 0; k < of.o; ++k, right += of.c)
                        for (int v = 0; v < N; ++v) {
                            Vector term = load(right + v * LANES);
                            for (int r = 0; r < M; ++r) sum[r][v] += left[r * of.o + k] * term;
                        }
                    for (int r = 0; r < M; ++r)
                        for (int v = 0; v < N; ++v) {
                            float* to = maps + reach.at[i + r] + reach.taps[tap] + j + v * LANES;
                            store(to, load(to) + sum[r][v]);
                        }
                });
            });
    });
}

// (taps, c, o): sums over positions of what they read times their gradients.
void weights_back(const Unit& of, const Reach& reach, const float* maps, const float* g, float* found, int threads) {
    int64_t blocks = of.c / ROWS;
    share(int64_t(reach.taps.size()) * blocks, threads, [&](int64_t part) {
        int64_t c = part % blocks * ROWS, tap = part / blocks;
        over_columns(of.o, [&](int64_t j, auto columns) {
            constexpr int N = decltype(columns)::value;
            Vector sum[ROWS][N] = {};
            for (int64_t i = 0; i < reach.count(); ++i) {
                const float *left = maps + reach.at[i] + reach.taps[tap] + c, *right = g + i * of.o + j;
                for (int v = 0; v < N; ++v) {
                    Vector term = load(right + v * LANES);
                    for (int r = 0; r < ROWS; ++r) sum[r][v] += left[r] * term;
                }
            }
            for (int r = 0; r < ROWS; ++r)
                for (int v = 0; v < N; ++v) store(found + (tap * of.c + c + r) * of.o + j + v * LANES, sum[r][v]);
        });
    });
}

// Of weights (o, c, taps) and (taps, c, o), or (taps, o, c): f(of the first, of the second) for each.
template <typename F> void each_weight(const Unit& of, int64_t taps, bool back, F f) {
    for (int64_t first = 0; first < of.c; first += LANES)  // lest lines of (taps, c, o) are left and taken up again
        for (int64_t o = 0; o < of.o; ++o)
            for (int64_t c = first; c < first + LANES; ++c)
                for (int64_t t = 0; t < taps; ++t)
                    f((o * of.c + c) * taps + t, back ? (t * of.o + o) * of.c + c : (t * of.c + c) * of.o + o);
}

// ---- Norm and activation ----

struct Norm {  // of a unit, for some channels of a sample: h = (x - mean)·rate + shift, and h or slope·h
    Vector mean, own, rate, shift, slope;

    Norm(const Unit& unit, const Tensors& of, int64_t sample, int64_t c) {
        mean = unit.norm ? load(of.mean + sample * unit.c + c) : Vector{};
        own = unit.norm ? load(of.rate + sample * unit.c + c) : Vector{} + 1;
        rate = own * load_or(of.scale, c, 1);
        shift = load_or(of.shift, c, 0);
        slope = of.slope ? load(of.slope + c) : Vector{} + float(unit.alpha);
    }
    Vector hidden(Vector x) const { return (x - mean) * rate + shift; }
    Vector active(Vector h) const { return h > 0 ? h : slope * h; }
    Vector passed(Vector g, Vector h) const { return h > 0 ? g : slope * g; }
};

// Means of the planes of x and rates, from the deviations.
void moments(const Unit& of, const Tensors& own, int64_t n, int threads) {
    int64_t length = volume(of.in);
    share(n, threads, [&](int64_t sample) {
        for (int64_t c = 0; c < of.c; c += LANES) {
            const float* rows = own.x + sample * length * of.c + c;
            Vector sum[4] = {}, squares[4] = {};
            for (int64_t i = 0; i < length; ++i) sum[i % 4] += load(rows + i * of.c);
            Vector mean = ((sum[0] + sum[1]) + (sum[2] + sum[3])) / float(length);
            for (int64_t i = 0; i < length; ++i) {
                Vector off = load(rows + i * of.c) - mean;
                squares[i % 4] += off * off;
            }
            Vector all = (squares[0] + squares[1]) + (squares[2] + squares[3]), rate;
            for (int v = 0; v < LANES; ++v) rate[v] = float(1 / std::sqrt(double(all[v]) / length + of.eps));
            store(own.mean + sample * of.c + c, mean);
            store(own.rate + sample * of.c + c, rate);
        }
    });
}

// f(row of the maps, row of the frame) for each position of a sample.
template <typename F> inline void each_row(const Unit& of, const Frame& outer, F f) {
    int64_t row = 0;
    for (int64_t i = 0; i < of.in[0]; ++i)
        for (int64_t j = 0; j < of.in[1]; ++j) {
            int64_t there = outer.row(i + of.padding[0], j + of.padding[1], of.padding[2]);
            for (int64_t k = 0; k < of.in[2]; ++k) f(row++, there++);
        }
}

// The activated maps, in their frame.
void activate(const Unit& of, const Tensors& own, int64_t n, float* framed, int threads) {
    Frame outer(of);
    int64_t whole = volume(outer.size) * of.c, inner = volume(of.in) * of.c;
    share(n, threads, [&](int64_t sample) {
        if (whole != inner) std::memset(framed + sample * whole, 0, whole * sizeof(float));
        for (int64_t c = 0; c < of.c; c += LANES) {
            Norm at(of, own, sample, c);
            const float* x = own.x + sample * inner + c;
            float* z = framed + sample * whole + c;
            each_row(of, outer, [&](int64_t here, int64_t there) {
                store(z + there * of.c, at.active(at.hidden(load(x + here * of.c))));
            });
        }
    });
}

// The gradient of the maps from that of the framed; those of norm and activation come (3, N, c) into `sums`.
void activate_back(
    const Unit& of, const Tensors& own, int64_t n, const float* framed, float* gx, float* sums, int threads) {
    Frame outer(of);
    int64_t length = volume(of.in), whole = volume(outer.size) * of.c, inner = length * of.c;
    share(n, threads, [&](int64_t sample) {
        for (int64_t c = 0; c < of.c; c += LANES) {
            Norm at(of, own, sample, c);
            const float *x = own.x + sample * inner + c, *g = framed + sample * whole + c;
            float* to = gx + sample * inner + c;
            Vector plain = {}, moment = {}, low = {};
            each_row(of, outer, [&](int64_t here, int64_t there) {
                Vector value = load(x + here * of.c), up = load(g + there * of.c), h = at.hidden(value);
                Vector below = at.passed(up, h);
                plain += below;
                moment += below * (value - at.mean);
                low += h > 0 ? Vector{} : up * h;
            });
            Vector level = at.rate * plain / float(length);
            Vector tilt = at.rate * at.own * at.own * moment / float(length);
            if (!of.norm) level = tilt = Vector{};
            each_row(of, outer, [&](int64_t here, int64_t there) {
                Vector value = load(x + here * of.c), h = at.hidden(value);
                Vector below = at.passed(load(g + there * of.c), h);
                store(to + here * of.c, at.rate * below - level - tilt * (value - at.mean));
            });
            store(sums + sample * of.c + c, moment * at.own);
            store(sums + (n + sample) * of.c + c, plain);
            store(sums + (2 * n + sample) * of.c + c, low);
        }
    });
    float* found[] = {own.gscale, own.gshift, own.gslope};
    for (int which = 0; which < 3; ++which)
        for (int64_t c = 0; found[which] && c < of.c; c += LANES) {
            Vector sum = {};
            for (int64_t sample = 0; sample < n; ++sample) sum += load(sums + (which * n + sample) * of.c + c);
            store(found[which] + c, sum);
        }
}

// ---- Blocks ----

// What of the scratch is whose; the sizes are the largest of all units.
struct Room {
    int64_t framed = 0, maps = 0, weights = 0, sums = 0;

    Room(const Block& block, const Unit* units) {
        for (int64_t i = 0; i < block.units; ++i) {
            Frame outer(units[i]);
            int64_t channels = std::max(units[i].c, units[i].o), in = volume(units[i].in), out = volume(units[i].out);
            framed = std::max(framed, block.n * volume(outer.size) * units[i].c);
            maps = std::max(maps, block.n * std::max(in, out) * channels);
            weights = std::max(weights, units[i].c * units[i].o * volume(units[i].width));
            sums = std::max(sums, 3 * block.n * channels);
        }
    }
    int64_t size() const { return framed + 3 * maps + weights + sums; }
};

struct Run {
    const Block& block;
    const Unit* units;
    const Tensors* tensors;
    float *framed, *maps[3], *weights, *sums;

    Run(const Block& of, const Unit* shapes, const Tensors* all, float* scratch)
        : block(of), units(shapes), tensors(all) {
        Room room(of, shapes);
        framed = scratch;
        for (int i = 0; i < 3; ++i) maps[i] = scratch + room.framed + i * room.maps;
        weights = scratch + room.framed + 3 * room.maps;
        sums = weights + room.weights;
    }
    int64_t inner() const { return block.units - (block.adds == SHORTCUT); }
    int64_t taps(const Unit& of) const { return volume(of.width); }
    int work(const Unit& of) const {
        return team(block.n * volume(of.out) * of.c * of.o * taps(of), block.threads);
    }
    int passes(const Unit& of) const { return team(16 * block.n * volume(of.in) * of.c, block.threads); }

    const float* laid(const Unit& of, const float* kernel, bool back) const {
        if (taps(of) == 1 && back) return kernel;
        each_weight(of, taps(of), back, [&](int64_t given, int64_t kept) { weights[kept] = kernel[given]; });
        return weights;
    }
    void unit(const Unit& of, const Tensors& own, float* y) const {
        if (of.norm) moments(of, own, block.n, passes(of));
        activate(of, own, block.n, framed, passes(of));
        convolve(of, Reach(of, block.n), framed, laid(of, own.kernel, false), own.bias, y, work(of));
    }
    void unit_back(const Unit& of, const Tensors& own, const float* g, float* gx) const {
        Reach reach(of, block.n);
        if (own.gkernel) {
            activate(of, own, block.n, framed, passes(of));
            kernel_back(of, own, reach, framed, g);
        }
        if (own.gbias) {
            for (int64_t c = 0; c < of.o; c += LANES) {
                Vector sum = {};
                for (int64_t i = 0; i < reach.count(); ++i) sum += load(g + i * of.o + c);
                store(own.gbias + c, sum);
            }
        }
        if (!gx) return;
        std::memset(framed, 0, block.n * reach.frame * sizeof(float));
        convolve_back(of, reach, block.n, g, laid(of, own.kernel, true), framed, work(of));
        activate_back(of, own, block.n, framed, gx, sums, passes(of));
    }
    void kernel_back(const Unit& of, const Tensors& own, const Reach& reach, const float* z, const float* g) const {
        weights_back(of, reach, z, g, weights, work(of));
        each_weight(of, taps(of), false, [&](int64_t to, int64_t from) { own.gkernel[to] = weights[from]; });
    }
    // The shortcut's convolution, and its norm as that of a unit of its outputs.
    Unit norm_of(const Unit& of) const {
        Unit norm = of;
        norm.c = of.o;
        std::copy(of.out, of.out + AXES, norm.in);
        std::fill(norm.padding, norm.padding + AXES, 0);
        return norm;
    }
    Tensors shortcut(const Unit& of, const Tensors& own, const float* x, const Reach& reach) const {
        convolve(of, reach, x, laid(of, own.kernel, false), nullptr, maps[0], work(of));
        Tensors norm = own;
        norm.x = maps[0];
        return norm;
    }
    void forward(float* y) const {
        int64_t count = inner();
        for (int64_t i = 0; i < count; ++i) unit(units[i], tensors[i], i + 1 < count ? tensors[i + 1].x : y);
        const Unit& last = units[count - 1];
        const float *x = tensors[0].x, *other = x;
        if (block.adds == SHORTCUT) {
            const Unit &of = units[count], norm = norm_of(of);
            Tensors own = shortcut(of, tensors[count], x, Reach(of, block.n));
            moments(norm, own, block.n, passes(norm));
            activate(norm, own, block.n, maps[1], passes(norm));
            other = maps[1];
        }
        int64_t values = block.n * volume(last.out) * last.o;
        if (block.adds == NOTHING) return;
        for (int64_t i = 0; i < values; i += LANES) store(y + i, load(y + i) + load(other + i));
    }
    void backward(const float* g, float* gx) const {
        const float* up = g;
        for (int64_t i = inner() - 1; i >= 0; --i) {
            float* down = i ? maps[1 + i % 2] : gx;
            unit_back(units[i], tensors[i], up, down);
            up = down;
        }
        if (block.adds == INPUT)
            for (int64_t i = 0; i < block.n * volume(units[0].in) * units[0].c; i += LANES)
                store(gx + i, load(gx + i) + load(g + i));
        if (block.adds == SHORTCUT) shortcut_back(g, gx);
    }
    void shortcut_back(const float* g, float* gx) const {
        const Unit &of = units[block.units - 1], norm = norm_of(of);
        const Tensors& given = tensors[block.units - 1];
        Reach reach(of, block.n);
        Tensors own = shortcut(of, given, tensors[0].x, reach);
        activate_back(norm, own, block.n, g, maps[1], sums, passes(norm));
        if (own.gkernel) kernel_back(of, own, reach, tensors[0].x, maps[1]);
        convolve_back(of, reach, block.n, maps[1], laid(of, own.kernel, true), gx, work(of));
    }
};

}  // namespace

// Channels must be multiples of it.
extern "C" int small_blocks_lanes() { return LANES; }

// Floats of scratch that a block wants.
extern "C" int64_t small_blocks_scratch(const Block* block, const Unit* units) { return Room(*block, units).size(); }

extern "C" void small_blocks_forward(
    const Block* block, const Unit* units, const Tensors* tensors, float* y, float* scratch) {
    Run(*block, units, tensors, scratch).forward(y);
}

extern "C" void small_blocks_backward(
    const Block* block, const Unit* units, const Tensors* tensors, const float* g, float* gx, float* scratch) {
    Run(*block, units, tensors, scratch).backward(g, gx);
}
