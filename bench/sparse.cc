// SPDX-License-Identifier: Apache-2.0
// How fast is a sparse matrix times a dense one? Prints JSON: milliseconds of both products of one
// propagation over a graph of users and items (a file of lines "user item item ..."), the median of
// `repeats`, and the bytes of the gathered rows a second.
//   bench_sparse FILE [width = 64] [threads = 2] [repeats = 15]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "bench/user_item_graph.h"
#include "common/clock.h"
#include "common/rng.h"
#include "common/thread_executor.h"
#include "nn/sparse.h"

namespace meander {
namespace {

// y = a . x in runs of rows.
void multiply(const nn::SparseMatrix& a, const std::vector<std::int32_t>& runs, const float* x,
              float* y, std::int32_t width, Executor& executor) {
  const nn::SparseRows view = a.view();
  executor.parallel(runs.size() - 1, [&](std::size_t run) {
    nn::kernels().spmm(view, nullptr, runs[run], runs[run + 1] - runs[run], x, width, y, width,
                       nullptr, width, false);
  });
}

int run(int argc, char** argv) {
  const nn::SparseMatrix by_user = read_user_item_graph(argv[1]), by_item = nn::transposed(by_user);
  const int width = argc > 2 ? std::atoi(argv[2]) : 64;
  const int threads = argc > 3 ? std::atoi(argv[3]) : 2;
  const int repeats = argc > 4 ? std::atoi(argv[4]) : 15;
  Rng rng(1);
  std::vector<float> users(static_cast<std::size_t>(by_user.rows) * width), items;
  items.resize(static_cast<std::size_t>(by_user.cols) * width);
  std::vector<float> next_users(users.size()), next_items(items.size());
  for (float& x : users) x = static_cast<float>(rng.uniform());
  for (float& x : items) x = static_cast<float>(rng.uniform());
  ThreadPool pool(std::max(1, threads - 1));
  ThreadExecutor many(pool, [](std::function<void()> done) { done(); });
  InlineExecutor one;
  Executor& executor = threads > 1 ? static_cast<Executor&>(many) : one;
  const auto user_runs = nn::balanced_rows(by_user, 64), item_runs = nn::balanced_rows(by_item, 64);
  const SystemClock clock;
  std::vector<double> ms;
  for (int r = 0; r < repeats; ++r) {
    const TimePoint begin = clock.now();
    multiply(by_user, user_runs, items.data(), next_users.data(), width, executor);
    multiply(by_item, item_runs, users.data(), next_items.data(), width, executor);
    ms.push_back(std::chrono::duration<double, std::milli>(clock.now() - begin).count());
  }
  std::ranges::sort(ms);
  const double median = ms[ms.size() / 2];
  const double bytes = 2.0 * static_cast<double>(by_user.entries()) * width * sizeof(float);
  std::printf(
      "{\"users\": %d, \"items\": %d, \"entries\": %zu, \"width\": %d, \"threads\": %d, "
      "\"ms\": %.3f, \"gathered_gb_s\": %.2f}\n",
      by_user.rows, by_user.cols, by_user.entries(), width, threads, median, bytes / median * 1e-6);
  return 0;
}

}  // namespace
}  // namespace meander

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_sparse FILE [width] [threads] [repeats]\n");
    return 2;
  }
  return meander::run(argc, argv);
}
