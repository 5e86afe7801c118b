// SPDX-License-Identifier: Apache-2.0
// How many rows a second does a worker process get from, and give to, a lane process of this host?
// The real protocol and table: row-wise Adagrad, random keys, two requests under way as in a
// worker. Beside TCP stands a bare connection that carries the same bytes, beside shared memory
// their copy.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstring>
#include <memory>
#include <thread>

#include "common/rng.h"
#include "launch/bench/bench.h"
#include "launch/bench/measure.h"
#include "launch/bench/table_spec.h"
#include "launch/roles.h"
#include "net/shm_transport.h"
#include "ps/client.h"
#include "ps/table.h"

namespace meander::launch::bench {
namespace {

constexpr std::uint32_t kWidth = 36;
constexpr std::size_t kRowBytes = kWidth * sizeof(float);
constexpr std::size_t kSets = 16;  // different requests
constexpr std::size_t kDepth = 2;  // requests under way
constexpr std::uint64_t kCluster = 1, kIncarnation = 7;

struct Options {
  std::vector<std::string> transports = {"tcp", "shm"};
  std::string transport;  // of the case being measured
  std::string precision = "f32";
  std::size_t request = 12'800, rows = 1'000'000;
  std::size_t million = 2;  // rows of one measurement
  ps::WireFormat format;

  std::size_t requests() const { return std::max<std::size_t>(2, million * 1'000'000 / request); }
  std::size_t key_bytes() const { return request * sizeof(std::uint64_t); }
  std::size_t row_bytes() const { return request * kWidth * ps::bytes_of(format.of(0)); }
};

double seconds_now() { return seconds(SystemClock().now() - TimePoint{}); }

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

// Waits for the word where the scheduler is.
void serve_lane(const std::string& wire, int from_parent) {
  std::string scheduler;
  for (char c = 0; read(from_parent, &c, 1) == 1 && c != '\n';) scheduler += c;
  net::ZmqContext context;
  SystemClock clock;
  const auto storage = make_memory_storage();
  ThreadPool pool(1);
  auto transport = open(context, wire, "lane/0", "tcp://127.0.0.1:*");
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
      scheduler_->poll(std::chrono::milliseconds(100), [&](const net::Message& message) {
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
      *setup.add_tables() = rowwise_table(kWidth);
      scheduler_->send("lane/0", std::move(header));
      scheduler_->poll(std::chrono::milliseconds(100), [&](const net::Message& message) {
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
      worker_->poll(std::chrono::seconds(1), [&](const net::Message& message) {
        client_->on_message(clock_.now(), message);
      });
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
          gradients =
              worker_->allocate("lane/0", values.size() * ps::bytes_of(options_.format.of(0)));
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

// The bytes of a request copied as often as they must be: once out of the table's reach, once back.
double copy_bytes(std::size_t times, std::size_t bytes) {
  static std::vector<std::byte> from, to;
  from.resize(std::max(from.size(), bytes));
  to.resize(std::max(to.size(), bytes));
  const double begin = seconds_now();
  for (std::size_t i = 0; i < times; ++i) {
    std::memcpy(to.data(), from.data(), bytes);
    asm volatile("" : : "r"(to.data()) : "memory");
  }
  return seconds_now() - begin;
}

// The table of a lane without a wire.
class TableAlone {
 public:
  explicit TableAlone(const Bench& bench) : bench_(bench), table_(0, rowwise_table(kWidth)) {
    rows_.resize(bench.keys().front().size() / sizeof(std::uint64_t) * kWidth);
    for (std::size_t i = 0; i < kSets; ++i) one(i, true, true);
  }
  double run(std::size_t requests, bool pulls, bool pushes) {
    const double begin = seconds_now();
    for (std::size_t i = 0; i < requests; ++i) one(i, pulls, pushes);
    return seconds_now() - begin;
  }

 private:
  void one(std::size_t i, bool pulls, bool pushes) {
    const auto keys = bench_.keys()[i % kSets].as<std::uint64_t>();
    if (pulls) table_.pull(keys, rows_.data(), &slots_);
    std::span<const std::uint32_t> hints;
    if (pulls) hints = slots_;
    if (pushes) table_.push(keys, bench_.gradients().as<float>().data(), hints);
  }

  const Bench& bench_;
  ps::Table table_;
  std::vector<float> rows_;
  std::vector<std::uint32_t> slots_;
};

// Figure, limit and the table alone of pull+push, pull and push over one transport.
std::vector<Row> measure(const Options& options, int repetitions) {
  Loopback loopback;
  int word[2];
  CHECK_EQ(pipe(word), 0);
  const pid_t lane = in_child([&] { serve_lane(options.transport, word[0]); });
  Bench bench(options);
  const std::string where = bench.scheduler() + "\n";
  CHECK_EQ(write(word[1], where.data(), where.size()), static_cast<ssize_t>(where.size()));
  bench.set_up();
  bench.run(kSets, true);  // the rows are stored and the memory is there
  TableAlone table(bench);

  const std::size_t n = options.requests();
  const bool is_tcp = options.transport == "tcp";
  const double rows = static_cast<double>(n * options.request);
  struct Question {
    const char* name;
    bool pulls, pushes;
    std::size_t there, back;
  };
  const std::size_t keys = options.key_bytes(), values = options.row_bytes();
  const Question questions[] = {{"pull and push", true, true, keys + values, values},
                                {"pull", true, false, keys, values},
                                {"push with keys", false, true, keys + values, 64}};
  std::vector<Probe> probes;
  for (const Question& q : questions) {
    probes.push_back([&, q](std::vector<double>& figures) {
      const double figure = q.pulls ? bench.run(n, q.pushes) : bench.push_alone(n);
      const double limit =
          is_tcp ? loopback.run(n, q.there, q.back) : copy_bytes(n, q.there + q.back);
      for (const double taken : {figure, limit, table.run(n, q.pulls, q.pushes)}) {
        figures.push_back(rows / 1e6 / taken);
      }
    });
  }
  const std::vector<double> medians = medians_in_turn(repetitions, probes);
  end_child(lane);
  close(word[0]);
  close(word[1]);

  std::vector<Row> result;
  const std::string what = options.transport + " " + options.precision + ", " +
                           std::to_string(options.request) + " keys: ";
  for (std::size_t i = 0; i < std::size(questions); ++i) {
    const char* limit = is_tcp ? "the bytes over bare loopback" : "the bytes copied once";
    const std::string name = what + questions[i].name;
    result.push_back({name, medians[3 * i], medians[3 * i + 1], limit, "M rows/s", 2});
    result.push_back({name, medians[3 * i], medians[3 * i + 2], "the table alone", "M rows/s", 2});
  }
  return result;
}

Result<std::vector<Row>> run(Options options, const Settings& settings) {
  if (options.precision == "bf16") options.format = {wire::BF16, 1};
  if (options.precision == "fp16") options.format = {wire::FP16, 1};
  if (settings.quick) {
    options.rows = options.request = 1000;
    options.million = 0;
  }
  if (options.request == 0 || options.rows == 0) return invalid("--request, --rows: at least 1");
  std::vector<Row> rows;
  for (const std::string& transport : options.transports) {
    options.transport = transport;
    for (Row& row : measure(options, settings.repetitions)) rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace

void add_wire(CLI::App& family, Context& context) {
  auto options = std::make_shared<Options>();
  CLI::App& command = add_benchmark(
      family, context, "wire",
      "How many rows a second does a worker process pull from and push to a lane process?",
      "meander bench wire --transport tcp --precision bf16",
      [options](const Settings& settings) { return run(*options, settings); });
  command.add_option("--transport", options->transports, "tcp, shm; both by default")
      ->check(CLI::IsMember({"tcp", "shm"}));
  command.add_option("--precision", options->precision, "of rows and gradients on the wire")
      ->check(CLI::IsMember({"f32", "bf16", "fp16"}))
      ->capture_default_str();
  command.add_option("--request", options->request, "keys of a request")->capture_default_str();
  command.add_option("--rows", options->rows, "of the table")->capture_default_str();
}

}  // namespace meander::launch::bench
