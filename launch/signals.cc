// SPDX-License-Identifier: Apache-2.0
#include "launch/signals.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <initializer_list>

#include "common/check.h"

namespace meander::launch {
namespace {

std::atomic<int> first_signal{0};
int pipe_ends[2] = {-1, -1};

void note_signal(int signal) {
  const char byte = 1;
  int none = 0;
  if (!first_signal.compare_exchange_strong(none, signal)) return;
  [[maybe_unused]] const ssize_t written = write(pipe_ends[1], &byte, 1);
}

void on_signal(int signal) {
  if (first_signal.load() != 0) _exit(128 + signal);
  note_signal(signal);
}

void on_signal_of_mpi(int signal) { note_signal(signal == SIGCONT ? SIGINT : signal); }

void handle(void (*handler)(int), std::initializer_list<int> signals) {
  if (pipe_ends[0] < 0) PCHECK(pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) == 0);
  struct sigaction action{};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  for (const int signal : signals) PCHECK(sigaction(signal, &action, nullptr) == 0);
  signal(SIGPIPE, SIG_IGN);
}

}  // namespace

void catch_interrupts() { handle(on_signal, {SIGINT, SIGTERM}); }

void catch_interrupts_of_mpi() { handle(on_signal_of_mpi, {SIGINT, SIGTERM, SIGCONT}); }

void ignore_interrupts() {
  signal(SIGINT, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
}

bool interrupted() { return first_signal.load() != 0; }

int interrupt_descriptor() { return pipe_ends[0]; }

int interrupt_exit_code() { return first_signal.load() == SIGTERM ? 143 : 130; }

}  // namespace meander::launch
