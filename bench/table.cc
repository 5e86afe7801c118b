// SPDX-License-Identifier: Apache-2.0
// How many rows a second does one thread pull from and push to a table? Random keys, row-wise
// Adagrad; prints one line of rates in million rows a second of the thread's own time (so that a
// neighbour costs its share of caches and memory only): minimum, median, maximum.
//   bench_table [rows = 10000000] [width = 36] [request = 12800]
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "common/rng.h"
#include "ps/table.h"

namespace meander::ps {
namespace {

constexpr int kRequests = 100;  // of one measurement
constexpr int kRepetitions = 9;

struct Requests {
  std::vector<std::vector<std::uint64_t>> keys;
  std::vector<float> gradients, rows;
  std::vector<std::uint32_t> slots;
};

Requests draw(std::uint64_t rows, std::uint32_t width, std::size_t size) {
  Requests requests;
  Rng rng(1);
  for (int r = 0; r < kRequests; ++r) {
    auto& keys = requests.keys.emplace_back(size);
    for (std::uint64_t& key : keys) key = mix64(rng.below(rows));
  }
  requests.gradients.resize(size * width);
  for (float& g : requests.gradients) g = static_cast<float>(rng.uniform() - 0.5);
  requests.rows.resize(size * width);
  return requests;
}

double thread_us() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
}

template <class Work>
void measure(const char* name, std::size_t rows, Work work) {
  std::vector<double> rates;
  for (int i = 0; i < kRepetitions; ++i) {
    const double begin = thread_us();
    work();
    rates.push_back(static_cast<double>(rows) / (thread_us() - begin));
  }
  std::sort(rates.begin(), rates.end());
  std::printf("  %s %.1f / %.1f / %.1f", name, rates.front(), rates[rates.size() / 2],
              rates.back());
}

void run(std::uint64_t rows, std::uint32_t width, std::size_t size) {
  wire::TableSpec spec;
  spec.set_name("item");
  spec.set_width(width);
  spec.set_init_range(0.05f);
  spec.mutable_optimizer()->set_kind(wire::Optimizer::ROWWISE_ADAGRAD);
  spec.mutable_optimizer()->set_rate(0.01f);
  Table table(0, spec);
  Requests requests = draw(rows, width, size);
  std::vector<std::uint64_t> keys(size);
  std::printf("%llu rows x %u, %zu a request, %s:", static_cast<unsigned long long>(rows), width,
              size, kernels().isa);
  measure("insert", rows / kRepetitions, [&, next = std::uint64_t{0}]() mutable {
    for (std::uint64_t done = 0; done < rows / kRepetitions; done += size) {
      for (std::uint64_t& key : keys) key = mix64(next++);
      table.push(keys, requests.gradients.data());
    }
  });
  const std::size_t all = size * kRequests;
  measure("pull", all, [&] {
    for (const auto& k : requests.keys) table.pull(k, requests.rows.data());
  });
  measure("push", all, [&] {
    for (const auto& k : requests.keys) table.push(k, requests.gradients.data());
  });
  measure("pull+push", all, [&] {
    for (const auto& k : requests.keys) {
      table.pull(k, requests.rows.data(), &requests.slots);
      table.push(k, requests.gradients.data(), requests.slots);
    }
  });
  const double row_floats = static_cast<double>(width + table.state_width() + 2) * sizeof(float);
  std::printf("  M rows/s, %.1f bytes a row beyond key and values\n",
              static_cast<double>(table.bytes()) / static_cast<double>(table.rows()) - row_floats);
}

}  // namespace
}  // namespace meander::ps

int main(int argc, char** argv) {
  const auto number = [&](int i, long long otherwise) {
    return argc > i ? std::atoll(argv[i]) : otherwise;
  };
  meander::ps::run(number(1, 10'000'000), static_cast<std::uint32_t>(number(2, 36)),
                   static_cast<std::size_t>(number(3, 12'800)));
  return 0;
}
