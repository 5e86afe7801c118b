// SPDX-License-Identifier: Apache-2.0
// The S3 store against scripted answers; tests/e2e/s3_test.py has it against a server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>

#include "checkpoint/open_storage.h"
#include "checkpoint/s3_storage.h"

namespace meander::checkpoint {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

using Answer = Result<HttpAnswer>;

HttpAnswer answer(int status, const std::string& body = "",
                  std::map<std::string, std::string> headers = {}) {
  return {status, std::move(headers), body};
}
HttpAnswer error(int status, const std::string& code) {
  return answer(status, "<?xml version=\"1.0\"?>\n<Error><Code>" + code +
                            "</Code><Message>says so</Message></Error>");
}

std::string header(const HttpRequest& request, const std::string& name) {
  for (const auto& [key, value] : request.headers) {
    if (key == name) return value;
  }
  return "";
}

// Answers by a function, and keeps the requests as "METHOD url".
class ScriptedHttp final : public Http {
 public:
  using Script = std::function<Answer(const HttpRequest&, std::size_t nth)>;
  ScriptedHttp(Script script, std::vector<std::string>& seen)
      : script_(std::move(script)), seen_(seen) {}
  Result<HttpAnswer> perform(const HttpRequest& request) override {
    const std::lock_guard lock(mutex_);
    seen_.push_back(request.method + " " + request.url);
    return script_(request, seen_.size());
  }

 private:
  std::mutex mutex_;
  Script script_;
  std::vector<std::string>& seen_;
};

class S3Test : public ::testing::Test {
 protected:
  S3Test() {
    options_.credentials = {"key", "secret", ""};
    options_.endpoint = "http://store:9000";
  }
  S3World world(ScriptedHttp::Script script) {
    S3World w;
    w.http = std::make_unique<ScriptedHttp>(std::move(script), seen_);
    w.now = [this] { return now_; };
    w.wall_seconds = [] { return std::int64_t{1440938160}; };
    w.sleep = [this](Duration d) {
      slept_.push_back(d);
      now_ += d;
    };
    w.random = [this] { return random_ += 0x9e3779b97f4a7c15; };
    return w;
  }
  S3Client client(ScriptedHttp::Script script) { return {options_, world(std::move(script))}; }
  std::unique_ptr<Storage> storage(ScriptedHttp::Script script, S3Sizes sizes = {}) {
    return make_s3_storage(options_, world(std::move(script)), sizes);
  }

  S3Options options_;
  std::vector<std::string> seen_;
  std::vector<Duration> slept_;
  TimePoint now_{};
  std::uint64_t random_ = 1;
};

TEST_F(S3Test, TriesAgainWhatMayGoAwayAndPausesLongerEachTime) {
  S3Client s3 = client([](const HttpRequest&, std::size_t nth) -> Answer {
    if (nth == 1) return unavailable("connection reset");
    if (nth == 2) return error(503, "SlowDown");
    if (nth == 3) return answer(500);
    if (nth == 4) return answer(429);
    return answer(200);
  });
  EXPECT_TRUE(s3.put({"b", "k"}, {}).ok());
  ASSERT_EQ(slept_.size(), 4u);
  Duration longest = options_.pause_first;
  for (const Duration pause : slept_) {
    EXPECT_GE(pause, longest / 2);
    EXPECT_LE(pause, longest);
    longest *= 2;
  }
}

TEST_F(S3Test, WaitsAsLongAsTheStoreAsksButNoLongerThanItsLimit) {
  S3Client s3 = client([](const HttpRequest&, std::size_t nth) {
    if (nth == 1) return answer(503, "", {{"retry-after", "3"}});
    if (nth == 2) return answer(503, "", {{"retry-after", "3000"}});
    return answer(200);
  });
  EXPECT_TRUE(s3.put({"b", "k"}, {}).ok());
  EXPECT_THAT(slept_, ElementsAre(Duration(std::chrono::seconds(3)), options_.pause_max));
}

TEST_F(S3Test, GivesUpAfterItsAttemptsAndSaysWhatAndWhere) {
  options_.attempts_max = 3;
  S3Client s3 = client([](const HttpRequest&, std::size_t) { return error(503, "SlowDown"); });
  const Status status = s3.put({"b", "k"}, {});
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(),
              AllOf(StartsWith("cannot write s3://b/k: HTTP 503 SlowDown: says so (attempt 3"),
                    HasSubstr("http://store:9000"), Not(HasSubstr("\n"))));
  EXPECT_EQ(seen_.size(), 3u);
}

TEST_F(S3Test, EveryRequestHasADeadlineAndAllOfThemTogetherToo) {
  std::vector<std::chrono::milliseconds> deadlines;
  S3Client s3 = client([&](const HttpRequest& request, std::size_t) -> Answer {
    deadlines.push_back(request.deadline);
    now_ += request.deadline;  // a store that never answers
    return unavailable("timed out");
  });
  EXPECT_EQ(s3.put({"b", "k"}, {}).code(), Code::kUnavailable);
  ASSERT_EQ(deadlines.size(), 2u);
  EXPECT_EQ(Duration(deadlines[0]), options_.request_max);
  EXPECT_LT(deadlines[1], options_.operation_max - options_.request_max);
  EXPECT_LE(now_ - TimePoint{}, options_.operation_max);
}

TEST_F(S3Test, DoesNotTryAgainWhatTheUserMustMend) {
  const std::vector<std::tuple<HttpAnswer, Code, std::string>> cases = {
      {error(404, "NoSuchKey"), Code::kNotFound, "no such object"},
      {error(404, "NoSuchBucket"), Code::kInvalid, "there is no bucket b"},
      {error(403, "SignatureDoesNotMatch"), Code::kInvalid, "AWS_SECRET_ACCESS_KEY"},
      {error(403, "InvalidAccessKeyId"), Code::kInvalid, "AWS_ACCESS_KEY_ID"},
      {error(403, "RequestTimeTooSkewed"), Code::kInvalid, "clock"},
      {error(403, "AccessDenied"), Code::kInvalid, "PutObject"},
      {error(400, "ExpiredToken"), Code::kInvalid, "AWS_SESSION_TOKEN"},
      {error(400, "EntityTooLarge"), Code::kFailed, "EntityTooLarge: says so"},
      {answer(301, "", {{"x-amz-bucket-region", "eu-west-3"}}), Code::kInvalid,
       "set AWS_REGION=eu-west-3"},
      {answer(400,
              "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>"),
       Code::kInvalid, "set AWS_REGION=eu-west-3"},
  };
  for (const auto& [given, code, words] : cases) {
    seen_.clear();
    S3Client s3 = client([&](const HttpRequest&, std::size_t) { return given; });
    const Status status = s3.put({"b", "k"}, {});
    EXPECT_EQ(status.code(), code) << status.message();
    EXPECT_THAT(status.message(), AllOf(StartsWith("cannot write s3://b/k: "), HasSubstr(words)));
    EXPECT_EQ(seen_.size(), 1u);
  }
}

TEST_F(S3Test, AnEndpointHasTheBucketInThePathAndAwsInTheHost) {
  const auto url_of = [&](const S3Path& path) {
    S3Client s3 = client([](const HttpRequest&, std::size_t) { return answer(200); });
    EXPECT_TRUE(s3.put(path, {}).ok());
    return seen_.back();
  };
  EXPECT_EQ(url_of({"b", "k/a b"}), "PUT http://store:9000/b/k/a%20b");
  options_.endpoint = "https://gateway/base";
  EXPECT_EQ(url_of({"b", "k"}), "PUT https://gateway/base/b/k");
  options_.endpoint = "";
  options_.region = "eu-west-3";
  EXPECT_EQ(url_of({"b", "k"}), "PUT https://b.s3.eu-west-3.amazonaws.com/k");
  EXPECT_EQ(url_of({"b.c", "k"}), "PUT https://s3.eu-west-3.amazonaws.com/b.c/k");
}

TEST_F(S3Test, SendsTheSessionTokenSigned) {
  options_.credentials.session_token = "token";
  S3Client s3 = client([](const HttpRequest& request, std::size_t) {
    EXPECT_EQ(header(request, "x-amz-security-token"), "token");
    EXPECT_THAT(header(request, "authorization"), HasSubstr("x-amz-date;x-amz-security-token"));
    EXPECT_EQ(header(request, "host"), "store:9000");
    return answer(200);
  });
  EXPECT_TRUE(s3.put({"b", "k"}, {}).ok());
}

// --- exclusive ---

TEST_F(S3Test, ExclusiveWriteOfWhatIsThereIsRefused) {
  S3Client s3 = client([](const HttpRequest& request, std::size_t) {
    EXPECT_EQ(header(request, "if-none-match"), "*");
    return error(412, "PreconditionFailed");
  });
  const Status status = s3.put_exclusive({"b", "MANIFEST"}, {});
  EXPECT_EQ(status.code(), Code::kInvalid);
  EXPECT_THAT(status.message(), HasSubstr("another run writes here"));
  EXPECT_EQ(seen_.size(), 1u);
}

// The first attempt is carried out and its answer lost; or another writer comes between.
TEST_F(S3Test, ExclusiveWriteKnowsItsOwnObjectAgainAfterALostAnswer) {
  for (const bool is_own : {true, false}) {
    seen_.clear();
    std::string mark;
    S3Client s3 = client([&](const HttpRequest& request, std::size_t nth) -> Answer {
      if (nth == 1) {
        mark = header(request, "x-amz-meta-meander-writer");
        return unavailable("connection reset");
      }
      if (nth == 2) return error(412, "PreconditionFailed");
      return answer(200, "", {{"x-amz-meta-meander-writer", is_own ? mark : "other"}});
    });
    EXPECT_EQ(s3.put_exclusive({"b", "MANIFEST"}, {}).code(), is_own ? Code::kOk : Code::kInvalid);
    EXPECT_EQ(seen_.size(), 3u);
  }
}

TEST_F(S3Test, ExclusiveWriteWhereTheStoreHasNoneLooksFirst) {
  for (const bool is_there : {true, false}) {
    seen_.clear();
    S3Client s3 = client([&](const HttpRequest& request, std::size_t) {
      if (!header(request, "if-none-match").empty()) return error(501, "NotImplemented");
      if (request.method == "HEAD") return answer(is_there ? 200 : 404);
      return answer(200);
    });
    EXPECT_EQ(s3.put_exclusive({"b", "k"}, {}).code(), is_there ? Code::kInvalid : Code::kOk);
    EXPECT_EQ(seen_.size(), is_there ? 2u : 3u);
  }
}

// --- ranges ---

TEST_F(S3Test, ARangeAsksForItsBytesOnlyAndTakesNoOthers) {
  S3Client s3 = client([&](const HttpRequest& request, std::size_t nth) {
    EXPECT_EQ(header(request, "range"), "bytes=10-14");
    EXPECT_LE(request.answer_max, 1u << 16);
    if (nth == 1) return answer(206, "abcde", {{"content-range", "bytes 10-14/100"}});
    if (nth == 2) return answer(206, "abc", {{"content-range", "bytes 10-12/13"}});
    if (nth == 3) return answer(416, "", {{"content-range", "bytes */10"}});
    if (nth == 4) return answer(206, "abc", {{"content-range", "bytes 10-14/100"}});
    return answer(200, std::string(100, 'x'));
  });
  const S3Path path{"b", "k"};
  EXPECT_EQ(s3.get(path, 10, 5).value().bytes, "abcde");
  EXPECT_EQ(s3.get(path, 10, 5).value().bytes, "abc") << "fewer at the end";
  EXPECT_EQ(s3.get(path, 10, 5).value().bytes, "") << "none beyond it";
  EXPECT_EQ(s3.get(path, 10, 5).status().code(), Code::kFailed) << "cut off";
  EXPECT_EQ(s3.get(path, 10, 5).status().code(), Code::kFailed) << "a store without ranges";
}

TEST_F(S3Test, AFileIsReadInPartsOfOneAndTheSameObject) {
  std::string object;
  for (int i = 0; i < 1000; ++i) object += std::to_string(i);
  auto s3 = storage(
      [&](const HttpRequest& request, std::size_t nth) {
        EXPECT_EQ(header(request, "if-match"), nth == 1 ? "" : "\"e\"");
        std::size_t first = 0, last = 0;
        EXPECT_EQ(std::sscanf(header(request, "range").c_str(), "bytes=%zu-%zu", &first, &last), 2);
        const std::string bytes = object.substr(first, last - first + 1);
        return answer(206, bytes,
                      {{"etag", "\"e\""},
                       {"content-range", "bytes " + std::to_string(first) + "-" +
                                             std::to_string(first + bytes.size() - 1) + "/" +
                                             std::to_string(object.size())}});
      },
      {.part_bytes = 100, .parts_in_flight = 3});
  const Buffer bytes = s3->read("s3://b/k").value();
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), object);
  EXPECT_EQ(seen_.size(), (object.size() + 99) / 100);
}

// --- lists ---

TEST_F(S3Test, ListsAllPagesAndBothKindsOfNames) {
  auto s3 = storage([](const HttpRequest& request, std::size_t nth) {
    EXPECT_THAT(request.url, AllOf(HasSubstr("http://store:9000/b?"), HasSubstr("prefix=c%2F"),
                                   HasSubstr("delimiter=%2F")));
    if (nth == 1) {
      return answer(200,
                    "<L xmlns=\"\"><Prefix>c/</Prefix><IsTruncated>true</IsTruncated>"
                    "<NextContinuationToken>t/1</NextContinuationToken>"
                    "<Contents><Key>c/z&amp;y</Key></Contents>"
                    "<CommonPrefixes><Prefix>c/gen-2/</Prefix></CommonPrefixes></L>");
    }
    EXPECT_THAT(request.url, HasSubstr("continuation-token=t%2F1"));
    return answer(200,
                  "<L><IsTruncated>false</IsTruncated><Contents><Key>c/a</Key></Contents>"
                  "<Contents><Key>c/</Key></Contents></L>");
  });
  EXPECT_THAT(s3->list("s3://b/c/").value(), ElementsAre("a", "gen-2", "z&y"));
}

TEST_F(S3Test, AListThatNamesNoNextPageIsAnErrorAndNoEndlessLoop) {
  auto s3 = storage([](const HttpRequest&, std::size_t) {
    return answer(200,
                  "<IsTruncated>true</IsTruncated><NextContinuationToken>t"
                  "</NextContinuationToken><Contents><Key>c/a</Key></Contents>");
  });
  EXPECT_EQ(s3->list("s3://b/c").status().code(), Code::kFailed);
}

TEST_F(S3Test, NotKnowingWhetherAFileIsThereIsAnErrorOfHas) {
  options_.attempts_max = 2;
  auto s3 = storage([](const HttpRequest&, std::size_t) { return answer(500); });
  EXPECT_EQ(s3->has("s3://b/c/MANIFEST").status().code(), Code::kUnavailable);
  EXPECT_FALSE(s3->exists("s3://b/c/MANIFEST"));
}

TEST_F(S3Test, RemoveTakesWhatIsInADirectoryAndReportsWhatStays) {
  std::string removed;
  auto s3 = storage([&](const HttpRequest& request, std::size_t) {
    if (request.method == "DELETE") return answer(204);
    if (request.method == "GET") {
      EXPECT_THAT(request.url, HasSubstr("prefix=c%2Fg%2F"));
      return answer(200,
                    "<Contents><Key>c/g/1&lt;</Key></Contents>"
                    "<Contents><Key>c/g/2</Key></Contents>");
    }
    removed.assign(reinterpret_cast<const char*>(request.body.data()), request.body.size());
    EXPECT_EQ(header(request, "content-md5"), md5_base64(request.body));
    return answer(200,
                  "<DeleteResult><Error><Key>c/g/2</Key><Code>AccessDenied</Code>"
                  "<Message>no</Message></Error></DeleteResult>");
  });
  const Status status = s3->remove("s3://b/c/g");
  EXPECT_THAT(status.message(), AllOf(HasSubstr("s3://b/c/g/2"), HasSubstr("AccessDenied")));
  EXPECT_THAT(removed, HasSubstr("<Object><Key>c/g/1&lt;</Key></Object>"));
}

// --- files in parts ---

// A store that keeps parts in memory, and fails where `fail` says so.
struct PartStore {
  std::map<int, std::string> parts;
  std::string object, mark, completed;
  int aborted = 0;
  std::function<std::optional<Answer>(const HttpRequest&)> fail = [](const HttpRequest&) {
    return std::nullopt;
  };

  Answer operator()(const HttpRequest& request) {
    if (std::optional<Answer> failure = fail(request)) return *failure;
    const std::string body(reinterpret_cast<const char*>(request.body.data()), request.body.size());
    const std::size_t part = request.url.find("partNumber=");
    if (part != std::string::npos) {
      const int number = std::stoi(request.url.substr(part + 11));
      parts[number] = body;
      return answer(200, "", {{"etag", "\"" + std::to_string(number) + "\""}});
    }
    if (request.method == "POST" && request.url.ends_with("?uploads=")) {
      mark = header(request, "x-amz-meta-meander-writer");
      return answer(200, "<R xmlns=\"\"><UploadId>u&amp;1</UploadId></R>");
    }
    if (request.method == "POST") return complete(body);
    if (request.method == "DELETE") {
      ++aborted;
      return answer(204);
    }
    if (request.method == "HEAD") {
      return answer(
          200, "",
          {{"content-length", std::to_string(object.size())}, {"x-amz-meta-meander-writer", mark}});
    }
    object = body;
    return answer(200);
  }
  HttpAnswer complete(const std::string& body) {
    if (!completed.empty()) return error(404, "NoSuchUpload");
    completed = body;
    for (const auto& [number, bytes] : parts) object += bytes;
    return answer(200, "<?xml version=\"1.0\"?>\n<CompleteMultipartUploadResult/>");
  }
};

std::string write_file(Storage& storage, std::size_t pieces, Status& status) {
  auto file = storage.create("s3://b/k").value();
  std::string all;
  for (std::size_t i = 0; i < pieces && status.ok(); ++i) {
    const std::string piece(30 + i % 7, static_cast<char>('a' + i % 26));
    status = file->append(piece.data(), piece.size());
    all += piece;
  }
  if (status.ok()) status = file->close();
  return all;
}

TEST_F(S3Test, ASmallFileIsOnePut) {
  PartStore store;
  auto s3 = storage([&](const HttpRequest& r, std::size_t) { return store(r); });
  Status status;
  const std::string all = write_file(*s3, 3, status);
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(store.object, all);
  EXPECT_THAT(seen_, ElementsAre("PUT http://store:9000/b/k"));
}

TEST_F(S3Test, ALargeFileGoesInPartsAndAppearsWholeAtItsEnd) {
  PartStore store;
  auto s3 = storage([&](const HttpRequest& r, std::size_t) { return store(r); },
                    {.part_bytes = 100, .parts_in_flight = 3});
  Status status;
  const std::string all = write_file(*s3, 50, status);
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(store.object, all);
  for (const auto& [number, bytes] : store.parts) {
    EXPECT_EQ(bytes.size(), std::min<std::size_t>(100, all.size() - (number - 1) * 100));
  }
  EXPECT_THAT(store.completed,
              HasSubstr("<Part><PartNumber>1</PartNumber><ETag>&quot;1&quot;</ETag></Part>"));
  EXPECT_EQ(store.aborted, 0);
}

TEST_F(S3Test, AFileOfWhichAPartFailsIsAbortedAndNeverAppears) {
  PartStore store;
  store.fail = [](const HttpRequest& r) -> std::optional<Answer> {
    if (r.url.find("partNumber=3") == std::string::npos) return std::nullopt;
    return error(403, "AccessDenied");
  };
  auto s3 = storage([&](const HttpRequest& r, std::size_t) { return store(r); },
                    {.part_bytes = 100, .parts_in_flight = 2});
  Status status;
  write_file(*s3, 50, status);
  EXPECT_EQ(status.code(), Code::kInvalid);
  EXPECT_EQ(store.completed, "");
  EXPECT_EQ(store.aborted, 1);
}

TEST_F(S3Test, AFileThatIsNotClosedIsAborted) {
  PartStore store;
  auto s3 = storage([&](const HttpRequest& r, std::size_t) { return store(r); },
                    {.part_bytes = 100, .parts_in_flight = 2});
  {
    auto file = s3->create("s3://b/k").value();
    const std::string bytes(350, 'x');
    ASSERT_TRUE(file->append(bytes.data(), bytes.size()).ok());
  }
  EXPECT_EQ(store.aborted, 1);
  EXPECT_EQ(store.object, "");
}

TEST_F(S3Test, CompletionIsTriedAgainWhenItFailsBehindStatus200) {
  PartStore store;
  bool is_first = true;
  store.fail = [&](const HttpRequest& r) -> std::optional<Answer> {
    if (r.method != "POST" || r.url.find("uploadId") == std::string::npos) return std::nullopt;
    if (!std::exchange(is_first, false)) return std::nullopt;
    return error(200, "InternalError");
  };
  auto s3 = storage([&](const HttpRequest& r, std::size_t) { return store(r); },
                    {.part_bytes = 100, .parts_in_flight = 2});
  Status status;
  const std::string all = write_file(*s3, 20, status);
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(store.object, all);
}

// The completion is carried out and its answer lost: the upload is then unknown.
TEST_F(S3Test, CompletionWhoseAnswerWasLostIsKnownByItsMark) {
  for (const bool is_own : {true, false}) {
    PartStore store;
    auto s3 = storage(
        [&](const HttpRequest& r, std::size_t) -> Answer {
          const bool is_completion = r.method == "POST" && !r.url.ends_with("?uploads=");
          const bool is_first = is_completion && store.completed.empty();
          Answer given = store(r);
          if (is_completion && !is_own) store.mark = "other";
          return is_first ? Answer(unavailable("connection reset")) : given;
        },
        {.part_bytes = 100, .parts_in_flight = 2});
    Status status;
    write_file(*s3, 20, status);
    EXPECT_EQ(status.ok(), is_own) << status.message();
  }
}

TEST_F(S3Test, ObjectOfAnotherLengthThanWasWrittenIsNotCompleted) {
  PartStore store;
  store.fail = [&](const HttpRequest& r) -> std::optional<Answer> {
    if (r.method != "HEAD") return std::nullopt;
    return answer(200, "", {{"content-length", "5"}});
  };
  auto s3 = storage([&](const HttpRequest& r, std::size_t) { return store(r); },
                    {.part_bytes = 100, .parts_in_flight = 2});
  Status status;
  write_file(*s3, 20, status);
  EXPECT_THAT(status.message(), HasSubstr("has 5 bytes of it"));
}

TEST_F(S3Test, DropUnfinishedAbortsTheUploadsBelowOnly) {
  auto s3 = storage([](const HttpRequest& request, std::size_t) {
    if (request.method == "DELETE") return answer(204);
    return answer(200,
                  "<R><Upload><Key>c/g/1</Key><UploadId>u1</UploadId></Upload>"
                  "<Upload><Key>other</Key><UploadId>u2</UploadId></Upload></R>");
  });
  EXPECT_TRUE(s3->drop_unfinished("s3://b/c").ok());
  EXPECT_THAT(seen_, Contains("DELETE http://store:9000/b/c/g/1?uploadId=u1"));
  EXPECT_EQ(seen_.size(), 2u);
}

TEST_F(S3Test, DropUnfinishedGoesOnWhereTheStoreRefusesIt) {
  auto s3 = storage([](const HttpRequest&, std::size_t) { return error(403, "AccessDenied"); });
  EXPECT_TRUE(s3->drop_unfinished("s3://b/c").ok());
}

TEST_F(S3Test, RenameIsRefused) {
  auto s3 = storage([](const HttpRequest&, std::size_t) { return answer(200); });
  EXPECT_EQ(s3->rename("s3://b/a", "s3://b/c").code(), Code::kInvalid);
  EXPECT_TRUE(seen_.empty());
}

// --- options and paths ---

GetVariable variables(std::map<std::string, std::string> values) {
  return [values](const std::string& name) -> std::optional<std::string> {
    const auto it = values.find(name);
    return it == values.end() ? std::nullopt : std::optional(it->second);
  };
}

TEST(S3Options, ComeFromTheStandardVariables) {
  const S3Options options = s3_options(variables({{"AWS_ACCESS_KEY_ID", "a"},
                                                  {"AWS_SECRET_ACCESS_KEY", "s"},
                                                  {"AWS_SESSION_TOKEN", "t"},
                                                  {"AWS_DEFAULT_REGION", "eu-west-3"},
                                                  {"AWS_ENDPOINT_URL", "http://other"},
                                                  {"AWS_ENDPOINT_URL_S3", "http://store:9000/"},
                                                  {"AWS_MAX_ATTEMPTS", "4"}}))
                                .value();
  EXPECT_EQ(options.credentials.access_key, "a");
  EXPECT_EQ(options.credentials.secret_key, "s");
  EXPECT_EQ(options.credentials.session_token, "t");
  EXPECT_EQ(options.region, "eu-west-3");
  EXPECT_EQ(options.endpoint, "http://store:9000");
  EXPECT_EQ(options.attempts_max, 4u);
}

TEST(S3Options, SayWhichVariableIsMissingOrWrong) {
  const auto message = [](std::map<std::string, std::string> values) {
    const Result<S3Options> options = s3_options(variables(std::move(values)));
    EXPECT_EQ(options.status().code(), Code::kInvalid);
    return options.status().message();
  };
  EXPECT_THAT(message({}), HasSubstr("AWS_ACCESS_KEY_ID is not set"));
  EXPECT_THAT(message({{"AWS_ACCESS_KEY_ID", "a"}}), HasSubstr("AWS_SECRET_ACCESS_KEY is not set"));
  const std::map<std::string, std::string> good = {{"AWS_ACCESS_KEY_ID", "a"},
                                                   {"AWS_SECRET_ACCESS_KEY", "s"}};
  auto values = good;
  values["AWS_ENDPOINT_URL"] = "store:9000";
  EXPECT_THAT(message(values), HasSubstr("AWS_ENDPOINT_URL"));
  for (const char* attempts : {"0", "x", "-1", "101", "3 "}) {
    values = good;
    values["AWS_MAX_ATTEMPTS"] = attempts;
    EXPECT_THAT(message(values), HasSubstr("AWS_MAX_ATTEMPTS"));
  }
}

TEST(S3Path, HasABucketAndAKeyWithoutSpareSlashes) {
  const S3Path path = parse_s3_path("s3://b.c-d//x/./y//z/").value();
  EXPECT_EQ(path.bucket, "b.c-d");
  EXPECT_EQ(path.key, "x/y/z");
  EXPECT_EQ(path.text(), "s3://b.c-d/x/y/z");
  EXPECT_EQ(parse_s3_path("s3://b").value().key, "");
  EXPECT_EQ(parse_s3_path("s3://b/").value().key, "");
  for (const char* bad : {"s3://", "s3:///x", "s3://b c/x", "s3://b?c/x", "s3://b/x/../y"}) {
    EXPECT_EQ(parse_s3_path(bad).status().code(), Code::kInvalid) << bad;
  }
  EXPECT_FALSE(is_s3_path("/s3://b"));
}

TEST(OpenStorage, HasFilesWithoutAnyCredentials) {
  const auto storage = open_storage();
  const std::string path = ::testing::TempDir() + "/open-storage";
  ASSERT_TRUE(storage->write_atomic(path, "x", 1).ok());
  EXPECT_TRUE(storage->has(path).value());
  EXPECT_EQ(storage->write_exclusive(path, "y", 1).code(), Code::kInvalid);
  EXPECT_TRUE(storage->remove(path).ok());
}

}  // namespace
}  // namespace meander::checkpoint
