// SPDX-License-Identifier: Apache-2.0
#include "launch/bench/measure.h"

#include <algorithm>
#include <barrier>
#include <cmath>
#include <thread>

#include "common/clock.h"

namespace meander::launch::bench {
namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double now_s() { return seconds(SystemClock().now().time_since_epoch()); }

// How many calls take `seconds`, by doubling until they are a tenth of it.
double calls_in(double seconds, const std::function<void(unsigned)>& work) {
  for (double calls = 1;; calls *= 2) {
    const double begin = now_s();
    for (double i = 0; i < calls; ++i) work(0);
    const double took = now_s() - begin;
    if (took >= seconds / 10) return std::max(1.0, std::round(calls * seconds / took));
  }
}

}  // namespace

std::vector<double> medians_in_turn(int rounds, const std::vector<Probe>& probes) {
  std::vector<std::vector<double>> by_figure;
  for (int round = 0; round <= rounds; ++round) {
    std::vector<double> figures;
    for (const Probe& probe : probes) probe(figures);
    by_figure.resize(figures.size());
    if (round == 0) continue;  // caches, clock frequency and memory are warm now
    for (std::size_t i = 0; i < figures.size(); ++i) by_figure[i].push_back(figures[i]);
  }
  std::vector<double> medians;
  for (const std::vector<double>& values : by_figure) medians.push_back(median(values));
  return medians;
}

double seconds_on_threads(unsigned threads, const std::function<void(unsigned)>& body) {
  std::vector<double> begins(threads), ends(threads);
  std::barrier together(static_cast<std::ptrdiff_t>(threads));
  const auto run = [&](unsigned thread) {
    together.arrive_and_wait();
    begins[thread] = now_s();
    body(thread);
    ends[thread] = now_s();
  };
  std::vector<std::thread> others;
  for (unsigned thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  run(0);
  for (std::thread& other : others) other.join();
  return std::ranges::max(ends) - std::ranges::min(begins);
}

double rate_on_threads(unsigned threads, double seconds, double units,
                       const std::function<void(unsigned)>& work) {
  const double calls = calls_in(seconds, work);
  const double took = seconds_on_threads(threads, [&](unsigned thread) {
    for (double i = 0; i < calls; ++i) work(thread);
  });
  return units * calls * threads / took;
}

unsigned all_threads() { return std::max(1u, std::thread::hardware_concurrency()); }

std::vector<unsigned> thread_counts() {
  return all_threads() == 1 ? std::vector<unsigned>{1} : std::vector<unsigned>{1, all_threads()};
}

}  // namespace meander::launch::bench
