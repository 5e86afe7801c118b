// SPDX-License-Identifier: Apache-2.0
#include "launch/role.h"

#include <poll.h>

#include <algorithm>
#include <charconv>

#include "launch/signals.h"

namespace meander::launch {
namespace {

constexpr int kTickMs = 50;

// Waits until all of them have finished. An interrupt stops them at once: lanes and workers hold
// nothing that the rest of the cluster cannot restore.
Status wait_for(std::vector<std::unique_ptr<RoleThread>>& roles) {
  const auto is_done = [](const auto& role) { return role->has_finished(); };
  while (!std::ranges::all_of(roles, is_done)) {
    pollfd descriptor{interrupt_descriptor(), POLLIN, 0};
    poll(&descriptor, 1, kTickMs);
    if (interrupted()) {
      for (const auto& role : roles) role->stop();
      for (const auto& role : roles) role->join();
      return {Code::kInterrupted, "told to leave"};
    }
  }
  for (const auto& role : roles) role->join();
  return {};
}

// The endpoint of the lane `step` ports above `listen`; port * and 0 are the system's choice.
Result<std::string> listen_above(const std::string& listen, std::uint32_t step) {
  const std::size_t colon = listen.rfind(':');
  const std::string port = colon == std::string::npos ? "" : listen.substr(colon + 1);
  if (port == "*" || port == "0") return listen;
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size() || port.empty()) {
    return invalid("--listen needs tcp://address:port, got '" + listen + "'");
  }
  return listen.substr(0, colon + 1) + std::to_string(number + step);
}

bool is_wildcard(const std::string& listen) {
  return listen.rfind("tcp://0.0.0.0:", 0) == 0 || listen.rfind("tcp://*:", 0) == 0;
}

}  // namespace

Status run_ps(const Context& context, Process& process, const PsRole& role) {
  std::string advertise = role.advertise;
  if (advertise.empty() && is_wildcard(role.listen)) advertise = process.host;
  std::vector<std::unique_ptr<RoleThread>> lanes;
  for (const std::uint32_t i : role.lanes) {
    const auto step = static_cast<std::uint32_t>(lanes.size());
    ASSIGN_OR_RETURN(const std::string listen, listen_above(role.listen, step));
    ASSIGN_OR_RETURN(lanes.emplace_back(), start_lane(process, net::lane_name(i), i, 0, listen,
                                                      advertise, role.scheduler));
  }
  const auto own = static_cast<std::uint32_t>(role.lanes.size());
  for (std::uint32_t i = role.backups.first; i < role.backups.end; ++i) {
    ASSIGN_OR_RETURN(const std::string listen,
                     listen_above(role.listen, own + i - role.backups.first));
    ASSIGN_OR_RETURN(lanes.emplace_back(), start_lane(process, net::backup_name(i), i, 0, listen,
                                                      advertise, role.scheduler));
  }
  if (context.verbose > 0) {
    context.note(std::to_string(own) + " lanes from " + net::lane_name(role.lanes.front()) +
                 " on serve " + role.scheduler);
  }
  RETURN_IF_ERROR(wait_for(lanes));
  for (const auto& lane : lanes) {
    RETURN_IF_ERROR(dynamic_cast<const ps::Lane&>(lane->node()).status());
  }
  return {};
}

Status run_worker(const Context& context, Process& process, const Plan& plan, std::uint32_t index,
                  const std::string& scheduler, worker::Collective* collective) {
  std::vector<std::unique_ptr<RoleThread>> roles(1);
  ASSIGN_OR_RETURN(roles[0], start_worker(process, plan, index, 0, scheduler, collective));
  if (context.verbose > 0) {
    context.note("worker " + std::to_string(index) + " works for " + scheduler);
  }
  RETURN_IF_ERROR(wait_for(roles));
  return dynamic_cast<const worker::Worker&>(roles[0]->node()).status();
}

}  // namespace meander::launch
