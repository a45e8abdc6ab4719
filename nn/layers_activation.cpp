// How the activation layers print.
#include <ostream>

#include <tutti/nn/layers_activation.h>

namespace tutti::nn {

void ReLUImpl::pretty_print(std::ostream& out) const {
  out << "nn::ReLU(" << (options.inplace() ? "inplace=true" : "") << ")";
}
void LeakyReLUImpl::pretty_print(std::ostream& out) const {
  out << "nn::LeakyReLU(negative_slope=" << options.negative_slope()
      << (options.inplace() ? ", inplace=true" : "") << ")";
}
void ELUImpl::pretty_print(std::ostream& out) const {
  out << "nn::ELU(alpha=" << options.alpha() << (options.inplace() ? ", inplace=true" : "") << ")";
}
void GELUImpl::pretty_print(std::ostream& out) const {
  out << "nn::GELU(";
  if (options.approximate() != "none") out << "approximate=\"" << options.approximate() << "\"";
  out << ")";
}
void SiLUImpl::pretty_print(std::ostream& out) const { out << "nn::SiLU()"; }
void SigmoidImpl::pretty_print(std::ostream& out) const { out << "nn::Sigmoid()"; }
void TanhImpl::pretty_print(std::ostream& out) const { out << "nn::Tanh()"; }
void SoftplusImpl::pretty_print(std::ostream& out) const {
  out << "nn::Softplus(beta=" << options.beta() << ", threshold=" << options.threshold() << ")";
}
void SoftmaxImpl::pretty_print(std::ostream& out) const {
  out << "nn::Softmax(dim=" << options.dim() << ")";
}
void LogSoftmaxImpl::pretty_print(std::ostream& out) const {
  out << "nn::LogSoftmax(dim=" << options.dim() << ")";
}
void FunctionalImpl::pretty_print(std::ostream& out) const { out << "nn::Functional()"; }

}  // namespace tutti::nn
