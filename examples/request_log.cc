// SPDX-License-Identifier: Apache-2.0
// A small server's inner life, for two seconds: three workers answer requests, look up sessions in
// a bounded cache, translate paths with a table read at start, and log what they did.
//
// One path leaks. Can you see it?
//
//   g++ -std=c++17 -O2 -g -pthread -o request_log examples/request_log.cc
//   leakscope run -- ./request_log
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace {

struct Request {
  int session;
  std::string path;
  std::string body;
};

struct Response {
  int status;
  std::string text;
};

// Read once at start and kept: warms up, then stays.
class Routes {
public:
  Routes() {
    for (int i = 0; i < 300; i++)
      table_.emplace("/service/area-" + std::to_string(i) + "/resource",
                     "handler_for_area_" + std::to_string(i));
  }
  const std::string *find(const std::string &path) const {
    auto found = table_.find(path);
    return found == table_.end() ? nullptr : &found->second;
  }

private:
  std::map<std::string, std::string> table_;
};

// The least recently used session goes when a new one comes: grows to its bound, then turns over.
class Sessions {
public:
  std::string touch(int id) {
    std::lock_guard<std::mutex> guard(mutex_);
    auto found = index_.find(id);
    if (found != index_.end()) {
      order_.splice(order_.begin(), order_, found->second);
      return order_.front().second;
    }
    if (order_.size() == kBound) {
      index_.erase(order_.back().first);
      order_.pop_back();
    }
    order_.emplace_front(id, "state of session " + std::to_string(id) + std::string(200, '.'));
    index_[id] = order_.begin();
    return order_.front().second;
  }

private:
  static constexpr std::size_t kBound = 100;
  std::mutex mutex_;
  std::list<std::pair<int, std::string>> order_;
  std::unordered_map<int, std::list<std::pair<int, std::string>>::iterator> index_;
};

// Who asked for what, for the log. The caller owns the record.
struct AuditRecord {
  int session;
  int status;
  char path[240];
};

AuditRecord *begin_audit(const Request &request) {
  auto *record = new AuditRecord{};
  record->session = request.session;
  std::snprintf(record->path, sizeof record->path, "%s", request.path.c_str());
  return record;
}

std::atomic<long> logged{0};

void end_audit(AuditRecord *record, int status) {
  record->status = status;
  logged += static_cast<long>(sizeof *record);
  delete record;
}

Response handle(const Request &request, const Routes &routes, Sessions &sessions) {
  AuditRecord *audit = begin_audit(request);
  const std::string *handler = routes.find(request.path);
  if (handler == nullptr)
    return {404, "no such resource"}; // nobody ends the audit
  Response response{200, *handler + ": " + sessions.touch(request.session) + request.body};
  end_audit(audit, response.status);
  return response;
}

void work(unsigned number, const Routes &routes, Sessions &sessions, std::atomic<int> &answered,
          std::atomic<int> &missing) {
  std::mt19937 random(number);
  for (int i = 0; i < 1500; i++) {
    const unsigned area = random() % 310; // ten areas do not exist
    Request request{static_cast<int>(random() % 400),
                    "/service/area-" + std::to_string(area) + "/resource",
                    std::string(random() % 300, 'b')};
    const Response response = handle(request, routes, sessions);
    (response.status == 200 ? answered : missing)++;
    std::this_thread::sleep_for(std::chrono::microseconds(1200));
  }
}

} // namespace

int main() {
  const Routes routes;
  Sessions sessions;
  std::atomic<int> answered{0}, missing{0};
  std::vector<std::thread> workers;
  for (unsigned number = 0; number < 3; number++)
    workers.emplace_back(work, number, std::cref(routes), std::ref(sessions), std::ref(answered),
                         std::ref(missing));
  for (auto &worker : workers)
    worker.join();
  std::printf("%d answered, %d missing\n", answered.load(), missing.load());
}
