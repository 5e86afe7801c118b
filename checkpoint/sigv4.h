// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace meander::checkpoint {

// AWS Signature Version 4, as S3 takes it: how a request proves who sends it. Pure functions.
// Source: Amazon S3 API Reference, "Authenticating Requests: Using the Authorization Header".

struct AwsCredentials {
  std::string access_key;
  std::string secret_key;
  std::string session_token;  // of temporary credentials; else empty
};

using NameValues = std::vector<std::pair<std::string, std::string>>;

// What is signed of a request.
struct SigningRequest {
  std::string method;
  std::string path;            // percent-encoded, exactly as it is sent: S3 does not normalise it
  NameValues query;            // not encoded
  NameValues headers;          // all are signed: lower-case names, each once; host and x-amz-date
  std::string payload_sha256;  // of the body, in hex
};

// Value of the header "authorization". `request` has a header x-amz-date.
std::string authorization(const SigningRequest& request, const AwsCredentials& credentials,
                          const std::string& region, const std::string& service);

// The query sorted and encoded, as it is signed and sent.
std::string encoded_query(const NameValues& query);
// All bytes but letters, digits and "-._~" (and the slash, where it is kept) as %XX.
std::string uri_encode(std::string_view text, bool keep_slash);
// "20130524T000000Z" of seconds since 1970.
std::string amz_date(std::int64_t seconds);
std::string sha256_hex(std::span<const std::byte> bytes);
// For the header content-md5.
std::string md5_base64(std::span<const std::byte> bytes);

}  // namespace meander::checkpoint
