// The products of a layer on the device.
#include "products.h"

#include <sstream>

namespace bench {

using namespace tutti;

DeviceLayer::DeviceLayer(const Sizes& s, Form form) : s_(s) {
  NoGradGuard no_grad;
  manual_seed(1);
  const auto values = [&](std::int64_t rows, std::int64_t columns) {
    return (rand({s.members, rows, columns}) - 0.5).to(kCUDA);
  };
  switch (form) {
    case Form::fwd:  // y = x w^T
      a_ = values(s.b, s.k), b_ = values(s.n, s.k).mT();
      break;
    case Form::dX:  // dy w
      a_ = values(s.b, s.n), b_ = values(s.n, s.k);
      break;
    case Form::dW:  // dy^T x
      a_ = values(s.b, s.n).mT(), b_ = values(s.b, s.k);
      break;
  }
  for (std::int64_t i = 0; i < s.members; ++i) {
    each_a_.push_back(a_[i]);
    each_b_.push_back(b_[i]);
  }
}

Tensor DeviceLayer::looped() const {
  Tensor last;
  for (std::size_t i = 0; i < each_a_.size(); ++i) last = mm(each_a_[i], each_b_[i]);
  return last;
}

std::string DeviceLayer::disagreement() const {
  const Tensor expected = bmm(a_.cpu(), b_.cpu());
  // Sums of k products of numbers below one half; the order of the terms is the device's.
  const double tolerance = 1e-6 * static_cast<double>(a_.size(-1));
  std::ostringstream text;
  const auto compare = [&](const char* name, const Tensor& x, const Tensor& y) {
    const double most = (x.cpu() - y).abs().max().item<double>();
    if (!(most <= tolerance))
      text << name << " differs from the CPU by " << most << ", expected was " << tolerance
           << " at most\n";
  };
  compare("the batched product", batched(), expected);
  std::vector<Tensor> singles;
  for (std::size_t i = 0; i < each_a_.size(); ++i) singles.push_back(mm(each_a_[i], each_b_[i]));
  compare("the loop of single products", stack(singles), expected);
  return text.str();
}

}  // namespace bench
