// SPDX-License-Identifier: Apache-2.0
// What tests of transports share.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "common/rng.h"
#include "net/zmq_transport.h"

namespace meander::net {

constexpr auto kPatience = std::chrono::seconds(20);  // only a failing test waits so long

template <class Wire = ZmqTransport>
std::unique_ptr<Wire> open(ZmqContext& context, const std::string& name, const std::string& bind) {
  Result<std::unique_ptr<Wire>> transport = Wire::create(context, name, bind);
  CHECK(transport.ok()) << transport.status().message();
  return std::move(transport).value();
}

inline wire::Header numbered(std::uint64_t request) {
  wire::Header header;
  header.set_request(request);
  header.mutable_resume();
  return header;
}

// The next message that `at` gets; one of request 0 when none came in time.
inline Message receive(PolledTransport& at) {
  Message got;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (bool is_there = false; !is_there && std::chrono::steady_clock::now() < deadline;) {
    at.poll(std::chrono::milliseconds(50), [&](Message m) {
      got = std::move(m);
      is_there = true;
    });
  }
  return got;
}

// Sends until an answer of this request comes through: what a role does, too.
inline bool ask_until_answered(PolledTransport& asker, PolledTransport& answerer,
                               const std::string& peer, std::uint64_t request) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  bool is_answered = false;
  while (!is_answered && std::chrono::steady_clock::now() < deadline) {
    asker.send(peer, numbered(request));
    answerer.poll(std::chrono::milliseconds(10),
                  [&](Message m) { answerer.send(m.peer, m.header, std::move(m.frames)); });
    asker.poll(std::chrono::milliseconds(10),
               [&](Message m) { is_answered = is_answered || m.header.request() == request; });
  }
  return is_answered;
}

inline Buffer noise(std::uint64_t seed, std::size_t size) {
  Rng rng(seed);
  Buffer bytes = Buffer::allocate(size);
  for (std::size_t at = 0; at < size; at += 8) {
    const std::uint64_t random = rng.next();
    std::memcpy(bytes.data() + at, &random, std::min<std::size_t>(8, size - at));
  }
  return bytes;
}

inline bool equal(const Buffer& a, const Buffer& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

}  // namespace meander::net
