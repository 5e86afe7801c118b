// SPDX-License-Identifier: Apache-2.0
#include "common/storage.h"

#include <utility>

namespace meander {
namespace {

class RangeReader final : public ReadableFile {
 public:
  RangeReader(Storage& storage, std::string path) : storage_(storage), path_(std::move(path)) {}
  Result<Buffer> read(std::uint64_t offset, std::size_t size) override {
    return storage_.read_range(path_, offset, size);
  }

 private:
  Storage& storage_;
  const std::string path_;
};

}  // namespace

Result<std::unique_ptr<ReadableFile>> Storage::open_cold(const std::string& path) {
  return std::unique_ptr<ReadableFile>(std::make_unique<RangeReader>(*this, path));
}

Status Storage::write_atomic(const std::string& path, const void* bytes, std::size_t size) {
  const std::string temporary = path + ".tmp";
  const Status status = [&]() -> Status {
    ASSIGN_OR_RETURN(auto file, create(temporary));
    RETURN_IF_ERROR(file->append(bytes, size));
    RETURN_IF_ERROR(file->close());
    return rename(temporary, path);
  }();
  // What is left of a failed attempt must not fill the disk; why it failed matters more than this.
  if (!status.ok()) (void)remove(temporary);
  return status;
}

Status Storage::write_exclusive(const std::string& path, const void* bytes, std::size_t size) {
  ASSIGN_OR_RETURN(const bool is_there, has(path));
  if (is_there) return invalid(path + ": is there already");
  return write_atomic(path, bytes, size);
}

}  // namespace meander
