// SPDX-License-Identifier: Apache-2.0
// A short, seeded run of what tests/fuzz does for hours: bytes that are nearly right must be
// refused or read, and never crash or be read beyond their end (run it under the sanitizers).
#include "tests/fuzz/data_target.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include "common/rng.h"

namespace meander::data {
namespace {

constexpr int kRounds = 12;

std::string mutated(std::string bytes, Rng& rng) {
  for (std::uint64_t n = rng.below(4); n > 0 && !bytes.empty(); --n) {
    const std::size_t at = rng.below(bytes.size());
    switch (rng.below(4)) {
      case 0:
        bytes[at] = static_cast<char>(rng.next());
        break;
      case 1:
        bytes.resize(at);
        break;
      case 2:
        bytes.insert(at, bytes.substr(0, rng.below(40)));
        break;
      default:
        bytes.erase(at, rng.below(40));
    }
  }
  return bytes;
}

TEST(Fuzz, LogsOfEveryFormat) {
  const std::string texts[] = {
      "time,user,item,category,price\n1.5,1,a,b,2\n2,1,\"a,\"\"\",b,\n3,2,c,,1e3\n4,1,d,b,9\n",
      "{\"time\":1,\"user\":2,\"item\":\"x\",\"category\":null,\"price\":1.5}\n"
      "{\"time\":2,\"user\":\"2\",\"item\":7}\n",
      "1 2 3 4 5 6 7 8\n2 3 4\n",
      "1 2\t3\n4 5 6\t7\n(1,2)\t3\n",
      "ts_ms,user,session,item,category,env,device,os,country,region,referrer\n"
      "1507852800000,1,0,234853,375,4,3,2,1,21,1\n",
      "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n"};
  Rng rng(1);
  for (const std::string& text : texts) {
    std::string packed(ZSTD_compressBound(text.size()), '\0');
    packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 1));
    for (int format = 0; format < 9; ++format) {
      for (int round = 0; round < kRounds; ++round) {
        const int flags = round % 4 * 0x40;  // given test files, compressed
        int pick = flags;
        while (pick % 9 != format) ++pick;
        fuzz_log(static_cast<char>(pick) + mutated(pick & 0x80 ? packed : text, rng));
      }
    }
  }
}

TEST(Fuzz, FilesOfAPreparedLog) {
  Rng rng(2);
  const auto storage = fuzz_prepared();
  const char* files[] = {"log.json",          "items.col",     "pool.col",     "pool_time.col",
                         "users.col",         "item.col",      "category.col", "time.col",
                         "row.col",           "numeric-0.col", "train.col",    "test.col",
                         "test_negatives.col"};
  for (std::size_t f = 0; f < std::size(files); ++f) {
    const std::string folder = f < 4 ? "prepared/" : "prepared/shard-00000/";
    const Buffer bytes = storage->read(folder + files[f]).value();
    const std::string whole(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    for (int round = 0; round < kRounds; ++round) {
      fuzz_prepared_log(static_cast<char>(f) + mutated(whole, rng), false);
      const std::string values = f == 0 ? whole : whole.substr(0, whole.size() - 64);
      fuzz_prepared_log(static_cast<char>(f) + mutated(values, rng), true);
    }
  }
}

}  // namespace
}  // namespace meander::data
