// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/s3_client.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "checkpoint/xml.h"
#include "common/check.h"
#include "common/rng.h"

namespace meander::checkpoint {
namespace {

constexpr std::size_t kPageMax = 1000;           // what S3 lists or removes in one request
constexpr std::size_t kErrorMax = 64 << 10;      // bytes of an answer that says what is wrong
constexpr std::size_t kListAnswerMax = 8 << 20;  // of a page: 1000 keys of at most 1 KiB, escaped
constexpr char kWriterHeader[] = "x-amz-meta-meander-writer";

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

bool is_success(const HttpAnswer& answer) { return answer.status >= 200 && answer.status < 300; }

// <Error> as the outermost element: S3 can say so behind a status 200 it has already sent.
bool is_error_document(std::string_view body) {
  const std::size_t declaration = body.find("?>");
  if (declaration != std::string_view::npos) body.remove_prefix(declaration + 2);
  body.remove_prefix(std::min(body.find_first_not_of(" \r\n\t"), body.size()));
  return body.starts_with("<Error>");
}

// Goes away by itself, as a rule.
bool is_transient(const HttpAnswer& answer) {
  const auto has_code = [&](std::string_view code) {
    return xml_text(answer.body, "Code") == code;
  };
  switch (answer.status) {
    case 408:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
      return true;
    case 400:
      return has_code("RequestTimeout");
    case 409:
      return has_code("ConditionalRequestConflict") || has_code("OperationAborted");
    default:
      return is_success(answer) && is_error_document(answer.body);
  }
}

// "SlowDown: Please reduce your request rate" or "HTTP 503".
std::string reason_of(const HttpAnswer& answer) {
  const std::string code = xml_text(answer.body, "Code"), text = xml_text(answer.body, "Message");
  std::string reason = "HTTP " + std::to_string(answer.status);
  if (!code.empty()) reason += " " + code;
  if (!text.empty()) reason += ": " + text;
  std::ranges::replace(reason, '\n', ' ');
  return reason;
}

template <class T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

// The length in "bytes 0-9/443" or "bytes */443".
std::optional<std::uint64_t> total_of(const HttpAnswer& answer) {
  const std::string range = answer.header("content-range");
  return number<std::uint64_t>(std::string_view(range).substr(range.rfind('/') + 1));
}

struct Address {
  std::string root;  // "https://host:port"
  std::string host;  // as in the header
  std::string path;  // encoded
};

// With an endpoint the bucket is in the path, else in the host name: but a name with dots does not
// fit the certificate there.
Address address_of(const S3Options& options, const S3Path& path) {
  const std::string key = path.key.empty() ? "" : "/" + uri_encode(path.key, true);
  std::string root = options.endpoint, base;
  bool has_bucket = false;
  if (root.empty()) {
    const char* domain = options.region.starts_with("cn-") ? ".amazonaws.com.cn" : ".amazonaws.com";
    has_bucket = path.bucket.find('.') == std::string::npos;
    root = "https://" + (has_bucket ? path.bucket + "." : "") + "s3." + options.region + domain;
  } else if (const auto slash = root.find('/', root.find("://") + 3); slash != std::string::npos) {
    base = root.substr(slash);
    root.resize(slash);
  }
  std::string full = base + (has_bucket ? "" : "/" + path.bucket) + key;
  if (full.empty()) full = "/";
  return {root, root.substr(root.find("://") + 3), full};
}

std::string whole_seconds(Duration d) { return std::to_string(std::lround(seconds(d))) + " s"; }

}  // namespace

S3Client::S3Client(S3Options options, S3World world)
    : options_(std::move(options)), world_(std::move(world)) {}

std::string S3Client::new_mark() {
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(world_.random()));
  return text;
}

HttpRequest S3Client::sign(const Call& call) const {
  const S3Path at{call.path.bucket, call.is_of_bucket ? "" : call.path.key};
  const Address address = address_of(options_, at);
  SigningRequest request;
  request.method = call.method;
  request.path = address.path;
  request.query = call.query;
  request.payload_sha256 = sha256_hex(call.body);
  request.headers = call.headers;
  request.headers.emplace_back("host", address.host);
  request.headers.emplace_back("x-amz-content-sha256", request.payload_sha256);
  request.headers.emplace_back("x-amz-date", amz_date(world_.wall_seconds()));
  if (!options_.credentials.session_token.empty()) {
    request.headers.emplace_back("x-amz-security-token", options_.credentials.session_token);
  }
  HttpRequest signed_request;
  signed_request.method = call.method;
  signed_request.url = address.root + address.path;
  if (!call.query.empty()) signed_request.url += "?" + encoded_query(call.query);
  signed_request.headers = request.headers;
  signed_request.headers.emplace_back(
      "authorization", authorization(request, options_.credentials, options_.region, "s3"));
  signed_request.body = call.body;
  signed_request.answer_max = std::max(call.answer_max, kErrorMax);
  return signed_request;
}

Result<S3Client::Outcome> S3Client::perform(const Call& call) {
  const std::string what = std::string("cannot ") + call.verb + " " + call.path.text() + ": ";
  const TimePoint start = world_.now();
  for (std::uint32_t attempt = 1;; ++attempt) {
    const Duration left = options_.operation_max - (world_.now() - start);
    HttpRequest request = sign(call);
    request.deadline = std::max(std::chrono::milliseconds(1),
                                std::chrono::duration_cast<std::chrono::milliseconds>(
                                    std::min(options_.request_max, left)));
    Result<HttpAnswer> answer = world_.http->perform(request);
    if (answer.ok() && !is_transient(answer.value())) {
      return Outcome{std::move(answer).value(), attempt > 1};
    }
    if (!answer.ok() && answer.status().code() != Code::kUnavailable) {
      const bool is_address = answer.status().code() == Code::kInvalid;
      return Status(answer.status().code(),
                    what + answer.status().message() +
                        (is_address ? "; check AWS_ENDPOINT_URL and AWS_CA_BUNDLE" : ""));
    }
    const std::string why =
        answer.ok() ? reason_of(answer.value()) : std::string(answer.status().message());
    const Duration spent = world_.now() - start;
    if (attempt >= options_.attempts_max || spent + options_.pause_first > options_.operation_max) {
      return unavailable(what + why + " (attempt " + std::to_string(attempt) + ", after " +
                         whole_seconds(spent) + "); run again once " +
                         address_of(options_, call.path).root + " answers");
    }
    if (attempt == 3) LOG(WARNING) << what << why << "; trying again";
    pause(attempt, answer.ok() ? &answer.value() : nullptr);
  }
}

// Doubles with each attempt; half of it is drawn, so that many who failed at once do not come back
// at once.
void S3Client::pause(std::uint32_t attempt, const HttpAnswer* answer) {
  Duration longest = options_.pause_first;
  for (std::uint32_t i = 1; i < attempt && longest < options_.pause_max; ++i) longest *= 2;
  longest = std::min(longest, options_.pause_max);
  const double half = seconds(longest) / 2;
  Duration wait = from_seconds(half + half * unit_double(world_.random()));
  if (answer != nullptr) {
    const auto asked = number<std::uint32_t>(answer->header("retry-after"));
    if (asked) wait = std::max(wait, Duration(std::chrono::seconds(*asked)));
  }
  world_.sleep(std::min(wait, options_.pause_max));
}

Result<HttpAnswer> S3Client::must(const Call& call) {
  ASSIGN_OR_RETURN(Outcome outcome, perform(call));
  if (!is_success(outcome.answer)) return error_of(call, outcome.answer);
  return std::move(outcome.answer);
}

Status S3Client::error_of(const Call& call, const HttpAnswer& answer) const {
  const std::string what = std::string("cannot ") + call.verb + " " + call.path.text() + ": ";
  const std::string code = xml_text(answer.body, "Code");
  if (code == "NoSuchBucket") {
    return invalid(what + "there is no bucket " + call.path.bucket +
                   ": make it, or name another one");
  }
  if (answer.status == 404) return not_found(what + "no such object");
  std::string region = answer.header("x-amz-bucket-region");
  if (region.empty()) region = xml_text(answer.body, "Region");
  const bool is_elsewhere = answer.status / 100 == 3 || code == "AuthorizationHeaderMalformed" ||
                            code == "IllegalLocationConstraintException";
  if (is_elsewhere) {
    return invalid(what + "bucket " + call.path.bucket + " is in another region than " +
                   options_.region + ": set AWS_REGION" +
                   (region.empty() ? " to the bucket's" : "=" + region));
  }
  if (answer.status == 403 || answer.status == 401 || code == "ExpiredToken" ||
      code == "InvalidToken") {
    return refused(call, answer, code);
  }
  return failed(what + reason_of(answer));
}

Status S3Client::refused(const Call& call, const HttpAnswer& answer,
                         const std::string& code) const {
  std::string mend =
      "allow this access key s3:GetObject, PutObject, DeleteObject, ListBucket and "
      "AbortMultipartUpload there";
  if (code == "SignatureDoesNotMatch") mend = "correct AWS_SECRET_ACCESS_KEY";
  if (code == "InvalidAccessKeyId") mend = "correct AWS_ACCESS_KEY_ID";
  if (code == "RequestTimeTooSkewed") mend = "set the clock of this machine";
  if (code == "ExpiredToken" || code == "InvalidToken") mend = "renew AWS_SESSION_TOKEN";
  return invalid(std::string("cannot ") + call.verb + " " + call.path.text() + ": " +
                 reason_of(answer) + "; " + mend);
}

// --- objects ---

Result<S3Object> S3Client::head(const S3Path& path) {
  ASSIGN_OR_RETURN(const HttpAnswer answer, must({"look for", "HEAD", path}));
  S3Object object;
  object.bytes = number<std::uint64_t>(answer.header("content-length")).value_or(0);
  object.writer = answer.header(kWriterHeader);
  return object;
}

Result<S3Piece> S3Client::get(const S3Path& path, std::uint64_t offset, std::size_t size,
                              const std::string& etag) {
  CHECK_GT(size, 0u);
  Call call{"read", "GET", path};
  call.headers = {
      {"range", "bytes=" + std::to_string(offset) + "-" + std::to_string(offset + size - 1)}};
  if (!etag.empty()) call.headers.emplace_back("if-match", etag);
  call.answer_max = size;
  ASSIGN_OR_RETURN(Outcome outcome, perform(call));
  HttpAnswer& answer = outcome.answer;
  if (answer.status == 416) return S3Piece{"", total_of(answer).value_or(0), ""};  // beyond the end
  if (answer.status == 412) return failed("cannot read " + path.text() + ": it has been replaced");
  if (!is_success(answer)) return error_of(call, answer);
  // 200: the whole of it, from a store that knows no ranges.
  const bool is_range = answer.status == 206;
  const std::uint64_t total =
      is_range ? total_of(answer).value_or(0) : std::uint64_t{answer.body.size()};
  const std::uint64_t expected =
      total <= offset ? 0 : std::min<std::uint64_t>(size, total - offset);
  if ((!is_range && offset != 0) || answer.body.size() != expected) {
    return failed("cannot read " + path.text() +
                  ": the store answers with other bytes than those " +
                  "asked for; it must know ranges");
  }
  return S3Piece{std::move(answer.body), total, answer.header("etag")};
}

Status S3Client::put(const S3Path& path, std::span<const std::byte> bytes) {
  Call call{"write", "PUT", path};
  call.body = bytes;
  return must(call).status();
}

Status S3Client::put_exclusive(const S3Path& path, std::span<const std::byte> bytes) {
  const std::string mark = new_mark();
  Call call{"write", "PUT", path};
  call.headers = {{"if-none-match", "*"}, {kWriterHeader, mark}};
  call.body = bytes;
  ASSIGN_OR_RETURN(const Outcome outcome, perform(call));
  if (outcome.answer.status == 501) return put_unless_there(path, bytes);
  if (outcome.answer.status != 412) {
    return is_success(outcome.answer) ? Status() : error_of(call, outcome.answer);
  }
  if (outcome.is_repeated) {  // it may be there by an attempt whose answer was lost
    ASSIGN_OR_RETURN(const S3Object there, head(path));
    if (there.writer == mark) return {};
  }
  return invalid("cannot write " + path.text() +
                 ": it is there already, so another run writes here; give each run its own folder");
}

// For stores without conditional writes: of two at the very same time, both may win.
Status S3Client::put_unless_there(const S3Path& path, std::span<const std::byte> bytes) {
  LOG(WARNING) << path.text() << ": this store knows no conditional writes (If-None-Match), so two "
               << "runs that write here at once are not told apart for certain";
  const Result<S3Object> there = head(path);
  if (there.ok()) return invalid("cannot write " + path.text() + ": it is there already");
  if (there.status().code() != Code::kNotFound) return there.status();
  return put(path, bytes);
}

Result<std::vector<std::string>> S3Client::list(const std::string& bucket,
                                                const std::string& prefix, bool names_only,
                                                std::size_t max) {
  std::vector<std::string> found;
  Call call{"list", "GET", {bucket, prefix}};
  call.is_of_bucket = true;
  call.answer_max = kListAnswerMax;
  std::string token;
  do {
    call.query = {{"list-type", "2"},
                  {"prefix", prefix},
                  {"max-keys", std::to_string(std::min(max, kPageMax))}};
    if (names_only) call.query.emplace_back("delimiter", "/");
    if (!token.empty()) call.query.emplace_back("continuation-token", token);
    ASSIGN_OR_RETURN(const HttpAnswer answer, must(call));
    const std::string& body = answer.body;
    for (const std::string_view entry : xml_elements(body, "Contents")) {
      found.push_back(xml_text(entry, "Key"));
    }
    for (const std::string_view entry : xml_elements(body, "CommonPrefixes")) {
      found.push_back(xml_text(entry, "Prefix"));
    }
    const bool has_more = xml_text(body, "IsTruncated") == "true";
    const std::string next = has_more ? xml_text(body, "NextContinuationToken") : "";
    if (has_more && (next.empty() || next == token)) {
      return failed("cannot list " + call.path.text() + ": the store does not say where to go on");
    }
    token = next;
  } while (!token.empty() && found.size() < max);
  std::ranges::sort(found);
  if (found.size() > max) found.resize(max);
  return found;
}

Status S3Client::remove(const S3Path& path) {
  const Status status = must({"remove", "DELETE", path}).status();
  return status.code() == Code::kNotFound ? Status() : status;
}

Status S3Client::remove(const std::string& bucket, std::span<const std::string> keys) {
  while (!keys.empty()) {
    const auto page = keys.first(std::min(keys.size(), kPageMax));
    keys = keys.subspan(page.size());
    std::string body = "<Delete><Quiet>true</Quiet>";
    for (const std::string& key : page) {
      body += "<Object><Key>" + xml_escape(key) + "</Key></Object>";
    }
    body += "</Delete>";
    Call call{"remove", "POST", {bucket, page.front()}};
    call.is_of_bucket = true;
    call.query = {{"delete", ""}};
    call.headers = {{"content-md5", md5_base64(bytes_of(body))}};
    call.body = bytes_of(body);
    call.answer_max = kListAnswerMax;
    ASSIGN_OR_RETURN(const HttpAnswer answer, must(call));
    const auto errors = xml_elements(answer.body, "Error");
    if (errors.empty()) continue;
    const std::string key = xml_text(errors.front(), "Key");
    return invalid("cannot remove " + S3Path{bucket, key}.text() + ": " +
                   xml_text(errors.front(), "Code") + ": " + xml_text(errors.front(), "Message") +
                   "; allow s3:DeleteObject there");
  }
  return {};
}

// --- objects in parts ---

Result<S3Upload> S3Client::begin_upload(const S3Path& path, const std::string& writer) {
  Call call{"write", "POST", path};
  call.query = {{"uploads", ""}};
  call.headers = {{kWriterHeader, writer}};
  ASSIGN_OR_RETURN(const HttpAnswer answer, must(call));
  const std::string id = xml_text(answer.body, "UploadId");
  if (id.empty()) return failed("cannot write " + path.text() + ": the store names no upload");
  return S3Upload{path, id};
}

Result<std::string> S3Client::upload_part(const S3Upload& upload, std::uint32_t number,
                                          std::span<const std::byte> bytes) {
  Call call{"write a part of", "PUT", upload.path};
  call.query = {{"partNumber", std::to_string(number)}, {"uploadId", upload.id}};
  call.body = bytes;
  ASSIGN_OR_RETURN(const HttpAnswer answer, must(call));
  const std::string etag = answer.header("etag");
  if (etag.empty()) return failed("cannot write " + upload.path.text() + ": a part has no ETag");
  return etag;
}

Status S3Client::complete_upload(const S3Upload& upload, std::span<const std::string> etags,
                                 std::uint64_t bytes, const std::string& writer) {
  std::string body = "<CompleteMultipartUpload>";
  for (std::size_t i = 0; i < etags.size(); ++i) {
    body += "<Part><PartNumber>" + std::to_string(i + 1) + "</PartNumber><ETag>" +
            xml_escape(etags[i]) + "</ETag></Part>";
  }
  body += "</CompleteMultipartUpload>";
  Call call{"complete", "POST", upload.path};
  call.query = {{"uploadId", upload.id}};
  call.body = bytes_of(body);
  ASSIGN_OR_RETURN(const Outcome outcome, perform(call));
  // An attempt whose answer was lost may have completed it: then the upload is no more.
  const bool is_gone = outcome.answer.status == 404 && outcome.is_repeated;
  if (!is_success(outcome.answer) && !is_gone) return error_of(call, outcome.answer);
  ASSIGN_OR_RETURN(const S3Object there, head(upload.path));
  if (there.bytes == bytes && (!is_gone || there.writer == writer)) return {};
  return failed("cannot complete " + upload.path.text() + ": the store has " +
                std::to_string(there.bytes) + " bytes of it, not the " + std::to_string(bytes) +
                " written here");
}

Status S3Client::abort_upload(const S3Upload& upload) {
  Call call{"abort the upload of", "DELETE", upload.path};
  call.query = {{"uploadId", upload.id}};
  const Status status = must(call).status();
  return status.code() == Code::kNotFound ? Status() : status;
}

Result<std::vector<S3Upload>> S3Client::list_uploads(const std::string& bucket,
                                                     const std::string& prefix) {
  std::vector<S3Upload> found;
  std::string key, id;
  for (;;) {
    Call call{"list the uploads of", "GET", {bucket, prefix}};
    call.is_of_bucket = true;
    call.query = {{"uploads", ""}, {"prefix", prefix}};
    if (!key.empty()) {
      call.query.emplace_back("key-marker", key);
      call.query.emplace_back("upload-id-marker", id);
    }
    call.answer_max = kListAnswerMax;
    ASSIGN_OR_RETURN(const HttpAnswer answer, must(call));
    for (const std::string_view entry : xml_elements(answer.body, "Upload")) {
      const std::string name = xml_text(entry, "Key");
      if (name.starts_with(prefix)) {
        found.push_back({{bucket, name}, xml_text(entry, "UploadId")});
      }
    }
    if (xml_text(answer.body, "IsTruncated") != "true") return found;
    const std::string before = std::exchange(key, xml_text(answer.body, "NextKeyMarker"));
    const std::string id_before = std::exchange(id, xml_text(answer.body, "NextUploadIdMarker"));
    if (key.empty() || (key == before && id == id_before)) {
      return failed("cannot list the uploads of s3://" + bucket +
                    ": the store does not say where to go on");
    }
  }
}

}  // namespace meander::checkpoint
