// A pool of large buffers: what is freed is kept for the next allocation instead of going back to the system, whose
// fresh pages cost more to touch than most kernels take to fill them.
//
// Built at run time by allocator.py, for Linux. It stands in for torch's CPU allocator while a thread is between
// pool_enter and pool_leave, and serves that thread alone; tensors may outlive that, for each knows how it is freed.

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

namespace {

constexpr size_t SMALLEST = size_t(1) << 18;  // bytes; smaller ones the C library keeps anyway
constexpr size_t PAGE = 4096;
constexpr size_t HUGE_PAGE = size_t(1) << 21;

// One stretch of addresses, as long as the memory is large, of which pages up to `top` were touched. A request takes
// the smallest gap that it fits in, the lowest of several, and neighbouring gaps are joined.
class Pool {
  public:
    std::mutex guard;

    Pool() {
        length = size_t(sysconf(_SC_PHYS_PAGES)) * size_t(sysconf(_SC_PAGESIZE)) / HUGE_PAGE * HUGE_PAGE;
        int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void* got = mmap(nullptr, length + HUGE_PAGE, PROT_READ | PROT_WRITE, kind, -1, 0);
        if (got == MAP_FAILED) {
            length = 0;
            return;
        }
        base = (uintptr_t(got) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        madvise((void*)base, length, MADV_HUGEPAGE);
    }

    // Null where there is no room.
    void* take(size_t bytes) {
        size_t size = (bytes + PAGE - 1) / PAGE * PAGE;
        std::lock_guard<std::mutex> lock(guard);
        auto gap = by_size.lower_bound({size, 0});
        uintptr_t start;
        if (gap != by_size.end()) {
            auto [room, found] = *gap;
            start = found;
            drop(found, room);
            if (room > size) add(found + size, room - size);
        } else {
            if (size > length - top) return nullptr;
            start = base + top;
            top += size;
        }
        taken[(void*)start] = size;
        used += size;
        return (void*)start;
    }

    // False where the buffer is not of this pool.
    bool put(void* buffer) {
        std::lock_guard<std::mutex> lock(guard);
        auto own = taken.find(buffer);
        if (own == taken.end()) return false;
        uintptr_t start = uintptr_t(buffer);
        size_t size = own->second;
        used -= size;
        taken.erase(own);
        auto after = by_start.lower_bound(start);
        if (after != by_start.end() && start + size == after->first) {
            size += after->second;
            drop(after->first, after->second);
        }
        auto next = by_start.lower_bound(start);
        if (next != by_start.begin()) {
            auto [before, room] = *std::prev(next);
            if (before + room == start) {
                drop(before, room);
                start = before;
                size += room;
            }
        }
        add(start, size);
        return true;
    }

    // Have the system take back the pages of all gaps; the addresses stay.
    void release() {
        std::lock_guard<std::mutex> lock(guard);
        for (auto [start, size] : by_start) madvise((void*)start, size, MADV_DONTNEED);
    }

    size_t bytes_used() const { return used; }
    size_t bytes_held() const { return top; }

  private:
    uintptr_t base = 0;
    size_t length = 0, top = 0, used = 0;
    std::map<uintptr_t, size_t> by_start;
    std::set<std::pair<size_t, uintptr_t>> by_size;
    std::unordered_map<void*, size_t> taken;

    void add(uintptr_t start, size_t size) {
        by_start[start] = size;
        by_size.insert({size, start});
    }
    void drop(uintptr_t start, size_t size) {
        by_start.erase(start);
        by_size.erase({size, start});
    }
};

// Never destroyed: tensors may be freed while the process ends.
Pool& pool = *new Pool;
thread_local int inside = 0;
std::mutex exchange;
int entered = 0;
c10::Allocator* before = nullptr;

void put(void* start) {
    c10::profiledCPUMemoryReporter().Delete(start);
    pool.put(start);
}

void put_or_free(void* start) {
    if (pool.put(start))
        c10::profiledCPUMemoryReporter().Delete(start);
    else
        before->raw_deleter()(start);
}

struct PoolAllocator final : c10::Allocator {
    c10::DataPtr allocate(size_t bytes) override {
        void* start = inside && bytes >= SMALLEST ? pool.take(bytes) : nullptr;
        if (!start) return before->allocate(bytes);
        c10::profiledCPUMemoryReporter().New(start, bytes);
        return {start, start, &put, c10::Device(c10::DeviceType::CPU)};
    }
    // oneDNN's buffers are freed through whichever allocator is in place.
    c10::DeleterFnPtr raw_deleter() const override { return &put_or_free; }
    void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};

PoolAllocator& allocator = *new PoolAllocator;

}  // namespace

// To be called once: a child that is forked while another thread holds a lock must not wait for it.
extern "C" void pool_prepare() {
    auto unlock = [] {
        pool.guard.unlock();
        exchange.unlock();
    };
    pthread_atfork(
        [] {
            exchange.lock();
            pool.guard.lock();
        },
        unlock, unlock);
}

extern "C" void pool_enter() {
    if (inside++) return;
    std::lock_guard<std::mutex> lock(exchange);
    if (entered++) return;
    before = c10::GetCPUAllocator();
    c10::SetCPUAllocator(&allocator);
}

extern "C" void pool_leave() {
    if (--inside) return;
    std::lock_guard<std::mutex> lock(exchange);
    if (--entered == 0) c10::SetCPUAllocator(before);
}

extern "C" void pool_release() { pool.release(); }

extern "C" size_t pool_bytes(int held) {
    std::lock_guard<std::mutex> lock(pool.guard);
    return held ? pool.bytes_held() : pool.bytes_used();
}
