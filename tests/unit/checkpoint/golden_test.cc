// SPDX-License-Identifier: Apache-2.0
// Every released format stays readable: tests/golden/checkpoint holds a generation of each, as the
// code of its time wrote it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/checkpoint/run_model.h"

namespace meander::checkpoint {
namespace {

using ::testing::IsEmpty;

// Counts of 520 samples in three tables, a key with its sixth push admitted; blocks as they are and
// compressed.
TEST(Golden, FormatOneIsReadable) {
  const auto storage = make_posix_storage();
  const std::string dir = "tests/golden/checkpoint/format-1/gen-000001";
  const auto chain = open_chain(*storage, "tests/golden/checkpoint/format-1");
  ASSERT_TRUE(chain.ok()) << chain.status().message();
  ASSERT_EQ(chain->size(), 1u);
  const manifest::Manifest& manifest = chain->back().manifest;
  EXPECT_EQ(manifest.format(), 1u);
  EXPECT_EQ(manifest.base(), 0u);
  const auto verified = verify(*storage, dir);
  EXPECT_THAT(verified->errors, IsEmpty());
  EXPECT_EQ(verified->files, 7u);
  EXPECT_EQ(verified->rows, 155u);
  // From the records themselves, not what the manifest says.
  std::uint64_t sum = 0, counts = 0, admitted = 0;
  for (int t = 0; t < manifest.tables_size(); ++t) {
    const Contents contents = contents_of(*storage, chain.value(), t).value();
    EXPECT_EQ(contents.size(), manifest.tables(t).rows());
    for (const auto& [key, record] : contents) {
      sum += record_digest(t, record_of(key, record));
      counts += record.count;
      admitted += record.admitted ? 1 : 0;
    }
  }
  EXPECT_EQ(final_digest(sum, manifest), "4e23c64dc06858a6");
  EXPECT_EQ(read_digest(*storage, chain.value()).value(), "4e23c64dc06858a6");
  EXPECT_EQ(counts, 2460u);
  EXPECT_EQ(admitted, 141u);
}

TEST(Golden, LaterFormatIsNamedNotMisread) {
  auto storage = make_memory_storage();
  const std::string json = "{\"format\": 9, \"something\": [{\"new\": 1}]}\n";
  char line[32];
  std::snprintf(line, sizeof(line), "crc32c %08x\n", crc32c(json.data(), json.size()));
  const std::string text = json + line;
  ASSERT_TRUE(storage->make_directories("g").ok());
  ASSERT_TRUE(storage->write_atomic("g/MANIFEST", text.data(), text.size()).ok());
  const Status status = open_chain(*storage, "g").status();
  EXPECT_EQ(status.code(), Code::kInvalid);
  EXPECT_EQ(status.message(), "g/MANIFEST: format 9 is not known to this version");
}

}  // namespace
}  // namespace meander::checkpoint
