// SPDX-License-Identifier: Apache-2.0
#include "launch/layout.h"
#include "launch/mpi.h"
#include "launch/role.h"
#include "launch/signals.h"
#include "launch/train.h"

namespace meander::launch {
namespace {

// Tells the other ranks where the scheduler is; or, when rank 0 gives up before it has one, that
// there is nothing to do.
class Announcement {
 public:
  explicit Announcement(const MpiWorld& world) : world_(world) {}
  ~Announcement() {
    if (!is_made_) world_.broadcast("");
  }
  void make(const std::string& endpoint) {
    is_made_ = true;
    world_.broadcast(endpoint);
  }

 private:
  const MpiWorld& world_;
  bool is_made_ = false;
};

// The address that others reach a wildcard endpoint by.
Result<std::string> reachable(const MpiWorld& world, const std::string& endpoint,
                              const std::string& host) {
  if (world.is_one_host()) return endpoint;
  return replace_host(endpoint, host);
}

std::string listen_at(const MpiWorld& world) {
  return world.is_one_host() ? "tcp://127.0.0.1:*" : "tcp://0.0.0.0:*";
}

Status lead(Context& context, const TrainFlags& flags, const std::vector<std::string>& sets,
            MpiWorld& world) {
  Announcement announcement(world);
  ASSIGN_OR_RETURN(const Plan plan, plan_job(context, flags.job, sets));
  if (flags.dry_run) return describe_plan(context, plan);
  return train_with(
      context, plan, flags.start, [&](scheduler::SchedulerOptions options) -> Result<Outcome> {
        catch_interrupts_of_mpi();
        Process process(context.clock, *context.storage, 1);
        ASSIGN_OR_RETURN(auto scheduler,
                         SchedulerThread::start(process, listen_at(world), std::move(options)));
        ASSIGN_OR_RETURN(const std::string endpoint,
                         reachable(world, scheduler->endpoint(), process.host));
        announcement.make(endpoint);
        if (averages_dense(plan)) world.collective(false);
        return scheduler->follow(context, {});
      });
}

Status follow(Context& context, const TrainFlags& flags, const std::vector<std::string>& sets,
              MpiWorld& world) {
  ignore_interrupts();  // rank 0 hears them too, and ends everybody in order
  context.quiet = true;
  context.json = false;
  const std::string scheduler = world.broadcast("");
  if (scheduler.empty()) return {};
  ASSIGN_OR_RETURN(LoadedJob job, load_job(*context.storage, flags.job, sets));
  const job::Cluster cluster = job.spec.cluster();
  const bool is_ps = world.rank() <= cluster.ps();
  std::unique_ptr<worker::Collective> collective;
  if (job.spec.train().dense() == job::Train::allreduce) collective = world.collective(!is_ps);
  Process process(context.clock, *context.storage, cluster.threads() != 0 ? cluster.threads() : 1,
                  wants_shm(cluster));
  if (is_ps) {
    PsRole role;
    role.lanes = lanes_of(world.rank() - 1, cluster.ps(), lane_count(cluster)).all();
    role.backups = backups_of(world.rank() - 1, cluster);
    role.scheduler = scheduler;
    role.listen = listen_at(world);
    return run_ps(context, process, role);
  }
  ASSIGN_OR_RETURN(const Plan plan, make_plan(*context.storage, std::move(job)));
  return run_worker(context, process, plan, world.rank() - 1 - cluster.ps(), scheduler,
                    collective.get());
}

}  // namespace

Status train_under_mpi(Context& context, const TrainFlags& flags) {
  MpiWorld world;
  std::vector<std::string> sets = flags.sets;
  Result<LoadedJob> job = load_job(*context.storage, flags.job, sets);
  Result<RankLayout> layout =
      job.ok() ? rank_layout(job.value(), world.size()) : Result<RankLayout>(job.status());
  if (!layout.ok()) return world.rank() == 0 ? layout.status() : Status();
  sets.push_back("cluster.ps=" + std::to_string(layout->ps));
  sets.push_back("cluster.workers=" + std::to_string(layout->workers));
  return world.rank() == 0 ? lead(context, flags, sets, world)
                           : follow(context, flags, sets, world);
}

}  // namespace meander::launch
