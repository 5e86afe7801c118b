// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/open_storage.h"

#include <cstdlib>
#include <mutex>
#include <optional>

#include "checkpoint/s3_storage.h"

namespace meander::checkpoint {
namespace {

std::optional<std::string> environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

class AllStorage final : public Storage {
 public:
  Result<Buffer> read(const std::string& path) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(path));
    return storage->read(path);
  }
  Result<Buffer> read_range(const std::string& path, std::uint64_t offset,
                            std::size_t size) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(path));
    return storage->read_range(path, offset, size);
  }
  Result<std::unique_ptr<ReadableFile>> open_cold(const std::string& path) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(path));
    return storage->open_cold(path);
  }
  Result<std::unique_ptr<WritableFile>> create_cold(const std::string& path) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(path));
    return storage->create_cold(path);
  }
  Result<std::unique_ptr<WritableFile>> create(const std::string& path) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(path));
    return storage->create(path);
  }
  Result<std::unique_ptr<WritableFile>> create_scratch(const std::string& path) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(path));
    return storage->create_scratch(path);
  }
  Status rename(const std::string& from, const std::string& to) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(is_s3_path(to) ? to : from));
    return storage->rename(from, to);
  }
  Status remove(const std::string& path) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(path));
    return storage->remove(path);
  }
  Status make_directories(const std::string& path) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(path));
    return storage->make_directories(path);
  }
  Result<std::vector<std::string>> list(const std::string& path) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(path));
    return storage->list(path);
  }
  bool exists(const std::string& path) override {
    const Result<Storage*> storage = of(path);
    return storage.ok() && storage.value()->exists(path);
  }
  Result<bool> has(const std::string& path) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(path));
    return storage->has(path);
  }
  Status write_atomic(const std::string& path, const void* bytes, std::size_t size) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(path));
    return storage->write_atomic(path, bytes, size);
  }
  Status write_exclusive(const std::string& path, const void* bytes, std::size_t size) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(path));
    return storage->write_exclusive(path, bytes, size);
  }
  Status sync_directory(const std::string& path) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(path));
    return storage->sync_directory(path);
  }
  Status drop_unfinished(const std::string& path) override {
    ASSIGN_OR_RETURN(Storage* const storage, of(path));
    return storage->drop_unfinished(path);
  }

 private:
  Result<Storage*> of(const std::string& path) {
    if (!is_s3_path(path)) return posix_.get();
    const std::lock_guard lock(mutex_);
    if (!s3_) {
      ASSIGN_OR_RETURN(S3Options options, s3_options(environment));
      S3World world = real_s3_world(options);
      s3_ = make_s3_storage(std::move(options), std::move(world));
    }
    return s3_.get();
  }

  const std::unique_ptr<Storage> posix_ = make_posix_storage();
  std::mutex mutex_;
  std::unique_ptr<Storage> s3_;
};

}  // namespace

std::unique_ptr<Storage> open_storage() { return std::make_unique<AllStorage>(); }

}  // namespace meander::checkpoint
