// SPDX-License-Identifier: Apache-2.0
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <boost/json/parse.hpp>
#include <thread>
#include <utility>

#include "common/rng.h"
#include "launch/children.h"
#include "launch/early_stop.h"
#include "launch/layout.h"
#include "launch/signals.h"
#include "launch/train.h"

namespace meander::launch {
namespace {

constexpr int kTickMs = 50;

struct LaunchFlags {
  TrainFlags train;
  int ps = 0, workers = 0;  // 0: the job's
};

// The job's sets, and those that --ps and --workers stand for.
std::vector<std::string> all_sets(const LaunchFlags& flags) {
  std::vector<std::string> sets = flags.train.sets;
  if (flags.ps > 0) sets.push_back("cluster.ps=" + std::to_string(flags.ps));
  if (flags.workers > 0) sets.push_back("cluster.workers=" + std::to_string(flags.workers));
  return sets;
}

// Threads of a child, so that all of them together have one per core.
std::uint32_t threads_each(const job::Cluster& cluster) {
  if (cluster.threads() != 0) return cluster.threads();
  return std::max(1u, std::thread::hardware_concurrency() / cluster.workers());
}

std::vector<std::string> child_arguments(const std::string& role, std::uint32_t index,
                                         const Plan& plan, const std::vector<std::string>& sets,
                                         const std::string& scheduler) {
  std::vector<std::string> arguments = {
      role, plan.job.file, "--index", std::to_string(index), "--scheduler", scheduler};
  for (const std::string& set : sets) arguments.insert(arguments.end(), {"--set", set});
  return arguments;
}

std::vector<std::string> lane_arguments(std::uint32_t lane) {
  return {"--lane", std::to_string(lane)};
}

Status start_ps(Children& children, std::uint32_t index, std::vector<std::string> arguments,
                const std::vector<std::uint32_t>& lanes, LaneRange backups) {
  std::vector<std::string> peers;
  for (const std::uint32_t lane : lanes) {
    peers.push_back(net::lane_name(lane));
    for (std::string& word : lane_arguments(lane)) arguments.push_back(std::move(word));
  }
  for (const std::uint32_t lane : backups.all()) peers.push_back(net::backup_name(lane));
  return children.start("ps/" + std::to_string(index), std::move(arguments), std::move(peers));
}

// Starts lanes that a run is given more of while it goes on, and lets those go that it needs no
// more.
class Lanes {
 public:
  Lanes(Children& children, const Plan& plan, std::vector<std::string> sets, std::string scheduler)
      : children_(children),
        plan_(plan),
        sets_(std::move(sets)),
        scheduler_(std::move(scheduler)),
        count_(plan.lanes()),
        processes_(plan.job.spec.cluster().ps()) {}

  // "@lanes 4": of the scheduler.
  Status hear(const std::string& word) {
    constexpr std::string_view kLanes = "@lanes ";
    if (!word.starts_with(kLanes)) return {};
    const auto count = static_cast<std::uint32_t>(std::atoi(word.c_str() + kLanes.size()));
    for (std::uint32_t lane = 0; lane < count; ++lane) {
      if (children_.has(net::lane_name(lane))) continue;
      const std::uint32_t index = processes_++;
      RETURN_IF_ERROR(start_ps(children_, index,
                               child_arguments("ps", index, plan_, sets_, scheduler_), {lane}, {}));
    }
    for (std::uint32_t lane = count; lane < count_; ++lane) {
      children_.release(net::lane_name(lane), lane_arguments(lane));
    }
    count_ = count;
    return {};
  }

 private:
  Children& children_;
  const Plan& plan_;
  const std::vector<std::string> sets_;
  const std::string scheduler_;
  std::uint32_t count_, processes_;
};

Status start_children(Children& children, const Plan& plan, const std::vector<std::string>& sets,
                      const std::string& scheduler) {
  const job::Cluster& cluster = plan.job.spec.cluster();
  for (std::uint32_t i = 0; i < cluster.ps(); ++i) {
    RETURN_IF_ERROR(start_ps(children, i, child_arguments("ps", i, plan, sets, scheduler),
                             lanes_of_ps(i, cluster).all(), backups_of(i, cluster)));
  }
  for (std::uint32_t i = 0; i < cluster.workers(); ++i) {
    RETURN_IF_ERROR(children.start(net::worker_name(i),
                                   child_arguments("worker", i, plan, sets, scheduler),
                                   {net::worker_name(i)}));
  }
  return {};
}

// A port that stays free while nobody listens: none of those that the system hands out.
Result<std::string> choose_endpoint() {
  constexpr int kFirst = 15'000, kCount = 15'000, kTries = 50;
  std::uint64_t random = draw_id();
  for (int i = 0; i < kTries; ++i, random = mix64(random)) {
    const int port = kFirst + static_cast<int>(random % kCount);
    const int socket_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (socket_fd < 0) break;
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    const int bound = bind(socket_fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
    close(socket_fd);
    if (bound == 0) return "tcp://127.0.0.1:" + std::to_string(port);
  }
  return failed("no free port on loopback for the scheduler");
}

std::vector<std::string> scheduler_arguments(const Context& context, const Plan& plan,
                                             const std::vector<std::string>& sets,
                                             const std::string& endpoint) {
  std::vector<std::string> arguments = {"scheduler", plan.job.file, "--listen", endpoint, "--led"};
  for (const std::string& set : sets) arguments.insert(arguments.end(), {"--set", set});
  if (context.json) arguments.push_back("--json");
  if (context.quiet) arguments.push_back("--quiet");
  for (int i = 0; i < context.verbose; ++i) arguments.push_back("--verbose");
  return arguments;
}

// Until the scheduler has left.
Status look_after(Children& children, Lanes& lanes) {
  bool is_told = false;
  while (!children.leader_code()) {
    pollfd descriptor{is_told ? -1 : interrupt_descriptor(), POLLIN, 0};
    poll(&descriptor, 1, kTickMs);
    if (interrupted() && !std::exchange(is_told, true)) children.interrupt_leader();
    RETURN_IF_ERROR(children.tend());
    for (const std::string& word : children.take_leader_words()) RETURN_IF_ERROR(lanes.hear(word));
  }
  return {};
}

// What the scheduler printed, and what only this process knows.
Status take_result(Context& context, const Children& children) {
  context.child_code = children.leader_code();
  if (interrupted() && context.child_code != 0) context.child_code = interrupt_exit_code();
  const std::string& output = children.leader_output();
  if (output.empty()) return {};
  if (!context.json) {
    context.summary = output;
  } else {
    boost::system::error_code error;
    const std::size_t line = output.find_last_of('\n', output.size() - 2);
    const boost::json::value result =
        boost::json::parse(output.substr(line == std::string::npos ? 0 : line + 1), error);
    if (error || !result.is_object()) return failed("the scheduler's result cannot be read");
    context.result = result.get_object();
  }
  context.result["restarts"] = children.restarts();
  return {};
}

// All roles in children. The scheduler's way to end is the run's.
Status run_children(Context& context, const Plan& plan, const std::vector<std::string>& sets,
                    bool has_journal) {
  catch_interrupts();
  ASSIGN_OR_RETURN(const std::string endpoint, choose_endpoint());
  Children* told = nullptr;
  Children children("/proc/self/exe", context.clock, [&](const std::vector<std::string>& peers) {
    for (const std::string& peer : peers) told->tell_leader(peer + "\n");
  });
  told = &children;
  RETURN_IF_ERROR(
      children.lead("scheduler", scheduler_arguments(context, plan, sets, endpoint), has_journal));
  std::vector<std::string> child_sets = sets;
  child_sets.push_back("cluster.threads=" + std::to_string(threads_each(plan.job.spec.cluster())));
  RETURN_IF_ERROR(start_children(children, plan, child_sets, endpoint));
  Lanes lanes(children, plan, std::move(child_sets), endpoint);
  RETURN_IF_ERROR(look_after(children, lanes));
  children.leave();
  return take_result(context, children);
}

Status launch(Context& context, const LaunchFlags& flags) {
  const std::vector<std::string> sets = all_sets(flags);
  ASSIGN_OR_RETURN(const Plan plan, plan_job(context, flags.train.job, sets));
  RETURN_IF_ERROR(check_no_averaging(plan));
  RETURN_IF_ERROR(check_no_early_stop(plan));
  if (flags.train.dry_run) return describe_plan(context, plan);
  // --fresh is for this start, not for each of the scheduler's.
  ASSIGN_OR_RETURN(const Start start, find_start(context, plan, flags.train.start));
  const bool has_journal = !start.is_finished && !plan.job.spec.checkpoint().dir().empty();
  return run_children(context, plan, sets, has_journal);
}

}  // namespace

void add_launch(CLI::App& app, Context& context) {
  CLI::App& command =
      add_command(app, context, "launch",
                  "Trains a job on this host as separate processes, restarting what dies.",
                  "meander launch examples/ml1m-dien.yaml --ps 2 --workers 2");
  auto flags = std::make_shared<LaunchFlags>();
  add_train_flags(command, flags->train);
  command.add_option("--ps", flags->ps, "ps processes; cluster.ps of the job by default")
      ->check(CLI::PositiveNumber);
  command
      .add_option("--workers", flags->workers,
                  "worker processes; cluster.workers of the job by default")
      ->check(CLI::PositiveNumber);
  command.callback([&context, flags] {
    context.action = [&context, flags] { return launch(context, *flags); };
  });
}

}  // namespace meander::launch
