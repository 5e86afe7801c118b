// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "common/status.h"

namespace meander::launch {

// Processes of this host that belong to a run. One that dies is started again, a bounded number of
// times and later each time; all die with this process. One thread uses it, the one that lives
// longest: the kernel ends a child with the thread that started it.
class Children {
 public:
  static constexpr std::uint32_t kRestartsMax = 8;  // of one child without kSteady in between
  static constexpr Duration kFirstWait = std::chrono::milliseconds(100);
  static constexpr Duration kLastWait = std::chrono::seconds(5);
  static constexpr Duration kSteady = std::chrono::seconds(60);
  static constexpr Duration kLeaveWait = std::chrono::seconds(5);

  // `on_death` is told the peers ("lane/0") of a child that died.
  using OnDeath = std::function<void(const std::vector<std::string>& peers)>;
  Children(std::string program, const Clock& clock, OnDeath on_death);
  ~Children();  // ends those that are left

  // `name` leads each line that the child says on standard error. kFailed: cannot be started.
  Status start(const std::string& name, std::vector<std::string> arguments,
               std::vector<std::string> peers);
  // The one whose end is the end of the run. It has this process's standard error, what it prints
  // is leader_output(), and it reads lines from tell_leader(). `restart`: another can go on when it
  // dies.
  Status lead(const std::string& name, std::vector<std::string> arguments, bool restart);
  void tell_leader(const std::string& line);
  void interrupt_leader();  // Ctrl-C; when it dies now it is not started again
  // How it left, once it has.
  std::optional<int> leader_code() const { return leader_code_; }
  const std::string& leader_output() const { return leader_output_; }
  // Lines that it printed for this process, and which are not in its output: those that begin with
  // @.
  std::vector<std::string> take_leader_words() { return std::exchange(leader_words_, {}); }
  // Is there a child for this peer, or one to be started again?
  bool has(const std::string& peer) const;
  // The peer is needed no more: its child goes on without these arguments when it is started again,
  // and not at all when none of its peers is left.
  void release(const std::string& peer, const std::vector<std::string>& arguments);
  // Looks after them: notices deaths, restarts what is due. An error when one cannot be kept alive,
  // or left by itself with a code that says that trying again is no use (1-127).
  Status tend();
  // Waits a while for them to leave by themselves, then ends them.
  void leave();
  std::uint64_t restarts() const { return restarts_; }

 private:
  struct Child {
    std::string name;
    std::vector<std::string> arguments, peers;
    pid_t pid = -1;    // -1: not running
    int output = -1;   // read end of its standard error; a leader's: of its standard output
    std::string said;  // of it, the line that has no end yet
    TimePoint started{}, due = kNever;
    std::uint32_t failures = 0;
    bool is_done = false;      // left in order
    bool is_released = false;  // may leave as it likes
    bool leads = false, may_restart = true;
    int input = -1;  // a leader's: write end of its standard input
  };
  Status spawn(Child& child);
  Status on_exit(Child& child, int wait_status);
  void relay(Child& child);
  void close_ends(Child& child);

  const std::string program_;
  const Clock& clock_;
  const OnDeath on_death_;
  std::vector<Child> children_;
  std::uint64_t restarts_ = 0;
  bool is_interrupted_ = false;
  std::optional<int> leader_code_;
  std::string leader_output_;
  std::vector<std::string> leader_words_;
};

}  // namespace meander::launch
