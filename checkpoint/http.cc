// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/http.h"

#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <mutex>
#include <string_view>
#include <vector>

#include "common/check.h"

namespace meander::checkpoint {
namespace {

constexpr long kConnectMs = 5000;

struct EasyCleanup {
  void operator()(CURL* curl) const { curl_easy_cleanup(curl); }
};
using Easy = std::unique_ptr<CURL, EasyCleanup>;
struct ListCleanup {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

struct Receiver {
  HttpAnswer answer;
  std::size_t body_max = 0;
  bool is_too_long = false;
};

std::size_t on_body(char* bytes, std::size_t, std::size_t size, void* receiver) {
  Receiver& r = *static_cast<Receiver*>(receiver);
  r.is_too_long = r.answer.body.size() + size > r.body_max;
  if (r.is_too_long) return 0;  // ends the transfer
  r.answer.body.append(bytes, size);
  return size;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())))
    text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())))
    text.remove_suffix(1);
  return text;
}

std::size_t on_header(char* bytes, std::size_t, std::size_t size, void* receiver) {
  const std::string_view line(bytes, size);
  const std::size_t colon = line.find(':');
  if (colon != std::string_view::npos) {
    std::string name(line.substr(0, colon));
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
    static_cast<Receiver*>(receiver)->answer.headers[name] = trimmed(line.substr(colon + 1));
  }
  return size;
}

bool is_permanent(CURLcode code) {
  switch (code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
      return true;
    default:
      return false;
  }
}

class CurlHttp final : public Http {
 public:
  explicit CurlHttp(std::string ca_file) : ca_file_(std::move(ca_file)) {
    static std::once_flag once;
    std::call_once(once, [] { CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK); });
  }

  Result<HttpAnswer> perform(const HttpRequest& request) override {
    Easy easy = take();
    Result<HttpAnswer> answer = perform(easy.get(), request);
    give_back(std::move(easy));
    return answer;
  }

 private:
  Result<HttpAnswer> perform(CURL* curl, const HttpRequest& request) {
    Receiver receiver;
    receiver.body_max = request.answer_max;
    char why[CURL_ERROR_SIZE] = "";
    std::unique_ptr<curl_slist, ListCleanup> headers = headers_of(request);
    curl_easy_reset(curl);  // keeps its connections
    curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, kConnectMs);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(request.deadline.count()));
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &receiver);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &receiver);
    if (!ca_file_.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO, ca_file_.c_str());
    set_method(curl, request);
    const CURLcode code = curl_easy_perform(curl);
    if (receiver.is_too_long) {
      return failed("the server answers with more than the " + std::to_string(request.answer_max) +
                    " bytes asked for");
    }
    if (code != CURLE_OK) {
      std::string message = why[0] != '\0' ? why : curl_easy_strerror(code);
      return Status(is_permanent(code) ? Code::kInvalid : Code::kUnavailable, std::move(message));
    }
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    receiver.answer.status = static_cast<int>(status);
    return std::move(receiver.answer);
  }

  static std::unique_ptr<curl_slist, ListCleanup> headers_of(const HttpRequest& request) {
    // What libcurl would add by itself, and nobody asked for.
    curl_slist* list = curl_slist_append(nullptr, "Expect:");
    const bool has_type = std::ranges::any_of(
        request.headers, [](const auto& header) { return header.first == "content-type"; });
    if (!has_type) list = curl_slist_append(list, "Content-Type:");
    for (const auto& [name, value] : request.headers) {
      list = curl_slist_append(list, (name + ": " + value).c_str());
    }
    return std::unique_ptr<curl_slist, ListCleanup>(list);
  }

  static void set_method(CURL* curl, const HttpRequest& request) {
    if (request.method == "HEAD") {
      curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
      return;
    }
    if (request.method == "PUT" || request.method == "POST") {
      // An upload from memory, which libcurl can send again on a connection that turns out dead.
      curl_easy_setopt(curl, CURLOPT_POST, 1L);
      curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE,
                       static_cast<curl_off_t>(request.body.size()));
      curl_easy_setopt(
          curl, CURLOPT_POSTFIELDS,
          request.body.empty() ? reinterpret_cast<const std::byte*>("") : request.body.data());
    }
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }

  Easy take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) {
      Easy easy(curl_easy_init());
      CHECK(easy != nullptr);
      return easy;
    }
    Easy easy = std::move(idle_.back());
    idle_.pop_back();
    return easy;
  }
  void give_back(Easy easy) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(easy));  // as many as ever worked at once
  }

  const std::string ca_file_;
  std::mutex mutex_;
  std::vector<Easy> idle_;
};

}  // namespace

std::unique_ptr<Http> make_http(const std::string& ca_file) {
  return std::make_unique<CurlHttp>(ca_file);
}

}  // namespace meander::checkpoint
