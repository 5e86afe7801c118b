// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/rng.h"
#include "common/storage.h"

namespace meander::sim {

// What goes wrong with the disk for a while.
struct DiskFaults {
  double fail = 0;       // share of operations that fail; an append may have written a part
  bool is_full = false;  // nothing can be added
};
// What it has done, and what became of it.
struct DiskCounts {
  std::uint64_t failed = 0, full = 0;      // operations refused
  std::uint64_t torn = 0, files_lost = 0;  // files that a crash left in part, or empty
  std::uint64_t names_lost = 0;            // creations, renames and removals undone by a crash
  std::uint64_t deaths = 0;                // of processes in the middle of an operation
};

// A file system that the hosts of a cluster share. Each host sees at once what another writes, but
// what a host has not synced it loses when it crashes: contents in whole or in part, and names
// (creations, renames, removals) one by one, as POSIX allows.
class SimDisk {
 public:
  // A process's view of the disk: operations of a dead one fail and do nothing.
  class Face;
  explicit SimDisk(std::uint64_t seed) : rng_(seed) {}
  std::unique_ptr<Face> open(std::uint32_t host);
  void set_faults(DiskFaults faults) { faults_ = faults; }
  // The machine stops: what its processes have not synced may be lost.
  void crash(std::uint32_t host);
  // What is left if all hosts crash now and all that may be lost is lost.
  std::unique_ptr<SimDisk> worst_case() const;
  const DiskCounts& counts() const { return counts_; }

 private:
  struct Node {
    bool is_directory = false;
    std::string contents, durable;
    bool is_synced = true;
    std::uint32_t writer = 0;
  };
  using NodePtr = std::shared_ptr<Node>;
  // A change of names that is not durable yet: what was there before.
  struct Change {
    std::uint32_t host = 0;
    std::vector<std::pair<std::string, NodePtr>> before;
  };
  class File;

  Status check(Face& face, const char* what, const std::string& path, bool adds);
  void put(std::uint32_t host, const std::string& path, NodePtr node);
  void sync_directory(std::uint32_t host, const std::string& directory);
  void undo(const Change& change);
  void drop_unreachable();
  bool is_directory(const std::string& path) const;

  Rng rng_;
  DiskFaults faults_;
  DiskCounts counts_;
  std::map<std::string, NodePtr> entries_;
  std::vector<Change> changes_;  // in order
};

class SimDisk::Face final : public Storage {
 public:
  Face(SimDisk& disk, std::uint32_t host) : disk_(disk), host_(host) {}
  // From now on the process is dead.
  void kill() { is_dead_ = true; }
  // The process dies in its n-th operation from now on: `on_death` is called, which may kill() this
  // and more.
  void die_in(std::uint64_t n, std::function<void()> on_death) {
    operations_left_ = n;
    on_death_ = std::move(on_death);
  }

  Result<Buffer> read(const std::string& path) override;
  Result<std::unique_ptr<WritableFile>> create(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status remove(const std::string& path) override;
  Status make_directories(const std::string& path) override;
  Status sync_directory(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& path) override;
  bool exists(const std::string& path) override;

 private:
  friend class SimDisk;
  SimDisk& disk_;
  const std::uint32_t host_;
  bool is_dead_ = false;
  std::uint64_t operations_left_ = 0;  // 0: it does not die so
  std::function<void()> on_death_;
};

}  // namespace meander::sim
