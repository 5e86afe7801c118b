// SPDX-License-Identifier: Apache-2.0
#include "launch/children.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <thread>

namespace meander::launch {
namespace {

constexpr int kPermanentMax = 127;  // exit codes up to this say: trying again is no use
constexpr Duration kPoll = std::chrono::milliseconds(20);

// In the child, between fork and exec: only what is safe there. `input`: -1 for none; else this is
// the leader.
[[noreturn]] void become(const char* program, char* const* arguments, int input, int output,
                         pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // it died before the line above
  setpgid(0, 0);                      // Ctrl-C is for the parent, who stops us in order
  const int nowhere = open("/dev/null", O_RDWR);
  dup2(input < 0 ? nowhere : input, STDIN_FILENO);
  dup2(input < 0 ? nowhere : output, STDOUT_FILENO);
  if (input < 0) dup2(output, STDERR_FILENO);
  execv(program, arguments);
  _exit(126);
}

// A whole line on standard error; over a progress bar, if there is one.
void say(const std::string& line) {
  std::fprintf(stderr, "%s%s\n", isatty(STDERR_FILENO) != 0 ? "\r\x1b[K" : "", line.c_str());
}

std::string exit_text(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    return std::string("was ended by a signal (") + strsignal(WTERMSIG(wait_status)) + ")";
  }
  return "left with code " + std::to_string(WEXITSTATUS(wait_status));
}

}  // namespace

Children::Children(std::string program, const Clock& clock, OnDeath on_death)
    : program_(std::move(program)), clock_(clock), on_death_(std::move(on_death)) {}

Children::~Children() {
  for (Child& child : children_) {
    if (child.pid > 0) kill(child.pid, SIGKILL);
  }
  for (Child& child : children_) {
    if (child.pid > 0) waitpid(child.pid, nullptr, 0);
    relay(child);
    close_ends(child);
  }
}

void Children::close_ends(Child& child) {
  for (int* end : {&child.input, &child.output}) {
    if (*end >= 0) close(*end);
    *end = -1;
  }
}

Status Children::lead(const std::string& name, std::vector<std::string> arguments, bool restart) {
  Child child;
  child.name = name;
  child.arguments = std::move(arguments);
  child.leads = true;
  child.may_restart = restart;
  children_.push_back(std::move(child));
  return spawn(children_.back());
}

// What it does not read in time, or because it is dead, it finds out by itself.
void Children::tell_leader(const std::string& line) {
  for (const Child& child : children_) {
    if (child.input < 0) continue;
    [[maybe_unused]] const ssize_t written = write(child.input, line.data(), line.size());
  }
}

void Children::interrupt_leader() {
  is_interrupted_ = true;
  for (const Child& child : children_) {
    if (child.leads && child.pid > 0) kill(child.pid, SIGINT);
  }
}

Status Children::start(const std::string& name, std::vector<std::string> arguments,
                       std::vector<std::string> peers) {
  Child child;
  child.name = name;
  child.arguments = std::move(arguments);
  child.peers = std::move(peers);
  children_.push_back(std::move(child));
  return spawn(children_.back());
}

Status Children::spawn(Child& child) {
  int ends[2], input[2] = {-1, -1};
  if (pipe2(ends, O_CLOEXEC) != 0) return failed(std::string("pipe: ") + std::strerror(errno));
  if (child.leads && pipe2(input, O_CLOEXEC | O_NONBLOCK) != 0) {
    return failed(std::string("pipe: ") + std::strerror(errno));
  }
  if (child.leads) leader_output_.clear();
  child.said.clear();
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  std::string own_name = "meander";
  std::vector<char*> arguments = {own_name.data()};
  for (std::string& argument : child.arguments) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) become(program_.c_str(), arguments.data(), input[0], ends[1], parent);
  close(ends[1]);
  if (input[0] >= 0) close(input[0]);
  child.input = input[1];
  child.output = ends[0];
  if (pid < 0) {
    close_ends(child);
    return failed("cannot start " + child.name + ": " + std::strerror(errno));
  }
  child.pid = pid;
  child.started = clock_.now();
  child.due = kNever;
  return {};
}

// Passes on what it has said, each line with its name.
void Children::relay(Child& child) {
  char bytes[4096];
  while (child.output >= 0) {
    const ssize_t count = read(child.output, bytes, sizeof bytes);
    if (count <= 0) break;
    child.said.append(bytes, static_cast<std::size_t>(count));
    for (std::size_t end; (end = child.said.find('\n')) != std::string::npos;) {
      const std::string line = child.said.substr(0, end);
      child.said.erase(0, end + 1);
      if (!child.leads) {
        say("[" + child.name + "] " + line);
      } else if (line.starts_with('@')) {
        leader_words_.push_back(line);
      } else {
        leader_output_ += line + "\n";
      }
    }
  }
}

Status Children::on_exit(Child& child, int wait_status) {
  relay(child);
  close_ends(child);
  child.pid = -1;
  if (child.leads) leader_output_ += std::exchange(child.said, {});
  if (child.leads && WIFEXITED(wait_status)) {
    child.is_done = true;
    leader_code_ = WEXITSTATUS(wait_status);
    return {};
  }
  if (child.leads && is_interrupted_) {
    child.is_done = true;
    return {Code::kInterrupted, child.name + " " + exit_text(wait_status) + " while it stopped"};
  }
  if (child.is_released || (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0)) {
    child.is_done = true;
    return {};
  }
  on_death_(child.peers);
  const TimePoint now = clock_.now();
  const std::string what = child.name + " " + exit_text(wait_status);
  if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) <= kPermanentMax) {
    return failed(what + "; what it said is above");
  }
  if (!child.may_restart) return failed(what + ", and no other can go on without a journal");
  if (now - child.started >= kSteady) child.failures = 0;
  if (++child.failures > kRestartsMax) {
    return failed(what + ", " + std::to_string(child.failures) + " times in a row: giving up");
  }
  const Duration wait = std::min(kLastWait, kFirstWait * (1 << (child.failures - 1)));
  child.due = now + wait;
  say(what + "; starting it again");
  return {};
}

Status Children::tend() {
  for (Child& child : children_) {
    relay(child);
    int wait_status = 0;
    if (child.pid > 0 && waitpid(child.pid, &wait_status, WNOHANG) == child.pid) {
      RETURN_IF_ERROR(on_exit(child, wait_status));
    }
    if (child.pid < 0 && child.due <= clock_.now()) {
      RETURN_IF_ERROR(spawn(child));
      ++restarts_;
    }
  }
  return {};
}

bool Children::has(const std::string& peer) const {
  return std::ranges::any_of(children_, [&](const Child& child) {
    return !child.is_done && std::ranges::count(child.peers, peer) > 0;
  });
}

void Children::release(const std::string& peer, const std::vector<std::string>& arguments) {
  for (Child& child : children_) {
    if (child.is_done || std::erase(child.peers, peer) == 0) continue;
    const auto found = std::ranges::search(child.arguments, arguments);
    child.arguments.erase(found.begin(), found.end());
    child.is_released = child.peers.empty();
    if (child.is_released && child.pid < 0) {
      child.due = kNever;
      child.is_done = true;
    }
  }
}

void Children::leave() {
  const TimePoint deadline = clock_.now() + kLeaveWait;
  for (Child& child : children_) {
    while (child.pid > 0 && clock_.now() < deadline) {
      relay(child);
      if (waitpid(child.pid, nullptr, WNOHANG) == child.pid) child.pid = -1;
      if (child.pid > 0) std::this_thread::sleep_for(kPoll);
    }
  }
}

}  // namespace meander::launch
