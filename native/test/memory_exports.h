// Exports over volumes of a test: answers at once or when the test says, and counts what is open.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "assert.h"
#include "block_io.h"

namespace pando::test {

class MemoryExports final : public Exports {
 public:
  ~MemoryExports() override { PANDO_ASSERT(owed_.empty()); }

  void add(BlockVolume* volume) { volumes_[volume->name()] = volume; }
  /// open() of `name` ends with `status` from now on.
  void refuse(const std::string& name, OpenStatus status) { refused_[name] = status; }
  /// Answers wait for answer() from now on.
  void defer() { deferred_ = true; }
  void answer() {
    for (auto owed = std::exchange(owed_, {}); auto& each : owed) each();
  }

  void open(OpenRequest request, std::function<void(OpenResult)> done) override {
    requests_.push_back(request);
    give([this, name = request.name, done = std::move(done)] {
      const auto refused = refused_.find(name);
      if (refused != refused_.end()) return done({refused->second, nullptr});
      const auto found = volumes_.find(name);
      if (found == volumes_.end()) return done({OpenStatus::kNotFound, nullptr});
      ++open_[found->second];
      done({OpenStatus::kOk, found->second});
    });
  }

  void close(FrontEnd, BlockVolume* volume, const std::string&) override {
    PANDO_ASSERT(open_[volume] > 0);
    --open_[volume];
  }

  void list(FrontEnd, std::string, std::function<void(std::vector<ExportEntry>)> done) override {
    give([this, done = std::move(done)] {
      std::vector<ExportEntry> entries;
      for (const auto& [name, volume] : volumes_) entries.push_back({name});
      done(std::move(entries));
    });
  }

  size_t open_count(BlockVolume* volume) { return open_[volume]; }
  size_t owed() const { return owed_.size(); }
  const std::vector<OpenRequest>& requests() const { return requests_; }

 private:
  void give(std::function<void()> answer) {
    if (deferred_) {
      owed_.push_back(std::move(answer));
    } else {
      answer();
    }
  }

  std::map<std::string, BlockVolume*> volumes_;
  std::map<std::string, OpenStatus> refused_;
  std::map<BlockVolume*, size_t> open_;
  std::vector<std::function<void()>> owed_;
  std::vector<OpenRequest> requests_;
  bool deferred_ = false;
};

}  // namespace pando::test
