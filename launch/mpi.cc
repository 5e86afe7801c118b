// SPDX-License-Identifier: Apache-2.0
#include "launch/mpi.h"

#define OMPI_SKIP_MPICXX 1  // the C interface alone
#include <mpi.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "common/check.h"

namespace meander::launch {
namespace {

constexpr int kRetryableExit = 170;
constexpr std::chrono::microseconds kNap{20};  // between looks: ranks may share cores
constexpr int kLooksAwake = 64;                // before the first nap

class MpiSum final : public worker::Collective {
 public:
  MpiSum(MPI_Comm members, bool& is_broken) : members_(members), is_broken_(is_broken) {}
  ~MpiSum() override {
    if (!is_broken_) MPI_Comm_free(&members_);
  }
  Status sum(std::span<float> values) override {
    if (is_broken_) return unavailable("a sum over the workers was given up before");
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Iallreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_FLOAT, MPI_SUM,
                   members_, &request);
    const auto deadline = std::chrono::steady_clock::now() + MpiWorld::kSumWait;
    for (int looks = 0;; ++looks) {
      int is_done = 0;
      MPI_Test(&request, &is_done, MPI_STATUS_IGNORE);
      if (is_done != 0) return {};
      if (looks < kLooksAwake) continue;
      if (std::chrono::steady_clock::now() > deadline) break;
      std::this_thread::sleep_for(kNap);
    }
    is_broken_ = true;
    return unavailable("not all workers came to a sum of the dense gradients in time");
  }

 private:
  MPI_Comm members_;
  bool& is_broken_;
};

}  // namespace

bool MpiWorld::is_present() {
  const char* size = std::getenv("OMPI_COMM_WORLD_SIZE");
  return size != nullptr && std::atoi(size) > 1;
}

MpiWorld::MpiWorld() {
  int provided = 0;
  CHECK_EQ(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), MPI_SUCCESS);
  int rank = 0, size = 1, here = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm same_host = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &same_host);
  MPI_Comm_size(same_host, &here);
  MPI_Comm_free(&same_host);
  // Each host sees its own count: all must see everyone.
  int all_here = here == size ? 1 : 0;
  MPI_Allreduce(MPI_IN_PLACE, &all_here, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  rank_ = static_cast<std::uint32_t>(rank);
  size_ = static_cast<std::uint32_t>(size);
  is_one_host_ = all_here != 0;
}

MpiWorld::~MpiWorld() {
  if (is_broken_) MPI_Abort(MPI_COMM_WORLD, kRetryableExit);
  MPI_Finalize();
}

std::unique_ptr<worker::Collective> MpiWorld::collective(bool is_member) {
  MPI_Comm members = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, is_member ? 0 : MPI_UNDEFINED, static_cast<int>(rank_), &members);
  if (!is_member) return nullptr;
  return std::make_unique<MpiSum>(members, is_broken_);
}

std::string MpiWorld::broadcast(const std::string& text) const {
  auto size = static_cast<std::uint64_t>(text.size());
  MPI_Bcast(&size, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
  std::string heard = text;
  heard.resize(size);
  MPI_Bcast(heard.data(), static_cast<int>(size), MPI_CHAR, 0, MPI_COMM_WORLD);
  return heard;
}

}  // namespace meander::launch
