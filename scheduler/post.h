// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "net/transport.h"

namespace meander::scheduler {

// Sends, and keeps the times at which what was not answered is asked again. The scheduler goes over
// all that it waits for in rounds; each open question says due(), which also sets when the next
// round has to be.
class Post {
 public:
  Post(net::Transport& transport, Duration retry) : transport_(transport), retry_(retry) {}

  // As who everything is said.
  void introduce(std::uint64_t cluster, std::uint64_t term) {
    cluster_ = cluster;
    term_ = term;
  }
  // Nothing is sent any more.
  void fall_silent() { is_silent_ = true; }
  std::uint64_t cluster() const { return cluster_; }
  std::uint64_t term() const { return term_; }

  void begin_round(TimePoint now) {
    if (now - now_ > kAbsence) back_since_ = now;
    now_ = now;
    wake_ = kNever;
  }
  // How long a peer that was heard last at `heard` has been silent. Time in which nobody here
  // listened (a slow store, a busy machine) does not count.
  Duration silence(TimePoint heard) const { return now_ - std::max(heard, back_since_); }
  TimePoint now() const { return now_; }
  TimePoint wake() const { return wake_; }
  void wake_at(TimePoint when) { wake_ = std::min(wake_, when); }

  // `next`: when the question is asked again, TimePoint{} for at once. True: ask now.
  bool due(TimePoint& next) { return due(next, retry_); }
  bool due(TimePoint& next, Duration every) {
    const bool is_due = next <= now_;
    if (is_due) next = now_ + every;
    wake_at(next);
    return is_due;
  }

  void send(const std::string& peer, wire::Header header, const std::vector<Buffer>& frames = {}) {
    if (is_silent_) return;
    header.set_cluster(cluster_);
    header.set_term(term_);
    transport_.send(process(peer), header, frames);
  }

  // Two processes change places: what is sent to the one goes to the other, and the other way
  // round.
  void swap(const std::string& a, const std::string& b) {
    if (swapped_.erase(a) + swapped_.erase(b) != 0) return;
    swapped_[a] = b;
    swapped_[b] = a;
  }
  // The process that plays a peer's role, or the role of a process.
  const std::string& process(const std::string& peer) const {
    const auto at = swapped_.find(peer);
    return at == swapped_.end() ? peer : at->second;
  }

 private:
  net::Transport& transport_;
  std::uint64_t cluster_ = 0, term_ = 0;
  bool is_silent_ = false;
  std::map<std::string, std::string> swapped_;
  const Duration retry_;
  static constexpr Duration kAbsence = std::chrono::milliseconds(500);
  TimePoint now_{}, wake_{};
  TimePoint back_since_{};  // the end of the last absence
};

}  // namespace meander::scheduler
