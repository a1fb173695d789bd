// 3 × 3 convolutions with stride 1 and padding 1 on a CPU by Winograd's minimal filtering F(4, 3) on the last two
// axes: a quarter of the multiplications (Lavin and Gray, arXiv:1509.09308). Of volumes, the taps along the first axis
// are summed over as a direct convolution would.
//
// Built at run time by winograd.py. Maps lie in rows, (N, D, H, W, C) with the channels innermost; D is 1 for images.
// An output tile of 4 × 4 comes from an input tile of 6 × 6; each of its 36 transformed values is a product of matrices
// over the channels. A block of tiles is taken through all stages while it lies in the caches.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "vectors.h"

namespace {

constexpr int COLUMNS = LANES == 8 ? 2 : 4;  // registers side by side in a product
constexpr int ROWS = 6;                 // of a product; ROWS × COLUMNS sums stay in registers
constexpr int POINTS = 6, OUT = 4, TAPS = 3, ALL = POINTS * POINTS;
constexpr int64_t BLOCK_VALUES = 3072;  // tiles × channels of a block: 36 in and 36 out lie in an L2 cache of 1 MiB
constexpr int64_t PAD = 16;             // values between transformed planes, lest all fall on one set of the L1 cache

// The interpolation points are 0, ±5/8, ±3/2 and infinity, all exact in binary: rounding grows less than with 0, ±1,
// ±2 (on the choice of points: Barabasz et al., arXiv:1803.10986).
constexpr float A = 0.625f, B = 1.5f, AA = A * A, BB = B * B, SUM = AA + BB, PRODUCT = AA * BB;
constexpr float NORM_0 = 1 / PRODUCT, NORM_A = 1 / (2 * AA * (AA - BB)), NORM_B = 1 / (2 * BB * (BB - AA));

// Each transform takes values that lie `step` apart in an array of vectors, and leaves its own as far apart.

// The points ±A and ±B from the even and the odd terms of a polynomial at A and at B.
inline void both_signs(Vector even_a, Vector odd_a, Vector even_b, Vector odd_b, int step, Vector* to) {
    to[step] = even_a + odd_a;
    to[2 * step] = even_a - odd_a;
    to[3 * step] = even_b + odd_b;
    to[4 * step] = even_b - odd_b;
}

// 6 inputs → 6 points.
inline void to_points(const Vector* d, int step, Vector* to) {
    Vector d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    Vector even_a = d4 - BB * d2, odd_a = A * (d3 - BB * d1), even_b = d4 - AA * d2, odd_b = B * (d3 - AA * d1);
    to[0] = PRODUCT * d0 - SUM * d2 + d4;
    both_signs(even_a, odd_a, even_b, odd_b, step, to);
    to[5 * step] = PRODUCT * d1 - SUM * d3 + d5;
}

// 6 points → 4 outputs.
inline void from_points(const Vector* m, int step, Vector* to) {
    Vector sum_a = m[step] + m[2 * step], off_a = m[step] - m[2 * step];
    Vector sum_b = m[3 * step] + m[4 * step], off_b = m[3 * step] - m[4 * step];
    to[0] = m[0] + sum_a + sum_b;
    to[step] = A * off_a + B * off_b;
    to[2 * step] = AA * sum_a + BB * sum_b;
    to[3 * step] = (A * AA) * off_a + (B * BB) * off_b + m[5 * step];
}

// 4 gradients of outputs → 6 points: the transposed of from_points.
inline void gradients_to_points(const Vector* g, int step, Vector* to) {
    Vector g0 = g[0], g1 = g[step], g2 = g[2 * step], g3 = g[3 * step];
    Vector even_a = g0 + AA * g2, odd_a = A * (g1 + AA * g3), even_b = g0 + BB * g2, odd_b = B * (g1 + BB * g3);
    to[0] = g0;
    both_signs(even_a, odd_a, even_b, odd_b, step, to);
    to[5 * step] = g3;
}

// 3 weights → 6 points.
inline void weights_to_points(const Vector* w, int step, Vector* to) {
    Vector w0 = w[0], w1 = w[step], w2 = w[2 * step];
    Vector even_a = NORM_A * (w0 + AA * w2), odd_a = (NORM_A * A) * w1;
    Vector even_b = NORM_B * (w0 + BB * w2), odd_b = (NORM_B * B) * w1;
    to[0] = NORM_0 * w0;
    both_signs(even_a, odd_a, even_b, odd_b, step, to);
    to[5 * step] = w2;
}

// 6 points → 3 gradients of weights: the transposed of weights_to_points.
inline void points_to_weights(const Vector* u, int step, Vector* to) {
    Vector sum_a = NORM_A * (u[step] + u[2 * step]), off_a = (NORM_A * A) * (u[step] - u[2 * step]);
    Vector sum_b = NORM_B * (u[3 * step] + u[4 * step]), off_b = (NORM_B * B) * (u[3 * step] - u[4 * step]);
    to[0] = NORM_0 * u[0] + sum_a + sum_b;
    to[step] = off_a + off_b;
    to[2 * step] = AA * sum_a + BB * sum_b + u[5 * step];
}

struct Maps {
    int64_t n, d, h, w;     // samples, slices, rows, columns
    int64_t tiles_h, tiles_w;

    int64_t tiles() const { return tiles_h * tiles_w; }  // of a slice
};

// A part of the work of one thread: some tiles of a slice, through some slices of a sample.
struct Part {
    int64_t sample, first, last, tile, tiles;
};

struct Parts {
    const Maps& maps;
    int64_t block, blocks, runs;

    Parts(const Maps& of, int64_t channels, int64_t threads) : maps(of) {
        block = std::max<int64_t>(ROWS, BLOCK_VALUES / channels / ROWS * ROWS);
        blocks = (of.tiles() + block - 1) / block;
        block = (of.tiles() + blocks - 1) / blocks;
        // Slices are shared out only where there would be fewer than four parts a thread.
        runs = std::clamp<int64_t>(4 * threads / (of.n * blocks), 1, std::max<int64_t>(1, of.d / 4));
    }
    int64_t count() const { return maps.n * blocks * runs; }
    Part operator[](int64_t index) const {
        int64_t tile = index % blocks * block, run = index / blocks % runs;
        int64_t first = maps.d * run / runs, last = maps.d * (run + 1) / runs;
        return {index / blocks / runs, first, last, tile, std::min(block, maps.tiles() - tile)};
    }
};

// The tile's corner of `size` × `size` values in a slice, a vector of channels at a time; zero outside the map.
template <int SIZE>
inline void gather(const float* slice, const Maps& maps, int64_t channels, int64_t row, int64_t column, Vector* to) {
    for (int i = 0; i < SIZE; ++i)
        for (int j = 0; j < SIZE; ++j) {
            int64_t y = row + i, x = column + j;
            bool within = y >= 0 && y < maps.h && x >= 0 && x < maps.w;
            to[i * SIZE + j] = within ? load(slice + (y * maps.w + x) * channels) : Vector{};
        }
}

// Tiles of SIZE × SIZE values of a slice → their points, (36, tiles, channels) with PAD between the 36.
template <int SIZE, void transform(const Vector*, int, Vector*)>
void tiles_to_points(
    const float* slice, const Maps& maps, int64_t channels, const Part& part, float* to, int64_t apart) {
    constexpr int BORDER = SIZE == POINTS ? 1 : 0;  // inputs begin one before the outputs
    for (int64_t index = 0; index < part.tiles; ++index) {
        int64_t tile = part.tile + index;
        int64_t row = tile / maps.tiles_w * OUT - BORDER, column = tile % maps.tiles_w * OUT - BORDER;
        for (int64_t c = 0; c < channels; c += LANES) {
            Vector values[SIZE * SIZE], half[POINTS * SIZE], points[ALL];
            gather<SIZE>(slice + c, maps, channels, row, column, values);
            for (int j = 0; j < SIZE; ++j) transform(values + j, SIZE, half + j);
            for (int i = 0; i < POINTS; ++i) transform(half + i * SIZE, 1, points + i * POINTS);
            float* place = to + index * channels + c;
            for (int p = 0; p < ALL; ++p) store(place + p * apart, points[p]);
        }
    }
}

// Points (36, tiles, channels) → tiles of 4 × 4 of a slice.
void points_to_tiles(
    const float* from, int64_t apart, const Maps& maps, int64_t channels, const Part& part, float* slice) {
    for (int64_t index = 0; index < part.tiles; ++index) {
        int64_t tile = part.tile + index, row = tile / maps.tiles_w * OUT, column = tile % maps.tiles_w * OUT;
        int rows = int(std::min<int64_t>(OUT, maps.h - row)), columns = int(std::min<int64_t>(OUT, maps.w - column));
        for (int64_t c = 0; c < channels; c += LANES) {
            Vector points[ALL], half[OUT * POINTS], values[OUT * OUT];
            const float* place = from + index * channels + c;
            for (int p = 0; p < ALL; ++p) points[p] = load(place + p * apart);
            for (int j = 0; j < POINTS; ++j) from_points(points + j, POINTS, half + j);
            for (int i = 0; i < OUT; ++i) from_points(half + i * POINTS, 1, values + i * OUT);
            for (int i = 0; i < rows; ++i)
                for (int j = 0; j < columns; ++j)
                    store(slice + ((row + i) * maps.w + column + j) * channels + c, values[i * OUT + j]);
        }
    }
}

// sums (m, n) = or += a (m, terms) · b (terms, n); n is a multiple of LANES.
struct Product {
    const float* a;
    int64_t down, along;  // values of a that lie between neighbours of a column, and of a row
    const float* b;
    float* sums;
    int64_t m, n, terms;
    bool add;

    // M rows and N registers of sums, from (i, j) on.
    template <int M, int N> void tile(int64_t i, int64_t j) const {
        const float *left = a + i * down, *right = b + j;
        float* to = sums + i * n + j;
        Vector sum[M][N];
        for (int r = 0; r < M; ++r)
            for (int v = 0; v < N; ++v) sum[r][v] = add ? load(to + r * n + v * LANES) : Vector{};
        for (int64_t k = 0; k < terms; ++k) {
            Vector term[N];
            for (int v = 0; v < N; ++v) term[v] = load(right + k * n + v * LANES);
            for (int r = 0; r < M; ++r)
                for (int v = 0; v < N; ++v) sum[r][v] += left[r * down + k * along] * term[v];
        }
        for (int r = 0; r < M; ++r)
            for (int v = 0; v < N; ++v) store(to + r * n + v * LANES, sum[r][v]);
    }
    template <int N> void columns(int64_t j) const {
        int64_t i = 0;
        for (; i + ROWS <= m; i += ROWS) tile<ROWS, N>(i, j);
        for (; i + 2 <= m; i += 2) tile<2, N>(i, j);
        for (; i < m; ++i) tile<1, N>(i, j);
    }
    void run() const {
        int64_t j = 0;
        for (; j + COLUMNS * LANES <= n; j += COLUMNS * LANES) columns<COLUMNS>(j);
        for (; j + 2 * LANES <= n; j += 2 * LANES) columns<2>(j);
        for (; j < n; j += LANES) columns<1>(j);
    }
};

// Weights (slices, 9, values) → (slices, 36, values); values is a multiple of LANES. Turned ones come in reverse order.
void all_weights_to_points(
    const float* weights, bool turned, int64_t slices, int64_t values, float* to, int threads) {
    const int64_t taps = slices * TAPS * TAPS;
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
    for (int64_t slice = 0; slice < slices; ++slice)
        for (int64_t at = 0; at < values; at += LANES) {
            Vector given[TAPS * TAPS], half[POINTS * TAPS], points[ALL];
            for (int t = 0; t < TAPS * TAPS; ++t) {
                int64_t tap = slice * TAPS * TAPS + t;
                given[t] = load(weights + (turned ? taps - 1 - tap : tap) * values + at);
            }
            for (int j = 0; j < TAPS; ++j) weights_to_points(given + j, TAPS, half + j);
            for (int i = 0; i < POINTS; ++i) weights_to_points(half + i * TAPS, 1, points + i * POINTS);
            for (int p = 0; p < ALL; ++p) store(to + (slice * ALL + p) * values + at, points[p]);
        }
}

// The transformed slices around the one that is computed: three at a time for volumes, which move on by one.
struct Window {
    const float* maps;
    const Maps& shape;
    int64_t channels, slices, apart;
    float* points;

    float* at(int64_t slice) { return points + slice % slices * ALL * apart; }
    void read(const Part& part, int64_t slice) {
        if (slice < 0 || slice >= shape.d) return;
        const float* from = maps + (part.sample * shape.d + slice) * shape.h * shape.w * channels;
        tiles_to_points<POINTS, to_points>(from, shape, channels, part, at(slice), apart);
    }
    // Call f(tap, points) for each slice that the taps of an output slice reach.
    template <typename F> void reach(int64_t slice, F f) {
        for (int64_t tap = 0; tap < slices; ++tap) {
            int64_t source = slice + tap - slices / 2;
            if (source >= 0 && source < shape.d) f(tap, at(source));
        }
    }
};

// What is done to a part, slice by slice, with the window in place.
template <typename F> void through(Window& window, const Part& part, F work) {
    int64_t ahead = window.slices / 2;
    for (int64_t slice = part.first - ahead; slice < part.first + ahead; ++slice) window.read(part, slice);
    for (int64_t slice = part.first; slice < part.last; ++slice) {
        window.read(part, slice + ahead);
        work(slice);
    }
}

}  // namespace

// In the order of winograd.py's _Call.
struct Call {
    const float *maps, *weights;  // weights (slices, 9, C, O); for job 1 the gradient of the outputs, in rows
    float *out, *scratch;         // outputs in rows; for job 1 the gradient of the weights (slices, 9, C, O)
    int64_t n, d, h, w, c, o, slices;
    int32_t job, threads;         // job: 0 convolution, 1 gradient of its weights, 2 of its inputs, with turned weights
};

namespace {

// How a call is shared out, and what of its scratch is whose: transformed weights, of all threads or of each, then for
// each thread its window of inputs and its points of outputs.
struct Plan {
    Maps maps;
    Parts parts;
    int64_t threads, weights, window, outputs;

    explicit Plan(const Call& how)
        : maps{how.n, how.d, how.h, how.w, (how.h + OUT - 1) / OUT, (how.w + OUT - 1) / OUT},
          parts(maps, std::max(how.c, how.o), how.threads),
          threads(std::min<int64_t>(how.threads, parts.count())),
          weights(how.slices * ALL * how.c * how.o),
          window(how.slices * ALL * (parts.block * how.c + PAD)),
          outputs(ALL * (parts.block * how.o + PAD)) {}
    int64_t shared(const Call& how) const { return how.job == 1 ? threads * weights : weights; }
    int64_t scratch(const Call& how) const { return shared(how) + threads * (window + outputs); }
    float* own(const Call& how, int64_t thread) const {
        return how.scratch + shared(how) + thread * (window + outputs);
    }
};

void convolve(const Call& how, const Plan& plan) {
    const Maps& maps = plan.maps;
    int64_t values = how.c * how.o, apart = plan.parts.block * how.o + PAD;
    all_weights_to_points(how.weights, how.job == 2, how.slices, values, how.scratch, how.threads);
#pragma omp parallel for num_threads(plan.threads) schedule(static, 1)
    for (int64_t thread = 0; thread < plan.threads; ++thread) {
        Window window = {how.maps, maps, how.c, how.slices, plan.parts.block * how.c + PAD, plan.own(how, thread)};
        float* sums = window.points + plan.window;
        for (int64_t index = thread; index < plan.parts.count(); index += plan.threads) {
            Part part = plan.parts[index];
            through(window, part, [&](int64_t slice) {
                for (int p = 0; p < ALL; ++p) {
                    bool add = false;
                    window.reach(slice, [&](int64_t tap, const float* points) {
                        const float* right = how.scratch + (tap * ALL + p) * values;
                        const float* left = points + p * window.apart;
                        Product{left, how.c, 1, right, sums + p * apart, part.tiles, how.o, how.c, add}.run();
                        add = true;
                    });
                }
                float* to = how.out + (part.sample * maps.d + slice) * maps.h * maps.w * how.o;
                points_to_tiles(sums, apart, maps, how.o, part, to);
            });
        }
    }
}

// Sums of the threads are joined in their order, so that runs on as many threads give the same bits.
void differentiate(const Call& how, const Plan& plan) {
    const Maps& maps = plan.maps;
    int64_t values = how.c * how.o, apart = plan.parts.block * how.o + PAD;
#pragma omp parallel for num_threads(plan.threads) schedule(static, 1)
    for (int64_t thread = 0; thread < plan.threads; ++thread) {
        float* sums = how.scratch + thread * plan.weights;
        std::memset(sums, 0, plan.weights * sizeof(float));
        Window window = {how.maps, maps, how.c, how.slices, plan.parts.block * how.c + PAD, plan.own(how, thread)};
        float* gradients = window.points + plan.window;
        for (int64_t index = thread; index < plan.parts.count(); index += plan.threads) {
            Part part = plan.parts[index];
            through(window, part, [&](int64_t slice) {
                const float* from = how.weights + (part.sample * maps.d + slice) * maps.h * maps.w * how.o;
                tiles_to_points<OUT, gradients_to_points>(from, maps, how.o, part, gradients, apart);
                window.reach(slice, [&](int64_t tap, const float* points) {
                    for (int p = 0; p < ALL; ++p) {
                        const float *left = points + p * window.apart, *right = gradients + p * apart;
                        float* to = sums + (tap * ALL + p) * values;
                        Product{left, 1, how.c, right, to, how.c, how.o, part.tiles, true}.run();
                    }
                });
            });
        }
    }
#pragma omp parallel for num_threads(how.threads) schedule(static) collapse(2)
    for (int64_t slice = 0; slice < how.slices; ++slice)
        for (int64_t at = 0; at < values; at += LANES) {
            Vector points[ALL], half[TAPS * POINTS], found[TAPS * TAPS];
            for (int p = 0; p < ALL; ++p) {
                const float* first = how.scratch + (slice * ALL + p) * values + at;
                points[p] = load(first);
                for (int64_t thread = 1; thread < plan.threads; ++thread)
                    points[p] += load(first + thread * plan.weights);
            }
            for (int j = 0; j < POINTS; ++j) points_to_weights(points + j, POINTS, half + j);
            for (int i = 0; i < TAPS; ++i) points_to_weights(half + i * POINTS, 1, found + i * TAPS);
            for (int t = 0; t < TAPS * TAPS; ++t) store(how.out + (slice * TAPS * TAPS + t) * values + at, found[t]);
        }
}

}  // namespace

// Channels must be multiples of it.
extern "C" int winograd_lanes() { return LANES; }

// Floats of scratch that a call wants.
extern "C" int64_t winograd_scratch(const Call* how) { return Plan(*how).scratch(*how); }

extern "C" void winograd(const Call* how) {
    Plan plan(*how);
    how->job == 1 ? differentiate(*how, plan) : convolve(*how, plan);
}
