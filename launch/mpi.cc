// SPDX-License-Identifier: Apache-2.0
#include "launch/mpi.h"

#define OMPI_SKIP_MPICXX 1  // the C interface alone
#include <mpi.h>

#include <cstdlib>

#include "common/check.h"

namespace meander::launch {

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

MpiWorld::~MpiWorld() { MPI_Finalize(); }

std::string MpiWorld::broadcast(const std::string& text) const {
  auto size = static_cast<std::uint64_t>(text.size());
  MPI_Bcast(&size, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
  std::string heard = text;
  heard.resize(size);
  MPI_Bcast(heard.data(), static_cast<int>(size), MPI_CHAR, 0, MPI_COMM_WORLD);
  return heard;
}

}  // namespace meander::launch
