// SPDX-License-Identifier: Apache-2.0
#include "launch/roles.h"

#include <unistd.h>

#include <algorithm>
#include <random>

#include "common/rng.h"
#include "net/shm_transport.h"

namespace meander::launch {
namespace {

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

wire::Precision wire_precision(job::Wire::Precision precision) {
  switch (precision) {
    case job::Wire::bf16:
      return wire::BF16;
    case job::Wire::fp16:
      return wire::FP16;
    case job::Wire::f32:
      break;
  }
  return wire::F32;
}

constexpr int kStorageNiceness = 19;  // what training leaves idle, and some 2 % more

std::size_t threads_or_all(std::uint32_t threads) {
  return threads != 0 ? threads : std::max(1u, std::thread::hardware_concurrency());
}

std::uint32_t own_pid() { return static_cast<std::uint32_t>(getpid()); }

}  // namespace

Process::Process(const Clock& the_clock, Storage& the_storage, std::uint32_t threads, bool use_shm)
    : clock(the_clock),
      storage(the_storage),
      pool(threads_or_all(threads)),
      storage_pool(threads_or_all(0), kStorageNiceness),
      shm(use_shm),
      host(host_name()) {}

Result<std::unique_ptr<net::PolledTransport>> Process::open(const std::string& name,
                                                            const std::string& bind) {
  if (shm) {
    ASSIGN_OR_RETURN(auto transport, net::ShmTransport::create(zmq, name, bind));
    return std::unique_ptr<net::PolledTransport>(std::move(transport));
  }
  ASSIGN_OR_RETURN(auto transport, net::ZmqTransport::create(zmq, name, bind));
  return std::unique_ptr<net::PolledTransport>(std::move(transport));
}

bool wants_shm(const job::Cluster& cluster) { return cluster.transport() != job::Cluster::tcp; }

std::uint64_t draw_id() {
  std::random_device device;
  const std::uint64_t high = device(), low = device();
  return hash64(high, low, own_pid()) | 1;  // 0 means "not known"
}

Result<std::unique_ptr<RoleThread>> RoleThread::start(
    Process& process, ThreadPool& pool, std::unique_ptr<net::PolledTransport> transport,
    const std::string& scheduler, const Make& make) {
  RETURN_IF_ERROR(transport->connect(net::kSchedulerName, scheduler));
  std::unique_ptr<RoleThread> role(new RoleThread(process, pool, std::move(transport)));
  role->node_ = make(*role->transport_, role->runner_.executor());
  role->thread_ = std::thread([self = role.get()] {
    self->runner_.run(*self->node_);
    self->has_finished_ = self->node_->finished();
  });
  return role;
}

RoleThread::~RoleThread() {
  stop();
  join();
}

void RoleThread::join() {
  if (thread_.joinable()) thread_.join();
}

Result<std::unique_ptr<RoleThread>> start_lane(Process& process, const std::string& name,
                                               std::uint32_t index, std::uint64_t cluster,
                                               const std::string& bind,
                                               const std::string& advertise,
                                               const std::string& scheduler) {
  ASSIGN_OR_RETURN(auto transport, process.open(name, bind));
  ps::LaneOptions options;
  options.index = index;
  options.name = name;
  options.cluster = cluster;
  options.incarnation = draw_id();
  options.endpoint = transport->endpoint();
  if (!advertise.empty()) {
    ASSIGN_OR_RETURN(options.endpoint, replace_host(options.endpoint, advertise));
  }
  options.host = process.host;
  options.pid = own_pid();
  return RoleThread::start(process, process.storage_pool, std::move(transport), scheduler,
                           [&](net::Transport& net, Executor& executor) {
                             return std::make_unique<ps::Lane>(options, net, process.storage,
                                                               executor);
                           });
}

Result<std::unique_ptr<RoleThread>> start_worker(Process& process, const Plan& plan,
                                                 std::uint32_t index, std::uint64_t cluster,
                                                 const std::string& scheduler,
                                                 worker::Collective* collective) {
  ASSIGN_OR_RETURN(auto transport, process.open(net::worker_name(index), ""));
  worker::WorkerOptions options;
  options.index = index;
  options.cluster = cluster;
  options.incarnation = draw_id();
  options.host = process.host;
  options.pid = own_pid();
  const job::Train& train = plan.job.spec.train();
  options.depth = train.depth() != 0 ? train.depth() : train.mode() == job::Train::bsp ? 2 : 1;
  options.precision = precision_of(plan);
  options.frozen = frozen_rows(plan);
  options.clip_norm = train.clip_norm();
  options.wire_precision = wire_precision(train.wire());
  return RoleThread::start(process, process.pool, std::move(transport), scheduler,
                           [&](net::Transport& net, Executor& executor) {
                             return std::make_unique<worker::Worker>(
                                 options, *plan.graph, open_stream(plan), open_slice(plan), net,
                                 executor, collective);
                           });
}

Result<std::string> replace_host(const std::string& endpoint, const std::string& host) {
  const std::size_t colon = endpoint.rfind(':');
  if (endpoint.rfind("tcp://", 0) != 0 || colon <= 6) {
    return invalid("only a tcp endpoint has a host to advertise, not " + endpoint);
  }
  return "tcp://" + host + endpoint.substr(colon);
}

}  // namespace meander::launch
