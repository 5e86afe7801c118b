// SPDX-License-Identifier: Apache-2.0
// How near to the processor's peak are the products, at the shapes of the models? For each shape
// one row: GFLOP/s of the product, of the product added to what is there, and of the weight
// gradient, as minimum / median / maximum of the thread's own time; then activations in 10^9 values
// a second.
//   bench_kernels [isa = the best: v2, v3 or v4]
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "nn/ops/carve.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

constexpr int kRepetitions = 15;
constexpr double kFlopPerRepetition = 1e8;

struct Shape {
  std::int32_t m, k, n;
  const char* where;
};
const Shape kShapes[] = {
    {6400, 36, 108, "GRU input"},       {16, 36, 72, "GRU gates, 16 rows"},
    {32, 36, 72, "GRU gates, 32 rows"}, {32, 36, 36, "GRU candidate"},
    {32, 72, 36, "GRU gates back"},     {9, 36, 72, "GRU gates, 9 rows"},
    {128, 64, 256, "LSTM 64"},          {128, 256, 64, "LSTM 64 back"},
    {96, 36, 80, "attention 1"},        {96, 80, 40, "attention 2"},
    {96, 80, 36, "attention 1 back"},   {96, 36, 100, "auxiliary 1"},
    {96, 100, 50, "auxiliary 2"},       {96, 100, 36, "auxiliary 1 back"},
    {128, 144, 200, "head 1"},          {128, 200, 80, "head 2"},
    {12800, 144, 80, "large"},
};

double thread_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// Prints 10^-9 `units` of one call a second.
template <class Work>
void measure(const char* name, double units, Work work) {
  const int calls = std::max(1, static_cast<int>(kFlopPerRepetition / units));
  std::vector<double> rates;
  for (int r = 0; r < kRepetitions; ++r) {
    const double begin = thread_seconds();
    for (int i = 0; i < calls; ++i) work();
    rates.push_back(units * calls / (thread_seconds() - begin) * 1e-9);
  }
  std::sort(rates.begin(), rates.end());
  std::printf("  %s %.1f / %.1f / %.1f", name, rates.front(), rates[rates.size() / 2],
              rates.back());
}

void run_shape(const Kernels& k, const Shape& s) {
  const std::size_t a_size = static_cast<std::size_t>(s.m) * s.k;
  const std::size_t c_size = static_cast<std::size_t>(s.m) * s.n;
  const std::size_t w_size = static_cast<std::size_t>(s.k) * s.n;
  std::vector<float> memory(a_size + c_size + 2 * w_size + k.packed_floats(s.k, s.n) + 256, 0.01f);
  const std::size_t line = reinterpret_cast<std::uintptr_t>(memory.data()) / sizeof(float) % 16;
  Carve carve(memory.data() + (16 - line) % 16);
  float *a = carve.take(a_size), *c = carve.take(c_size), *w = carve.take(w_size);
  float *dw = carve.take(w_size), *packed = carve.take(k.packed_floats(s.k, s.n));
  k.pack(w, s.n, s.k, s.n, false, packed);
  const double flop = 2.0 * s.m * s.k * s.n;
  std::printf("%5d x %3d x %3d", s.m, s.k, s.n);
  measure("product", flop, [&] { k.gemm(a, s.k, packed, nullptr, c, s.n, s.m, s.k, s.n, false); });
  measure("added", flop, [&] { k.gemm(a, s.k, packed, nullptr, c, s.n, s.m, s.k, s.n, true); });
  std::fill_n(c, c_size, 0.01f);
  measure("gradient", flop, [&] { k.gemm_tn(a, s.k, c, s.n, dw, s.n, s.m, s.k, s.n); });
  std::printf("  %s\n", s.where);
}

void run(const Kernels& k) {
  std::printf("%s, GFLOP/s\n", k.isa);
  for (const Shape& shape : kShapes) run_shape(k, shape);
  std::vector<float> x(8192, 0.3f), y(8192);
  std::printf("10^9 values a second");
  const double units = static_cast<double>(x.size());
  measure("sigmoid", units, [&] { k.sigmoid(x.data(), y.data(), x.size()); });
  measure("tanh", units, [&] { k.tanh(x.data(), y.data(), x.size()); });
  measure("exp", units, [&] { k.exp(x.data(), y.data(), x.size()); });
  std::printf("\n");
}

}  // namespace
}  // namespace meander::nn

int main(int argc, char** argv) {
  const meander::nn::Kernels* k =
      argc > 1 ? meander::nn::kernels_for(argv[1]) : &meander::nn::kernels();
  if (k == nullptr) {
    std::fprintf(stderr, "this machine does not run %s\n", argv[1]);
    return 1;
  }
  meander::nn::run(*k);
}
