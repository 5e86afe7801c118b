// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "checkpoint/sigv4.h"
#include "common/status.h"

namespace meander::checkpoint {

struct HttpRequest {
  std::string method;  // GET, HEAD, PUT, POST, DELETE
  std::string url;
  NameValues headers;
  std::span<const std::byte> body;        // lives until perform() returns
  std::size_t answer_max = 0;             // bytes of the answer's body; the rest is not fetched
  std::chrono::milliseconds deadline{0};  // for the whole of it
};

struct HttpAnswer {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;

  std::string header(const std::string& name) const {
    const auto it = headers.find(name);
    return it == headers.end() ? "" : it->second;
  }
};

// One HTTP request at a time and thread. Follows no redirect and tries nothing again.
class Http {
 public:
  virtual ~Http() = default;
  // kUnavailable: no answer in time, or a broken connection; kInvalid: a URL, a name or a
  // certificate that cannot be used; kFailed: an answer longer than answer_max. Any HTTP status is
  // an answer. Any thread may call it.
  virtual Result<HttpAnswer> perform(const HttpRequest& request) = 0;
};

// By libcurl; connections are kept and used again. `ca_file`: certificates to trust in place of the
// system's, unless empty.
std::unique_ptr<Http> make_http(const std::string& ca_file);

}  // namespace meander::checkpoint
