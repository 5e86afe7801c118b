// SPDX-License-Identifier: Apache-2.0
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <thread>

#include "launch/children.h"
#include "launch/layout.h"
#include "launch/signals.h"
#include "launch/train.h"

namespace meander::launch {
namespace {

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

Status start_children(Children& children, const Plan& plan, std::vector<std::string> sets,
                      const std::string& scheduler) {
  const job::Cluster& cluster = plan.job.spec.cluster();
  sets.push_back("cluster.threads=" + std::to_string(threads_each(cluster)));
  for (std::uint32_t i = 0; i < cluster.ps(); ++i) {
    std::vector<std::string> peers;
    const LaneRange lanes = lanes_of(i, cluster.ps(), plan.lanes());
    for (std::uint32_t lane = lanes.first; lane < lanes.end; ++lane) {
      peers.push_back(net::lane_name(lane));
    }
    RETURN_IF_ERROR(children.start("ps/" + std::to_string(i),
                                   child_arguments("ps", i, plan, sets, scheduler), peers));
  }
  for (std::uint32_t i = 0; i < cluster.workers(); ++i) {
    RETURN_IF_ERROR(children.start(net::worker_name(i),
                                   child_arguments("worker", i, plan, sets, scheduler),
                                   {net::worker_name(i)}));
  }
  return {};
}

// The scheduler here, everything else in children.
Result<Outcome> run_with_children(Context& context, const Plan& plan,
                                  const std::vector<std::string>& sets,
                                  scheduler::SchedulerOptions options, std::uint64_t& restarts) {
  catch_interrupts();
  Process process(context.clock, *context.storage, 1);
  ASSIGN_OR_RETURN(auto scheduler,
                   SchedulerThread::start(process, "tcp://127.0.0.1:*", std::move(options)));
  Children children("/proc/self/exe", context.clock, [&](const std::vector<std::string>& peers) {
    for (const std::string& peer : peers) scheduler->peer_died(peer);
  });
  RETURN_IF_ERROR(start_children(children, plan, sets, scheduler->endpoint()));
  Status lost;
  Outcome outcome = scheduler->follow(context, [&] {
    if (!lost.ok()) return;
    lost = children.tend();
    if (!lost.ok()) scheduler->abandon();
  });
  children.leave();
  restarts = children.restarts();
  if (!lost.ok()) outcome.status = lost;
  return outcome;
}

Status launch(Context& context, const LaunchFlags& flags) {
  const std::vector<std::string> sets = all_sets(flags);
  ASSIGN_OR_RETURN(const Plan plan, plan_job(context, flags.train.job, sets));
  RETURN_IF_ERROR(check_no_averaging(plan));
  if (flags.train.dry_run) return describe_plan(context, plan);
  std::uint64_t restarts = 0;
  const Status status =
      train_with(context, plan, flags.train.start, [&](scheduler::SchedulerOptions options) {
        return run_with_children(context, plan, sets, std::move(options), restarts);
      });
  if (!context.result.empty()) context.result["restarts"] = restarts;
  return status;
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
