// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/executor.h"
#include "common/rng.h"
#include "net/awake_clock.h"
#include "net/sim_network.h"
#include "tests/sim/world/sim_disk.h"

namespace meander::sim {

// How long work takes, uniform.
struct WorkTimes {
  Duration min{0}, max{0};
};

// A process of the simulated cluster: its node, its clock, its view of the disk and its work.
//
// It can be stopped in its tracks: what arrives or is finished meanwhile waits. Like NodeRunner it
// looks at the clock every second, and hands its node time without pauses. Its clock is its own:
// it starts anywhere, and may jump ahead. Work that it submits is done later, and with the process
// it dies.
class Process final : public net::Node {
 public:
  class Work;
  Process(net::SimNetwork& network, SimDisk& disk, std::string name, std::uint32_t host,
          std::uint64_t seed, WorkTimes times);
  ~Process() override;
  // Once, before it runs.
  void set_node(std::unique_ptr<net::Node> node) { node_ = std::move(node); }

  void on_message(TimePoint now, const net::Message& message) override;
  void on_timer(TimePoint now) override;
  TimePoint next_timer() const override;
  bool finished() const override { return node_->finished(); }

  const std::string& name() const { return name_; }
  std::uint32_t host() const { return host_; }
  net::Node& node() { return *node_; }
  Executor& executor();
  SimDisk::Face& disk() { return *disk_; }
  TimePoint now() const { return clock_.now(); }  // as the node sees it
  bool is_dead() const { return is_dead_; }

  // Stopped for some reasons: it goes on when none is left.
  enum Reason : unsigned { kStopped = 1, kRoomStopped = 2 };
  void sleep(Reason reason) { asleep_ |= reason; }
  void wake(Reason reason);
  void jump(Duration ahead) { offset_ += ahead; }
  void set_times(WorkTimes times);
  // From now on nothing that it does has an effect. It may be in the middle of a call.
  void kill();

 private:
  TimePoint local(TimePoint now) const { return now + offset_; }
  void run(std::function<void()> task);

  net::SimNetwork& network_;
  const std::string name_;
  const std::uint32_t host_;
  std::unique_ptr<SimDisk::Face> disk_;
  std::unique_ptr<Work> work_;
  std::unique_ptr<net::Node> node_;
  net::AwakeClock clock_;
  Duration offset_;
  bool is_started_ = false, is_dead_ = false;
  unsigned asleep_ = 0;  // reasons
  TimePoint next_look_{};
  std::vector<std::function<void()>> waiting_;
};

}  // namespace meander::sim
