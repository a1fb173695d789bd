// Convolutions of width 3 with padding 1 over signals on a CPU by Winograd's minimal filtering (Lavin and Gray,
// arXiv:1509.09308). Stride 1: F(4, 3), 6 multiplications for four values instead of 12. Stride 2: F(4, 2) over every
// second position, and a product for each of those between, 9 instead of 12.
//
// Built at run time by winograd_1d.py. Maps lie in rows, (N, L, C) with the channels innermost. A tile is four values
// of the shorter signal; each of its points, which are transformed values, is a product of matrices over the channels.

#include <algorithm>
#include <cstdint>
#include <utility>

#include "vectors.h"

namespace {

constexpr int ROWS = LANES == 16 ? 8 : 4;            // of a product
constexpr int COLUMNS = 2, PANEL = COLUMNS * LANES;  // registers side by side in a product, and their channels
constexpr int TAPS = 3, OUT = 4;                     // OUT: values of the shorter signal in a tile
constexpr int64_t BLOCK = 64;       // tiles that are transformed at once
constexpr int64_t STRETCH = 512;    // tiles whose sums for a panel stay in an L2 cache
constexpr int64_t CHUNK = 128;      // channels whose weights for a panel stay in an L1 cache
constexpr int64_t FEW = 128 * 1024; // transformed weights that stay in an L2 cache

// ---- F(4, 3): the points 0, ±5/8, ±3/2 and infinity, as in winograd.cpp ----

constexpr float A = 0.625f, B = 1.5f, AA = A * A, BB = B * B, SUM = AA + BB, PRODUCT = AA * BB;
constexpr float NORM_0 = 1 / PRODUCT, NORM_A = 1 / (2 * AA * (AA - BB)), NORM_B = 1 / (2 * BB * (BB - AA));

inline void both_signs(Vector even_a, Vector odd_a, Vector even_b, Vector odd_b, Vector* to) {
    to[1] = even_a + odd_a;
    to[2] = even_a - odd_a;
    to[3] = even_b + odd_b;
    to[4] = even_b - odd_b;
}

inline void points_of_6(const Vector* d, Vector* to) {
    Vector even_a = d[4] - BB * d[2], odd_a = A * (d[3] - BB * d[1]);
    Vector even_b = d[4] - AA * d[2], odd_b = B * (d[3] - AA * d[1]);
    to[0] = PRODUCT * d[0] - SUM * d[2] + d[4];
    both_signs(even_a, odd_a, even_b, odd_b, to);
    to[5] = PRODUCT * d[1] - SUM * d[3] + d[5];
}

inline void four_of_6(const Vector* m, Vector* to) {
    Vector sum_a = m[1] + m[2], off_a = m[1] - m[2], sum_b = m[3] + m[4], off_b = m[3] - m[4];
    to[0] = m[0] + sum_a + sum_b;
    to[1] = A * off_a + B * off_b;
    to[2] = AA * sum_a + BB * sum_b;
    to[3] = (A * AA) * off_a + (B * BB) * off_b + m[5];
}

// The transposed of four_of_6.
inline void gradients_to_6(const Vector* g, Vector* to) {
    Vector even_a = g[0] + AA * g[2], odd_a = A * (g[1] + AA * g[3]);
    Vector even_b = g[0] + BB * g[2], odd_b = B * (g[1] + BB * g[3]);
    to[0] = g[0];
    both_signs(even_a, odd_a, even_b, odd_b, to);
    to[5] = g[3];
}

inline void weights_to_6(Vector w0, Vector w1, Vector w2, Vector* to) {
    Vector even_a = NORM_A * (w0 + AA * w2), odd_a = (NORM_A * A) * w1;
    Vector even_b = NORM_B * (w0 + BB * w2), odd_b = (NORM_B * B) * w1;
    to[0] = NORM_0 * w0;
    both_signs(even_a, odd_a, even_b, odd_b, to);
    to[5] = w2;
}

// The transposed of weights_to_6.
inline void weights_of_6(const Vector* u, Vector* to) {
    Vector sum_a = NORM_A * (u[1] + u[2]), off_a = (NORM_A * A) * (u[1] - u[2]);
    Vector sum_b = NORM_B * (u[3] + u[4]), off_b = (NORM_B * B) * (u[3] - u[4]);
    to[0] = NORM_0 * u[0] + sum_a + sum_b;
    to[1] = off_a + off_b;
    to[2] = AA * sum_a + BB * sum_b + u[5];
}

// ---- F(4, 2): the points 0, 1/2, -1, 2 and infinity, whose rounding errors are the least of those tried ----

constexpr float NORM_HALF = 1 / -1.125f, NORM_MINUS = 1 / -4.5f, NORM_TWO = 1 / 9.f;

inline void points_of_5(const Vector* d, int step, Vector* to) {
    Vector d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
    to[0] = d3 - 1.5f * (d2 + d1) + d0;
    to[1] = d3 - d2 - 2 * d1;
    to[2] = d3 - 2.5f * d2 + d1;
    to[3] = d3 + 0.5f * (d2 - d1);
    to[4] = d4 - 1.5f * (d3 + d2) + d1;
}

inline void four_of_5(const Vector* m, int step, Vector* to) {
    to[0] = m[0] + m[1] + m[2] + m[3];
    to[step] = 0.5f * m[1] - m[2] + 2 * m[3];
    to[2 * step] = 0.25f * m[1] + m[2] + 4 * m[3];
    to[3 * step] = 0.125f * m[1] - m[2] + 8 * m[3] + m[4];
}

// The transposed of four_of_5.
inline void gradients_to_5(const Vector* g, Vector* to) {
    to[0] = g[0];
    to[1] = g[0] + 0.5f * g[1] + 0.25f * g[2] + 0.125f * g[3];
    to[2] = g[0] - g[1] + g[2] - g[3];
    to[3] = g[0] + 2 * g[1] + 4 * g[2] + 8 * g[3];
    to[4] = g[3];
}

inline void weights_to_5(Vector h0, Vector h1, Vector* to) {
    to[0] = h0;
    to[1] = NORM_HALF * (h0 + 0.5f * h1);
    to[2] = NORM_MINUS * (h0 - h1);
    to[3] = NORM_TWO * (h0 + 2 * h1);
    to[4] = h1;
}

// The transposed of weights_to_5.
inline void weights_of_5(const Vector* u, Vector* h0, Vector* h1) {
    Vector half = NORM_HALF * u[1], minus = NORM_MINUS * u[2], two = NORM_TWO * u[3];
    *h0 = u[0] + half + minus + two;
    *h1 = 0.5f * half - minus + 2 * two + u[4];
}

// ---- What a tile reads (values, from where, how far apart tiles lie), its points, and what it writes ----

// Stride 1, forward. For the gradient of the inputs the weights are turned.
template <bool TURNED> struct Still {
    static constexpr int READ = 6, FROM = -1, APART = 4, WRITE = 4, POINTS = 6, KINDS = 6;
    static void read(const Vector* x, Vector* to) { points_of_6(x, to); }
    static void write(const Vector* m, Vector* to) { four_of_6(m, to); }
    static void weigh(const Vector* w, Vector* to) { weights_to_6(w[TURNED ? 2 : 0], w[1], w[TURNED ? 0 : 2], to); }
    static void gradients(const Vector* g, Vector* to) { gradients_to_6(g, to); }
    static void weights(const Vector* u, Vector* to) { weights_of_6(u, to); }
};

// Stride 2: y[i] = w0·x[2i - 1] + w1·x[2i] + w2·x[2i + 1]. The last four points share the weights w1.
struct Halving {
    static constexpr int READ = 9, FROM = -1, APART = 8, WRITE = 4, POINTS = 9, KINDS = 6;
    static void read(const Vector* x, Vector* to) {
        points_of_5(x, 2, to);
        for (int i = 0; i < OUT; ++i) to[5 + i] = x[2 * i + 1];
    }
    static void write(const Vector* m, Vector* to) {
        four_of_5(m, 1, to);
        for (int i = 0; i < OUT; ++i) to[i] += m[5 + i];
    }
    static void weigh(const Vector* w, Vector* to) {
        weights_to_5(w[0], w[2], to);
        to[5] = w[1];
    }
    static void gradients(const Vector* g, Vector* to) {
        gradients_to_5(g, to);
        for (int i = 0; i < OUT; ++i) to[5 + i] = g[i];
    }
    static void weights(const Vector* u, Vector* to) {
        weights_of_5(u, to, to + 2);
        to[1] = u[5];
    }
};

// Its gradient of the inputs: x[2i] has w1·g[i], and x[2i + 1] has w2·g[i] + w0·g[i + 1].
struct Doubling {
    static constexpr int READ = 5, FROM = 0, APART = 4, WRITE = 8, POINTS = 9, KINDS = 6;
    static void read(const Vector* g, Vector* to) {
        points_of_5(g, 1, to);
        for (int i = 0; i < OUT; ++i) to[5 + i] = g[i];
    }
    static void write(const Vector* m, Vector* to) {
        four_of_5(m, 2, to + 1);
        for (int i = 0; i < OUT; ++i) to[2 * i] = m[5 + i];
    }
    static void weigh(const Vector* w, Vector* to) {
        weights_to_5(w[2], w[0], to);
        to[5] = w[1];
    }
};

// ---- Parts of the work ----

struct Weights {
    const float* at;
    int64_t terms, outs, taps;  // strides of the channels summed over, of those that come out, and of the taps
};

// Signals of one length, in rows.
struct Signals {
    int64_t length, channels;
};

struct Tiles {
    int64_t all, each;  // of all samples, of one
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Points lie (POINTS, channels / LANES, BLOCK, LANES).
constexpr int64_t points_size(int points, int64_t channels) { return points * channels * BLOCK; }

// Values of tiles [first, last) → their points.
template <int READ, int FROM, int APART, int POINTS, typename F>
void to_points(const float* maps, Signals of, Tiles tiles, int64_t first, int64_t last, float* to, F transform) {
    for (int64_t c = 0; c < of.channels; c += LANES)
        for (int64_t tile = first; tile < last; ++tile) {
            int64_t from = tile % tiles.each * APART + FROM;
            const float* row = maps + (tile / tiles.each * of.length + from) * of.channels + c;
            Vector values[READ], points[POINTS];
            if (from >= 0 && from + READ <= of.length)
                for (int i = 0; i < READ; ++i) values[i] = load(row + i * of.channels);
            else
                for (int i = 0; i < READ; ++i)
                    values[i] = from + i >= 0 && from + i < of.length ? load(row + i * of.channels) : Vector{};
            transform(values, points);
            float* place = to + c * BLOCK + (tile - first) * LANES;
            for (int p = 0; p < POINTS; ++p) store(place + p * of.channels * BLOCK, points[p]);
        }
}

// LANES terms by LANES outs, (terms, taps, outs) in `of`. Lines that lie far apart fall on one set of the L1 cache, so
// that each is gone through before the next.
template <typename Pointer, typename F> inline void each_weight(const Weights& at, Pointer from, float* of, F act) {
    bool far = at.outs > at.terms;
    int64_t slow = far ? at.outs : at.terms, quick = far ? at.terms : at.outs;
    int there = far ? 1 : TAPS * LANES, here = far ? TAPS * LANES : 1;
    for (int i = 0; i < LANES; ++i)
        for (int k = 0; k < LANES; ++k)
            for (int t = 0; t < TAPS; ++t)
                act(from[i * slow + k * quick + t * at.taps], of[i * there + k * here + t * LANES]);
}

// Weights of some terms and of the outs of a panel → (KINDS, terms, PANEL).
template <typename F>
void weights_to_points(Weights from, int64_t first, int64_t last, int64_t out, int width, float* to, int64_t apart) {
    for (int64_t term = first; term < last; term += LANES)
        for (int v = 0; v < width; ++v) {
            Vector taps[LANES][TAPS];
            const float* at = from.at + term * from.terms + (out + v * LANES) * from.outs;
            each_weight(from, at, (float*)taps, [](const float& given, float& kept) { kept = given; });
            for (int i = 0; i < LANES; ++i) {
                Vector points[F::KINDS];
                F::weigh(taps[i], points);
                float* place = to + (term - first + i) * PANEL + v * LANES;
                for (int p = 0; p < F::KINDS; ++p) store(place + p * apart, points[p]);
            }
        }
}

// M × N registers of sums (+)= a · b, over outer × inner terms.
template <int M, int N, int DOWN, int ALONG>
inline void tile_product(
    const float* a, int64_t jump, int64_t outer, int64_t inner, const float* b, int64_t apart, int64_t step,
    float* sums, int64_t below, bool add) {
    Vector sum[M][N];
    for (int r = 0; r < M; ++r)
        for (int v = 0; v < N; ++v) sum[r][v] = add ? load(sums + r * below + v * LANES) : Vector{};
    for (int64_t o = 0; o < outer; ++o) {
        const float* left = a + o * jump;
        for (int64_t k = 0; k < inner; ++k, b += step) {
            Vector term[N];
            for (int v = 0; v < N; ++v) term[v] = load(b + v * apart);
            for (int r = 0; r < M; ++r)
                for (int v = 0; v < N; ++v) sum[r][v] += left[r * DOWN + k * ALONG] * term[v];
        }
    }
    for (int r = 0; r < M; ++r)
        for (int v = 0; v < N; ++v) store(sums + r * below + v * LANES, sum[r][v]);
}

// sums (count, PANEL) (+)= points (terms / LANES, BLOCK, LANES) · weights (terms, PANEL).
template <int N>
void products(const float* points, int64_t count, int64_t terms, const float* weights, float* sums, bool add) {
    int64_t i = 0, outer = terms / LANES;
    for (; i + ROWS <= count; i += ROWS)
        tile_product<ROWS, N, LANES, 1>(
            points + i * LANES, BLOCK * LANES, outer, LANES, weights, LANES, PANEL, sums + i * PANEL, PANEL, add);
    for (; i < count; ++i)
        tile_product<1, N, LANES, 1>(
            points + i * LANES, BLOCK * LANES, outer, LANES, weights, LANES, PANEL, sums + i * PANEL, PANEL, add);
}

// Sums (POINTS, apart) of tiles → what they write into a panel's channels.
template <typename F>
void write_tiles(
    const float* sums, int64_t apart, Signals of, Tiles tiles, int64_t first, int64_t last, int64_t out, int width,
    float* maps) {
    for (int64_t tile = first; tile < last; ++tile) {
        int64_t from = tile % tiles.each * F::WRITE, count = std::min<int64_t>(F::WRITE, of.length - from);
        float* row = maps + (tile / tiles.each * of.length + from) * of.channels + out;
        for (int v = 0; v < width; ++v) {
            Vector points[F::POINTS], values[F::WRITE];
            for (int p = 0; p < F::POINTS; ++p) points[p] = load(sums + p * apart + (tile - first) * PANEL + v * LANES);
            F::write(points, values);
            for (int64_t i = 0; i < count; ++i) store(row + i * of.channels + v * LANES, values[i]);
        }
    }
}

}  // namespace

// In the order of winograd_1d.py.
struct Call {
    const float *maps, *weights;  // for a gradient of weights the second are the gradients of the outputs, in rows
    float *out, *scratch;
    int64_t n, longer, shorter, c, o;          // lengths of the convolution's input and output
    int64_t out_stride, in_stride, tap_stride;  // of the weights (O, C, 3), or of their gradient
    int32_t job, stride, threads;               // job: 0 convolution, 1 gradient of its weights, 2 of its inputs
};

namespace {

struct Plan {
    Tiles tiles;
    int64_t blocks;

    explicit Plan(const Call& how) {
        tiles.each = ceil_div(how.shorter, OUT);
        if (how.job == 2) tiles.each = ceil_div(how.longer, OUT * how.stride);
        tiles.all = tiles.each * how.n;
        blocks = ceil_div(tiles.all, BLOCK);
    }
};

template <typename F> struct Convolve {
    const Call& how;
    Plan plan;
    Signals in, out;
    Weights weights;
    int64_t panels, full;

    explicit Convolve(const Call& call) : how(call), plan(call) {
        bool back = how.job == 2;
        in = {back ? how.shorter : how.longer, back ? how.o : how.c};
        out = {back ? how.longer : how.shorter, back ? how.c : how.o};
        weights = {how.weights, how.in_stride, how.out_stride, how.tap_stride};
        if (back) std::swap(weights.terms, weights.outs);
        panels = ceil_div(out.channels, PANEL);
        full = F::KINDS * in.channels * PANEL;  // values of a panel's weights
    }
    bool few() const { return full * panels <= FEW; }
    int width(int64_t panel) const { return int(std::min<int64_t>(COLUMNS, (out.channels - panel * PANEL) / LANES)); }
    int64_t end(int64_t block) const { return std::min((block + 1) * BLOCK, plan.tiles.all); }

    int64_t scratch() const {
        int64_t own = points_size(F::POINTS, in.channels);
        if (few()) return full * panels + how.threads * (own + F::POINTS * BLOCK * PANEL);
        int64_t blocks = std::min(plan.blocks, STRETCH / BLOCK);
        return blocks * own + how.threads * (F::KINDS * CHUNK * PANEL + F::POINTS * blocks * BLOCK * PANEL);
    }
    void read(int64_t block, float* to) const {
        to_points<F::READ, F::FROM, F::APART, F::POINTS>(
            how.maps, in, plan.tiles, block * BLOCK, end(block), to, [](const Vector* x, Vector* y) { F::read(x, y); });
    }
    // Some terms of a block and of a panel, all points.
    void multiply(
        const float* points, int64_t block, int64_t first, int64_t terms, const float* panel, int64_t apart,
        int width, float* sums, int64_t sums_apart) const {
        for (int p = 0; p < F::POINTS; ++p) {
            const float* left = points + (p * in.channels + first) * BLOCK;
            const float* right = panel + std::min(p, F::KINDS - 1) * apart;
            auto run = width == COLUMNS ? products<COLUMNS> : products<1>;
            run(left, end(block) - block * BLOCK, terms, right, sums + p * sums_apart, first > 0);
        }
    }
    // Few weights: they are transformed once, then blocks of tiles go through all stages while they lie in the caches.
    void by_blocks() const {
        float* shared = how.scratch;
#pragma omp parallel for num_threads(how.threads) schedule(static)
        for (int64_t panel = 0; panel < panels; ++panel)
            weights_to_points<F>(
                weights, 0, in.channels, panel * PANEL, width(panel), shared + panel * full, in.channels * PANEL);
        int64_t own = points_size(F::POINTS, in.channels) + F::POINTS * BLOCK * PANEL;
#pragma omp parallel for num_threads(how.threads) schedule(static, 1)
        for (int64_t thread = 0; thread < how.threads; ++thread) {
            float *points = shared + full * panels + thread * own, *sums = points + points_size(F::POINTS, in.channels);
            for (int64_t block = thread; block < plan.blocks; block += how.threads) {
                read(block, points);
                for (int64_t panel = 0; panel < panels; ++panel) {
                    const float* right = shared + panel * full;
                    multiply(
                        points, block, 0, in.channels, right, in.channels * PANEL, width(panel), sums, BLOCK * PANEL);
                    write_tiles<F>(
                        sums, BLOCK * PANEL, out, plan.tiles, block * BLOCK, end(block), panel * PANEL, width(panel),
                        how.out);
                }
            }
        }
    }
    // Many: each is transformed where it is used, for a stretch of tiles that are transformed before.
    void by_panels() const {
        int64_t most = std::min(plan.blocks, STRETCH / BLOCK), one = points_size(F::POINTS, in.channels);
        float *points = how.scratch, *owned = points + most * one;
        int64_t apart = most * BLOCK * PANEL, own = F::KINDS * CHUNK * PANEL + F::POINTS * apart;
        for (int64_t start = 0; start < plan.blocks; start += most) {
            int64_t stop = std::min(start + most, plan.blocks);
#pragma omp parallel for num_threads(how.threads) schedule(static)
            for (int64_t block = start; block < stop; ++block) read(block, points + (block - start) * one);
#pragma omp parallel for num_threads(how.threads) schedule(static, 1)
            for (int64_t thread = 0; thread < how.threads; ++thread) {
                float *right = owned + thread * own, *sums = right + F::KINDS * CHUNK * PANEL;
                for (int64_t panel = thread; panel < panels; panel += how.threads) {
                    int wide = width(panel);
                    for (int64_t first = 0; first < in.channels; first += CHUNK) {
                        int64_t last = std::min(first + CHUNK, in.channels);
                        weights_to_points<F>(weights, first, last, panel * PANEL, wide, right, CHUNK * PANEL);
                        for (int64_t block = start; block < stop; ++block)
                            multiply(
                                points + (block - start) * one, block, first, last - first, right, CHUNK * PANEL, wide,
                                sums + (block - start) * BLOCK * PANEL, apart);
                    }
                    write_tiles<F>(
                        sums, apart, out, plan.tiles, start * BLOCK, end(stop - 1), panel * PANEL, wide, how.out);
                }
            }
        }
    }
    void run() const { few() ? by_blocks() : by_panels(); }
};

// Gradient of the weights.
template <typename F> struct Differentiate {
    const Call& how;
    Plan plan;
    Signals in, out;
    int64_t panels;

    explicit Differentiate(const Call& call) : how(call), plan(call) {
        in = {how.longer, how.c};
        out = {how.shorter, how.o};
        panels = ceil_div(how.o, PANEL);
    }
    // Whether threads share out the tiles, with sums of their own, or the weights.
    bool shared_out() const { return F::KINDS * in.channels * out.channels <= FEW || plan.tiles.all > STRETCH; }
    int width(int64_t panel) const { return int(std::min<int64_t>(COLUMNS, (out.channels - panel * PANEL) / LANES)); }
    int64_t end(int64_t block) const { return std::min((block + 1) * BLOCK, plan.tiles.all); }
    int64_t left_size() const { return points_size(F::POINTS, in.channels); }
    int64_t right_size() const { return points_size(F::POINTS, out.channels); }
    int64_t sums_size() const { return F::KINDS * in.channels * PANEL; }  // of a panel
    int64_t scratch() const {
        if (shared_out()) return how.threads * (left_size() + right_size() + panels * sums_size());
        return plan.blocks * (left_size() + right_size()) + how.threads * sums_size();
    }
    void read(int64_t block, float* left, float* right) const {
        int64_t first = block * BLOCK;
        to_points<F::READ, F::FROM, F::APART, F::POINTS>(
            how.maps, in, plan.tiles, first, end(block), left, [](const Vector* x, Vector* y) { F::read(x, y); });
        to_points<OUT, 0, OUT, F::POINTS>(
            how.weights, out, plan.tiles, first, end(block), right,
            [](const Vector* x, Vector* y) { F::gradients(x, y); });
    }
    template <int N>
    void accumulate(
        const float* left, const float* right, int64_t count, int64_t panel, float* sums, bool add) const {
        for (int p = 0; p < F::POINTS; ++p) {
            const float* b = right + (p * out.channels + panel * PANEL) * BLOCK;
            float* to = sums + std::min(p, F::KINDS - 1) * in.channels * PANEL;
            for (int64_t c = 0; c < in.channels; c += LANES)
                for (int64_t r = 0; r < LANES; r += ROWS)
                    tile_product<ROWS, N, 1, LANES>(
                        left + (p * in.channels + c) * BLOCK + r, 0, 1, count, b, BLOCK * LANES, LANES,
                        to + (c + r) * PANEL, PANEL, add || p >= F::KINDS);
        }
    }
    void add(const float* left, const float* right, int64_t block, int64_t panel, float* sums, bool add) const {
        int64_t count = end(block) - block * BLOCK;
        width(panel) == COLUMNS ? accumulate<COLUMNS>(left, right, count, panel, sums, add)
                                : accumulate<1>(left, right, count, panel, sums, add);
    }
    // A panel's sums, of several that lie `apart`, → gradients of its weights.
    void write(const float* sums, int64_t many, int64_t apart, int64_t panel) const {
        Weights to = {nullptr, how.in_stride, how.out_stride, how.tap_stride};
        for (int64_t c = 0; c < in.channels; c += LANES)
            for (int v = 0; v < width(panel); ++v) {
                Vector taps[LANES][TAPS];
                for (int k = 0; k < LANES; ++k) {
                    Vector points[F::KINDS];
                    for (int p = 0; p < F::KINDS; ++p) {
                        const float* from = sums + (p * in.channels + c + k) * PANEL + v * LANES;
                        points[p] = load(from);
                        for (int64_t i = 1; i < many; ++i) points[p] += load(from + i * apart);
                    }
                    F::weights(points, taps[k]);
                }
                float* at = how.out + (panel * PANEL + v * LANES) * to.outs + c * to.terms;
                each_weight(to, at, (float*)taps, [](float& given, float& found) { given = found; });
            }
    }
    void by_tiles() const {
        int64_t own = left_size() + right_size(), team = std::min<int64_t>(how.threads, plan.blocks);
        float* all = how.scratch + how.threads * own;
#pragma omp parallel for num_threads(team) schedule(static, 1)
        for (int64_t thread = 0; thread < team; ++thread) {
            float *left = how.scratch + thread * own, *right = left + left_size();
            float* sums = all + thread * panels * sums_size();
            for (int64_t block = thread; block < plan.blocks; block += team) {
                read(block, left, right);
                for (int64_t panel = 0; panel < panels; ++panel)
                    add(left, right, block, panel, sums + panel * sums_size(), block != thread);
            }
        }
#pragma omp parallel for num_threads(how.threads) schedule(static)
        for (int64_t panel = 0; panel < panels; ++panel)
            write(all + panel * sums_size(), team, panels * sums_size(), panel);
    }
    void by_panels() const {
        float *left = how.scratch, *right = left + plan.blocks * left_size();
        float* all = right + plan.blocks * right_size();
#pragma omp parallel for num_threads(how.threads) schedule(static)
        for (int64_t block = 0; block < plan.blocks; ++block)
            read(block, left + block * left_size(), right + block * right_size());
#pragma omp parallel for num_threads(how.threads) schedule(static, 1)
        for (int64_t thread = 0; thread < how.threads; ++thread)
            for (int64_t panel = thread; panel < panels; panel += how.threads) {
                float* sums = all + thread * sums_size();
                for (int64_t block = 0; block < plan.blocks; ++block)
                    add(left + block * left_size(), right + block * right_size(), block, panel, sums, block > 0);
                write(sums, 1, 0, panel);
            }
    }
    void run() const { shared_out() ? by_tiles() : by_panels(); }
};

template <typename F> auto chosen(const Call& how, F&& act) {
    if (how.job == 1) return how.stride == 1 ? act(Differentiate<Still<false>>(how)) : act(Differentiate<Halving>(how));
    if (how.job == 2) return how.stride == 1 ? act(Convolve<Still<true>>(how)) : act(Convolve<Doubling>(how));
    return how.stride == 1 ? act(Convolve<Still<false>>(how)) : act(Convolve<Halving>(how));
}

}  // namespace

// Channels must be multiples of it.
extern "C" int winograd_1d_lanes() { return LANES; }

// Floats of scratch that a call wants.
extern "C" int64_t winograd_1d_scratch(const Call* how) {
    return chosen(*how, [](const auto& work) { return work.scratch(); });
}

extern "C" void winograd_1d(const Call* how) {
    chosen(*how, [](const auto& work) { work.run(); return int64_t(0); });
}
