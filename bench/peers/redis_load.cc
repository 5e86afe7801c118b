// SPDX-License-Identifier: Apache-2.0
// Rows per second that Redis serves: MGET and MSET of many rows, kInFlight requests pipelined.
//   redis_load PORT ROWS WIDTH BATCH fill|pull|push|both SECONDS
// `both` pulls and pushes each row once (a request of each kind in turn) and counts it once.
#include <hiredis/hiredis.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr int kInFlight = 4, kRequests = 64;
constexpr timeval kTimeout = {30, 0};

struct Request {
  std::vector<const char*> parts;
  std::vector<std::size_t> lengths;
};

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "redis_load: %s\n", what.c_str());
  std::exit(1);
}

Request make_request(bool push, const std::vector<std::uint64_t>& keys,
                     const std::vector<float>& row) {
  Request request;
  const auto add = [&](const void* bytes, std::size_t length) {
    request.parts.push_back(static_cast<const char*>(bytes));
    request.lengths.push_back(length);
  };
  add(push ? "MSET" : "MGET", 4);
  for (const std::uint64_t& key : keys) {
    add(&key, sizeof key);
    if (push) add(row.data(), row.size() * sizeof(float));
  }
  return request;
}

void send(redisContext* redis, const Request& request) {
  if (redisAppendCommandArgv(redis, static_cast<int>(request.parts.size()),
                             const_cast<const char**>(request.parts.data()),
                             request.lengths.data()) != REDIS_OK) {
    fail(redis->errstr);
  }
}

void receive(redisContext* redis) {
  void* got = nullptr;
  if (redisGetReply(redis, &got) != REDIS_OK) fail(redis->errstr);
  auto* reply = static_cast<redisReply*>(got);
  if (reply->type == REDIS_REPLY_ERROR) fail(reply->str);
  for (std::size_t i = 0; i < reply->elements; ++i) {
    if (reply->element[i]->type != REDIS_REPLY_STRING) fail("a row is missing: fill first");
  }
  freeReplyObject(reply);
}

void fill(redisContext* redis, std::uint64_t rows, std::size_t batch,
          const std::vector<float>& row) {
  std::vector<std::uint64_t> keys;
  for (std::uint64_t key = 0; key < rows;) {
    keys.clear();
    while (keys.size() < batch && key < rows) keys.push_back(key++);
    send(redis, make_request(true, keys, row));
    receive(redis);
  }
}

// Requests answered while `seconds` pass.
double requests_per_s(redisContext* redis, const std::vector<Request>& requests, double seconds) {
  using Clock = std::chrono::steady_clock;
  std::size_t sent = 0, answered = 0;
  for (; sent < kInFlight; ++sent) send(redis, requests[sent % requests.size()]);
  const auto start = Clock::now();
  double spent = 0;
  do {
    receive(redis);
    ++answered;
    send(redis, requests[sent++ % requests.size()]);
    spent = std::chrono::duration<double>(Clock::now() - start).count();
  } while (spent < seconds);
  for (; answered < sent; ++answered) receive(redis);
  return static_cast<double>(sent - kInFlight) / spent;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) fail("PORT ROWS WIDTH BATCH fill|pull|push|both SECONDS");
  const std::uint64_t rows = std::strtoull(argv[2], nullptr, 10);
  const std::size_t width = std::strtoull(argv[3], nullptr, 10);
  const std::size_t batch = std::strtoull(argv[4], nullptr, 10);
  const std::string work = argv[5];
  if (rows == 0 || width == 0 || batch == 0) fail("ROWS, WIDTH and BATCH are at least 1");
  const std::unique_ptr<redisContext, void (*)(redisContext*)> redis(
      redisConnectWithTimeout("127.0.0.1", std::atoi(argv[1]), kTimeout), redisFree);
  if (redis == nullptr || redis->err != 0) fail("cannot connect to port " + std::string(argv[1]));
  redisSetTimeout(redis.get(), kTimeout);
  const std::vector<float> row(width, 0.5f);
  if (work == "fill") {
    fill(redis.get(), rows, batch, row);
    return 0;
  }
  std::mt19937_64 random(1);
  std::vector<std::vector<std::uint64_t>> keys(kRequests, std::vector<std::uint64_t>(batch));
  std::vector<Request> requests;
  for (auto& request_keys : keys) {
    for (auto& key : request_keys) key = random() % rows;
    if (work != "push") requests.push_back(make_request(false, request_keys, row));
    if (work != "pull") requests.push_back(make_request(true, request_keys, row));
  }
  const double requests_a_row = work == "both" ? 2 : 1;
  std::printf("%.1f\n", requests_per_s(redis.get(), requests, std::atof(argv[6])) *
                            static_cast<double>(batch) / requests_a_row);
}
