// SPDX-License-Identifier: Apache-2.0
// As many independent chains as it takes to hide an instruction's latency (4 cycles, 2 a cycle), in
// registers only. The empty asm keeps the compiler from moving or merging steps of a chain.
#include "launch/bench/peak.h"

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

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

// Products of tiles: 16 x 32 by 32 x 16, added to one of four 16 x 16 sums.
constexpr double kTileFlop = 2.0 * 16 * 32 * 16;
constexpr int kTileSums = 4;

__attribute__((target("amx-tile,amx-bf16"))) void run_amx(unsigned) {
  struct alignas(64) {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16};
  } config;
  // Not _tile_loadconfig(): that of GCC 12 says that it reads 8 bytes only.
  asm volatile("ldtilecfg %0" ::"m"(config));
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int i = 0; i < kSteps; ++i) {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_release();
}

// Linux hands out the tiles' state only to who asks for it.
bool has_amx() {
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;  // cpuid 7.0, edx
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  return (d & kAmxBf16) != 0 && (d & kAmxTile) != 0 &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// A way to multiply and add, and what one call of `run` does.
struct Way {
  const char* name;
  double flop;
  void (*run)(unsigned);
};

Way best_fma() {
  __builtin_cpu_init();
  constexpr double kVectors = 2.0 * kChains * kSteps;
  if (__builtin_cpu_supports("avx512f")) return {"AVX-512 FMA", kVectors * 16, run_avx512};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {"AVX2 FMA", kVectors * 8, run_avx2};
  }
  return {"SSE multiply and add", kVectors * 4, run_sse};
}

Way best_bf16() {
  static const bool is_amx = has_amx();
  if (is_amx) return {"AMX bf16 tiles", kTileFlop * kTileSums * kSteps, run_amx};
  if (!__builtin_cpu_supports("avx512bf16")) return best_fma();
  return {"AVX-512 bf16 dot products", 2.0 * 32 * kChains * kSteps, run_bf16};
}

// A limit is what the machine can do: the best of some looks at it, not a typical one.
double best_rate(const Way& way, unsigned threads, double seconds) {
  constexpr int kLooks = 4;
  double best = 0;
  for (int look = 0; look < kLooks; ++look) {
    best = std::max(best, rate_on_threads(threads, seconds / kLooks, way.flop, way.run));
  }
  return best;
}

}  // namespace

double fma_peak(unsigned threads, double seconds) {
  return best_rate(best_fma(), threads, seconds);
}
double bf16_peak(unsigned threads, double seconds) {
  return best_rate(best_bf16(), threads, seconds);
}
std::string fma_name() { return best_fma().name; }
std::string bf16_name() { return best_bf16().name; }

}  // namespace meander::launch::bench
