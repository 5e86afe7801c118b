// SPDX-License-Identifier: Apache-2.0
// As many independent chains as it takes to hide an instruction's latency (4 cycles, 2 a cycle), in
// registers only. The empty asm keeps the compiler from moving or merging steps of a chain.
#include "launch/bench/peak.h"

#include <immintrin.h>

#include <algorithm>

#include "launch/bench/measure.h"

namespace meander::launch::bench {
namespace {

constexpr int kChains = 12;
constexpr int kSteps = 4000;

// NOLINTBEGIN: macros, because a template cannot be compiled for another target than its caller.
// Named variables, because an array would go through memory.
#define MEANDER_EACH_CHAIN(do_one)                                                        \
  do_one(c0) do_one(c1) do_one(c2) do_one(c3) do_one(c4) do_one(c5) do_one(c6) do_one(c7) \
      do_one(c8) do_one(c9) do_one(c10) do_one(c11)
#define MEANDER_PEAK(name, isa, Vector, some, Step)                                               \
  __attribute__((target(isa))) void name(unsigned) {                                              \
    Vector half = some, c0 = half, c1 = c0, c2 = c0, c3 = c0, c4 = c0, c5 = c0, c6 = c0, c7 = c0, \
           c8 = c0, c9 = c0, c10 = c0, c11 = c0;                                                  \
    for (int i = 0; i < kSteps; ++i) {                                                            \
      MEANDER_EACH_CHAIN(Step)                                                                    \
    }                                                                                             \
  }
#define MEANDER_AVX512(c)             \
  c = _mm512_fmadd_ps(c, half, half); \
  asm volatile("" : "+v"(c));
#define MEANDER_AVX2(c)               \
  c = _mm256_fmadd_ps(c, half, half); \
  asm volatile("" : "+x"(c));
#define MEANDER_SSE(c)                       \
  c = _mm_add_ps(half, _mm_mul_ps(c, half)); \
  asm volatile("" : "+x"(c));
#define MEANDER_BF16(c)                                        \
  c = _mm512_dpbf16_ps(c, (__m512bh)(half), (__m512bh)(half)); \
  asm volatile("" : "+v"(c));

MEANDER_PEAK(run_avx512, "avx512f", __m512, _mm512_set1_ps(0.5f), MEANDER_AVX512)
MEANDER_PEAK(run_avx2, "avx2,fma", __m256, _mm256_set1_ps(0.5f), MEANDER_AVX2)
MEANDER_PEAK(run_sse, "sse2", __m128, _mm_set1_ps(0.5f), MEANDER_SSE)
MEANDER_PEAK(run_bf16, "avx512f,avx512bf16", __m512, _mm512_set1_ps(0.5f), MEANDER_BF16)
#undef MEANDER_PEAK
#undef MEANDER_EACH_CHAIN
#undef MEANDER_AVX512
#undef MEANDER_AVX2
#undef MEANDER_SSE
#undef MEANDER_BF16
// NOLINTEND

struct Fma {
  const char* name;
  double flop_per_step;
  void (*run)(unsigned);
};

Fma best_fma() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return {"AVX-512 FMA", 2 * 16, run_avx512};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {"AVX2 FMA", 2 * 8, run_avx2};
  }
  return {"SSE multiply and add", 2 * 4, run_sse};
}

// A limit is what the machine can do: the best of some looks at it, not a typical one.
double best_rate(unsigned threads, double seconds, double units, void (*run)(unsigned)) {
  constexpr int kLooks = 4;
  double best = 0;
  for (int look = 0; look < kLooks; ++look) {
    best = std::max(best, rate_on_threads(threads, seconds / kLooks, units, run));
  }
  return best;
}

}  // namespace

double fma_peak(unsigned threads, double seconds) {
  const Fma fma = best_fma();
  return best_rate(threads, seconds, fma.flop_per_step * kChains * kSteps, fma.run);
}

double bf16_peak(unsigned threads, double seconds) {
  if (!__builtin_cpu_supports("avx512bf16")) return 0;
  return best_rate(threads, seconds, 2.0 * 32 * kChains * kSteps, run_bf16);
}

std::string fma_name() { return best_fma().name; }

}  // namespace meander::launch::bench
