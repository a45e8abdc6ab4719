// Failure injection: the nth call of a kind fails.
#pragma once
#include "base.h"

namespace cudasim {

enum class CallKind { kMalloc, kLaunch, kCopy, kOther };

/// Counts a call that may fail, and says whether it shall.
bool injected(CallKind kind);

}  // namespace cudasim
