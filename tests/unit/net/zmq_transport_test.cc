// SPDX-License-Identifier: Apache-2.0
#include "net/zmq_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/net/wires.h"

namespace meander::net {
namespace {

using ::testing::HasSubstr;

TEST(ZmqTransport, APortInUseSaysWhichAndWhatToDo) {
  ZmqContext context;
  auto lane = open(context, "lane/0", "tcp://127.0.0.1:0");
  const Status status = ZmqTransport::create(context, "lane/1", lane->endpoint()).status();
  EXPECT_EQ(status.code(), Code::kInvalid);
  EXPECT_EQ(status.message(),
            "cannot listen on " + lane->endpoint() +
                ": address already in use; stop the other process or choose another port");
}

TEST(ZmqTransport, ABadEndpointIsInvalid) {
  ZmqContext context;
  for (const char* endpoint : {"nonsense", "tcp://127.0.0.1", "carrier-pigeon://roof", "tcp://"}) {
    const Status bound = ZmqTransport::create(context, "lane/0", endpoint).status();
    EXPECT_EQ(bound.code(), Code::kInvalid) << endpoint;
    EXPECT_THAT(bound.message(), HasSubstr(std::string("cannot listen on ") + endpoint));
    auto worker = open(context, "worker/0", "");
    EXPECT_EQ(worker->connect("lane/0", endpoint).code(), Code::kInvalid) << endpoint;
  }
}

TEST(ZmqTransport, EndpointTellsTheRealPort) {
  ZmqContext context;
  auto lane = open(context, "lane/0", "tcp://127.0.0.1:*");
  EXPECT_TRUE(lane->endpoint().starts_with("tcp://127.0.0.1:"));
  EXPECT_EQ(lane->endpoint().find('*'), std::string::npos);
  EXPECT_EQ(open(context, "worker/0", "")->endpoint(), "");
}

TEST(ZmqTransport, FramesInProcessAreNotCopied) {
  ZmqContext context;
  auto lane = open(context, "lane/0", "inproc://lane");
  auto worker = open(context, "worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", "inproc://lane").ok());
  const Buffer frame = noise(7, 4096);
  worker->send("lane/0", numbered(1), {frame});
  const Message got = receive(*lane);
  ASSERT_EQ(got.frames.size(), 1u);
  EXPECT_EQ(got.frames[0].data(), frame.data());
}

TEST(ZmqTransport, AFullQueueDropsAndDoesNotBlock) {
  ZmqContext context;
  auto worker = open(context, "worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", "inproc://nobody-listens").ok());
  for (int i = 0; i < 3 * ZmqTransport::kQueueMessagesMax; ++i) {
    worker->send("lane/0", numbered(i), {Buffer::allocate(1000)});
  }
  EXPECT_GT(worker->counts().sent, 0u);
  EXPECT_GE(worker->counts().dropped, static_cast<std::uint64_t>(ZmqTransport::kQueueMessagesMax));
}

}  // namespace
}  // namespace meander::net
