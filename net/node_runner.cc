// SPDX-License-Identifier: Apache-2.0
#include "net/node_runner.h"

#include <algorithm>
#include <utility>

namespace meander::net {
namespace {

constexpr Duration kWaitMax = std::chrono::seconds(1);
static_assert(kWaitMax < AwakeClock::kStepMax);

Duration wait_of(const Node& node, TimePoint now) {
  const TimePoint next = node.next_timer();
  return next <= now ? Duration(0) : std::min<Duration>(next - now, kWaitMax);
}

}  // namespace

NodeRunner::NodeRunner(PolledTransport& transport, const Clock& clock, ThreadPool& pool)
    : transport_(transport),
      clock_(clock),
      executor_(pool, [this](std::function<void()> fn) { post(std::move(fn)); }) {}

void NodeRunner::run(Node& node) {
  const auto deliver = [&](const Message& message) {
    if (!node.finished()) node.on_message(look(), message);
  };
  node.on_timer(look());
  while (!node.finished() && !is_stopped_) {
    run_posted(node);
    const TimePoint now = look();
    if (!node.finished() && node.next_timer() <= now) node.on_timer(now);
    if (!node.finished()) transport_.poll(wait_of(node, look()), deliver);
  }
  executor_.wait_idle();
  const std::lock_guard lock(mutex_);
  posted_.clear();
}

void NodeRunner::run_posted(const Node& node) {
  {
    const std::lock_guard lock(mutex_);
    running_.swap(posted_);
  }
  for (auto& fn : running_) {
    if (!node.finished()) fn();
  }
  running_.clear();
}

void NodeRunner::post(std::function<void()> fn) {
  {
    const std::lock_guard lock(mutex_);
    posted_.push_back(std::move(fn));
  }
  transport_.wake();
}

void NodeRunner::stop() {
  is_stopped_ = true;
  transport_.wake();
}

}  // namespace meander::net
