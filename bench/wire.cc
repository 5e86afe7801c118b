// SPDX-License-Identifier: Apache-2.0
// How many rows a second does a worker process get from, and give to, a lane process of this host?
// The real protocol and table: rows of 36 floats, row-wise Adagrad, random keys, two requests under
// way as in a worker; beside it what the machine allows in the same run: the same bytes through a
// bare TCP connection on loopback, and the table alone. One line for each question: minimum /
// median / maximum of million rows a second, and the median's share of the limits'.
//   bench_wire [tcp | shm] [request = 12800] [rows = 1000000] [repetitions = 7] [f32 | bf16 | fp16]
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "common/rng.h"
#include "common/storage.h"
#include "common/thread_executor.h"
#include "net/node_runner.h"
#include "net/shm_transport.h"
#include "ps/client.h"
#include "ps/lane.h"
#include "ps/table.h"

namespace meander {
namespace {

constexpr std::uint32_t kWidth = 36;
constexpr std::size_t kRowBytes = kWidth * sizeof(float);
constexpr std::size_t kSets = 16;  // different requests
constexpr std::size_t kDepth = 2;  // requests under way
constexpr std::uint64_t kCluster = 1, kIncarnation = 7;

struct Options {
  std::string transport = "tcp";
  std::size_t request = 12'800, rows = 1'000'000, repetitions = 7;
  ps::WireFormat format;
};

double seconds_now() { return seconds(SystemClock().now() - TimePoint{}); }

wire::TableSpec table_spec() {
  wire::TableSpec spec;
  spec.set_name("item");
  spec.set_width(kWidth);
  spec.set_init_range(0.05f);
  spec.mutable_optimizer()->set_kind(wire::Optimizer::ROWWISE_ADAGRAD);
  spec.mutable_optimizer()->set_rate(0.01f);
  return spec;
}

template <class T>
T must(Result<T> result) {
  CHECK(result.ok()) << result.status().message();
  return std::move(result).value();
}

std::unique_ptr<net::PolledTransport> open(net::ZmqContext& context, const std::string& wire,
                                           const std::string& name, const std::string& bind) {
  if (wire == "shm") return must(net::ShmTransport::create(context, name, bind));
  return must(net::ZmqTransport::create(context, name, bind));
}

// --- the other process ---

// Runs `serve` in a process that ends with this one.
pid_t in_child(const std::function<void()>& serve) {
  const pid_t child = fork();
  CHECK_GE(child, 0);
  if (child > 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  serve();
  std::_Exit(0);
}

void end_child(pid_t child) {
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

void serve_lane(const Options& options, const std::string& scheduler) {
  net::ZmqContext context;
  SystemClock clock;
  const auto storage = make_memory_storage();
  ThreadPool pool(1);
  auto transport = open(context, options.transport, "lane/0", "tcp://127.0.0.1:*");
  CHECK(transport->connect("scheduler", scheduler).ok());
  net::NodeRunner runner(*transport, clock, pool);
  ps::LaneOptions lane_options;
  lane_options.cluster = kCluster;
  lane_options.incarnation = kIncarnation;
  lane_options.endpoint = transport->endpoint();
  ps::Lane lane(lane_options, *transport, *storage, runner.executor());
  runner.run(lane);
}

// --- the worker ---

// A worker's wire: a scheduler that sets the lane up, and a client that has `kDepth` batches under
// way. ASP, so that only the wire and the table are waited for.
class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        scheduler_(must(net::ZmqTransport::create(context_, "scheduler", "tcp://127.0.0.1:*"))) {
    Rng rng(1);
    for (std::size_t s = 0; s < kSets; ++s) {
      Buffer keys = Buffer::allocate(options.request * sizeof(std::uint64_t));
      for (std::uint64_t& key : keys.as_mutable<std::uint64_t>()) {
        key = mix64(rng.below(options.rows));
      }
      keys_.push_back(std::move(keys));
    }
    gradients_ = Buffer::allocate(options.request * kRowBytes);
    for (float& g : gradients_.as_mutable<float>()) g = static_cast<float>(rng.uniform() - 0.5);
  }

  const std::string& scheduler() const { return scheduler_->endpoint(); }

  void set_up() {
    std::string endpoint;
    while (endpoint.empty()) {
      scheduler_->poll(std::chrono::milliseconds(100), [&](net::Message message) {
        if (message.header.has_hello()) endpoint = message.header.hello().endpoint();
      });
    }
    for (bool is_ready = false; !is_ready;) {
      wire::Header header;
      header.set_cluster(kCluster);
      wire::LaneSetup& setup = *header.mutable_lane_setup();
      setup.set_lanes(1);
      setup.set_streams(1);
      setup.set_staleness(-1);
      setup.set_incarnation(kIncarnation);
      *setup.add_tables() = table_spec();
      scheduler_->send("lane/0", std::move(header));
      scheduler_->poll(std::chrono::milliseconds(100), [&](net::Message message) {
        is_ready = is_ready || message.header.has_lane_ready();
      });
    }
    worker_ = open(context_, options_.transport, "worker/0", "");
    ps::ClientOptions client_options;
    client_options.widths = {kWidth};
    client_options.format = options_.format;
    client_options.cluster = kCluster;
    client_options.retry = client_options.retry_max = std::chrono::seconds(30);
    client_ = std::make_unique<ps::Client>(
        *worker_, client_options,
        ps::Client::Events{.pulled = [this](TimePoint now, ps::BatchId id,
                                            std::vector<Buffer>) { pulled(now, id); },
                           .pushed = [this](TimePoint now, ps::BatchId) { finished(now); },
                           .fenced = [](TimePoint, std::uint32_t) { LOG(FATAL) << "fenced"; }});
    CHECK(client_->set_lanes({endpoint}).ok());
  }

  // Seconds for `requests`, each pulled and, if asked for, pushed.
  double run(std::size_t requests, bool with_push) {
    with_push_ = with_push;
    open_ = 0;
    left_ = requests;
    const double begin = seconds_now();
    while (open_ < kDepth && left_ > 0) start(clock_.now());
    while (open_ > 0) {
      worker_->poll(std::chrono::seconds(1),
                    [&](net::Message message) { client_->on_message(clock_.now(), message); });
    }
    return seconds_now() - begin;
  }

  // Seconds for `requests` pushes that bring their keys along.
  double push_alone(std::size_t requests) {
    const double begin = seconds_now();
    std::size_t open = 0, left = requests;
    while (left > 0 || open > 0) {
      for (; left > 0 && open < kDepth; --left, ++open) {
        wire::Header header;
        header.set_cluster(kCluster);
        header.mutable_push()->set_seq(seq_++);
        header.mutable_push()->set_keys_included(true);
        header.mutable_push()->set_precision(options_.format.precision);
        header.mutable_push()->set_narrow_tables(options_.format.tables);
        const auto values = gradients_.as<float>();
        Buffer gradients = gradients_;
        if (options_.format.of(0) != wire::F32) {
          gradients = worker_->allocate("lane/0", values.size() * ps::bytes_of(options_.format.of(0)));
          ps::encode(values.data(), values.size(), options_.format.of(0), gradients.data());
        }
        worker_->send("lane/0", std::move(header), {keys_[seq_ % kSets], std::move(gradients)});
      }
      worker_->poll(std::chrono::seconds(1), [&](net::Message) { --open; });
    }
    return seconds_now() - begin;
  }

  const std::vector<Buffer>& keys() const { return keys_; }
  const Buffer& gradients() const { return gradients_; }

 private:
  void start(TimePoint now) {
    --left_;
    ++open_;
    client_->pull(now, {0, 0, with_push_ ? seq_ : read_seq_}, {keys_[seq_ % kSets]}, !with_push_);
    ++(with_push_ ? seq_ : read_seq_);
  }
  void pulled(TimePoint now, ps::BatchId id) {
    if (!with_push_) return finished(now);
    client_->push(now, id, {gradients_}, false);
  }
  void finished(TimePoint now) {
    --open_;
    if (left_ > 0) start(now);
  }

  const Options& options_;
  SystemClock clock_;
  net::ZmqContext context_;
  std::unique_ptr<net::PolledTransport> scheduler_, worker_;
  std::unique_ptr<ps::Client> client_;
  std::vector<Buffer> keys_;
  Buffer gradients_;
  bool with_push_ = false;
  std::size_t open_ = 0, left_ = 0;
  std::uint64_t seq_ = 0, read_seq_ = 0;
};

// --- limits ---

void all(ssize_t (*move)(int, void*, std::size_t), int fd, std::vector<std::byte>& bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t moved = move(fd, bytes.data() + at, bytes.size() - at);
    if (moved <= 0) std::_Exit(0);  // the other side is gone
    at += static_cast<std::size_t>(moved);
  }
}
ssize_t write_some(int fd, void* bytes, std::size_t size) { return write(fd, bytes, size); }

// A bare connection: `there` bytes go, `back` bytes come, as often as asked for.
class Loopback {
 public:
  Loopback() {
    const int listening = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    CHECK_EQ(bind(listening, reinterpret_cast<sockaddr*>(&address), size), 0);
    CHECK_EQ(listen(listening, 1), 0);
    CHECK_EQ(getsockname(listening, reinterpret_cast<sockaddr*>(&address), &size), 0);
    child_ = in_child([=] { serve(accept(listening, nullptr, nullptr)); });
    socket_ = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ(connect(socket_, reinterpret_cast<const sockaddr*>(&address), size), 0);
    close(listening);
    no_delay(socket_);
  }
  ~Loopback() {
    close(socket_);
    end_child(child_);
  }

  double run(std::size_t times, std::size_t there, std::size_t back) {
    std::vector<std::byte> out(there), in(back), sizes(2 * sizeof(std::size_t));
    const std::size_t pair[2] = {there, back};
    std::memcpy(sizes.data(), pair, sizeof pair);
    const double begin = seconds_now();
    std::thread reader([&] {  // so that both directions may be full
      for (std::size_t i = 0; i < times; ++i) all(read, socket_, in);
    });
    for (std::size_t i = 0; i < times; ++i) {
      all(write_some, socket_, sizes);
      all(write_some, socket_, out);
    }
    reader.join();
    return seconds_now() - begin;
  }

 private:
  static void no_delay(int fd) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const int bytes = 16 << 20;  // so that what is under way fits
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  }
  static void serve(int fd) {
    no_delay(fd);
    std::vector<std::byte> in, out, sizes(2 * sizeof(std::size_t));
    for (;;) {
      all(read, fd, sizes);
      std::size_t pair[2];
      std::memcpy(pair, sizes.data(), sizeof pair);
      in.resize(pair[0]);
      out.resize(pair[1]);
      all(read, fd, in);
      all(write_some, fd, out);
    }
  }

  pid_t child_ = 0;
  int socket_ = -1;
};

struct Series {
  const char* name;
  std::vector<double> rates;  // million rows a second
  double median() {
    std::sort(rates.begin(), rates.end());
    return rates[rates.size() / 2];
  }
};

void print(Series& figure, Series& loopback, Series& table) {
  const double median = figure.median();
  std::printf("  %-10s %6.1f / %6.1f / %6.1f", figure.name, figure.rates.front(), median,
              figure.rates.back());
  std::printf("   loopback %6.1f (%3.0f %%)   table %6.1f (%3.0f %%)\n", loopback.median(),
              100 * median / loopback.median(), table.median(), 100 * median / table.median());
}

void measure(const Options& options) {
  Loopback loopback;
  Bench bench(options);
  const pid_t lane = in_child([&, where = bench.scheduler()] { serve_lane(options, where); });
  bench.set_up();
  ps::Table table(0, table_spec());
  std::vector<float> rows(options.request * kWidth);
  std::vector<std::uint32_t> slots;

  const std::size_t requests = std::max<std::size_t>(8, 3'000'000 / options.request);
  const double million = static_cast<double>(requests * options.request) / 1e6;
  const std::size_t key_bytes = options.request * 8;
  const std::size_t row_bytes = options.request * kWidth * ps::bytes_of(options.format.of(0));
  const auto table_alone = [&](bool pulls, bool pushes) {
    const double begin = seconds_now();
    for (std::size_t i = 0; i < requests; ++i) {
      const auto keys = bench.keys()[i % kSets].as<std::uint64_t>();
      if (pulls) table.pull(keys, rows.data(), &slots);
      const std::span<const std::uint32_t> hints = slots;
      if (pushes) {
        table.push(keys, bench.gradients().as<float>().data(),
                   pulls ? hints : std::span<const std::uint32_t>());
      }
    }
    return seconds_now() - begin;
  };
  struct Question {
    Series figure, loopback, table;
    std::function<double()> ask, ask_loopback, ask_table;
  };
  Question questions[] = {
      {{"pull+push", {}},
       {},
       {},
       [&] { return bench.run(requests, true); },
       [&] { return loopback.run(requests, key_bytes + row_bytes, row_bytes); },
       [&] { return table_alone(true, true); }},
      {{"pull", {}},
       {},
       {},
       [&] { return bench.run(requests, false); },
       [&] { return loopback.run(requests, key_bytes, row_bytes); },
       [&] { return table_alone(true, false); }},
      {{"push", {}},
       {},
       {},
       [&] { return bench.push_alone(requests); },
       [&] { return loopback.run(requests, key_bytes + row_bytes, 64); },
       [&] { return table_alone(false, true); }},
  };
  bench.run(kSets, true);  // the rows are stored and the memory is there
  table_alone(true, true);
  for (std::size_t i = 0; i < options.repetitions; ++i) {
    for (Question& q : questions) {
      q.figure.rates.push_back(million / q.ask());
      q.loopback.rates.push_back(million / q.ask_loopback());
      q.table.rates.push_back(million / q.ask_table());
    }
  }
  std::printf("%s, %s, %zu keys a request, rows of %u floats; M rows/s:\n",
              options.transport.c_str(), Precision_Name(options.format.precision).c_str(),
              options.request, kWidth);
  for (Question& q : questions) print(q.figure, q.loopback, q.table);
  end_child(lane);
}

}  // namespace
}  // namespace meander

int main(int argc, char** argv) {
  meander::Options options;
  const auto number = [&](int i, std::size_t& value) {
    if (argc > i) value = static_cast<std::size_t>(std::atoll(argv[i]));
  };
  if (argc > 1) options.transport = argv[1];
  number(2, options.request);
  number(3, options.rows);
  number(4, options.repetitions);
  const std::string precision = argc > 5 ? argv[5] : "f32";
  if (precision == "bf16") options.format = {meander::wire::BF16, 1};
  if (precision == "fp16") options.format = {meander::wire::FP16, 1};
  meander::measure(options);
  return 0;
}
