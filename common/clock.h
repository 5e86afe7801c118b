// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>

namespace meander {

using Duration = std::chrono::nanoseconds;
// Monotonic. Only differences mean anything.
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;
constexpr TimePoint kNever = TimePoint::max();

inline double seconds(Duration d) { return std::chrono::duration<double>(d).count(); }
inline Duration from_seconds(double s) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(s));
}

// The only source of time. State machines are handed `now`; they never ask.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;
  // Milliseconds since 1970, UTC: for names and logs, never for durations.
  virtual std::int64_t wall_ms() const = 0;
};

class SystemClock final : public Clock {
 public:
  TimePoint now() const override { return std::chrono::steady_clock::now(); }
  std::int64_t wall_ms() const override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
};

// Moves only when told: for tests and the simulator.
class ManualClock final : public Clock {
 public:
  TimePoint now() const override { return now_; }
  std::int64_t wall_ms() const override { return now_.time_since_epoch().count() / 1'000'000; }
  void advance_to(TimePoint t) { now_ = t < now_ ? now_ : t; }

 private:
  TimePoint now_{};
};

}  // namespace meander
