// The list of all threads' counts of live tensors.
#include <mutex>

#include <tutti/core/live_tensors.h>
#include <tutti/core/tensor.h>

namespace tutti::detail {

constinit thread_local LivePart live_part TUTTI_FAST_TLS;

namespace {

struct Parts {
  std::mutex mutex;
  LivePart* first = nullptr;
  std::atomic<std::int64_t> of_ended_threads{0};
};
Parts& parts() {  // never destroyed: tensors may outlive static objects
  static Parts& p = *new Parts;
  return p;
}

/// Keeps this thread's part in the list as long as the thread lives.
struct Listed {
  Listed() {
    std::lock_guard lock(parts().mutex);
    live_part.next = parts().first;
    parts().first = &live_part;
    live_part.state = LivePart::listed;
  }
  ~Listed() {
    std::lock_guard lock(parts().mutex);
    LivePart** p = &parts().first;
    while (*p != &live_part) p = &(*p)->next;
    *p = live_part.next;
    live_part.state = LivePart::over;
    parts().of_ended_threads += live_part.count;
  }
};

}  // namespace

void count_tensor_unlisted(std::int64_t by) noexcept {
  if (live_part.state == LivePart::over) {
    parts().of_ended_threads += by;
    return;
  }
  thread_local Listed listed;
  (void)listed;
  count_tensor(by);
}

std::int64_t live_tensors() {
  std::lock_guard lock(parts().mutex);
  std::int64_t n = parts().of_ended_threads;
  for (const LivePart* p = parts().first; p; p = p->next)
    n += p->count.load(std::memory_order_relaxed);
  return n;
}

}  // namespace tutti::detail
