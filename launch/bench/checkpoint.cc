// SPDX-License-Identifier: Apache-2.0
// How fast does a lane write its rows and take them back, beside a plain write with fsync and a
// plain read of as many bytes?
#include <fcntl.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "common/rng.h"
#include "launch/bench/bench.h"
#include "launch/bench/measure.h"
#include "launch/bench/table_spec.h"
#include "launch/bench/temporary_folder.h"
#include "ps/snapshot.h"

namespace meander::launch::bench {
namespace {

struct Options {
  std::uint64_t rows = 1'000'000;
  std::uint32_t width = 36;
  std::string dir;  // empty: the system's folder for temporary files
};

constexpr std::size_t kBlock = 1 << 20;
const ps::PartitionRange kAll = ps::lane_partitions(0, 1);

ps::Tables empty_tables(const Options& options) {
  ps::Tables tables;
  tables.push_back(std::make_unique<ps::Table>(0, rowwise_table(options.width)));
  return tables;
}

ps::Tables fill_tables(const Options& options) {
  constexpr std::uint64_t kRequest = 4096;
  ps::Tables tables = empty_tables(options);
  Rng rng(1);
  std::vector<std::uint64_t> keys;
  std::vector<float> gradients(kRequest * options.width);
  for (std::uint64_t first = 0; first < options.rows; first += kRequest) {
    for (float& g : gradients) g = static_cast<float>(rng.uniform() - 0.5);
    keys.clear();
    for (std::uint64_t i = first; i < std::min(options.rows, first + kRequest); ++i) {
      keys.push_back(mix64(i));
    }
    tables[0]->push(keys, gradients.data());
  }
  return tables;
}

// The manifest that a scheduler would write of it, as far as a lane reads it.
manifest::Manifest manifest_of(const ps::Tables& tables, const wire::Saved& saved) {
  manifest::Manifest manifest;
  manifest::Table& table = *manifest.add_tables();
  table.set_name(tables[0]->name());
  table.set_width(tables[0]->width());
  table.set_state_width(tables[0]->state_width());
  table.set_optimizer(checkpoint::optimizer_name(tables[0]->optimizer()));
  table.set_step(tables[0]->step());
  table.set_rows(tables[0]->rows());
  *manifest.mutable_files() = saved.files();
  return manifest;
}

Status failed_on(const std::string& what, const std::string& path) {
  return failed(what + " " + path + ": " + std::string(strerror(errno)));
}

Status write_plain(const std::string& path, std::uint64_t bytes) {
  static const std::vector<char> block(kBlock, 'x');
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return failed_on("open", path);
  bool ok = true;
  for (std::uint64_t done = 0; ok && done < bytes; done += kBlock) {
    const auto size = std::min<std::uint64_t>(kBlock, bytes - done);
    ok = write(fd, block.data(), size) == static_cast<ssize_t>(size);
  }
  ok = ok && fsync(fd) == 0;
  ok = close(fd) == 0 && ok;
  return ok ? Status() : failed_on("write", path);
}

Status read_plain(const std::string& path) {
  std::vector<char> block(kBlock);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return failed_on("open", path);
  ssize_t got = 1;
  while (got > 0) got = read(fd, block.data(), block.size());
  close(fd);
  return got == 0 ? Status() : failed_on("read", path);
}

// So that the next reader finds nothing of the file in memory.
void forget(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
}

class Checkpoints {
 public:
  explicit Checkpoints(const Options& options)
      : options_(options),
        folder_(options.dir.empty() ? std::filesystem::temp_directory_path().string()
                                    : options.dir),
        storage_(make_posix_storage()),
        tables_(fill_tables(options)) {}

  // Seconds of each, in turns: plain write, save, plain read, restore.
  Result<std::vector<double>> measure(int repetitions) {
    RETURN_IF_ERROR(save());  // says how many bytes there are
    const auto timed = [this](Status (Checkpoints::*what)()) -> Probe {
      return [this, what](std::vector<double>& figures) {
        const TimePoint begin = clock_.now();
        Status status = (this->*what)();
        figures.push_back(seconds(clock_.now() - begin));
        if (status_.ok()) status_ = std::move(status);
        restored_.clear();
        forget(file());
        forget(folder_ / "plain");
      };
    };
    std::vector<double> medians = medians_in_turn(
        repetitions, {timed(&Checkpoints::plain_write), timed(&Checkpoints::save),
                      timed(&Checkpoints::plain_read), timed(&Checkpoints::restore)});
    RETURN_IF_ERROR(status_);
    return medians;
  }
  std::uint64_t bytes() const { return saved_.files(0).bytes(); }

 private:
  std::string file() const { return folder_ / ("gen/" + saved_.files(0).name()); }
  Status plain_write() { return write_plain(folder_ / "plain", bytes()); }
  Status plain_read() { return read_plain(folder_ / "plain"); }
  Status save() {
    saved_.Clear();
    RETURN_IF_ERROR(storage_->remove(folder_ / "gen/MANIFEST"));
    RETURN_IF_ERROR(ps::save_tables(*storage_, folder_ / "gen", kAll, tables_, saved_));
    return checkpoint::write_manifest(*storage_, folder_ / "gen", manifest_of(tables_, saved_));
  }
  Status restore() {
    restored_ = empty_tables(options_);
    std::vector<wire::StreamApplied> streams;
    RETURN_IF_ERROR(ps::load_tables(*storage_, folder_ / "gen", kAll, restored_, streams));
    CHECK_EQ(restored_[0]->rows(), options_.rows);
    return {};
  }

  const Options options_;
  TemporaryFolder folder_;
  SystemClock clock_;
  std::unique_ptr<Storage> storage_;
  ps::Tables tables_, restored_;
  wire::Saved saved_;
  Status status_;
};

Result<std::vector<Row>> run(Options options, const Settings& settings) {
  if (settings.quick) options.rows = 1000;
  if (options.rows < 1 || options.width < 1 || options.width > ps::kWidthMax) {
    return invalid("--rows and --width must be at least 1, --width at most " +
                   std::to_string(ps::kWidthMax));
  }
  Checkpoints checkpoints(options);
  ASSIGN_OR_RETURN(const std::vector<double> took, checkpoints.measure(settings.repetitions));
  std::vector<Row> rows;
  const auto add = [&](const std::string& what, double figure_s, double limit_s,
                       const std::string& limit) {
    const double giga = static_cast<double>(checkpoints.bytes()) * 1e-9;
    rows.push_back({what, giga / figure_s, giga / limit_s, limit, "GB/s", 1});
  };
  add("write", took[1], took[0], "write and fsync of as many bytes");
  add("restore", took[3], took[2], "read of as many bytes");
  for (std::size_t i = 0; i < 2; ++i) {
    Row row = rows[i];
    const double per_row =
        static_cast<double>(checkpoints.bytes()) / static_cast<double>(options.rows);
    row.figure *= 1e3 / per_row;
    row.limit *= 1e3 / per_row;
    row.unit = "M rows/s";
    rows.push_back(row);
  }
  return rows;
}

}  // namespace

void add_checkpoint(CLI::App& family, Context& context) {
  auto options = std::make_shared<Options>();
  CLI::App& command = add_benchmark(
      family, context, "checkpoint",
      "How fast does a lane write its rows and take them back, beside a plain write with fsync and "
      "a plain read of as many bytes?",
      "meander bench checkpoint --rows 10000000 --dir /var/tmp",
      [options](const Settings& settings) { return run(*options, settings); });
  command.add_option("--rows", options->rows, "of the table")->capture_default_str();
  command.add_option("--width", options->width, "floats of a row")->capture_default_str();
  command.add_option("--dir", options->dir,
                     "where to write; the folder of temporary files by default");
}

}  // namespace meander::launch::bench
