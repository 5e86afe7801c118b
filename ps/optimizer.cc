// SPDX-License-Identifier: Apache-2.0
#include "ps/optimizer.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace meander::ps {
namespace {

// The decimal number that was meant: 0.999 for 0.999f, so that 1 - beta is right to the last bit.
double meant(float value) {
  char text[32];
  const auto written = std::to_chars(text, text + sizeof(text), value);
  double meant = value;
  std::from_chars(text, written.ptr, meant);
  return meant;
}

bool is_share(float value) { return value >= 0 && value < 1; }
bool is_amount(float value) { return std::isfinite(value) && value >= 0; }

void set_adam(const wire::Optimizer& o, double step, UpdateParams& p) {
  const double beta1 = meant(o.beta1()), beta2 = meant(o.beta2());
  const double first_share = 1 - std::pow(beta1, step);  // m_hat = m / first_share
  const double second_root =
      std::sqrt(1 - std::pow(beta2, step));  // sqrt(v_hat) = sqrt(v) / second_root
  p.first = static_cast<float>(1 - beta1);
  p.second = static_cast<float>(1 - beta2);
  if (o.epsilon_hat()) {
    p.rate = static_cast<float>(meant(o.rate()) * second_root / first_share);
  } else {
    p.rate = static_cast<float>(meant(o.rate()) / first_share);
    p.root = static_cast<float>(1 / second_root);
  }
}

}  // namespace

Status check_optimizer(const wire::Optimizer& o, const std::string& where) {
  if (!wire::Optimizer::Kind_IsValid(o.kind())) return invalid(where + "unknown optimizer");
  if (!is_amount(o.rate()) || !is_amount(o.epsilon()) || !is_amount(o.l2()) ||
      !is_amount(o.initial_accumulator())) {
    return invalid(where + "rate, epsilon, l2 and initial_accumulator must be finite and >= 0");
  }
  if (!is_share(o.beta1()) || !is_share(o.beta2())) {
    return invalid(where + "beta1 and beta2 must be in [0, 1)");
  }
  return {};
}

UpdateRows update_kernel(wire::Optimizer::Kind kind) {
  switch (kind) {
    case wire::Optimizer::ADAGRAD:
      return kernels().adagrad;
    case wire::Optimizer::ROWWISE_ADAGRAD:
      return kernels().rowwise_adagrad;
    case wire::Optimizer::ADAM:
      return kernels().adam;
    default:
      return kernels().sgd;
  }
}

UpdateParams update_params(const wire::Optimizer& o, std::uint32_t width, std::uint64_t step) {
  UpdateParams p;
  p.width = width;
  p.rate = o.rate();
  p.l2 = o.l2();
  p.epsilon = o.epsilon();
  if (o.kind() == wire::Optimizer::ADAM) set_adam(o, static_cast<double>(step), p);
  return p;
}

void fill_fresh_state(const wire::Optimizer& o, std::span<float> state) {
  const bool is_sum = o.kind() != wire::Optimizer::ADAM;
  std::ranges::fill(state, is_sum ? o.initial_accumulator() : 0.0f);
}

}  // namespace meander::ps
