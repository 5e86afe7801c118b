// SPDX-License-Identifier: Apache-2.0
#include "ps/optimizer.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

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

void set_adam(const wire::Optimizer& o, double rate, double step, UpdateParams& p) {
  const double beta1 = meant(o.beta1()), beta2 = meant(o.beta2());
  const double first_share = 1 - std::pow(beta1, step);  // m_hat = m / first_share
  const double second_root =
      std::sqrt(1 - std::pow(beta2, step));  // sqrt(v_hat) = sqrt(v) / second_root
  p.first = static_cast<float>(1 - beta1);
  p.second = static_cast<float>(1 - beta2);
  if (o.epsilon_hat()) {
    p.rate = static_cast<float>(rate * second_root / first_share);
  } else {
    p.rate = static_cast<float>(rate / first_share);
    p.root = static_cast<float>(1 / second_root);
  }
  if (o.kind() == wire::Optimizer::ADAMW) {
    p.keep = static_cast<float>(1 - rate * meant(o.weight_decay()));
  }
}

bool has_l1(wire::Optimizer::Kind kind) {
  return kind == wire::Optimizer::SGD || kind == wire::Optimizer::ADAGRAD ||
         kind == wire::Optimizer::ROWWISE_ADAGRAD || kind == wire::Optimizer::FTRL;
}

Status check_schedule(const wire::Schedule& s, const std::string& where) {
  if (!wire::Schedule::Kind_IsValid(s.kind())) return invalid(where + "unknown schedule");
  if (s.kind() == wire::Schedule::CONSTANT) return {};
  if (s.steps() == 0) return invalid(where + "a schedule needs steps");
  if (!is_amount(s.factor()) || s.factor() > 1) {
    return invalid(where + "a schedule's factor must be in [0, 1]");
  }
  return {};
}

// Its sums of squares are a schedule of their own, of each weight, and hold for one rate only.
Status check_ftrl(const wire::Optimizer& o, const std::string& where) {
  if (o.rate() == 0 || !is_amount(o.beta()) || o.beta() == 0) {
    return invalid(where + "FTRL needs a rate and a beta above 0");
  }
  if (o.schedule().kind() != wire::Schedule::CONSTANT || o.schedule().warmup() > 0) {
    return invalid(where + "FTRL has no schedule of the rate");
  }
  return {};
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
  if (!is_amount(o.l1()) || (o.l1() > 0 && !has_l1(o.kind()))) {
    return invalid(where + "l1 must be finite and >= 0, and is of SGD, Adagrad and FTRL");
  }
  if (!is_amount(o.delay_compensation())) {
    return invalid(where + "delay_compensation must be finite and >= 0");
  }
  if (!is_amount(o.weight_decay()) || o.rate() * o.weight_decay() > 1) {
    return invalid(where + "weight_decay must be >= 0 and at most 1 / rate");
  }
  if (o.kind() == wire::Optimizer::FTRL) RETURN_IF_ERROR(check_ftrl(o, where));
  return check_schedule(o.schedule(), where);
}

UpdateRows update_kernel(wire::Optimizer::Kind kind) {
  switch (kind) {
    case wire::Optimizer::ADAGRAD:
      return kernels().adagrad;
    case wire::Optimizer::ROWWISE_ADAGRAD:
      return kernels().rowwise_adagrad;
    case wire::Optimizer::ADAM:
    case wire::Optimizer::ADAMW:
      return kernels().adam;
    case wire::Optimizer::MOMENTUM:
      return kernels().momentum;
    case wire::Optimizer::RMSPROP:
      return kernels().rmsprop;
    case wire::Optimizer::FTRL:
      return kernels().ftrl;
    default:
      return kernels().sgd;
  }
}

UpdateParams update_params(const wire::Optimizer& o, std::uint32_t width, std::uint64_t step) {
  const double rate = meant(o.rate()) * schedule_share(o.schedule(), step);
  UpdateParams p;
  p.width = width;
  p.rate = static_cast<float>(rate);
  p.l1 = o.l1();
  p.compensation = o.delay_compensation();
  p.l2 = o.l2();
  p.epsilon = o.epsilon();
  p.beta = o.beta();
  switch (o.kind()) {
    case wire::Optimizer::ADAM:
    case wire::Optimizer::ADAMW:
      set_adam(o, rate, static_cast<double>(step), p);
      break;
    case wire::Optimizer::MOMENTUM:
      p.first = o.beta1();
      break;
    case wire::Optimizer::RMSPROP:
      p.second = static_cast<float>(1 - meant(o.beta2()));
      break;
    default:
      break;
  }
  return p;
}

void fill_fresh_state(const wire::Optimizer& o, std::span<const float> weights,
                      std::span<float> state) {
  const bool is_sum = o.kind() == wire::Optimizer::ADAGRAD ||
                      o.kind() == wire::Optimizer::ROWWISE_ADAGRAD ||
                      o.kind() == wire::Optimizer::FTRL;
  std::ranges::fill(state, is_sum ? o.initial_accumulator() : 0.0f);
  if (o.kind() != wire::Optimizer::FTRL) return;
  // z is where the closed form gives the weights that the row starts with: 0 for 0, as published.
  const float scale = (o.beta() + std::sqrt(o.initial_accumulator())) / o.rate() + o.l2();
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const float w = weights[i];
    state[weights.size() + i] = w == 0 ? 0 : -(w * scale + std::copysign(o.l1(), w));
  }
}

double schedule_share(const wire::Schedule& s, std::uint64_t step) {
  if (step <= s.warmup()) return static_cast<double>(step) / static_cast<double>(s.warmup());
  if (s.kind() == wire::Schedule::CONSTANT) return 1;
  const std::uint64_t gone = step - s.warmup() - 1;  // steps since the full rate
  const double parts = static_cast<double>(gone) / static_cast<double>(s.steps());
  const double factor = meant(s.factor());
  switch (s.kind()) {
    case wire::Schedule::STEP:
      return std::pow(factor, static_cast<double>(gone / s.steps()));
    case wire::Schedule::EXPONENTIAL:
      return std::pow(factor, parts);
    default:
      return factor + (1 - factor) * (1 + std::cos(std::numbers::pi * std::min(parts, 1.0))) / 2;
  }
}

}  // namespace meander::ps
