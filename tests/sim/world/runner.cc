// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/runner.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <new>

#include "common/check.h"
#include "tests/sim/world/planted.h"

namespace meander::sim {
namespace {

constexpr int kJobsMax = 64;
constexpr std::size_t kFailuresMax = 64;

// What the processes share.
struct Board {
  struct Failure {
    std::uint64_t seed;
    char what[500];
  };
  struct Job {
    std::atomic<std::uint64_t> seed;
    Totals totals;
  };
  std::atomic<std::uint64_t> next, runs;
  std::atomic<std::size_t> failed;
  Failure failures[kFailuresMax];
  Job jobs[kJobsMax];

  void report(std::uint64_t seed, const std::string& what) {
    const std::size_t at = failed++;
    if (at >= kFailuresMax) return;
    failures[at].seed = seed;
    std::strncpy(failures[at].what, what.c_str(), sizeof(Failure::what) - 1);
  }
};

void work(const Seeds& seeds, Board& board, Board::Job& job) {
  plant(seeds.bug);
  if (seeds.bug != PlantedBug::kNone) {  // what it leads to is expected
    const int null = ::open("/dev/null", O_WRONLY);
    ::dup2(null, STDERR_FILENO);
  }
  while (board.failed < seeds.failures_max) {
    const std::uint64_t seed = board.next++;
    if (seed - seeds.from >= seeds.count) break;
    job.seed = seed;
    const RunResult result = simulate(seed);
    ++board.runs;
    for (int i = 0; i < kTotals; ++i) job.totals[i] += result.totals[i];
    if (!result.failure.empty()) board.report(seed, result.failure);
  }
}

pid_t start(const Seeds& seeds, Board& board, Board::Job& job) {
  const pid_t child = ::fork();
  PCHECK(child >= 0) << "fork";
  if (child == 0) {
    work(seeds, board, job);
    ::_exit(0);
  }
  return child;
}

}  // namespace

Findings run_seeds(const Seeds& seeds) {
  const auto begin = std::chrono::steady_clock::now();
  void* const memory =
      ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  PCHECK(memory != MAP_FAILED) << "mmap";
  Board& board = *new (memory) Board{};
  board.next = seeds.from;
  const int jobs = std::clamp(seeds.jobs, 1, kJobsMax);
  std::vector<pid_t> children;
  for (int i = 0; i < jobs; ++i) children.push_back(start(seeds, board, board.jobs[i]));
  for (int i = 0; i < jobs; ++i) {
    for (;;) {
      int status = 0;
      PCHECK(::waitpid(children[i], &status, 0) == children[i]) << "waitpid";
      if (WIFEXITED(status) && WEXITSTATUS(status) == 0) break;
      ++board.runs;
      board.report(board.jobs[i].seed, "a CHECK has failed (its message is on stderr)");
      children[i] = start(seeds, board, board.jobs[i]);
    }
  }
  Findings findings;
  findings.runs = board.runs;
  for (int i = 0; i < jobs; ++i) {
    for (int t = 0; t < kTotals; ++t) findings.totals[t] += board.jobs[i].totals[t];
  }
  for (std::size_t i = 0; i < std::min(board.failed.load(), kFailuresMax); ++i) {
    findings.failures.emplace_back(board.failures[i].seed, board.failures[i].what);
  }
  std::ranges::sort(findings.failures);
  ::munmap(memory, sizeof(Board));
  const auto spent = std::chrono::steady_clock::now() - begin;
  findings.seconds = std::chrono::duration<double>(spent).count();
  return findings;
}

}  // namespace meander::sim
