// SPDX-License-Identifier: Apache-2.0
// How fast are the rows of a table made into a file and read back by one thread, beside plain
// writes and reads of as many bytes? Prints GB/s and M rows/s, medians of `repetitions` in turns.
// The folder should be in memory, else the disk is measured.
//   bench_rows [rows = 10000000] [floats = 37] [groups = 64] [repetitions = 5] [folder = /dev/shm]
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "checkpoint/block.h"
#include "checkpoint/generation.h"
#include "common/crc32c.h"
#include "common/rng.h"

namespace meander::checkpoint {
namespace {

constexpr std::size_t kDrawn =
    1 << 20;  // rows with values of their own; more would only take memory

template <class T>
T must(Result<T> result) {
  if (result.ok()) return std::move(result).value();
  std::fprintf(stderr, "%s\n", result.status().message().c_str());
  std::exit(1);
}
void must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

double thread_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Measured {
  const char* name;
  std::function<void()> run;
  std::vector<double> seconds = {};
};

// Takes what is written and forgets it.
class Nowhere final : public Storage {
 public:
  Result<Buffer> read(const std::string& path) override { return not_found(path); }
  Result<std::unique_ptr<WritableFile>> create(const std::string&) override {
    class File final : public WritableFile {
      Status append(const void*, std::size_t) override { return {}; }
      Status close() override { return {}; }
    };
    return std::unique_ptr<WritableFile>(std::make_unique<File>());
  }
  Status rename(const std::string&, const std::string&) override { return {}; }
  Status remove(const std::string&) override { return {}; }
  Status make_directories(const std::string&) override { return {}; }
  Result<std::vector<std::string>> list(const std::string&) override {
    return std::vector<std::string>();
  }
  bool exists(const std::string&) override { return false; }
};

class RowsBench {
 public:
  RowsBench(std::uint64_t rows, std::uint32_t floats, std::uint32_t groups, const std::string& in)
      : rows_(rows),
        floats_(floats),
        groups_(groups),
        dir_(in + "/meander-bench-rows-" + std::to_string(getpid())),
        values_(std::min<std::uint64_t>(kDrawn, rows) * floats) {
    must(storage_->make_directories(dir_));
    Rng rng(1);
    // All 32 bits, so that nothing is to be won by compression.
    for (float& v : values_) v = std::bit_cast<float>(static_cast<std::uint32_t>(rng.next()));
  }
  ~RowsBench() { must(storage_->remove(dir_)); }

  void measure(int repetitions) {
    write(*storage_);
    std::vector<Measured> all = {
        {"write, plain", [this] { write_plain(); }},
        {"write, rows", [this] { write(*storage_); }},
        {"write, rows and their digest", [this] { write(*storage_, true); }},
        {"rows made and not written", [this] { write(nowhere_); }},
        {"read, plain", [this] { read_plain(); }},
        {"read, columns", [this] { read(); }},
        {"read, each record", [this] { read_each(); }},
        {"read, columns and their digest", [this] { read_digest(); }},
        {"crc32c of the rows in memory", [this] { crc(); }},
        {"digest of the rows in memory", [this] { digest(); }}};
    for (int i = 0; i < repetitions; ++i) {
      for (Measured& one : all) {
        const double begin = thread_seconds();
        one.run();
        one.seconds.push_back(thread_seconds() - begin);
      }
    }
    std::printf("%llu rows of %u floats, %.2f GB, seconds of the thread\n",
                static_cast<unsigned long long>(rows_), floats_, 1e-9 * file_.bytes());
    for (Measured& one : all) {
      std::ranges::sort(one.seconds);
      const double s = one.seconds[one.seconds.size() / 2];
      std::printf("%-32s %6.2f GB/s %7.1f M rows/s\n", one.name, 1e-9 * file_.bytes() / s,
                  1e-6 * static_cast<double>(rows_) / s);
    }
    std::printf("(%llu)\n", static_cast<unsigned long long>(sink_));
  }

 private:
  std::string path() const { return dir_ + "/x.rows"; }
  Record record(std::uint64_t i) const {
    const std::size_t drawn = i % (values_.size() / floats_);
    return {mix64(i + 1), i, 3, true, {values_.data() + drawn * floats_, floats_}};
  }

  void write(Storage& storage, bool with_digest = false) {
    auto writer =
        must(RowsWriter::create(storage, path(), 0, floats_, {0, kPartitions - 1, groups_}));
    for (std::uint64_t i = 0; i < rows_; ++i) {
      const Record r = record(i);
      if (with_digest) sink_ += record_digest(0, r);
      must(writer->add(r));
    }
    file_ = must(writer->finish());
  }
  void write_plain() {
    auto file = must(storage_->create(dir_ + "/plain"));
    const auto* bytes = reinterpret_cast<const std::byte*>(values_.data());
    const std::size_t all = values_.size() * sizeof(float);
    std::size_t at = 0;
    for (std::uint64_t left = file_.bytes(); left > 0;) {
      const std::size_t part = std::min<std::uint64_t>({left, kBlockBytes, all - at});
      must(file->append(bytes + at, part));
      left -= part;
      at = (at + part) % all;
    }
    must(file->close());
    must(storage_->remove(dir_ + "/plain"));
  }
  void read_plain() {
    std::vector<std::byte> out(kBlockBytes);
    for (std::uint64_t at = 0; at < file_.bytes(); at += kPieceBytes) {
      const Buffer piece = must(storage_->read_range(path(), at, kPieceBytes));
      for (std::size_t i = 0; i < piece.size(); i += out.size()) {
        std::memcpy(out.data(), piece.data() + i, std::min(out.size(), piece.size() - i));
        sink_ += static_cast<std::uint64_t>(out[0]);
      }
    }
  }
  void visit(const RecordsVisitor& visitor) {
    must(read_rows(*storage_, path(), file_, 0, kPartitions - 1, visitor));
  }
  void read() {
    visit([this](const Records& records) {
      sink_ += records.keys[0];
      return Status();
    });
  }
  void read_each() {
    must(read_rows(*storage_, path(), file_, 0, kPartitions - 1, [this](const Record& record) {
      sink_ += record.key;
      return Status();
    }));
  }
  void read_digest() {
    visit([this](const Records& records) {
      sink_ += records_digest(0, records);
      return Status();
    });
  }
  void crc() {
    const std::size_t all = values_.size() * sizeof(float);
    for (std::uint64_t done = 0; done < file_.bytes();) {
      const std::size_t part = std::min<std::uint64_t>(all, file_.bytes() - done);
      sink_ += crc32c(values_.data(), part);
      done += part;
    }
  }
  void digest() {
    for (std::uint64_t i = 0; i < rows_; ++i) sink_ += record_digest(0, record(i));
  }

  const std::uint64_t rows_;
  const std::uint32_t floats_, groups_;
  const std::string dir_;
  std::vector<float> values_;
  std::unique_ptr<Storage> storage_ = make_posix_storage();
  Nowhere nowhere_;
  manifest::File file_;
  std::uint64_t sink_ = 0;
};

}  // namespace
}  // namespace meander::checkpoint

int main(int argc, char** argv) {
  const auto number = [&](int i, std::uint64_t otherwise) {
    return argc > i ? std::strtoull(argv[i], nullptr, 10) : otherwise;
  };
  meander::checkpoint::RowsBench bench(
      std::max<std::uint64_t>(1, number(1, 10'000'000)), static_cast<std::uint32_t>(number(2, 37)),
      static_cast<std::uint32_t>(number(3, 64)), argc > 5 ? argv[5] : "/dev/shm");
  bench.measure(static_cast<int>(std::max<std::uint64_t>(1, number(4, 5))));
}
