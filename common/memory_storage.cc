// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <map>
#include <mutex>
#include <string_view>

#include "common/storage.h"

namespace meander {
namespace {

// A file's bytes, shared with those who write it: a rename does not disturb them.
using Contents = std::shared_ptr<std::string>;

// "a//b/./c/" -> "a/b/c"; the current and the root directory -> "".
std::string normal(const std::string& path) {
  std::string result = std::filesystem::path(path).lexically_normal().string();
  while (!result.empty() && result.back() == '/') result.pop_back();
  return result == "." ? "" : result;
}
std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}
bool is_inside(const std::string& path, const std::string& directory) {
  return path.size() > directory.size() && path.starts_with(directory) &&
         (directory.empty() || path[directory.size()] == '/');
}

class MemoryFile final : public WritableFile {
 public:
  MemoryFile(std::mutex& mutex, Contents contents)
      : mutex_(mutex), contents_(std::move(contents)) {}
  Status append(const void* bytes, std::size_t size) override {
    const std::lock_guard lock(mutex_);
    CHECK(contents_) << "append after close";
    contents_->append(static_cast<const char*>(bytes), size);
    return {};
  }
  Status sync() override { return {}; }
  Status close() override {
    CHECK(contents_) << "close after close";
    contents_.reset();
    return {};
  }

 private:
  std::mutex& mutex_;
  Contents contents_;
};

class MemoryStorage final : public Storage {
 public:
  Result<Buffer> read(const std::string& path) override {
    const std::lock_guard lock(mutex_);
    const auto it = entries_.find(normal(path));
    if (it == entries_.end()) return not_found("cannot read " + path + ": no such file");
    if (!it->second) return invalid("cannot read " + path + ": it is a directory");
    return Buffer::copy_of(it->second->data(), it->second->size());
  }

  Result<Buffer> read_range(const std::string& path, std::uint64_t offset,
                            std::size_t size) override {
    const std::lock_guard lock(mutex_);
    const auto it = entries_.find(normal(path));
    if (it == entries_.end()) return not_found("cannot read " + path + ": no such file");
    if (!it->second) return invalid("cannot read " + path + ": it is a directory");
    const std::string_view all = *it->second;
    if (offset >= all.size()) return Buffer();
    const std::string_view part = all.substr(offset, size);
    return Buffer::copy_of(part.data(), part.size());
  }

  Result<std::unique_ptr<WritableFile>> create(const std::string& path) override {
    const std::lock_guard lock(mutex_);
    const std::string name = normal(path);
    if (!is_directory(parent_of(name))) {
      return not_found("cannot create " + path + ": no such directory");
    }
    if (is_directory(name)) return invalid("cannot create " + path + ": it is a directory");
    Contents contents = std::make_shared<std::string>();
    entries_[name] = contents;
    return std::unique_ptr<WritableFile>(std::make_unique<MemoryFile>(mutex_, contents));
  }

  Status rename(const std::string& from, const std::string& to) override {
    const std::lock_guard lock(mutex_);
    const std::string source = normal(from), target = normal(to);
    const std::string what = "cannot rename " + from + " to " + to;
    if (!entries_.contains(source)) return not_found(what + ": no such file or directory");
    if (!is_directory(parent_of(target))) return not_found(what + ": no such directory");
    if (is_inside(target, source)) return invalid(what + ": it would be inside itself");
    if (source == target) return {};
    erase(target);
    std::map<std::string, Contents> moved;
    for (const auto& [name, contents] : entries_) {
      if (name == source || is_inside(name, source)) {
        moved[target + name.substr(source.size())] = contents;
      }
    }
    erase(source);
    entries_.merge(moved);
    return {};
  }

  Status remove(const std::string& path) override {
    const std::lock_guard lock(mutex_);
    erase(normal(path));
    return {};
  }

  Status make_directories(const std::string& path) override {
    const std::lock_guard lock(mutex_);
    for (std::string name = normal(path); !name.empty(); name = parent_of(name)) {
      const auto [it, is_new] = entries_.try_emplace(name, nullptr);
      if (!is_new && it->second) return invalid("cannot make " + path + ": a file is in the way");
    }
    return {};
  }

  Result<std::vector<std::string>> list(const std::string& path) override {
    const std::lock_guard lock(mutex_);
    const std::string directory = normal(path);
    if (!is_directory(directory)) return not_found("cannot list " + path + ": no such directory");
    std::vector<std::string> names;
    for (const auto& [name, contents] : entries_) {
      if (!name.empty() && parent_of(name) == directory) {
        names.push_back(name.substr(name.rfind('/') + 1));
      }
    }
    return names;  // a map's keys of one parent are sorted by their last part
  }

  Status write_exclusive(const std::string& path, const void* bytes, std::size_t size) override {
    const std::lock_guard lock(mutex_);
    const std::string name = normal(path);
    if (!is_directory(parent_of(name))) {
      return not_found("cannot create " + path + ": no such directory");
    }
    if (entries_.contains(name)) return invalid("cannot create " + path + ": it is there already");
    entries_[name] = std::make_shared<std::string>(static_cast<const char*>(bytes), size);
    return {};
  }

  bool exists(const std::string& path) override {
    const std::lock_guard lock(mutex_);
    const std::string name = normal(path);
    return name.empty() || entries_.contains(name);
  }

 private:
  bool is_directory(const std::string& name) const {
    const auto it = entries_.find(name);
    return name.empty() || (it != entries_.end() && !it->second);
  }
  void erase(const std::string& name) {
    std::erase_if(entries_, [&](const auto& entry) {
      return entry.first == name || is_inside(entry.first, name);
    });
  }

  std::mutex mutex_;
  std::map<std::string, Contents> entries_;  // by normal path; null: a directory
};

}  // namespace

std::unique_ptr<Storage> make_memory_storage() { return std::make_unique<MemoryStorage>(); }

}  // namespace meander
