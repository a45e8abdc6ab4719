// A matrix of lines that one kernel makes a piece at a time and another one takes at once, while
// the piece is in the nearest cache.
#pragma once
#include <cstdint>

namespace tutti::kernels {

/// Lines [begin, end) of the matrix, and of each the `width` elements from `first` on. In the piece
/// they are `pitch` elements apart.
struct Piece {
  const void* data;
  std::int64_t begin, end, first, width, pitch;
};

/// What takes pieces: a function object that must live as long.
class PieceTaker {
 public:
  template <class F>
  explicit PieceTaker(const F& f)
      : self_(&f),
        take_([](const void* self, const Piece& p) { (*static_cast<const F*>(self))(p); }) {}
  void operator()(const Piece& p) const { take_(self_, p); }

 private:
  const void* self_;
  void (*take_)(const void* self, const Piece& p);
};

/// What makes pieces: each element of the matrix is in one of them.
class PieceMaker {
 public:
  virtual void make(const PieceTaker& take) const = 0;

 protected:
  ~PieceMaker() = default;
};

}  // namespace tutti::kernels
