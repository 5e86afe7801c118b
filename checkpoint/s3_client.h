// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/http.h"
#include "checkpoint/sigv4.h"
#include "common/clock.h"
#include "common/status.h"

namespace meander::checkpoint {

// Where a store is, who asks, and how long it is asked (docs/stores.md).
struct S3Options {
  AwsCredentials credentials;
  std::string region = "us-east-1";
  std::string
      endpoint;         // "http://host:9000": buckets are in the path; empty: AWS, in the host name
  std::string ca_file;  // empty: the system's certificates

  std::uint32_t attempts_max = 10;  // of one operation
  Duration request_max = std::chrono::seconds(30);
  // Of one operation with all its attempts: below the 60 s after which the other roles give up a
  // scheduler that waits for its store.
  Duration operation_max = std::chrono::seconds(40);
  Duration pause_first = std::chrono::milliseconds(100);  // doubles with each attempt
  Duration pause_max = std::chrono::seconds(8);
};

// From AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION or
// AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_CA_BUNDLE, AWS_MAX_ATTEMPTS.
// kInvalid: the variable that is missing or wrong.
using GetVariable = std::function<std::optional<std::string>(const std::string& name)>;
Result<S3Options> s3_options(const GetVariable& variable);

// What a client needs of the world; tests give it another one.
struct S3World {
  std::unique_ptr<Http> http;
  std::function<TimePoint()> now;
  std::function<std::int64_t()> wall_seconds;  // since 1970
  std::function<void(Duration)> sleep;
  std::function<std::uint64_t()> random;
};
S3World real_s3_world(const S3Options& options);

// "s3://bucket/a/b".
struct S3Path {
  std::string bucket;
  std::string key;  // without slashes at its ends; empty: the bucket itself

  std::string text() const { return "s3://" + bucket + (key.empty() ? "" : "/" + key); }
  std::string directory() const { return key.empty() ? "" : key + "/"; }  // of what lies below
};
Result<S3Path> parse_s3_path(const std::string& path);  // kInvalid

struct S3Object {
  std::uint64_t bytes = 0;
  std::string writer;  // the mark its writer gave it; empty: none
};
struct S3Piece {
  std::string bytes;
  std::uint64_t total = 0;  // bytes of the object
  std::string etag;
};
struct S3Upload {
  S3Path path;
  std::string id;
};

// Requests to an S3 store, signed, each with a deadline. What may go away by itself is tried again
// after a pause that doubles: no answer, a broken connection, 408, 429, 5xx. Errors, one line each:
// kUnavailable (still so after the last attempt), kNotFound (no such object), kInvalid (the user
// mends it: credentials, permissions, bucket, region), kFailed. Any thread may call it.
class S3Client {
 public:
  S3Client(S3Options options, S3World world);

  Result<S3Object> head(const S3Path& path);
  // At most `size` bytes from `offset` on, none beyond the end; never fetches more. With an etag:
  // kFailed when the object is no longer the same.
  Result<S3Piece> get(const S3Path& path, std::uint64_t offset, std::size_t size,
                      const std::string& etag = "");
  Status put(const S3Path& path, std::span<const std::byte> bytes);
  // kInvalid: an object is there already. Of two at once, one wins.
  Status put_exclusive(const S3Path& path, std::span<const std::byte> bytes);
  // Keys that begin with `prefix`; with `names_only` those of its own level, directories with a
  // slash at the end. At most `max`, in order.
  Result<std::vector<std::string>> list(const std::string& bucket, const std::string& prefix,
                                        bool names_only, std::size_t max = SIZE_MAX);
  // Ok for those that are not there.
  Status remove(const S3Path& path);
  Status remove(const std::string& bucket, std::span<const std::string> keys);

  // An object in parts. It appears when it is completed, whole.
  Result<S3Upload> begin_upload(const S3Path& path, const std::string& writer);
  Result<std::string> upload_part(const S3Upload& upload, std::uint32_t number,  // from 1; etag
                                  std::span<const std::byte> bytes);
  Status complete_upload(const S3Upload& upload, std::span<const std::string> etags,
                         std::uint64_t bytes, const std::string& writer);
  Status abort_upload(const S3Upload& upload);  // ok when it is no more
  Result<std::vector<S3Upload>> list_uploads(const std::string& bucket, const std::string& prefix);

  // Tells this writer's objects from others'.
  std::string new_mark();

 private:
  struct Call {
    const char* verb;  // for messages: "cannot <verb> s3://..."
    const char* method;
    S3Path path;
    NameValues query = {};
    NameValues headers = {};
    std::span<const std::byte> body = {};
    std::size_t answer_max = 1 << 20;
    bool is_of_bucket = false;  // the request goes to the bucket; the key is for messages
  };
  struct Outcome {
    HttpAnswer answer;
    bool is_repeated = false;  // an earlier attempt may have been carried out
  };
  // Any answer but those that are tried again.
  Result<Outcome> perform(const Call& call);
  // perform(), and an error unless the answer is 2xx.
  Result<HttpAnswer> must(const Call& call);
  HttpRequest sign(const Call& call) const;
  void pause(std::uint32_t attempt, const HttpAnswer* answer);
  Status error_of(const Call& call, const HttpAnswer& answer) const;
  Status refused(const Call& call, const HttpAnswer& answer, const std::string& code) const;
  Status put_unless_there(const S3Path& path, std::span<const std::byte> bytes);

  const S3Options options_;
  const S3World world_;
};

}  // namespace meander::checkpoint
