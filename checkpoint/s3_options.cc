// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cctype>
#include <charconv>
#include <random>
#include <thread>

#include "checkpoint/open_storage.h"
#include "checkpoint/s3_client.h"

namespace meander::checkpoint {
namespace {

constexpr std::string_view kScheme = "s3://";
constexpr std::uint32_t kAttemptsMax = 100;

Result<std::uint32_t> read_attempts(const std::string& text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value == 0 ||
      value > kAttemptsMax) {
    return invalid("AWS_MAX_ATTEMPTS: expected a number from 1 to " + std::to_string(kAttemptsMax) +
                   ", got '" + text + "'");
  }
  return value;
}

bool is_bucket_name(std::string_view name) {
  return !name.empty() && name.size() <= 63 && std::ranges::all_of(name, [](unsigned char c) {
    return std::isalnum(c) || c == '.' || c == '-' || c == '_';
  });
}

}  // namespace

Result<S3Options> s3_options(const GetVariable& variable) {
  const auto first = [&](std::initializer_list<const char*> names) {
    for (const char* name : names) {
      std::optional<std::string> value = variable(name);
      if (value && !value->empty()) return *value;
    }
    return std::string();
  };
  S3Options options;
  options.credentials = {first({"AWS_ACCESS_KEY_ID"}), first({"AWS_SECRET_ACCESS_KEY"}),
                         first({"AWS_SESSION_TOKEN"})};
  for (const auto& [value, name] : {std::pair{options.credentials.access_key, "AWS_ACCESS_KEY_ID"},
                                    {options.credentials.secret_key, "AWS_SECRET_ACCESS_KEY"}}) {
    if (value.empty()) {
      return invalid(std::string("no credentials for s3://: set AWS_ACCESS_KEY_ID and ") +
                     "AWS_SECRET_ACCESS_KEY (" + name + " is not set)");
    }
  }
  if (const std::string region = first({"AWS_REGION", "AWS_DEFAULT_REGION"}); !region.empty()) {
    options.region = region;
  }
  options.endpoint = first({"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"});
  while (options.endpoint.ends_with('/')) options.endpoint.pop_back();
  if (!options.endpoint.empty() && !options.endpoint.starts_with("http://") &&
      !options.endpoint.starts_with("https://")) {
    return invalid("AWS_ENDPOINT_URL: expected http://HOST:PORT or https://..., got '" +
                   options.endpoint + "'");
  }
  options.ca_file = first({"AWS_CA_BUNDLE"});
  if (const std::string attempts = first({"AWS_MAX_ATTEMPTS"}); !attempts.empty()) {
    ASSIGN_OR_RETURN(options.attempts_max, read_attempts(attempts));
  }
  return options;
}

S3World real_s3_world(const S3Options& options) {
  S3World world;
  world.http = make_http(options.ca_file);
  world.now = [] { return SystemClock().now(); };
  world.wall_seconds = [] { return SystemClock().wall_ms() / 1000; };
  world.sleep = [](Duration d) { std::this_thread::sleep_for(d); };
  world.random = [] {
    std::random_device device;
    return std::uint64_t{device()} << 32 | device();
  };
  return world;
}

bool is_s3_path(const std::string& path) { return path.starts_with(kScheme); }

Result<S3Path> parse_s3_path(const std::string& path) {
  CHECK(is_s3_path(path));
  const std::string rest = path.substr(kScheme.size());
  S3Path parsed;
  parsed.bucket = rest.substr(0, rest.find('/'));
  if (!is_bucket_name(parsed.bucket)) {
    return invalid(path + ": '" + parsed.bucket +
                   "' is no name of a bucket; write s3://BUCKET/PREFIX");
  }
  for (std::size_t at = parsed.bucket.size(); at < rest.size();) {
    const std::size_t end = std::min(rest.find('/', at + 1), rest.size());
    const std::string part = rest.substr(at + 1, end - at - 1);
    if (part == "..") return invalid(path + ": may not have '..'; write s3://BUCKET/PREFIX");
    if (!part.empty() && part != ".") parsed.key += (parsed.key.empty() ? "" : "/") + part;
    at = end;
  }
  return parsed;
}

}  // namespace meander::checkpoint
