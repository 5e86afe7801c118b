// SPDX-License-Identifier: Apache-2.0
#include "common/storage.h"

namespace meander {

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
