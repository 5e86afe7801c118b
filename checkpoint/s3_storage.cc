// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/s3_storage.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <future>
#include <utility>

#include "common/check.h"

namespace meander::checkpoint {
namespace {

constexpr std::uint32_t kPartsMax = 10000;  // of one object: S3's limit

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// A small file is one PUT at close(); a larger one goes in parts, a few of them at a time.
class S3File final : public WritableFile {
 public:
  S3File(S3Client& client, S3Path path, S3Sizes sizes)
      : client_(client), path_(std::move(path)), sizes_(sizes) {}
  ~S3File() override { give_up(); }

  Status append(const void* bytes, std::size_t size) override {
    CHECK(!is_closed_) << "append after close";
    const char* from = static_cast<const char*>(bytes);
    while (size > 0 && error_.ok()) {
      if (pending_.size() == sizes_.part_bytes) note(send_part());
      const std::size_t n = std::min(size, sizes_.part_bytes - pending_.size());
      pending_.append(from, n);
      from += n;
      size -= n;
    }
    return error_;
  }

  Status close() override {
    CHECK(!is_closed_) << "close after close";
    is_closed_ = true;
    if (!upload_) {
      if (error_.ok()) note(client_.put(path_, bytes_of(pending_)));
      return error_;
    }
    if (error_.ok() && !pending_.empty()) note(send_part());
    wait_for_parts(0);
    if (error_.ok()) note(client_.complete_upload(*upload_, etags_, bytes_, mark_));
    if (error_.ok()) upload_.reset();
    give_up();
    return error_;
  }

 private:
  // Once broken, always broken: later bytes would leave a hole.
  void note(Status status) {
    if (error_.ok()) error_ = std::move(status);
  }

  Status send_part() {
    if (!upload_) {
      mark_ = client_.new_mark();
      ASSIGN_OR_RETURN(upload_, client_.begin_upload(path_, mark_));
    }
    const auto number = static_cast<std::uint32_t>(etags_.size() + in_flight_.size() + 1);
    if (number > kPartsMax) {
      return {Code::kExhausted, "cannot write " + path_.text() + ": it has more than " +
                                    std::to_string(kPartsMax) + " parts of " +
                                    std::to_string(sizes_.part_bytes) +
                                    " bytes; use more lanes, so that each file is smaller"};
    }
    wait_for_parts(sizes_.parts_in_flight - 1);
    RETURN_IF_ERROR(error_);
    bytes_ += pending_.size();
    in_flight_.push_back(
        std::async(std::launch::async, [this, number, part = std::exchange(pending_, {})] {
          return client_.upload_part(*upload_, number, bytes_of(part));
        }));
    return {};
  }

  // Until at most so many are under way.
  void wait_for_parts(std::size_t left) {
    while (in_flight_.size() > left) {
      Result<std::string> etag = in_flight_.front().get();
      in_flight_.pop_front();
      note(etag.status());
      etags_.push_back(etag.ok() ? etag.value() : "");
    }
  }

  // What was sent of an object that will not be, takes room until it is aborted.
  void give_up() {
    wait_for_parts(0);
    if (!upload_) return;
    const Status status = client_.abort_upload(*upload_);
    if (!status.ok()) LOG(WARNING) << status.message() << "; the next start aborts it";
    upload_.reset();
  }

  S3Client& client_;
  const S3Path path_;
  const S3Sizes sizes_;
  bool is_closed_ = false;
  Status error_;
  std::string pending_;
  std::optional<S3Upload> upload_;
  std::string mark_;
  std::uint64_t bytes_ = 0;         // sent in parts
  std::vector<std::string> etags_;  // of the parts that have arrived, in order
  std::deque<std::future<Result<std::string>>> in_flight_;
};

class S3Storage final : public Storage {
 public:
  S3Storage(S3Options options, S3World world, S3Sizes sizes)
      : client_(std::move(options), std::move(world)), sizes_(sizes) {}

  Result<Buffer> read(const std::string& path) override {
    ASSIGN_OR_RETURN(const S3Path at, file_path(path));
    ASSIGN_OR_RETURN(S3Piece first, client_.get(at, 0, sizes_.part_bytes));
    Buffer all = Buffer::allocate(first.total);
    std::memcpy(all.data(), first.bytes.data(), first.bytes.size());
    RETURN_IF_ERROR(read_rest(at, first.bytes.size(), first.etag, all));
    return all;
  }

  Result<Buffer> read_range(const std::string& path, std::uint64_t offset,
                            std::size_t size) override {
    ASSIGN_OR_RETURN(const S3Path at, file_path(path));
    if (size == 0) return Buffer();
    ASSIGN_OR_RETURN(const S3Piece piece, client_.get(at, offset, size));
    return Buffer::copy_of(piece.bytes.data(), piece.bytes.size());
  }

  Result<std::unique_ptr<WritableFile>> create(const std::string& path) override {
    ASSIGN_OR_RETURN(S3Path at, file_path(path));
    return std::unique_ptr<WritableFile>(std::make_unique<S3File>(client_, std::move(at), sizes_));
  }

  Status rename(const std::string& from, const std::string&) override {
    return invalid("cannot rename " + from +
                   ": an object store has no rename; write to a folder and copy it there");
  }

  Status remove(const std::string& path) override {
    ASSIGN_OR_RETURN(const S3Path at, parse_s3_path(path));
    if (!at.key.empty()) RETURN_IF_ERROR(client_.remove(at));
    ASSIGN_OR_RETURN(const auto keys, client_.list(at.bucket, at.directory(), false));
    return client_.remove(at.bucket, keys);
  }

  Status make_directories(const std::string& path) override { return parse_s3_path(path).status(); }

  Result<std::vector<std::string>> list(const std::string& path) override {
    ASSIGN_OR_RETURN(const S3Path at, parse_s3_path(path));
    const std::string directory = at.directory();
    ASSIGN_OR_RETURN(std::vector<std::string> names, client_.list(at.bucket, directory, true));
    for (std::string& name : names) {
      name.erase(0, directory.size());
      if (name.ends_with('/')) name.pop_back();
    }
    std::ranges::sort(names);
    names.erase(std::unique(names.begin(), names.end()), names.end());
    std::erase(names, "");  // a mark that some tools leave for an empty directory
    if (names.empty()) return not_found("cannot list " + path + ": nothing is there");
    return names;
  }

  Result<bool> has(const std::string& path) override {
    ASSIGN_OR_RETURN(const S3Path at, parse_s3_path(path));
    if (!at.key.empty()) {
      const Result<S3Object> object = client_.head(at);
      if (object.ok()) return true;
      if (object.status().code() != Code::kNotFound) return object.status();
    }
    ASSIGN_OR_RETURN(const auto keys, client_.list(at.bucket, at.directory(), false, 1));
    return !keys.empty();
  }
  bool exists(const std::string& path) override {
    const Result<bool> there = has(path);
    if (!there.ok()) LOG(WARNING) << there.status().message();
    return there.ok() && there.value();
  }

  Status write_atomic(const std::string& path, const void* bytes, std::size_t size) override {
    ASSIGN_OR_RETURN(const S3Path at, file_path(path));
    return client_.put(at, {static_cast<const std::byte*>(bytes), size});
  }
  Status write_exclusive(const std::string& path, const void* bytes, std::size_t size) override {
    ASSIGN_OR_RETURN(const S3Path at, file_path(path));
    return client_.put_exclusive(at, {static_cast<const std::byte*>(bytes), size});
  }

  Status drop_unfinished(const std::string& path) override {
    ASSIGN_OR_RETURN(const S3Path at, parse_s3_path(path));
    const auto uploads = client_.list_uploads(at.bucket, at.directory());
    Status status = uploads.status();
    if (uploads.ok()) {
      for (const S3Upload& upload : uploads.value()) {
        if (status.ok()) status = client_.abort_upload(upload);
      }
    }
    if (status.ok() || status.code() == Code::kUnavailable) return status;
    // Not every store or key may do this, and nothing that is read depends on it.
    LOG(WARNING) << status.message() << "; parts of files that were never completed may be left";
    return {};
  }

 private:
  static Result<S3Path> file_path(const std::string& path) {
    ASSIGN_OR_RETURN(S3Path at, parse_s3_path(path));
    if (at.key.empty()) return invalid(path + ": is a bucket; name an object: s3://BUCKET/NAME");
    return at;
  }

  // Fills `all` from `begin` on, a few parts at a time. All are of the same object: the one of
  // `etag`.
  Status read_rest(const S3Path& path, std::size_t begin, const std::string& etag, Buffer& all) {
    std::deque<std::future<Status>> in_flight;
    Status status;
    while (begin < all.size() || !in_flight.empty()) {
      if (begin < all.size() && in_flight.size() < sizes_.parts_in_flight && status.ok()) {
        const std::size_t size = std::min(sizes_.part_bytes, all.size() - begin);
        in_flight.push_back(std::async(
            std::launch::async,
            [this, &path, &etag, begin, size, to = all.data() + begin]() -> Status {
              ASSIGN_OR_RETURN(const S3Piece piece, client_.get(path, begin, size, etag));
              if (piece.bytes.size() != size) {
                return failed("cannot read " + path.text() + ": it has been replaced");
              }
              std::memcpy(to, piece.bytes.data(), size);
              return {};
            }));
        begin += size;
        continue;
      }
      if (in_flight.empty()) break;
      Status one = in_flight.front().get();
      in_flight.pop_front();
      if (status.ok()) status = std::move(one);
    }
    return status;
  }

  S3Client client_;
  const S3Sizes sizes_;
};

}  // namespace

std::unique_ptr<Storage> make_s3_storage(S3Options options, S3World world, S3Sizes sizes) {
  return std::make_unique<S3Storage>(std::move(options), std::move(world), sizes);
}

}  // namespace meander::checkpoint
