// The driver: checks a plan, divides the work, adds the partial sums. See kernels.h and job.h.

#include "kernels.h"

#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include <atomic>

#include "job.h"

// The loops are compiled once for every vector width. Only the target differs.
namespace {
namespace bytes16 {
#define WIDTH 16
#include "functions.inc"
#include "loops.inc"
#undef WIDTH
}  // namespace bytes16
}  // namespace

// The sanitizers multiply the time of compiling: they see one width.
#if defined(__x86_64__) && !defined(ACON_KERNELS_ONE_WIDTH)
#define ACON_KERNELS_WIDER

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
namespace {
namespace bytes32 {
#define WIDTH 32
#include "functions.inc"
#include "loops.inc"
#undef WIDTH
}  // namespace bytes32
}  // namespace
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512")
#endif
namespace {
namespace bytes64 {
#define WIDTH 64
#include "functions.inc"
#include "loops.inc"
#undef WIDTH
}  // namespace bytes64
}  // namespace
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif

namespace {

// Below this number of elements a second thread does not pay. PyTorch's number.
constexpr int64_t GRAIN = 32768;
constexpr int64_t MOST_SEGMENTS = 64;
constexpr int64_t TWO_HUGE_PAGES = 2 * 2097152;  // bytes: one is whole wherever it begins
constexpr int GATES_OF[] = {3, 2, 2, 4, 4, 1};

constexpr int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t parts_of(int64_t n, int64_t size) { return n / size + (n % size != 0); }

int find_width() {
  int width = 16;
#ifdef ACON_KERNELS_WIDER
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) width = 32;
  if (width == 32 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    width = 64;
#endif
  const char* cap = getenv("ACON_KERNELS_WIDTH");
  const int most_bytes = cap ? atoi(cap) : 0;
  return most_bytes >= 16 && most_bytes < width ? (most_bytes >= 32 ? 32 : 16) : width;
}

int vector_width() {
  static std::atomic<int> width{0};  // two threads may find it at once, and find the same
  if (!width.load(std::memory_order_relaxed)) width.store(find_width(), std::memory_order_relaxed);
  return width.load(std::memory_order_relaxed);
}

Loop loop_of(const acon_plan& plan, bool in_columns, bool like_x, bool backward) {
#ifdef ACON_KERNELS_WIDER
  switch (vector_width()) {
    case 64: return bytes64::choose(plan.function, plan.type, in_columns, like_x, backward);
    case 32: return bytes32::choose(plan.function, plan.type, in_columns, like_x, backward);
  }
#endif
  return bytes16::choose(plan.function, plan.type, in_columns, like_x, backward);
}

struct Call {
  const Job* job;
  Loop loop;
  int64_t units, block;  // threads take blocks of units
  std::atomic<int64_t> next;
};

void work(void* data) {
  Call& call = *static_cast<Call*>(data);
  for (;;) {
    const int64_t first = call.next.fetch_add(call.block, std::memory_order_relaxed);
    if (first >= call.units) return;
    call.loop(*call.job, first, least(first + call.block, call.units));
  }
}

int64_t sums_rows(const Job& job, const Gate& gate, bool in_columns) {
  return !in_columns || gate.row_by_row ? job.b : job.segments;
}

int64_t sums_size(const Job& job, const Gate& gate, bool in_columns) {
  return job.a * sums_rows(job, gate, in_columns) * (gate.step[2] ? job.d : job.parts);
}

// Add partial sums to the gradient of a gate, in one order whatever the threads did.
template <class R>
void add_up(const Job& job, const Gate& gate, bool in_columns, double* totals, int64_t size, void* to) {
  const int64_t rows = sums_rows(job, gate, in_columns);
  const double* from = gate.sums;
  for (int64_t i = 0; i < size; ++i) totals[i] = 0;
  for (int64_t a = 0; a < job.a; ++a) {
    double* row = totals + a * gate.step[0];
    for (int64_t b = 0; b < rows; ++b, row += gate.step[1]) {
      if (gate.step[2])
        for (int64_t d = 0; d < job.d; ++d) row[d] += *from++;
      else
        for (int64_t part = 0; part < job.parts; ++part) *row += *from++;
    }
  }
  for (int64_t i = 0; i < size; ++i) {
    const R value = R(totals[i]);
    __builtin_memcpy(static_cast<char*>(to) + i * int64_t(sizeof(R)), &value, sizeof(R));
  }
}

// Fresh memory comes page by page, at each first write: that takes longer than computing what goes there. Where the
// system leaves huge pages to programs, as Linux does, ask for them. It is a hint: nothing depends on its success.
void ask_for_huge_pages(void* memory, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  const uintptr_t from = reinterpret_cast<uintptr_t>(memory), page = from & ~uintptr_t(4095);
  if (memory && bytes >= TWO_HUGE_PAGES) madvise(reinterpret_cast<void*>(page), from - page + bytes, MADV_HUGEPAGE);
#endif
}

}  // namespace

extern "C" int acon_apply(const acon_plan* plan, const void* x, const void* g, const void* const gates[4], void* out,
                          void* const dgates[4], unsigned threads, acon_parallel parallel) {
  if (!plan) return vector_width();
  if (plan->function < 0 || plan->function > ACON_MAXIMUM || plan->type < 0 || plan->type > ACON_FLOAT16) return 2;
  const int count = GATES_OF[plan->function], last = count - 1;
  for (int i = 0; i < 3; ++i)
    if (plan->sizes[i] < 0) return 2;
  for (int k = 0; k < count; ++k)
    if (plan->covers[k] < 0 || plan->covers[k] > 8 || (plan->covers[k] == 8 && k != last)) return 2;
  const bool like_x = plan->covers[last] == 8, backward = g != nullptr, wide = plan->type == ACON_FLOAT64;
  const int summed = count - like_x;
  if (!backward && !out) return 2;

  Job job = {};
  job.a = plan->sizes[0], job.b = plan->sizes[1], job.d = plan->sizes[2];
  job.streams.x = static_cast<const char*>(x);
  job.streams.g = static_cast<const char*>(g);
  job.streams.out = static_cast<char*>(out);
  if (like_x) {
    job.streams.like_x = static_cast<const char*>(gates[last]);
    if (backward) job.streams.dlike_x = static_cast<char*>(dgates[last]);
  }
  const int64_t bytes = job.a * job.b * job.d * (wide ? 8 : plan->type == ACON_FLOAT32 ? 4 : 2);
  ask_for_huge_pages(out, bytes);
  ask_for_huge_pages(job.streams.dlike_x, bytes);
  bool in_columns = false, by_row = false;
  int64_t sizes[GATES] = {};  // elements of each gate that is summed
  static const double none = 0;
  for (int k = 0; k < summed; ++k) {
    Gate& gate = job.gate[k];
    gate.values = gates[k] ? static_cast<const char*>(gates[k]) : reinterpret_cast<const char*>(&none);
    sizes[k] = 1;
    for (int i = 2; i >= 0; --i)
      if (plan->covers[k] >> i & 1) gate.step[i] = sizes[k], sizes[k] *= plan->sizes[i];
    in_columns |= gate.step[2] != 0;
    by_row |= gate.row_by_row = gate.step[1] != 0;
  }

  job.parts = parts_of(job.d, CHUNK);
  const int64_t width = most(least(job.d, CHUNK), 1);
  Call call = {&job, loop_of(*plan, in_columns, like_x, backward), 0, GRAIN / width, {0}};
  if (in_columns) {
    job.group = by_row ? 1 : most(4, least(32, 2048 / width));
    job.segment = most(GRAIN / width, parts_of(job.b, MOST_SEGMENTS));
    job.segments = parts_of(job.b, job.segment);
    call.units = job.a * job.segments * job.parts;
    call.block = most(GRAIN / (most(least(job.segment, job.b), 1) * width), 1);
  } else {
    call.units = job.a * job.b * job.parts;
  }

  // All partial sums, then a place for the totals of one gate. Zeros: columns add to their sums.
  int64_t needed = 0, largest = 0, places[GATES] = {};
  for (int k = 0; k < summed; ++k) {
    if (!backward || !dgates[k]) continue;
    places[k] = needed;
    needed += sums_size(job, job.gate[k], in_columns);
    largest = most(largest, sizes[k]);
  }
  double* memory = nullptr;
  if (largest && !(memory = static_cast<double*>(calloc(size_t(needed + largest), sizeof(double))))) return 1;
  for (int k = 0; k < summed; ++k)
    if (backward && dgates[k]) job.gate[k].sums = memory + places[k];

  const unsigned used = unsigned(least(threads, parts_of(call.units, call.block)));
  if (parallel && used > 1)
    parallel(work, &call, used, 0);
  else
    work(&call);
  for (int k = 0; k < summed; ++k) {
    if (!job.gate[k].sums) continue;
    if (wide)
      add_up<double>(job, job.gate[k], in_columns, memory + needed, sizes[k], dgates[k]);
    else
      add_up<float>(job, job.gate[k], in_columns, memory + needed, sizes[k], dgates[k]);
  }
  free(memory);
  return 0;
}
