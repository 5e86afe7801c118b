// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <random>
#include <system_error>
#include <utility>

#include "common/direct_file.h"
#include "common/storage.h"

namespace meander {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kWriteChunk = 1 << 20;
constexpr std::uint64_t kWriteBack = 8u << 20;  // bytes that the disk is given at once

// "cannot <verb> <path>: <why>: <what to do>".
Status io_error(const char* verb, const std::string& path, int error) {
  std::string message = std::string("cannot ") + verb + " " + path + ": " + std::strerror(error);
  switch (error) {
    case ENOENT:
      return {Code::kNotFound, std::move(message)};
    case ENOSPC:
    case EDQUOT:
      return {Code::kExhausted, message + ": free some space"};
    case EMFILE:
    case ENFILE:
      return {Code::kExhausted, message + ": raise the limit of open files (ulimit -n)"};
    case EACCES:
    case EPERM:
    case EROFS:
      return {Code::kInvalid, message + ": choose a path that this user may use"};
    case EEXIST:
    case ENOTDIR:
    case EISDIR:
    case ENAMETOOLONG:
    case ELOOP:
      return {Code::kInvalid, message + ": choose another path"};
    default:
      return {Code::kFailed, std::move(message)};
  }
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

std::string parent_of(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

bool is_directory(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

// Makes the names inside `directory` durable.
Status sync_names(const std::string& directory) {
  const Descriptor fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) return io_error("open directory", directory, errno);
  // Some file systems cannot sync a directory and say EINVAL: then there is nothing to be done.
  if (::fsync(fd.get()) != 0 && errno != EINVAL) return io_error("sync", directory, errno);
  return {};
}

enum class Use { kScratch, kWarm, kCold };  // lost in a power cut; read again soon; not so

class PosixFile final : public WritableFile {
 public:
  PosixFile(std::string path, int fd, Use use)
      : path_(std::move(path)),
        fd_(fd),
        is_durable_(use != Use::kScratch),
        may_be_direct_(use == Use::kCold) {}

  Status append(const void* bytes, std::size_t size) override {
    CHECK_GE(fd_.get(), 0) << "append after close";
    if (pending_.size() + size >= kWriteChunk) {
      if (std::exchange(may_be_direct_, false) && DirectWriter::can_write(fd_.get())) {
        direct_ = std::make_unique<DirectWriter>(fd_.get());
      }
      RETURN_IF_ERROR(flush());
      if (size >= kWriteChunk) return write(static_cast<const char*>(bytes), size);
    }
    if (pending_.capacity() == 0) pending_.reserve(kWriteChunk);
    pending_.append(static_cast<const char*>(bytes), size);
    return {};
  }

  Status sync() override {
    CHECK_GE(fd_.get(), 0) << "sync after close";
    RETURN_IF_ERROR(flush_all());
    if (::fdatasync(fd_.get()) != 0) return fail(errno);
    if (!std::exchange(is_name_durable_, true)) return sync_names(parent_of(path_));
    return {};
  }

  Status close() override {
    CHECK_GE(fd_.get(), 0) << "close after close";
    RETURN_IF_ERROR(flush_all());
    if (is_durable_ && ::fsync(fd_.get()) != 0) return fail(errno);
    // A close that is interrupted has closed all the same (Linux); other errors are those of
    // network file systems that write late.
    if (::close(fd_.release()) != 0 && errno != EINTR) return fail(errno);
    return is_durable_ ? sync_names(parent_of(path_)) : Status();
  }

 private:
  Status flush() {
    RETURN_IF_ERROR(write(pending_.data(), pending_.size()));
    pending_.clear();
    return {};
  }

  // All is with the system.
  Status flush_all() {
    may_be_direct_ = false;
    RETURN_IF_ERROR(flush());
    if (direct_ == nullptr) return {};
    const int error = direct_->finish();
    direct_.reset();
    return error == 0 ? Status() : fail(error);
  }

  Status write(const char* bytes, std::size_t size) {
    if (!error_.ok()) return error_;
    if (direct_ != nullptr) {
      const int error = direct_->append(bytes, size);
      return error == 0 ? Status() : fail(error);
    }
    while (size > 0) {
      const ssize_t written = ::write(fd_.get(), bytes, size);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return fail(errno);
      bytes += written;
      size -= static_cast<std::size_t>(written);
      written_ += static_cast<std::uint64_t>(written);
    }
    start_writing_back();
    return {};
  }

  // Lets the disk work on what is there while more is made: fsync then finds little left. Only a
  // hint, so an error does not matter.
  void start_writing_back() {
    if (!is_durable_ || written_ - sent_ < kWriteBack) return;
    ::sync_file_range(fd_.get(), static_cast<off_t>(sent_), static_cast<off_t>(written_ - sent_),
                      SYNC_FILE_RANGE_WRITE);
    sent_ = written_;
  }

  // Once broken, always broken: later bytes would leave a hole.
  Status fail(int error) { return error_ = io_error("write to", path_, error); }

  std::string path_;
  Descriptor fd_;
  bool is_durable_;
  bool may_be_direct_;                    // as nothing was written so far
  bool is_name_durable_ = false;          // so that sync() does it once
  std::uint64_t written_ = 0, sent_ = 0;  // bytes: of the file, and on their way to the disk
  std::string pending_;
  Status error_;
  std::unique_ptr<DirectWriter> direct_;
};

class ColdFile final : public ReadableFile {
 public:
  ColdFile(std::string path, int fd) : path_(std::move(path)), fd_(fd), direct_(fd) {}

  Result<Buffer> read(std::uint64_t offset, std::size_t size) override {
    Buffer bytes;
    const int error = direct_.read(offset, size, bytes);
    if (error != 0) return io_error("read", path_, error);
    return bytes;
  }

 private:
  const std::string path_;
  Descriptor fd_;
  DirectReader direct_;
};

class PosixStorage final : public Storage {
 public:
  Result<Buffer> read(const std::string& path) override {
    const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) return io_error("read", path, errno);
    struct stat info;
    if (::fstat(fd.get(), &info) != 0) return io_error("read", path, errno);
    if (S_ISDIR(info.st_mode)) return io_error("read", path, EISDIR);
    const auto size = static_cast<std::size_t>(info.st_size);
    if (size == 0) return Buffer();
    void* bytes = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
    if (bytes == MAP_FAILED) return io_error("map", path, errno);
    return Buffer::view(bytes, size, std::shared_ptr<const void>(bytes, [size](const void* p) {
                          ::munmap(const_cast<void*>(p), size);
                        }));
  }

  Result<Buffer> read_range(const std::string& path, std::uint64_t offset,
                            std::size_t size) override {
    const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) return io_error("read", path, errno);
    struct stat info;
    if (::fstat(fd.get(), &info) != 0) return io_error("read", path, errno);
    if (S_ISDIR(info.st_mode)) return io_error("read", path, EISDIR);
    const auto end = static_cast<std::uint64_t>(info.st_size);
    if (offset >= end) return Buffer();
    Buffer bytes = Buffer::allocate(std::min<std::uint64_t>(size, end - offset));
    // Who reads in pieces wants the next one next: the disk fetches it meanwhile.
    ::posix_fadvise(fd.get(), static_cast<off_t>(offset + bytes.size()), static_cast<off_t>(size),
                    POSIX_FADV_WILLNEED);
    std::size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t n = ::pread(fd.get(), bytes.data() + done, bytes.size() - done,
                                static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return io_error("read", path, errno);
      if (n == 0) break;  // it has become shorter
      done += static_cast<std::size_t>(n);
    }
    return bytes.slice(0, done);
  }

  Result<std::unique_ptr<ReadableFile>> open_cold(const std::string& path) override {
    Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat info;
    if (fd.get() < 0 || ::fstat(fd.get(), &info) != 0) return io_error("read", path, errno);
    if (S_ISDIR(info.st_mode)) return io_error("read", path, EISDIR);
    if (!DirectReader::can_read(fd.get())) return Storage::open_cold(path);
    return std::unique_ptr<ReadableFile>(std::make_unique<ColdFile>(path, fd.release()));
  }

  Result<std::unique_ptr<WritableFile>> create(const std::string& path) override {
    return open_for_writing(path, Use::kWarm);
  }
  Result<std::unique_ptr<WritableFile>> create_cold(const std::string& path) override {
    return open_for_writing(path, Use::kCold);
  }
  Result<std::unique_ptr<WritableFile>> create_scratch(const std::string& path) override {
    return open_for_writing(path, Use::kScratch);
  }

  Status rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) {
      if (errno != ENOTEMPTY && errno != EEXIST)
        return io_error("rename", from + " to " + to, errno);
      // rename(2) does not replace a directory that holds something: swap the two.
      if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) != 0) {
        return io_error("rename", from + " to " + to, errno);
      }
      RETURN_IF_ERROR(remove(from));
    }
    RETURN_IF_ERROR(sync_names(parent_of(to)));
    return parent_of(from) == parent_of(to) ? Status() : sync_names(parent_of(from));
  }

  Status remove(const std::string& path) override {
    std::error_code error;
    fs::remove_all(path, error);
    if (error && error.value() != ENOENT && error.value() != ENOTDIR) {
      return io_error("remove", path, error.value());
    }
    return {};
  }

  Status make_directories(const std::string& path) override {
    if (path.empty()) return {};
    const std::string parent = parent_of(path);
    if (is_directory(path)) {
      // Whoever made it may have died before it was durable. Where we may not look, others cared.
      Status synced = sync_names(parent);
      return synced.code() == Code::kInvalid ? Status() : synced;
    }
    if (parent != path) RETURN_IF_ERROR(make_directories(parent));
    // Somebody else may be making it at the same time.
    if (::mkdir(path.c_str(), 0755) != 0 && !is_directory(path)) {
      return io_error("make directory", path, errno);
    }
    return sync_names(parent);
  }

  Status sync_directory(const std::string& path) override { return sync_names(path); }

  Result<std::vector<std::string>> list(const std::string& path) override {
    std::error_code error;
    std::vector<std::string> names;
    fs::directory_iterator it(path, error);
    for (; !error && it != fs::directory_iterator(); it.increment(error)) {
      names.push_back(it->path().filename().string());
    }
    if (error) return io_error("list", path, error.value());
    std::sort(names.begin(), names.end());
    return names;
  }

  bool exists(const std::string& path) override { return ::access(path.c_str(), F_OK) == 0; }
  Result<bool> has(const std::string& path) override {
    if (exists(path)) return true;
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return io_error("look for", path, errno);
  }

  Status write_exclusive(const std::string& path, const void* bytes, std::size_t size) override {
    // A name of its own: two who write the same file must not write into one temporary.
    std::random_device random;
    const std::string temporary = path + ".tmp-" + std::to_string(random());
    const Status status = [&]() -> Status {
      ASSIGN_OR_RETURN(auto file, create(temporary));
      RETURN_IF_ERROR(file->append(bytes, size));
      RETURN_IF_ERROR(file->close());
      return rename_exclusive(temporary, path);
    }();
    if (!status.ok()) (void)remove(temporary);
    return status;
  }

 private:
  // Makes the change durable, as rename() does.
  static Status rename_exclusive(const std::string& from, const std::string& to) {
    int error = 0;
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) != 0) {
      error = errno;
    }
    if (error == EINVAL || error == ENOSYS) {  // a file system without it (NFS): link(2) is as good
      error = ::link(from.c_str(), to.c_str()) != 0 ? errno : 0;
      if (error == 0) ::unlink(from.c_str());
    }
    if (error == EEXIST) return invalid("cannot write " + to + ": it is there already");
    if (error != 0) return io_error("rename", from + " to " + to, error);
    return sync_names(parent_of(to));
  }

  Result<std::unique_ptr<WritableFile>> open_for_writing(const std::string& path, Use use) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return io_error("create", path, errno);
    return std::unique_ptr<WritableFile>(std::make_unique<PosixFile>(path, fd, use));
  }
};

}  // namespace

std::unique_ptr<Storage> make_posix_storage() { return std::make_unique<PosixStorage>(); }

}  // namespace meander
