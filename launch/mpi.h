// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "worker/worker.h"

namespace meander::launch {

// MPI as far as Meander uses it: it says who we are and passes one address on. Everything else goes
// over ZeroMQ, so that it survives what MPI does not. mpi.cc alone includes mpi.h.
class MpiWorld {
 public:
  // Was this process started by mpirun with others? Reads only the environment.
  static bool is_present();

  MpiWorld();   // MPI_Init
  ~MpiWorld();  // MPI_Finalize
  MpiWorld(const MpiWorld&) = delete;
  MpiWorld& operator=(const MpiWorld&) = delete;

  std::uint32_t rank() const { return rank_; }
  std::uint32_t size() const { return size_; }
  bool is_one_host() const { return is_one_host_; }
  // What rank 0 says, at every rank. Called by all, once each time.
  std::string broadcast(const std::string& text) const;
  // Sums over the ranks that say `is_member`; null at the others. Called by all, once. A sum that
  // some rank does not come to within kSumWait is kUnavailable, and ~MpiWorld then ends all ranks.
  std::unique_ptr<worker::Collective> collective(bool is_member);
  static constexpr std::chrono::seconds kSumWait{120};

 private:
  std::uint32_t rank_ = 0, size_ = 1;
  bool is_one_host_ = true;
  bool is_broken_ = false;  // a sum was given up: MPI cannot end in order any more
};

}  // namespace meander::launch
