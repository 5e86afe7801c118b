// SPDX-License-Identifier: Apache-2.0
// What a training step takes from the heap once it is warm: a worker's pipeline and a lane, with
// real model, tables and messages, in one thread.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "common/storage.h"
#include "models/model.h"
#include "ps/lane.h"
#include "worker/dense_blocks.h"
#include "worker/pipeline.h"

// Every allocation of this program is counted; but for the address sanitizer, which wants to be the
// only one to replace the allocator.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kCountsAllocations = false;
constexpr std::uint64_t allocations = 0;
#else
constexpr bool kCountsAllocations = true;
namespace {

std::atomic<std::uint64_t> allocations{0};

void* counted(std::size_t size, std::size_t align) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* memory = std::aligned_alloc(align, (size + align - 1) / align * align);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t align) {
  return counted(size, static_cast<std::size_t>(align));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
#endif

namespace meander::worker {
namespace {

constexpr std::int32_t kGroups = 32, kCandidates = 2, kSteps = 6, kKeys = 500, kWidth = 18;

// Batches of one size and other keys each, built in the memory of those before.
class SameSize final : public BatchSource {
 public:
  std::uint64_t batches() const override { return 1'000'000; }
  Status build(std::uint64_t seq, const PartitionMap&, data::Batch& batch) override {
    batch.seq = seq;
    batch.samples = kGroups * kCandidates;
    batch.longest = kSteps;
    batch.progress = 0.5;
    batch.keys.resize(2);
    for (auto& keys : batch.keys) {
      keys.resize(kKeys);
      for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = 300 * (seq % 7) + i;
    }
    batch.parts.resize(2);
    for (data::Part& part : batch.parts) fill(seq, part);
    return {};
  }

 private:
  static void column(std::uint64_t seq, std::size_t n, std::vector<std::uint32_t>& rows) {
    rows.resize(n);
    for (std::size_t i = 0; i < n; ++i) rows[i] = (seq * 31 + i * 7) % kKeys;
  }
  static void fill(std::uint64_t seq, data::Part& part) {
    constexpr std::int32_t groups = kGroups / 2;
    part.groups = groups;
    part.candidates = kCandidates;
    part.lengths.assign(groups, kSteps);
    part.step_rows.assign(kSteps, groups);
    part.step_offset.resize(kSteps);
    for (std::int32_t t = 0; t < kSteps; ++t) part.step_offset[t] = t * groups;
    part.target.resize(2);
    part.history.resize(2);
    part.negative.resize(2);
    for (auto& rows : part.target) column(seq, groups * kCandidates, rows);
    for (auto& rows : part.history) column(seq, groups * kSteps, rows);
    for (auto& rows : part.negative) column(seq, groups * kSteps, rows);
    part.negative_valid.assign(groups * kSteps, 1.0f);
    part.label.resize(groups * kCandidates);
    for (std::size_t i = 0; i < part.label.size(); ++i) part.label[i] = i % kCandidates == 0;
  }
};

// Keeps what was sent until it is delivered, in memory that is used again: as a wire does.
class Line final : public net::Transport {
 public:
  Status connect(const std::string&, const std::string&) override { return {}; }
  void send(const std::string&, const wire::Header& header,
            const std::vector<Buffer>& frames) override {
    if (waiting_.size() == sent_) waiting_.emplace_back();
    net::Message& message = waiting_[sent_++];
    message.peer = from;
    message.header = header;
    message.frames = frames;
  }
  Buffer allocate(const std::string&, std::size_t size) override { return memory_.take(size); }
  template <class Deliver>
  void deliver(const Deliver& deliver) {
    delivering_.swap(waiting_);
    for (std::size_t n = std::exchange(sent_, 0), i = 0; i < n; ++i) {
      deliver(delivering_[i]);
      delivering_[i].frames.clear();
    }
  }
  std::string from;

 private:
  std::vector<net::Message> waiting_, delivering_;  // in memory of those before
  std::size_t sent_ = 0;                            // of waiting_
  BufferPool memory_;
};

wire::Header lane_setup(const nn::Graph& graph, std::uint32_t block) {
  wire::Header header;
  header.set_cluster(1);
  wire::LaneSetup& setup = *header.mutable_lane_setup();
  setup.set_lanes(1);
  setup.set_streams(1);
  setup.set_staleness(0);
  setup.set_incarnation(1);
  const auto add = [&](std::uint32_t width) {
    wire::TableSpec& table = *setup.add_tables();
    table.set_name("t" + std::to_string(setup.tables_size()));
    table.set_width(width);
    table.set_init_range(0.1f);
    table.mutable_optimizer()->set_kind(wire::Optimizer::ADAGRAD);
    table.mutable_optimizer()->set_rate(0.01f);
  };
  for (std::int32_t t = 0; t < graph.tables(); ++t) add(graph.table_width(t));
  for (const DenseBlocks& table : dense_tables(graph, block)) add(table.block());
  return header;
}

class Allocations : public ::testing::TestWithParam<wire::Precision> {};

TEST_P(Allocations, AWarmStepTakesNothing) {
  models::ModelSpec spec;
  spec.kind = "dien";
  spec.slots = {{"item", 0, kWidth, true}, {"category", 1, kWidth, true}};
  const nn::Graph graph = std::move(models::build_model(spec)).value();
  WorkerOptions options;
  options.wire_precision = GetParam();
  Line to_lane, to_worker;
  to_lane.from = "worker/0";
  to_worker.from = "lane/0";
  InlineExecutor executor;
  const auto storage = make_memory_storage();
  ps::LaneOptions lane_options;
  lane_options.cluster = 1;
  lane_options.incarnation = 1;
  ps::Lane lane(lane_options, to_worker, *storage, executor);
  const TimePoint now{};
  lane.on_message(now, {"scheduler", lane_setup(graph, options.dense_block), {}});
  to_worker.deliver([](const net::Message&) {});
  Pipeline pipeline(
      options, graph,
      [](std::uint32_t) -> Result<std::unique_ptr<BatchSource>> {
        return std::unique_ptr<BatchSource>(std::make_unique<SameSize>());
      },
      nullptr, to_lane, executor, nullptr);
  ASSERT_TRUE(pipeline.set_up(1, {"direct"}).ok());
  pipeline.lease(0, 1, 0);
  const auto steps = [&](std::uint64_t n) {
    for (const std::uint64_t end = lane.next_seq(0) + n; lane.next_seq(0) < end;) {
      pipeline.advance(now);
      to_lane.deliver([&](const net::Message& m) { lane.on_message(now, m); });
      to_worker.deliver([&](const net::Message& m) { pipeline.on_message(now, m); });
    }
    ASSERT_TRUE(pipeline.status().ok());
  };
  steps(30);
  const std::uint64_t before = allocations;
  steps(50);
  const std::uint64_t taken = allocations - before;
  if (!kCountsAllocations) GTEST_SKIP() << "the sanitizer has the allocator";
  EXPECT_EQ(taken, 0u);
}

INSTANTIATE_TEST_SUITE_P(Wires, Allocations, ::testing::Values(wire::F32, wire::BF16),
                         [](const auto& info) { return Precision_Name(info.param); });

}  // namespace
}  // namespace meander::worker
