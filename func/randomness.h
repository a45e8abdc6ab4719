// What a random op inside vmap does.
#pragma once

namespace tutti {

/// Raise, draw once for all examples, or draw for each.
enum class Randomness { error, same, different };

}  // namespace tutti
