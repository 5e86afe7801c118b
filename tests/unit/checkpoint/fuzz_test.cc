// SPDX-License-Identifier: Apache-2.0
// A short, seeded run of what tests/fuzz does for hours: bytes that are nearly right must be
// refused or read, and never crash or be read beyond their end (run it under the sanitizers).
#include "tests/fuzz/checkpoint_target.h"

#include <gtest/gtest.h>

#include "common/rng.h"

namespace meander::checkpoint {
namespace {

std::string mutated(std::string bytes, Rng& rng) {
  for (std::uint64_t n = 1 + rng.below(4); n > 0 && !bytes.empty(); --n) {
    const std::size_t at = rng.below(bytes.size());
    switch (rng.below(6)) {
      case 0:
      case 1:
        bytes[at] = static_cast<char>(rng.next());
        break;
      case 2:
        bytes[at] = static_cast<char>(bytes[at] ^ 1 << rng.below(8));
        break;
      case 3:
        bytes.resize(at);
        break;
      case 4:
        bytes.insert(at, bytes.substr(0, rng.below(40)));
        break;
      default:
        bytes.erase(at, rng.below(40));
    }
  }
  return bytes;
}

std::string file_of(Storage& storage, const std::string& path) {
  const Buffer bytes = storage.read(path).value();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(Fuzz, RowsFiles) {
  auto storage = make_memory_storage();
  Rng rng(1);
  for (const bool compressible : {false, true}) {
    auto writer = RowsWriter::create(*storage, "x", 0, 5, {0, kPartitions - 1, 3}).value();
    for (int i = 0; i < 40; ++i) {
      float values[5] = {};
      for (float& v : values) v = compressible ? 1.0f : static_cast<float>(rng.uniform());
      Record record{compressible ? i : rng.next(), 7, 3, i % 5 != 0, values};
      if (!record.admitted) record.values = {};
      ASSERT_TRUE(writer->add(record).ok());
    }
    ASSERT_TRUE(writer->finish().ok());
    const std::string whole = file_of(*storage, "x");
    fuzz_rows(whole, true);
    for (int round = 0; round < 4'000; ++round) fuzz_rows(mutated(whole, rng), round % 4 != 0);
  }
}

TEST(Fuzz, Manifests) {
  Rng rng(2);
  auto storage = fuzz_chain();
  const std::string whole = file_of(*storage, "c/gen-000001/MANIFEST");
  const std::string json = whole.substr(0, whole.size() - 16);  // without the line of the checksum
  ASSERT_TRUE(open_chain(*storage, "c/gen-000002").ok());
  for (int round = 0; round < 1'500; ++round) {
    fuzz_manifest(*storage, "c/gen-000001", "c/gen-000002", mutated(whole, rng), false);
    fuzz_manifest(*storage, "c/gen-000001", "c/gen-000002", mutated(json, rng), true);
  }
  fuzz_manifest(*storage, "c/gen-000001", "c/gen-000002", json, true);
  EXPECT_TRUE(verify(*storage, "c/gen-000002")->errors.empty());
}

}  // namespace
}  // namespace meander::checkpoint
