// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "common/thread_executor.h"
#include "launch/plan.h"
#include "net/node_runner.h"
#include "net/zmq_transport.h"
#include "ps/lane.h"
#include "worker/worker.h"

namespace meander::launch {

// What all roles of one process share.
struct Process {
  // `threads`: of compute; 0: one per core. `shm`: lanes and workers talk through shared memory to
  // those of this host.
  Process(const Clock& clock, Storage& storage, std::uint32_t threads, bool shm = false);
  // A lane's or worker's transport.
  Result<std::unique_ptr<net::PolledTransport>> open(const std::string& name,
                                                     const std::string& bind);

  const Clock& clock;
  Storage& storage;
  net::ZmqContext zmq;
  ThreadPool pool;
  ThreadPool storage_pool;  // of lanes: files, beside training and behind it
  const bool shm;
  std::string host;  // this machine's name
};

// Do roles of separate processes talk through shared memory where they can?
bool wants_shm(const job::Cluster& cluster);

// A number that no other process or start has: ids of runs, incarnations.
std::uint64_t draw_id();

// A lane or worker on a thread of its own, from start() until it has finished, or stop().
class RoleThread {
 public:
  using Make = std::function<std::unique_ptr<net::Node>(net::Transport&, Executor&)>;

  // Makes the node and runs it, its heavy work on `pool`. `scheduler`: endpoint to connect to.
  static Result<std::unique_ptr<RoleThread>> start(Process& process, ThreadPool& pool,
                                                   std::unique_ptr<net::PolledTransport> transport,
                                                   const std::string& scheduler, const Make& make);
  ~RoleThread();  // stop() and join()
  void stop() { runner_.stop(); }
  void join();
  // Finished by itself; never true before it has.
  bool has_finished() const { return has_finished_; }
  // After join().
  const net::Node& node() const { return *node_; }

 private:
  RoleThread(Process& process, ThreadPool& pool, std::unique_ptr<net::PolledTransport> transport)
      : transport_(std::move(transport)), runner_(*transport_, process.clock, pool) {}

  std::unique_ptr<net::PolledTransport> transport_;
  net::NodeRunner runner_;
  std::unique_ptr<net::Node> node_;
  std::atomic<bool> has_finished_{false};
  std::thread thread_;
};

// Lane `index`, or its backup: "lane/3", "backup/3". It listens at `bind`. `advertise`: the host
// name that others reach it by; empty: as bound.
Result<std::unique_ptr<RoleThread>> start_lane(Process& process, const std::string& name,
                                               std::uint32_t index, std::uint64_t cluster,
                                               const std::string& bind,
                                               const std::string& advertise,
                                               const std::string& scheduler);
// `collective`: of all workers, when dense parameters are averaged (null otherwise).
Result<std::unique_ptr<RoleThread>> start_worker(Process& process, const Plan& plan,
                                                 std::uint32_t index, std::uint64_t cluster,
                                                 const std::string& scheduler,
                                                 worker::Collective* collective = nullptr);

// "tcp://10.0.0.3:5000" with the host of `endpoint` replaced. kInvalid: not of tcp.
Result<std::string> replace_host(const std::string& endpoint, const std::string& host);

}  // namespace meander::launch
