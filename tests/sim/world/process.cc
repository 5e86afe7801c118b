// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/process.h"

namespace meander::sim {

// Work of one process. It runs at some time after it was submitted, and its owner learns of it
// some time later; pieces overtake each other.
class Process::Work final : public Executor {
 public:
  Work(Process& process, std::uint64_t seed, WorkTimes times)
      : process_(process), rng_(seed), times_(times) {}
  ~Work() override { *is_alive_ = false; }
  void set_times(WorkTimes times) { times_ = times; }

  void submit(std::function<void()> work, std::function<void()> done) override {
    later([this, work = std::move(work), done = std::move(done)]() mutable {
      work();
      if (process_.is_dead()) return;
      if (rng_.chance(0.5)) {
        later(std::move(done));
      } else {
        done();
      }
    });
  }
  void parallel(std::size_t n, const std::function<void(std::size_t)>& body) override {
    for (std::size_t i = 0; i < n; ++i) body(i);
  }
  std::size_t threads() const override { return 1; }

 private:
  void later(std::function<void()> task) {
    const auto spread = static_cast<std::uint64_t>((times_.max - times_.min).count());
    const Duration delay = times_.min + Duration(rng_.below(spread + 1));
    process_.network_.at(process_.network_.now() + delay,
                         [this, is_alive = is_alive_, task = std::move(task)]() mutable {
                           if (*is_alive && !process_.is_dead()) process_.run(std::move(task));
                         });
  }

  Process& process_;
  Rng rng_;
  WorkTimes times_;
  const std::shared_ptr<bool> is_alive_ = std::make_shared<bool>(true);
};

Process::Process(net::SimNetwork& network, SimDisk& disk, std::string name, std::uint32_t host,
                 std::uint64_t seed, WorkTimes times)
    : network_(network),
      name_(std::move(name)),
      host_(host),
      disk_(disk.open(host)),
      work_(std::make_unique<Work>(*this, hash64(seed, 1), times)),
      offset_(std::chrono::milliseconds(hash64(seed, 2) % 100'000'000)) {}

Process::~Process() = default;

Executor& Process::executor() { return *work_; }

void Process::set_times(WorkTimes times) { work_->set_times(times); }

void Process::on_message(TimePoint now, const net::Message& message) {
  if (is_dead_) return;
  if (asleep_ != 0) {
    waiting_.push_back([this, message] { on_message(network_.now(), message); });
  } else {
    node_->on_message(clock_.look(local(now)), message);
  }
}

void Process::on_timer(TimePoint now) {
  if (asleep_ != 0 || is_dead_) return;
  const TimePoint awake = clock_.look(local(now));
  if (!is_started_ || node_->next_timer() <= awake) node_->on_timer(awake);
  is_started_ = true;
  next_look_ = now + std::chrono::seconds(1);
}

TimePoint Process::next_timer() const {
  if (asleep_ != 0 || is_dead_) return kNever;
  if (!is_started_) return {};
  const TimePoint due = node_->next_timer();
  if (due == kNever) return next_look_;
  if (due <= clock_.now()) return {};
  return std::min(clock_.seen_at(due) - offset_, next_look_);
}

void Process::run(std::function<void()> task) {
  if (asleep_ != 0) {
    waiting_.push_back(std::move(task));
  } else {
    task();
  }
}

void Process::wake(Reason reason) {
  if (asleep_ == 0) return;
  asleep_ &= ~reason;
  if (asleep_ != 0) return;
  clock_.look(local(network_.now()));
  for (const auto& task : std::exchange(waiting_, {})) {
    if (!is_dead_) task();
  }
}

void Process::kill() {
  is_dead_ = true;
  disk_->kill();
}

}  // namespace meander::sim
