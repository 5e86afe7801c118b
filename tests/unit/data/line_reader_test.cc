// SPDX-License-Identifier: Apache-2.0
#include "data/line_reader.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include "common/rng.h"
#include "tests/unit/data/support.h"

namespace meander::data {
namespace {

std::string compressed(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

std::vector<std::string> lines_of(Storage& storage, const std::string& path, Status& status) {
  auto reader = LineReader::open(storage, path);
  std::vector<std::string> lines;
  if (!reader.ok()) {
    status = reader.status();
    return lines;
  }
  for (std::string_view line; reader->next(line);) {
    lines.emplace_back(line);
    EXPECT_EQ(reader->line_number(), lines.size());
  }
  status = reader->status();
  return lines;
}

std::string long_text() {  // several pieces, lines of 0 to 200 bytes
  Rng rng(3);
  std::string text;
  while (text.size() < (std::size_t{3} << 20)) {
    text.append(rng.below(200), static_cast<char>('a' + rng.below(26)));
    text += '\n';
  }
  return text;
}

TEST(LineReader, LastLineNeedsNoEndAndCarriageReturnsAreDropped) {
  auto storage = make_memory_storage();
  write_file(*storage, "a.txt", "one\r\n\ntwo");
  Status status;
  EXPECT_EQ(lines_of(*storage, "a.txt", status), (std::vector<std::string>{"one", "", "two"}));
  EXPECT_TRUE(status.ok());
}

TEST(LineReader, PlainAndCompressedGiveTheSameLines) {
  auto storage = make_memory_storage();
  const std::string text = long_text();
  write_file(*storage, "a.txt", text);
  write_file(*storage, "a.txt.zst",
             compressed(text.substr(0, 1 << 20)) + compressed(text.substr(1 << 20)));  // two frames
  Status plain, zstd;
  const auto lines = lines_of(*storage, "a.txt", plain);
  EXPECT_EQ(lines_of(*storage, "a.txt.zst", zstd), lines);
  EXPECT_TRUE(plain.ok() && zstd.ok());
  std::size_t bytes = 0;
  for (const auto& line : lines) bytes += line.size() + 1;
  EXPECT_EQ(bytes, text.size());
}

TEST(LineReader, EmptyFileHasNoLines) {
  auto storage = make_memory_storage();
  write_file(*storage, "a.txt", "");
  write_file(*storage, "b.txt.zst", compressed(""));
  Status status;
  EXPECT_TRUE(lines_of(*storage, "a.txt", status).empty() && status.ok());
  EXPECT_TRUE(lines_of(*storage, "b.txt.zst", status).empty() && status.ok());
}

TEST(LineReader, TruncatedCompressedFileIsRefused) {
  auto storage = make_memory_storage();
  const std::string whole = compressed(long_text());
  for (const std::size_t size : {whole.size() - 1, whole.size() / 2, std::size_t{3}}) {
    write_file(*storage, "a.zst", whole.substr(0, size));
    Status status;
    lines_of(*storage, "a.zst", status);
    EXPECT_EQ(status.code(), Code::kInvalid) << size;
  }
}

TEST(LineReader, GarbageUnderACompressedNameIsRefused) {
  auto storage = make_memory_storage();
  write_file(*storage, "a.zst", "user,item\n1,2\n");
  Status status;
  lines_of(*storage, "a.zst", status);
  EXPECT_EQ(status.code(), Code::kInvalid);
}

TEST(LineReader, EndlessLineIsRefused) {
  auto storage = make_memory_storage();
  write_file(*storage, "a.zst", compressed("first\n" + std::string(kLineBytesMax * 2, 'x')));
  Status status;
  lines_of(*storage, "a.zst", status);
  EXPECT_EQ(status.code(), Code::kInvalid);
  EXPECT_NE(status.message().find("a.zst:2"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace meander::data
