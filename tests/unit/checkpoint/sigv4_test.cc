// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/sigv4.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace meander::checkpoint {
namespace {

using ::testing::EndsWith;
using ::testing::StartsWith;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

struct Vector {
  std::string name, method, path;  // path not encoded
  NameValues query, headers;       // beside host and x-amz-date
  std::string body, signature;
};

constexpr char kUnreserved[] = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
constexpr char kToken[] =
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfI"
    "eoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0"
    "wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDry"
    "pNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

// The published "AWS Signature Version 4 test suite": all of its requests but those about the
// normalising of paths, which S3 does not do. Headers of one name are joined as it asks.
const std::vector<Vector>& suite() {
  static const std::vector<Vector> vectors = {
      {"get-header-key-duplicate",
       "GET",
       "/",
       {},
       {{"my-header1", "value2,value2,value1"}},
       "",
       "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
      {"get-header-value-multiline",
       "GET",
       "/",
       {},
       {{"my-header1", "value1,value2,value3"}},
       "",
       "ba17b383a53190154eb5fa66a1b836cc297cc0a3d70a5d00705980573d8ff790"},
      {"get-header-value-order",
       "GET",
       "/",
       {},
       {{"my-header1", "value4,value1,value3,value2"}},
       "",
       "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},
      {"get-header-value-trim",
       "GET",
       "/",
       {},
       {{"my-header1", " value1"}, {"my-header2", " \"a   b   c\" "}},
       "",
       "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
      {"get-unreserved",
       "GET",
       std::string("/") + kUnreserved,
       {},
       {},
       "",
       "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
      {"get-utf8",
       "GET",
       "/\u1234",
       {},
       {},
       "",
       "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
      {"get-vanilla",
       "GET",
       "/",
       {},
       {},
       "",
       "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
      {"get-vanilla-empty-query-key",
       "GET",
       "/",
       {{"Param1", "value1"}},
       {},
       "",
       "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"},
      {"get-vanilla-query-order-key-case",
       "GET",
       "/",
       {{"Param2", "value2"}, {"Param1", "value1"}},
       {},
       "",
       "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
      {"get-vanilla-query-unreserved",
       "GET",
       "/",
       {{kUnreserved, kUnreserved}},
       {},
       "",
       "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
      {"get-vanilla-utf8-query",
       "GET",
       "/",
       {{"\u1234", "bar"}},
       {},
       "",
       "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
      {"post-header-key-sort",
       "POST",
       "/",
       {},
       {{"my-header1", "value1"}},
       "",
       "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
      {"post-header-value-case",
       "POST",
       "/",
       {},
       {{"my-header1", "VALUE1"}},
       "",
       "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"},
      {"post-sts-header-before",
       "POST",
       "/",
       {},
       {{"x-amz-security-token", kToken}},
       "",
       "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"},
      {"post-vanilla",
       "POST",
       "/",
       {},
       {},
       "",
       "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
      {"post-vanilla-query",
       "POST",
       "/",
       {{"Param1", "value1"}},
       {},
       "",
       "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},
      {"post-vanilla-query-nonunreserved",
       "POST",
       "/",
       {{"@#$%^", ""}, {"+", "/,?><`\";:\\|][{}"}},
       {},
       "",
       "66c82657c86e26fb25238d0e69f011edc4c6df5ae71119d7cb98ed9b87393c1e"},
      {"post-vanilla-query-space",
       "POST",
       "/",
       {{"p", ""}},
       {},
       "",
       "e71688addb58a26418614085fb730ba3faa623b461c17f48f2fbdb9361b94a9b"},
      {"post-x-www-form-urlencoded",
       "POST",
       "/",
       {},
       {{"content-type", "application/x-www-form-urlencoded"}},
       "Param1=value1",
       "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
      {"post-x-www-form-urlencoded-parameters",
       "POST",
       "/",
       {},
       {{"content-type", "application/x-www-form-urlencoded; charset=utf8"}},
       "Param1=value1",
       "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe"},
  };
  return vectors;
}

TEST(SigV4, SignsThePublishedTestSuiteAsItSays) {
  const AwsCredentials credentials{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", ""};
  for (const Vector& v : suite()) {
    SigningRequest request{v.method, uri_encode(v.path, true), v.query, v.headers,
                           sha256_hex(bytes_of(v.body))};
    request.headers.emplace_back("x-amz-date", "20150830T123600Z");
    request.headers.emplace_back("host", "example.amazonaws.com");
    const std::string value = authorization(request, credentials, "us-east-1", "service");
    EXPECT_THAT(value, StartsWith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/"
                                  "service/aws4_request, SignedHeaders="))
        << v.name;
    EXPECT_THAT(value, EndsWith(", Signature=" + v.signature)) << v.name;
  }
}

// The four worked examples of the S3 API reference, "Signature Calculations for the Authorization
// Header".
TEST(SigV4, SignsTheExamplesOfTheS3ReferenceAsItSays) {
  const AwsCredentials credentials{"AKIAIOSFODNN7EXAMPLE",
                                   "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""};
  const std::vector<Vector> examples = {
      {"get",
       "GET",
       "/test.txt",
       {},
       {{"range", "bytes=0-9"}},
       "",
       "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
      {"put",
       "PUT",
       "/test$file.text",
       {},
       {{"date", "Fri, 24 May 2013 00:00:00 GMT"}, {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
       "Welcome to Amazon S3.",
       "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
      {"lifecycle",
       "GET",
       "/",
       {{"lifecycle", ""}},
       {},
       "",
       "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
      {"list",
       "GET",
       "/",
       {{"prefix", "J"}, {"max-keys", "2"}},
       {},
       "",
       "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
  };
  for (const Vector& v : examples) {
    SigningRequest request{v.method, uri_encode(v.path, true), v.query, v.headers,
                           sha256_hex(bytes_of(v.body))};
    request.headers.emplace_back("host", "examplebucket.s3.amazonaws.com");
    request.headers.emplace_back("x-amz-content-sha256", request.payload_sha256);
    request.headers.emplace_back("x-amz-date", amz_date(1369353600));
    EXPECT_THAT(authorization(request, credentials, "us-east-1", "s3"),
                EndsWith("Signature=" + v.signature))
        << v.name;
  }
}

TEST(SigV4, AnyChangeOfTheRequestChangesTheSignature) {
  const AwsCredentials credentials{"a", "b", ""};
  const SigningRequest request{"GET",
                               "/k",
                               {{"q", "1"}},
                               {{"host", "h"}, {"x-amz-date", "20130524T000000Z"}},
                               sha256_hex({})};
  const std::string first = authorization(request, credentials, "r", "s3");
  std::vector<SigningRequest> changed(5, request);
  changed[0].method = "PUT";
  changed[1].path = "/K";
  changed[2].query = {{"q", "2"}};
  changed[3].headers[0].second = "H";
  changed[4].payload_sha256 = sha256_hex(bytes_of("x"));
  for (const SigningRequest& other : changed) {
    EXPECT_NE(authorization(other, credentials, "r", "s3"), first);
  }
}

TEST(UriEncode, KeepsLettersDigitsAndFourSigns) {
  EXPECT_EQ(uri_encode(kUnreserved, false), kUnreserved);
  EXPECT_EQ(uri_encode("a b/c+d=\u00e9&", false), "a%20b%2Fc%2Bd%3D%C3%A9%26");
  EXPECT_EQ(uri_encode("a b/c", true), "a%20b/c");
}

TEST(EncodedQuery, IsSortedByEncodedName) {
  EXPECT_EQ(encoded_query({{"uploads", ""}, {"prefix", "a/b"}, {"list-type", "2"}}),
            "list-type=2&prefix=a%2Fb&uploads=");
}

TEST(Digests, AreTheKnownOnes) {
  EXPECT_EQ(sha256_hex({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(md5_base64({}), "1B2M2Y8AsgTpgAmY7PhCfg==");
  EXPECT_EQ(amz_date(1440938160), "20150830T123600Z");
}

}  // namespace
}  // namespace meander::checkpoint
