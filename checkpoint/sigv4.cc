// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/sigv4.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <ctime>

#include "common/check.h"

namespace meander::checkpoint {
namespace {

constexpr char kAlgorithm[] = "AWS4-HMAC-SHA256";
constexpr std::size_t kSha256Bytes = 32;

std::string digest(const EVP_MD* kind, std::span<const std::byte> bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> out;
  unsigned size = 0;
  CHECK(EVP_Digest(bytes.data(), bytes.size(), out.data(), &size, kind, nullptr) == 1);
  return {reinterpret_cast<const char*>(out.data()), size};
}

std::string hmac_sha256(std::string_view key, std::string_view text) {
  std::array<unsigned char, kSha256Bytes> out;
  unsigned size = 0;
  CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
             reinterpret_cast<const unsigned char*>(text.data()), text.size(), out.data(),
             &size) != nullptr);
  return {reinterpret_cast<const char*>(out.data()), size};
}

std::string hex(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const unsigned char c : bytes) {
    text += kDigits[c >> 4];
    text += kDigits[c & 15];
  }
  return text;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Without spaces at the ends, and one space for several.
std::string trimmed(std::string_view value) {
  std::string text;
  for (const char c : value) {
    if (c != ' ' || (!text.empty() && text.back() != ' ')) text += c;
  }
  if (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

NameValues sorted(NameValues values) {
  std::sort(values.begin(), values.end());
  return values;
}

std::string names_of(const NameValues& headers) {
  std::string names;
  for (const auto& [name, value] : headers) names += (names.empty() ? "" : ";") + name;
  return names;
}

std::string canonical_request(const SigningRequest& request, const NameValues& headers) {
  std::string text = request.method + "\n" + request.path + "\n" + encoded_query(request.query);
  text += "\n";
  for (const auto& [name, value] : headers) text += name + ":" + trimmed(value) + "\n";
  return text + "\n" + names_of(headers) + "\n" + request.payload_sha256;
}

}  // namespace

std::string authorization(const SigningRequest& request, const AwsCredentials& credentials,
                          const std::string& region, const std::string& service) {
  const NameValues headers = sorted(request.headers);
  const auto date = std::ranges::find(headers, "x-amz-date", &NameValues::value_type::first);
  CHECK(date != headers.end()) << "a signed request has a date";
  const std::string day = date->second.substr(0, 8);
  const std::string scope = day + "/" + region + "/" + service + "/aws4_request";
  const std::string to_sign = std::string(kAlgorithm) + "\n" + date->second + "\n" + scope + "\n" +
                              sha256_hex(bytes_of(canonical_request(request, headers)));
  std::string key = "AWS4" + credentials.secret_key;
  for (const std::string& part : {day, region, service, std::string("aws4_request")}) {
    key = hmac_sha256(key, part);
  }
  return std::string(kAlgorithm) + " Credential=" + credentials.access_key + "/" + scope +
         ", SignedHeaders=" + names_of(headers) + ", Signature=" + hex(hmac_sha256(key, to_sign));
}

std::string encoded_query(const NameValues& query) {
  NameValues encoded;
  for (const auto& [name, value] : query) {
    encoded.emplace_back(uri_encode(name, false), uri_encode(value, false));
  }
  std::string text;
  for (const auto& [name, value] : sorted(std::move(encoded))) {
    text += (text.empty() ? "" : "&") + name + "=" + value;
  }
  return text;
}

std::string uri_encode(std::string_view text, bool keep_slash) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string encoded;
  for (const unsigned char c : text) {
    const bool is_plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                          (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~' ||
                          (c == '/' && keep_slash);
    if (is_plain) {
      encoded += static_cast<char>(c);
    } else {
      encoded += {'%', kDigits[c >> 4], kDigits[c & 15]};
    }
  }
  return encoded;
}

std::string amz_date(std::int64_t seconds) {
  const std::time_t time = seconds;
  std::tm parts{};
  gmtime_r(&time, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y%m%dT%H%M%SZ", &parts);
  return text;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  return hex(digest(EVP_sha256(), bytes));
}

std::string md5_base64(std::span<const std::byte> bytes) {
  const std::string raw = digest(EVP_md5(), bytes);
  std::array<unsigned char, 32> text;
  const int size = EVP_EncodeBlock(text.data(), reinterpret_cast<const unsigned char*>(raw.data()),
                                   static_cast<int>(raw.size()));
  return {reinterpret_cast<const char*>(text.data()), static_cast<std::size_t>(size)};
}

}  // namespace meander::checkpoint
