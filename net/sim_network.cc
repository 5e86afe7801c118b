// SPDX-License-Identifier: Apache-2.0
#include "net/sim_network.h"

#include <algorithm>
#include <tuple>

#include "common/crc32c.h"

namespace meander::net {
namespace {

constexpr std::uint64_t kLongDelayMax = 100;  // times delay_max
// A node that wants its timer so often without time passing would never wait.
constexpr int kTimersAtOnceMax = 10'000;

std::uint64_t hash_of(const std::string& bytes) {
  return hash64(bytes.size(), crc32c(bytes.data(), bytes.size()));
}
std::uint64_t hash_of(const std::vector<Buffer>& frames) {
  std::uint64_t hash = frames.size();
  for (const Buffer& f : frames) hash = hash64(hash, f.size(), crc32c(f.data(), f.size()));
  return hash;
}

std::pair<std::string, std::string> in_order(const std::string& a, const std::string& b) {
  return a < b ? std::pair(a, b) : std::pair(b, a);
}

}  // namespace

struct SimNetwork::Port final : Transport {
  Port(SimNetwork& n, std::string its_name) : network(n), name(std::move(its_name)) {}
  // An endpoint is the name of a node; without one, a peer's own name is enough.
  Status connect(const std::string& peer, const std::string& endpoint) override {
    endpoints[peer] = endpoint;
    return {};
  }
  void send(const std::string& peer, const wire::Header& header,
            const std::vector<Buffer>& frames) override {
    const auto at = endpoints.find(peer);
    network.send(name, at == endpoints.end() ? peer : at->second, header, frames);
  }
  // What this node calls another.
  const std::string& called(const std::string& node_name) const {
    for (const auto& [peer, endpoint] : endpoints) {
      if (endpoint == node_name) return peer;
    }
    return node_name;
  }
  bool is_up() const { return node != nullptr && !node->finished(); }
  TimePoint next_timer() const {
    if (!is_up()) return kNever;
    return is_started ? node->next_timer() : network.now_;
  }

  SimNetwork& network;
  const std::string name;
  std::map<std::string, std::string> endpoints;  // by peer
  Node* node = nullptr;
  bool is_started = false;     // its first on_timer() was called
  std::uint64_t attached = 0;  // how often: which node of that name this is
  int timers_at_once = 0;      // since time moved
};

// A message under way, or a function to be called.
struct SimNetwork::Event {
  TimePoint when;
  std::uint64_t tie = 0;  // drawn: the order of events of the same time
  std::uint64_t id = 0;
  std::function<void()> fn;

  std::string from, to;
  std::uint64_t attached = 0;  // the receiver's at the time of sending
  std::string header;
  std::vector<Buffer> frames;
  std::uint64_t frames_hash = 0;
};

struct SimNetwork::Later {
  bool operator()(const std::unique_ptr<Event>& a, const std::unique_ptr<Event>& b) const {
    return std::tie(a->when, a->tie, a->id) > std::tie(b->when, b->tie, b->id);
  }
};

SimNetwork::SimNetwork(std::uint64_t seed, SimFaults faults) : rng_(seed), faults_(faults) {}
SimNetwork::~SimNetwork() = default;

SimNetwork::Port& SimNetwork::port(const std::string& name) {
  std::unique_ptr<Port>& port = ports_[name];
  if (!port) port = std::make_unique<Port>(*this, name);
  return *port;
}

Transport& SimNetwork::transport(const std::string& name) { return port(name); }

void SimNetwork::attach(const std::string& name, Node* node) {
  Port& p = port(name);
  p.node = node;
  p.endpoints.clear();
  p.is_started = false;
  ++p.attached;
}

void SimNetwork::cut(const std::string& a, const std::string& b, bool severed) {
  if (severed) {
    cuts_.insert(in_order(a, b));
  } else {
    cuts_.erase(in_order(a, b));
  }
}

bool SimNetwork::is_cut(const std::string& a, const std::string& b) const {
  return cuts_.contains(in_order(a, b));
}

void SimNetwork::at(TimePoint when, std::function<void()> fn) {
  auto event = std::make_unique<Event>();
  event->when = std::max(when, now_);
  event->fn = std::move(fn);
  add(std::move(event));
}

void SimNetwork::add(std::unique_ptr<Event> event) {
  event->tie = rng_.next();
  event->id = next_id_++;
  events_.push_back(std::move(event));
  std::push_heap(events_.begin(), events_.end(), Later());
  counts_.under_way_max = std::max(counts_.under_way_max, events_.size());
}

Duration SimNetwork::draw_delay() {
  const auto spread = static_cast<std::uint64_t>((faults_.delay_max - faults_.delay_min).count());
  Duration delay = faults_.delay_min + Duration(rng_.below(spread + 1));
  if (rng_.chance(faults_.long_delay)) {
    ++counts_.late;
    delay = faults_.delay_max * static_cast<std::int64_t>(1 + rng_.below(kLongDelayMax));
  }
  return delay;
}

void SimNetwork::send(const std::string& from, const std::string& to, const wire::Header& header,
                      const std::vector<Buffer>& frames) {
  CHECK_LE(frames.size(), kFramesMax);
  const int copies = rng_.chance(faults_.loss) ? 0 : rng_.chance(faults_.duplication) ? 2 : 1;
  if (port(from).node == nullptr) return;
  if (is_cut(from, to)) {
    ++counts_.severed;
    return;
  }
  counts_.lost += copies == 0;
  counts_.doubled += copies == 2;
  for (int i = 0; i < copies; ++i) {
    auto event = std::make_unique<Event>();
    event->when = now_ + draw_delay();
    event->from = from;
    event->to = to;
    event->attached = port(to).attached;
    event->header = header.SerializeAsString();
    event->frames = frames;
    event->frames_hash = hash_of(frames);
    add(std::move(event));
  }
}

void SimNetwork::deliver(Event& event) {
  Port& to = port(event.to);
  CHECK_EQ(hash_of(event.frames), event.frames_hash)
      << event.from << " wrote into a frame after it was sent";
  if (!to.is_up() || to.attached != event.attached || is_cut(event.from, event.to)) return;
  trace_ = hash64(trace_, static_cast<std::uint64_t>(now_.time_since_epoch().count()));
  trace_ = hash64(trace_, hash_of(event.from), hash_of(event.to));
  trace_ = hash64(trace_, hash_of(event.header), event.frames_hash);
  ++delivered_;
  Message message{to.called(event.from), {}, std::move(event.frames)};
  CHECK(message.header.ParseFromString(event.header));
  if (observer_) observer_(now_, event.to, message);
  to.node->on_message(now_, std::move(message));
}

TimePoint SimNetwork::next_time(std::vector<Port*>& ports) const {
  TimePoint next = events_.empty() ? kNever : events_.front()->when;
  for (const auto& [name, port] : ports_) {
    const TimePoint timer = std::max(port->next_timer(), now_);
    if (timer > next || timer == kNever) continue;
    if (timer < next) ports.clear();
    next = timer;
    ports.push_back(port.get());
  }
  return next;
}

bool SimNetwork::step() {
  std::vector<Port*> timers;
  const TimePoint next = next_time(timers);
  if (next == kNever) return false;
  if (next > now_) {
    for (const auto& [name, port] : ports_) port->timers_at_once = 0;
  }
  now_ = next;
  const bool has_event = !events_.empty() && events_.front()->when == now_;
  const std::uint64_t choice = rng_.below(timers.size() + (has_event ? 1 : 0));
  if (choice < timers.size()) {
    Port& port = *timers[choice];
    port.is_started = true;
    CHECK_LT(++port.timers_at_once, kTimersAtOnceMax) << port.name << " does not move its timer on";
    port.node->on_timer(now_);
    return true;
  }
  std::pop_heap(events_.begin(), events_.end(), Later());
  const std::unique_ptr<Event> event = std::move(events_.back());
  events_.pop_back();
  if (event->fn) {
    event->fn();
  } else {
    deliver(*event);
  }
  return true;
}

bool SimNetwork::run_until(const std::function<bool()>& is_over, TimePoint deadline) {
  while (!is_over()) {
    std::vector<Port*> timers;
    if (next_time(timers) > deadline || !step()) return false;
  }
  return true;
}

}  // namespace meander::net
