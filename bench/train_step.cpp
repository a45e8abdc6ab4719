// The training steps that the benchmarks measure.
#include "train_step.h"

#include <cmath>
#include <sstream>

#ifdef __SSE__
#include <xmmintrin.h>
#endif

namespace bench {

using namespace tutti;

std::string Case::name() const {
  std::ostringstream s;
  s << "M" << members;
  for (std::size_t i = 0; i < widths.size(); ++i) s << (i ? "-" : "_") << widths[i];
  s << "_B" << batch;
  return s.str();
}

const std::vector<Case>& cases() {
  // Rounding flips the sign of a few activations near zero, the more the more terms a sum has, and
  // Adam turns the sign of a gradient into a full step. So a few parameters differ a lot, others
  // in their last bits.
  static const std::vector<Case> all = {{10, 64, {784, 128, 128, 10}, 1.6, 1.5e-2, 1.5e-4},
                                        {32, 32, {16, 64, 64, 4}, 1.8, 3e-3, 2e-5},
                                        {64, 64, {64, 64, 64, 10}, 1.8, 3e-3, 2e-5},
                                        {128, 1, {4, 16, 16, 1}, 1.6, 3e-3, 2e-5},
                                        {1024, 32, {8, 16, 16, 1}, 1.6, 3e-3, 2e-5}};
  return all;
}

std::span<const WayInfo> ways() {
  static const WayInfo all[] = {{Way::eager, "eager", {1, 1, 1, 1, 1}},
                                {Way::compiled, "compiled", {0.70, 0.58, 0.58, 0.25, 0.30}},
                                {Way::members_last, "members_last", {0, 0, 0, 0.25, 0.30}}};
  return all;
}

namespace {

/// The step `f` run in some way: the one place that tells the ways apart.
template <class F>
std::function<Tensor(const TensorDict&, const Tensor&, const Tensor&)> run_as(Way way, F f) {
  switch (way) {
    case Way::eager:
      return f;
    case Way::compiled:
    case Way::members_last:
      return func::compile(std::move(f));
  }
  throw ValueError("run_as", "no such way");
}

nn::Sequential make_model(const std::vector<int>& widths) {
  nn::Sequential model;
  for (std::size_t l = 0; l + 1 < widths.size(); ++l) {
    if (l) model->push_back(nn::ReLU());
    model->push_back(nn::Linear(widths[l], widths[l + 1]));
  }
  return model;
}

Tensor copy_of(const std::vector<float>& v, IntArrayRef sizes) {
  return from_blob(const_cast<float*>(v.data()), sizes).clone();
}

TensorDict stacked_parameters(const Net& net, Device device) {
  TensorDict params;
  for (std::size_t l = 0; l + 1 < net.d.size(); ++l) {
    const std::string layer = std::to_string(2 * l);  // with an activation between two of them
    const Tensor weight = copy_of(net.W[l], {net.M, net.d[l + 1], net.d[l]});
    params.insert(layer + ".weight", weight.to(device));
    params.insert(layer + ".bias", copy_of(net.b[l], {net.M, net.d[l + 1]}).to(device));
  }
  for (auto& [name, p] : params) p.requires_grad_();
  return params;
}

Tensor targets(const Net& net) {
  if (net.d.back() == 1) return copy_of(net.y, {net.B, 1});
  return tensor(std::vector<std::int64_t>(net.lab.begin(), net.lab.end()));
}

}  // namespace

Ensemble::Ensemble(const Net& start, Way way, Device device)
    : model_(make_model(start.d)),
      params_(way == Way::members_last ? func::members_last(stacked_parameters(start, device))
                                       : stacked_parameters(start, device)),
      opt_(params_, optim::AdamOptions(1e-3)),
      x_(copy_of(start.X, {start.B, start.d[0]}).to(device)),
      y_(targets(start).to(device)) {
  const auto loss = [this](const TensorDict& params, const Tensor& x, const Tensor& y) {
    const Tensor out = func::functional_call(model_, params, x);
    return out.size(-1) == 1 ? mse_loss(out, y) : nn::functional::cross_entropy(out, y);
  };
  const auto gradients = func::vmap(func::grad_and_value(loss), {0, std::nullopt, std::nullopt});
  step_ = run_as(way, [=, this](const TensorDict& params, const Tensor& x, const Tensor& y) {
    auto [grads, losses] = gradients(params, x, y);
    opt_.step(grads);
    return losses;
  });
}

Tensor Ensemble::step() {
  NoGradGuard no_grad;
  return step_(params_, x_, y_);
}

double eigen_step(Net& net) {
  ++net.t;
  return EigenStep(net, 0, net.M);
}

std::string disagreement(const Case& c, Way way, Device device) {
  Net net = c.net();
  Ensemble ensemble(net, way, device);
  double ours = 0, theirs = 0;
  for (int i = 0; i < kCheckedSteps; ++i) {
    ours = ensemble.step().to(kFloat64).mean().item<double>();
    theirs = eigen_step(net) / c.members / c.batch;
  }
  NoGradGuard no_grad;
  const TensorDict expected = stacked_parameters(net, kCPU);
  std::ostringstream text;
  if (!(std::abs(ours - theirs) <= 3e-4 * std::abs(theirs)))
    text << c.name() << ": after " << kCheckedSteps << " steps the mean loss is " << ours
         << ", that of the Eigen loop " << theirs << "\n";
  for (const auto& [name, p] : ensemble.parameters()) {
    const Tensor d = (p.cpu() - expected.at(name)).abs();
    const double most = d.max().item<double>(), rms = d.square().mean().sqrt().item<double>();
    if (!(most <= c.weight_max && rms <= c.weight_rms))
      text << c.name() << ": after " << kCheckedSteps << " steps " << name << " differs by up to "
           << most << " (" << rms << " root mean square) from the Eigen loop's; expected were "
           << c.weight_max << " and " << c.weight_rms << " at most\n";
  }
  return text.str();
}

void write_case(const Case& c, const std::string& folder) {
  Ensemble ensemble(c.net(), Way::eager);
  TensorDict out{{"x", ensemble.x()}, {"y", ensemble.y()}};
  for (const auto& [name, p] : ensemble.parameters()) out.insert(name, p.detach().clone());
  Tensor losses;
  for (int i = 0; i < kCheckedSteps; ++i) losses = ensemble.step();
  out.insert("losses", losses);
  save(out, folder + "/" + c.name() + ".safetensors");
}

void flush_denormals() {
#ifdef __SSE__
  _mm_setcsr(_mm_getcsr() | 0x8040);  // flush-to-zero, denormals-are-zero
#endif
}

}  // namespace bench
