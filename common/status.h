// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/check.h"

namespace meander {

// What the world may do to us: a peer, a file, a user. What only a bug can do is a CHECK.
enum class Code {
  kOk,
  kInvalid,      // bad usage, configuration or input: the user mends it (exit 2)
  kNotFound,     // a file or name that should be there is not (exit 2)
  kCorrupt,      // stored bytes do not check (exit 5)
  kUnavailable,  // a peer or a store is out of reach in time; may work later (exit 170)
  kExhausted,    // disk, memory or a bound is used up (exit 1)
  kInterrupted,  // asked to stop, and stopped in order (exit 130 or 143)
  kFailed,       // anything else that failed at run time (exit 1)
};

// One line: what, where, what to do. Context is added going up, so the line reads left to right.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

  Status context(std::string_view where) && {
    if (!ok()) message_ = std::string(where) + ": " + message_;
    return std::move(*this);
  }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

inline Status invalid(std::string message) { return {Code::kInvalid, std::move(message)}; }
inline Status not_found(std::string message) { return {Code::kNotFound, std::move(message)}; }
inline Status corrupt(std::string message) { return {Code::kCorrupt, std::move(message)}; }
inline Status unavailable(std::string message) { return {Code::kUnavailable, std::move(message)}; }
inline Status failed(std::string message) { return {Code::kFailed, std::move(message)}; }

// A value, or the Status that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}             // NOLINT: meant to be implicit
  Result(Status status) : status_(std::move(status)) {      // NOLINT: meant to be implicit
    CHECK(!status_.ok()) << "a Result without a value needs an error";
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const& { return status_; }
  Status status() && { return std::move(status_); }
  T& value() & {
    CHECK(ok()) << status_.message();
    return *value_;
  }
  const T& value() const& {
    CHECK(ok()) << status_.message();
    return *value_;
  }
  T value() && {
    CHECK(ok()) << status_.message();
    return std::move(*value_);
  }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::optional<T> value_;
  Status status_;
};

// Returns from the caller when `expression` (a Status) is an error.
// (The name inside must not be one that `expression` may use.)
#define RETURN_IF_ERROR(expression)                                                            \
  do {                                                                                         \
    if (::meander::Status checked_status = (expression); !checked_status.ok()) return checked_status; \
  } while (false)

#define MEANDER_CONCAT_INNER(a, b) a##b
#define MEANDER_CONCAT(a, b) MEANDER_CONCAT_INNER(a, b)
// ASSIGN_OR_RETURN(auto x, f()): x is f()'s value, or the caller returns f()'s error.
#define ASSIGN_OR_RETURN(target, expression) \
  ASSIGN_OR_RETURN_IMPL(MEANDER_CONCAT(result_, __LINE__), target, expression)
#define ASSIGN_OR_RETURN_IMPL(result, target, expression)       \
  auto result = (expression);                                   \
  if (!result.ok()) return std::move(result).status();          \
  target = std::move(result).value()

}  // namespace meander
