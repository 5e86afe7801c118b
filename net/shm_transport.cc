// SPDX-License-Identifier: Apache-2.0
#include "net/shm_transport.h"

#include <immintrin.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <random>
#include <utility>

#include "common/log.h"
#include "net/local_socket.h"
#include "net/shm_channel.h"

namespace meander::net {
namespace {

constexpr const char* kMark = "?shm=";
constexpr const char* kGreeting = "meander shm 1 ";  // then the name of who connects
constexpr const char* kWelcome = "welcome";
// Directions of an area: from who connected, and to it.
constexpr int kThere = 0, kBack = 1;

// A name that nobody else has, or guesses.
std::string draw_name() {
  std::random_device device;
  std::string name = "meander-";
  for (int i = 0; i < 4; ++i) {
    char digits[9];
    std::snprintf(digits, sizeof digits, "%08x", device());
    name += digits;
  }
  return name;
}

std::string local_part(const std::string& endpoint) {
  const std::size_t mark = endpoint.find(kMark);
  return mark == std::string::npos ? "" : endpoint.substr(mark + std::string(kMark).size());
}

// A connected process. Until it has greeted, one that connected to us has no area.
struct Link {
  std::string peer;
  Descriptor control;  // closed when the other process ends
  Descriptor bell;     // wakes it
  std::unique_ptr<ShmSender> sender;
  std::unique_ptr<ShmReceiver> receiver;
  bool is_gone = false;
};

// Wakes the other process if it sleeps.
void ring(Link& link) {
  if (!link.bell.is_open() || !link.sender->takes_waking()) return;
  const std::uint64_t one = 1;
  (void)!::write(link.bell.get(), &one, sizeof one);
}

}  // namespace

std::string remote_part(const std::string& endpoint) {
  return endpoint.substr(0, endpoint.find(kMark));
}

struct ShmTransport::Impl {
  Impl(std::unique_ptr<ZmqTransport> z, std::string n) : zmq(std::move(z)), name(std::move(n)) {}

  Status listen();
  Status watch(int descriptor);
  bool link_to(const std::string& peer, const std::string& local_name);
  Link* find(const std::string& peer);
  void drop_links_of(const std::string& peer);
  void tend();
  void accept();
  void hear(Link& link);
  void greet(Link& link, const std::string& text, std::vector<Descriptor>& fds);
  std::size_t drain(const Deliver& deliver);
  bool take(Link& link, const Deliver& deliver);
  bool has_message() const;
  bool spin() const;
  bool falls_asleep();

  std::unique_ptr<ZmqTransport> zmq;
  const std::string name;
  std::string endpoint;
  Descriptor listening;
  Descriptor events;  // epoll: the listening socket and the control sockets
  std::vector<std::unique_ptr<Link>> links;
  Message received;       // of a take(): its memory is used again
  std::size_t first = 0;  // whose turn it is to be drained first
  Counts counts;
};

Status ShmTransport::Impl::watch(int descriptor) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = descriptor;
  if (::epoll_ctl(events.get(), EPOLL_CTL_ADD, descriptor, &event) == 0) return {};
  return {Code::kExhausted, "cannot watch another local socket"};
}

Status ShmTransport::Impl::listen() {
  const std::string local_name = draw_name();
  ASSIGN_OR_RETURN(listening, listen_locally(local_name));
  RETURN_IF_ERROR(watch(listening.get()));
  endpoint = zmq->endpoint() + kMark + local_name;
  return {};
}

// Messages may follow at once: they wait in the area until the other side has taken it up.
bool ShmTransport::Impl::link_to(const std::string& peer, const std::string& local_name) {
  Result<Descriptor> control = connect_locally(local_name);
  if (!control.ok()) return false;
  Result<std::shared_ptr<ShmArea>> area = ShmArea::create();
  if (!area.ok()) return false;
  auto link = std::make_unique<Link>();
  link->peer = peer;
  link->control = std::move(control).value();
  link->sender = std::make_unique<ShmSender>(area.value(), kThere);
  link->receiver = std::make_unique<ShmReceiver>(area.value(), kBack);
  const int fds[] = {area.value()->descriptor(), zmq->wake_descriptor()};
  if (!send_locally(link->control, kGreeting + name, fds)) return false;
  if (!watch(link->control.get()).ok()) return false;
  links.push_back(std::move(link));
  return true;
}

Link* ShmTransport::Impl::find(const std::string& peer) {
  for (const auto& link : links) {
    if (link->peer == peer && link->sender && !link->is_gone) return link.get();
  }
  return nullptr;
}

void ShmTransport::Impl::drop_links_of(const std::string& peer) {
  std::erase_if(links, [&](const auto& link) { return link->peer == peer; });
}

// Takes up who has connected, what they said, and who is gone.
void ShmTransport::Impl::tend() {
  epoll_event ready[16];
  const int n = ::epoll_wait(events.get(), ready, std::size(ready), 0);
  for (int i = 0; i < n; ++i) {
    if (ready[i].data.fd == listening.get()) {
      accept();
      continue;
    }
    const auto at = std::ranges::find_if(
        links, [&](const auto& link) { return link->control.get() == ready[i].data.fd; });
    if (at != links.end()) hear(**at);
  }
}

void ShmTransport::Impl::accept() {
  for (Descriptor socket = accept_locally(listening); socket.is_open();
       socket = accept_locally(listening)) {
    if (links.size() >= kLinksMax || !watch(socket.get()).ok()) continue;
    links.push_back(std::make_unique<Link>());
    links.back()->control = std::move(socket);
  }
}

void ShmTransport::Impl::hear(Link& link) {
  std::string text;
  std::vector<Descriptor> fds;
  const Heard heard = receive_locally(link.control, text, fds);
  if (heard == Heard::kNothing) return;
  if (heard == Heard::kGone) {
    link.is_gone = true;
  } else if (!link.sender) {
    greet(link, text, fds);
  } else if (text == kWelcome && fds.size() == 1) {
    link.bell = std::move(fds[0]);
    ring(link);  // for what was sent before the bell was here
  }
  if (!link.is_gone || (link.receiver && !link.receiver->is_empty())) return;
  std::erase_if(links, [&](const auto& other) { return other.get() == &link; });
}

void ShmTransport::Impl::greet(Link& link, const std::string& text, std::vector<Descriptor>& fds) {
  link.is_gone = true;  // unless all of it is right
  const std::string greeting = kGreeting;
  if (!text.starts_with(greeting) || text.size() == greeting.size() || fds.size() != 2) return;
  Result<std::shared_ptr<ShmArea>> area = ShmArea::open(fds[0].release());
  if (!area.ok()) return;
  const int bell = zmq->wake_descriptor();
  if (!send_locally(link.control, kWelcome, {&bell, 1})) {
    // It is gone already; what it has sent is still heard.
  }
  drop_links_of(text.substr(greeting.size()));
  link.peer = text.substr(greeting.size());
  link.bell = std::move(fds[1]);
  link.sender = std::make_unique<ShmSender>(area.value(), kBack);
  link.receiver = std::make_unique<ShmReceiver>(area.value(), kThere);
  link.is_gone = false;
}

// False: nothing was there.
bool ShmTransport::Impl::take(Link& link, const Deliver& deliver) {
  switch (link.receiver->receive(received)) {
    case ShmReceiver::Outcome::kNothing:
      return false;
    case ShmReceiver::Outcome::kBroken:
      link.is_gone = true;
      link.receiver = nullptr;
      ++counts.malformed;
      return false;
    case ShmReceiver::Outcome::kMalformed:
      received.frames.clear();
      ++counts.malformed;
      return true;
    case ShmReceiver::Outcome::kMessage:
      break;
  }
  ++counts.received;
  for (const Buffer& frame : received.frames) counts.received_bytes += frame.size();
  received.peer = link.peer;
  deliver(received);
  received.frames.clear();  // who wants them has them
  return true;
}

// Links may come and go while a message is delivered (a node may connect), so each step looks anew.
std::size_t ShmTransport::Impl::drain(const Deliver& deliver) {
  std::size_t handled = 0, idle = 0;
  while (handled < kTurnMessagesMax && idle < links.size()) {
    Link& link = *links[++first % links.size()];
    if (link.receiver && take(link, deliver)) {
      ++handled;
      idle = 0;
    } else {
      ++idle;
    }
  }
  std::erase_if(links, [](const auto& link) {
    return link->is_gone && (!link->receiver || link->receiver->is_empty());
  });
  return handled;
}

bool ShmTransport::Impl::has_message() const {
  return std::ranges::any_of(
      links, [](const auto& link) { return link->receiver && !link->receiver->is_empty(); });
}

bool ShmTransport::Impl::spin() const {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 16; ++i) {
      if (has_message()) return true;
      _mm_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

// False: a message has come meanwhile.
bool ShmTransport::Impl::falls_asleep() {
  bool is_quiet = true;
  for (const auto& link : links) {
    if (link->receiver) is_quiet = link->receiver->falls_asleep() && is_quiet;
  }
  return is_quiet;
}

ShmTransport::ShmTransport(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ShmTransport::~ShmTransport() = default;

Result<std::unique_ptr<ShmTransport>> ShmTransport::create(ZmqContext& context,
                                                           const std::string& name,
                                                           const std::string& bind) {
  ASSIGN_OR_RETURN(auto zmq, ZmqTransport::create(context, name, bind));
  auto impl = std::make_unique<Impl>(std::move(zmq), name);
  impl->events = Descriptor(::epoll_create1(EPOLL_CLOEXEC));
  if (!impl->events.is_open()) {
    return Status(Code::kExhausted, "too many open files; raise the limit (ulimit -n)");
  }
  impl->zmq->watch(impl->events.get());
  if (!bind.empty()) RETURN_IF_ERROR(impl->listen());
  return std::unique_ptr<ShmTransport>(new ShmTransport(std::move(impl)));
}

const std::string& ShmTransport::endpoint() const { return impl_->endpoint; }
std::size_t ShmTransport::links() const {
  return static_cast<std::size_t>(std::ranges::count_if(
      impl_->links, [](const auto& link) { return link->sender != nullptr; }));
}

PolledTransport::Counts ShmTransport::counts() const {
  Counts all = impl_->zmq->counts();
  all.sent += impl_->counts.sent;
  all.received += impl_->counts.received;
  all.sent_bytes += impl_->counts.sent_bytes;
  all.received_bytes += impl_->counts.received_bytes;
  all.dropped += impl_->counts.dropped;
  all.malformed += impl_->counts.malformed;
  return all;
}

Status ShmTransport::connect(const std::string& peer, const std::string& endpoint) {
  RETURN_IF_ERROR(impl_->zmq->connect(peer, remote_part(endpoint)));
  impl_->drop_links_of(peer);
  const std::string local_name = local_part(endpoint);
  if (local_name.empty() || local_name.size() > 64) return {};
  if (!impl_->link_to(peer, local_name)) VLOG(1) << peer << " is reached over TCP";
  return {};
}

void ShmTransport::send(const std::string& peer, const wire::Header& header,
                        const std::vector<Buffer>& frames) {
  CHECK_LE(frames.size(), kFramesMax);
  Link* const link = impl_->find(peer);
  if (link == nullptr) return impl_->zmq->send(peer, header, frames);
  switch (link->sender->send(header, frames)) {
    case ShmSender::Outcome::kTooBig:
      return impl_->zmq->send(peer, header, frames);
    case ShmSender::Outcome::kFull:
      ++impl_->counts.dropped;
      return;
    case ShmSender::Outcome::kSent:
      break;
  }
  ++impl_->counts.sent;
  for (const Buffer& frame : frames) impl_->counts.sent_bytes += frame.size();
  ring(*link);
}

Buffer ShmTransport::allocate(const std::string& peer, std::size_t size) {
  if (Link* const link = impl_->find(peer); link != nullptr && size > 0) {
    if (Buffer bytes = link->sender->allocate(size); !bytes.empty()) return bytes;
  }
  return impl_->zmq->allocate(peer, size);
}

std::size_t ShmTransport::poll(Duration timeout, const Deliver& deliver) {
  const std::size_t handled = impl_->drain(deliver);
  if (handled > 0) return handled + impl_->zmq->poll(Duration(0), deliver);
  const bool sleeps =
      timeout > Duration(0) && !(impl_->links.size() > 0 && impl_->spin()) && impl_->falls_asleep();
  const std::size_t others = impl_->zmq->poll(sleeps ? timeout : Duration(0), deliver);
  for (const auto& link : impl_->links) {
    if (link->receiver) link->receiver->wakes_up();
  }
  impl_->tend();
  return others + impl_->drain(deliver);
}

void ShmTransport::wake() { impl_->zmq->wake(); }

}  // namespace meander::net
