// Copies of tensors into another order of their axes on a CPU.
//
// Built at run time by copies.py. Of three axes the copy's last is written in order; its values are read in blocks, so
// that a line of the cache serves all that is read of it.

#include <algorithm>
#include <cstdint>
#include <cstring>

// In the order of copies.py's _Call.
struct Call {
    const char* from;
    char* to;
    int64_t sizes[3], strides[3];  // of the copy, which lies dense; of what is copied, in values
    int32_t bytes, threads;        // of a value
};

namespace {

constexpr int64_t BLOCK = 16;
constexpr int64_t ALONE = 1 << 14;  // values that are not worth a second thread

template <typename T> void rows(const Call& how) {
    const int64_t *n = how.sizes, *s = how.strides;
    int threads = n[0] * n[1] * n[2] < ALONE ? 1 : how.threads;
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
    for (int64_t i = 0; i < n[0]; ++i)
        for (int64_t j = 0; j < n[1]; ++j)
            std::memcpy(
                (T*)how.to + (i * n[1] + j) * n[2], (const T*)how.from + i * s[0] + j * s[1], n[2] * sizeof(T));
}

// The axis whose values lie closest is walked through within a block of the last; threads share the other.
template <typename T> void blocks(const Call& how) {
    const int64_t *n = how.sizes, *s = how.strides;
    int near = s[1] <= s[0] ? 1 : 0, far = 1 - near;
    int64_t steps[2] = {n[1] * n[2], n[2]};  // of the copy
    int64_t parts = (n[near] + 4 * BLOCK - 1) / (4 * BLOCK);
    int threads = n[0] * n[1] * n[2] < ALONE ? 1 : how.threads;
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
    for (int64_t i = 0; i < n[far]; ++i)
        for (int64_t part = 0; part < parts; ++part) {
            int64_t first = part * 4 * BLOCK, end = std::min(n[near], first + 4 * BLOCK);
            const T* from = (const T*)how.from + i * s[far];
            T* to = (T*)how.to + i * steps[far];
            for (int64_t k = 0; k < n[2]; k += BLOCK) {
                int64_t width = std::min(BLOCK, n[2] - k);
                for (int64_t j = first; j < end; ++j) {
                    const T* values = from + j * s[near] + k * s[2];
                    T* place = to + j * steps[near] + k;
                    for (int64_t at = 0; at < width; ++at) place[at] = values[at * s[2]];
                }
            }
        }
}

template <typename T> void copy(const Call& how) { how.strides[2] == 1 ? rows<T>(how) : blocks<T>(how); }

}  // namespace

extern "C" void copies(const Call* how) {
    if (how->bytes == 2) copy<uint16_t>(*how);
    if (how->bytes == 4) copy<uint32_t>(*how);
    if (how->bytes == 8) copy<uint64_t>(*how);
}
