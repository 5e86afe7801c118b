// SPDX-License-Identifier: Apache-2.0
#include "data/record.h"

namespace meander::data {
namespace {

constexpr std::size_t kDetailBytesMax = 40;

// Printable, so that a binary file's bytes do not reach a terminal.
std::string quoted(std::string_view detail) {
  std::string text = "'";
  for (const char c : detail.substr(0, kDetailBytesMax)) text += c >= ' ' && c <= '~' ? c : '?';
  return text + (detail.size() > kDetailBytesMax ? "...'" : "'");
}

}  // namespace

void Intake::refuse(const LineReader& at, std::string_view reason, std::string_view detail) {
  ++records_;
  ++refused_;
  ++by_reason_[std::string(reason)];
  if (first_.size() < refusals_kept_) {
    first_.push_back(at.place() + ": " + std::string(reason) + ": " + quoted(detail));
  }
}

}  // namespace meander::data
