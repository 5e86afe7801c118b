// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/sim_disk.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/planted_bug.h"

namespace meander::sim {
namespace {

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}
bool is_inside(const std::string& path, const std::string& directory) {
  return path.size() > directory.size() && path.starts_with(directory) &&
         path[directory.size()] == '/';
}

}  // namespace

class SimDisk::File final : public WritableFile {
 public:
  File(Face& face, std::string path, NodePtr node)
      : face_(face), path_(std::move(path)), node_(std::move(node)) {}

  Status append(const void* bytes, std::size_t size) override {
    if (!error_.ok()) return error_;
    const auto* text = static_cast<const char*>(bytes);
    error_ = face_.disk_.check(face_, "write to", path_, true);
    if (!error_.ok() && !face_.is_dead_) size = face_.disk_.rng_.below(size + 1);  // a short write
    if (face_.is_dead_) return error_;
    node_->is_synced = false;
    node_->contents.append(text, size);
    return error_;
  }
  Status close() override {
    if (!error_.ok()) return error_;
    error_ = face_.disk_.check(face_, "sync", path_, false);
    if (!error_.ok()) return error_;
    if (is_planted(PlantedBug::kFileNotSynced)) return {};
    node_->durable = node_->contents;
    node_->is_synced = true;
    error_ = face_.disk_.check(face_, "sync the directory of", path_, false);
    if (error_.ok()) face_.disk_.sync_directory(face_.host_, parent_of(path_));
    return error_;
  }

 private:
  Face& face_;
  const std::string path_;
  const NodePtr node_;
  Status error_;
};

std::unique_ptr<SimDisk::Face> SimDisk::open(std::uint32_t host) {
  return std::make_unique<Face>(*this, host);
}

// Whether an operation goes on; counts it.
Status SimDisk::check(Face& face, const char* what, const std::string& path, bool adds) {
  const std::string message = std::string("cannot ") + what + " " + path;
  if (face.operations_left_ > 0 && --face.operations_left_ == 0 && !face.is_dead_) {
    ++counts_.deaths;
    face.is_dead_ = true;
    face.on_death_();
  }
  if (face.is_dead_) return failed(message + ": the process is dead");
  if (adds && faults_.is_full) {
    ++counts_.full;
    return {Code::kExhausted, message + ": the disk is full"};
  }
  if (faults_.fail > 0 && rng_.chance(faults_.fail)) {
    ++counts_.failed;
    return failed(message + ": input/output error");
  }
  return {};
}

bool SimDisk::is_directory(const std::string& path) const {
  const auto at = entries_.find(path);
  return path.empty() || (at != entries_.end() && at->second->is_directory);
}

// Null: removes the name.
void SimDisk::put(std::uint32_t host, const std::string& path, NodePtr node) {
  const auto at = entries_.find(path);
  changes_.push_back({host, {{path, at == entries_.end() ? nullptr : at->second}}});
  if (node != nullptr) {
    entries_[path] = std::move(node);
  } else if (at != entries_.end()) {
    entries_.erase(at);
  }
}

void SimDisk::sync_directory(std::uint32_t host, const std::string& directory) {
  std::erase_if(changes_, [&](const Change& change) {
    return change.host == host && std::ranges::all_of(change.before, [&](const auto& entry) {
             return parent_of(entry.first) == directory;
           });
  });
}

void SimDisk::undo(const Change& change) {
  for (const auto& [path, node] : change.before) {
    if (node == nullptr) {
      entries_.erase(path);
    } else {
      entries_[path] = node;
    }
  }
}

void SimDisk::drop_unreachable() {
  for (auto at = entries_.begin(); at != entries_.end();) {
    at = is_directory(parent_of(at->first)) ? std::next(at) : entries_.erase(at);
  }
}

void SimDisk::crash(std::uint32_t host) {
  for (const auto& [path, node] : entries_) {
    if (node->is_synced || node->writer != host) continue;
    const std::string written = std::exchange(node->contents, node->durable);
    switch (rng_.below(4)) {
      case 0:  // nothing of it got there
        ++counts_.files_lost;
        break;
      case 1:  // a part
        ++counts_.torn;
        node->contents = written.substr(0, rng_.below(written.size() + 1));
        break;
      case 2:  // its length, and a part of its bytes
        ++counts_.torn;
        node->contents = written;
        std::fill(node->contents.begin() + rng_.below(written.size() + 1), node->contents.end(), 0);
        break;
      default:
        node->contents = written;
    }
    node->durable = node->contents;
    node->is_synced = true;
  }
  // A name's older change cannot be lost when a newer one is kept.
  std::set<std::string> kept;
  const double share = rng_.chance(0.3) ? 1 : rng_.uniform();
  for (auto change = changes_.rbegin(); change != changes_.rend(); ++change) {
    if (change->host != host) continue;
    const bool may_go = std::ranges::none_of(
        change->before, [&](const auto& entry) { return kept.contains(entry.first); });
    if (may_go && rng_.chance(share)) {
      undo(*change);
      ++counts_.names_lost;
    } else {
      for (const auto& [path, node] : change->before) kept.insert(path);
    }
  }
  std::erase_if(changes_, [&](const Change& change) { return change.host == host; });
  drop_unreachable();
}

std::unique_ptr<SimDisk> SimDisk::worst_case() const {
  auto copy = std::make_unique<SimDisk>(0);
  copy->entries_ = entries_;
  for (auto change = changes_.rbegin(); change != changes_.rend(); ++change) copy->undo(*change);
  copy->drop_unreachable();
  for (auto& [path, node] : copy->entries_) {
    if (node->is_synced) continue;
    auto durable = std::make_shared<Node>();
    durable->contents = durable->durable = node->durable;
    node = std::move(durable);
  }
  return copy;
}

Result<Buffer> SimDisk::Face::read(const std::string& path) {
  RETURN_IF_ERROR(disk_.check(*this, "read", path, false));
  const auto at = disk_.entries_.find(path);
  if (at == disk_.entries_.end()) return not_found("cannot read " + path + ": no such file");
  if (at->second->is_directory) return invalid("cannot read " + path + ": it is a directory");
  return Buffer::copy_of(at->second->contents.data(), at->second->contents.size());
}

Result<std::unique_ptr<WritableFile>> SimDisk::Face::create(const std::string& path) {
  RETURN_IF_ERROR(disk_.check(*this, "create", path, true));
  if (!disk_.is_directory(parent_of(path))) {
    return not_found("cannot create " + path + ": no such directory");
  }
  if (disk_.is_directory(path)) return invalid("cannot create " + path + ": it is a directory");
  auto node = std::make_shared<Node>();
  node->writer = host_;
  node->is_synced = false;
  disk_.put(host_, path, node);
  return std::unique_ptr<WritableFile>(std::make_unique<File>(*this, path, std::move(node)));
}

Status SimDisk::Face::rename(const std::string& from, const std::string& to) {
  RETURN_IF_ERROR(disk_.check(*this, "rename", from, false));
  const auto source = disk_.entries_.find(from);
  if (source == disk_.entries_.end()) return not_found("cannot rename " + from + ": no such file");
  CHECK(!source->second->is_directory && !disk_.is_directory(to)) << "only files are renamed here";
  const NodePtr node = source->second;
  const auto target = disk_.entries_.find(to);
  disk_.changes_.push_back(
      {host_, {{from, node}, {to, target == disk_.entries_.end() ? nullptr : target->second}}});
  disk_.entries_.erase(source);
  disk_.entries_[to] = node;
  RETURN_IF_ERROR(disk_.check(*this, "sync the directory of", to, false));
  if (!is_planted(PlantedBug::kDirectoryNotSynced)) disk_.sync_directory(host_, parent_of(to));
  return {};
}

Status SimDisk::Face::remove(const std::string& path) {
  RETURN_IF_ERROR(disk_.check(*this, "remove", path, false));
  std::vector<std::string> names;
  for (auto at = disk_.entries_.lower_bound(path); at != disk_.entries_.end(); ++at) {
    if (!at->first.starts_with(path)) break;
    if (at->first == path || is_inside(at->first, path)) names.push_back(at->first);
  }
  for (auto name = names.rbegin(); name != names.rend(); ++name) {  // what is inside first
    RETURN_IF_ERROR(disk_.check(*this, "remove", *name, false));
    disk_.put(host_, *name, nullptr);
  }
  return {};
}

Status SimDisk::Face::make_directories(const std::string& path) {
  if (path.empty()) return {};
  if (disk_.is_directory(path)) return sync_directory(parent_of(path));
  RETURN_IF_ERROR(make_directories(parent_of(path)));
  RETURN_IF_ERROR(disk_.check(*this, "make directory", path, true));
  if (exists(path)) return invalid("cannot make " + path + ": a file is in the way");
  auto node = std::make_shared<Node>();
  node->is_directory = true;
  disk_.put(host_, path, std::move(node));
  RETURN_IF_ERROR(disk_.check(*this, "sync the directory of", path, false));
  disk_.sync_directory(host_, parent_of(path));
  return {};
}

Status SimDisk::Face::sync_directory(const std::string& path) {
  RETURN_IF_ERROR(disk_.check(*this, "sync", path, false));
  if (!disk_.is_directory(path)) return not_found("cannot sync " + path + ": no such directory");
  disk_.sync_directory(host_, path);
  return {};
}

Result<std::vector<std::string>> SimDisk::Face::list(const std::string& path) {
  RETURN_IF_ERROR(disk_.check(*this, "list", path, false));
  if (!disk_.is_directory(path)) return not_found("cannot list " + path + ": no such directory");
  std::vector<std::string> names;
  for (const auto& [name, node] : disk_.entries_) {
    if (parent_of(name) == path) names.push_back(name.substr(name.rfind('/') + 1));
  }
  return names;
}

bool SimDisk::Face::exists(const std::string& path) {
  return path.empty() || disk_.entries_.contains(path);
}

}  // namespace meander::sim
