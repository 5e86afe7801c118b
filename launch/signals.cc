// SPDX-License-Identifier: Apache-2.0
#include "launch/signals.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "common/check.h"

namespace meander::launch {
namespace {

std::atomic<int> first_signal{0};
int pipe_ends[2] = {-1, -1};

void on_signal(int signal) {
  int none = 0;
  if (!first_signal.compare_exchange_strong(none, signal)) _exit(128 + signal);
  const char byte = 1;
  [[maybe_unused]] const ssize_t written = write(pipe_ends[1], &byte, 1);
}

}  // namespace

void catch_interrupts() {
  PCHECK(pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) == 0);
  struct sigaction action{};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  PCHECK(sigaction(SIGINT, &action, nullptr) == 0);
  PCHECK(sigaction(SIGTERM, &action, nullptr) == 0);
  signal(SIGPIPE, SIG_IGN);
}

void ignore_interrupts() {
  signal(SIGINT, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
}

bool interrupted() { return first_signal.load() != 0; }

int interrupt_descriptor() { return pipe_ends[0]; }

int interrupt_exit_code() { return first_signal.load() == SIGTERM ? 143 : 130; }

}  // namespace meander::launch
