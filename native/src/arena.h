// Objects of one type that are reused and never freed one by one: no allocation per I/O once warm.
// The arena owns them all.
#pragma once

#include <deque>
#include <vector>

namespace pando {

template <typename T>
class Arena {
 public:
  T* take() {
    if (free_.empty()) return &all_.emplace_back();
    T* object = free_.back();
    free_.pop_back();
    return object;
  }
  void give_back(T* object) { free_.push_back(object); }

 private:
  std::deque<T> all_;  // never moves its elements
  std::vector<T*> free_;
};

}  // namespace pando
