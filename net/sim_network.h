// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/rng.h"
#include "net/transport.h"

namespace meander::net {

// What the simulated network does to a message, drawn from the seed.
struct SimFaults {
  double loss = 0;                                 // share of messages that vanish
  double duplication = 0;                          // share delivered twice
  Duration delay_min{20'000}, delay_max{200'000};  // uniform: more than one apart means reordering
  double long_delay = 0;                           // share that takes up to 100 times delay_max
};

// What it has done to them.
struct SimCounts {
  std::uint64_t lost = 0, doubled = 0, late = 0, severed = 0;
  std::size_t under_way_max = 0;  // messages and functions that were waiting for their time
};

// The whole cluster's network and time in one thread: nodes added by name, events delivered in time
// order, ties by a draw. The same seed and nodes give the same run, event for event.
class SimNetwork {
 public:
  SimNetwork(std::uint64_t seed, SimFaults faults);
  ~SimNetwork();
  // The transport for the node called `name`; owned by the network.
  Transport& transport(const std::string& name);
  // `node` gets the messages to `name` from now on; null: it is down, and they are lost, as is what
  // it still sends. Messages still under way to an earlier node of that name are lost (a restart
  // loses its sockets). A node that has finished is left alone.
  void attach(const std::string& name, Node* node);
  // Partition: no message between a and b until healed.
  void cut(const std::string& a, const std::string& b, bool severed);
  void set_faults(SimFaults faults) { faults_ = faults; }

  TimePoint now() const { return now_; }
  // Runs fn at `when` (for faults drawn ahead).
  void at(TimePoint when, std::function<void()> fn);
  // Delivers the next event (message, timer or fn). False: nothing is left to happen.
  bool step();
  // Steps until `is_over()`, or nothing is left or due before `deadline`. True: it is over.
  bool run_until(const std::function<bool()>& is_over, TimePoint deadline);
  // Hash of every delivery so far: equal runs have equal traces.
  std::uint64_t trace() const { return trace_; }
  std::uint64_t delivered() const { return delivered_; }
  const SimCounts& counts() const { return counts_; }
  // Is shown every message as it is delivered.
  void set_observer(
      std::function<void(TimePoint, const std::string& to, const Message&)> observer) {
    observer_ = std::move(observer);
  }
  Rng& rng() { return rng_; }

 private:
  struct Port;
  struct Event;
  struct Later;

  Port& port(const std::string& name);
  void send(const std::string& from, const std::string& to, const wire::Header& header,
            const std::vector<Buffer>& frames);
  void add(std::unique_ptr<Event> event);
  Duration draw_delay();
  bool is_cut(const std::string& a, const std::string& b) const;
  // The time of the next event or timer; kNever when there is none. `ports`: whose timers are due
  // then.
  TimePoint next_time(std::vector<Port*>& ports) const;
  void deliver(Event& event);

  Rng rng_;
  SimFaults faults_;
  TimePoint now_{};
  std::uint64_t trace_ = 0, delivered_ = 0, next_id_ = 0;
  SimCounts counts_;
  std::function<void(TimePoint, const std::string&, const Message&)> observer_;
  std::map<std::string, std::unique_ptr<Port>> ports_;
  std::set<std::pair<std::string, std::string>> cuts_;  // each pair in order
  std::vector<std::unique_ptr<Event>> events_;          // a heap: the next one first
};

}  // namespace meander::net
