// How each library computes a batch of products.
#include "gemm_rivals.h"

#include <memory>
#include <unordered_map>

#if TUTTI_OPENBLAS
#include <cblas.h>
#endif
#if TUTTI_ONEDNN
#include <oneapi/dnnl/dnnl.hpp>
#endif
#if TUTTI_LIBXSMM
#include <libxsmm.h>
#endif

// oneDNN's threads, if it has been built with OpenMP.
extern "C" __attribute__((weak)) void omp_set_num_threads(int);

namespace bench {
namespace {

using tutti::kernels::Gemm;

/// A product in the terms of BLAS.
struct Product {
  std::int64_t members, m, n, k;
  const float *a, *b;
  bool a_turned, b_turned;
  float* out;

  Product(const Gemm& g, float* result)
      : members(g.batch[0]),
        m(g.m),
        n(g.n),
        k(g.k),
        a(static_cast<const float*>(g.a.data)),
        b(static_cast<const float*>(g.b.data)),
        a_turned(g.a.column != 1),
        b_turned(g.b.column != 1),
        out(result) {}

  std::int64_t a_stride() const { return a_turned ? m : k; }
  std::int64_t b_stride() const { return b_turned ? k : n; }
  const float* a_at(std::int64_t i) const { return a + i * m * k; }
  const float* b_at(std::int64_t i) const { return b + i * k * n; }
  float* out_at(std::int64_t i) const { return out + i * m * n; }
};

std::function<void()> eigen(const Gemm& g, float* out) {
  return [p = Product(g, out)] {
    eigen_products(p.members, p.m, p.n, p.k, p.a, p.a_turned, p.b, p.b_turned, p.out);
  };
}

#if TUTTI_OPENBLAS
std::function<void()> openblas(const Gemm& g, float* out) {
  openblas_set_num_threads(1);
  return [p = Product(g, out)] {
    const auto turned = [](bool t) { return t ? CblasTrans : CblasNoTrans; };
    const auto size = [](std::int64_t x) { return static_cast<blasint>(x); };
    for (std::int64_t i = 0; i < p.members; ++i)
      cblas_sgemm(CblasRowMajor, turned(p.a_turned), turned(p.b_turned), size(p.m), size(p.n),
                  size(p.k), 1, p.a_at(i), size(p.a_stride()), p.b_at(i), size(p.b_stride()), 0,
                  p.out_at(i), size(p.n));
  };
}
#endif

#if TUTTI_ONEDNN
std::function<void()> dnnl_products(const Gemm& g, float* out) {
  return [p = Product(g, out)] {
    for (std::int64_t i = 0; i < p.members; ++i)
      dnnl_sgemm(p.a_turned ? 'T' : 'N', p.b_turned ? 'T' : 'N', p.m, p.n, p.k, 1, p.a_at(i),
                 p.a_stride(), p.b_at(i), p.b_stride(), 0, p.out_at(i), p.n);
  };
}

std::function<void()> dnnl_batch(const Gemm& g, float* out) {
  using Memory = dnnl::memory;
  using Dims = Memory::dims;
  const Product p(g, out);
  const auto desc = [&](std::int64_t rows, std::int64_t columns, bool turned) {
    return Memory::desc({p.members, rows, columns}, Memory::data_type::f32,
                        turned ? Dims{rows * columns, 1, rows} : Dims{rows * columns, columns, 1});
  };
  const auto a = desc(p.m, p.k, p.a_turned), b = desc(p.k, p.n, p.b_turned),
             c = desc(p.m, p.n, false);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const dnnl::stream stream(engine);
  const dnnl::matmul matmul(dnnl::matmul::primitive_desc({a, b, c}, engine));
  const std::unordered_map<int, Memory> arguments{
      {DNNL_ARG_SRC, Memory(a, engine, const_cast<float*>(p.a))},
      {DNNL_ARG_WEIGHTS, Memory(b, engine, const_cast<float*>(p.b))},
      {DNNL_ARG_DST, Memory(c, engine, out)}};
  return [=] { matmul.execute(stream, arguments); };
}
#endif

#if TUTTI_LIBXSMM
/// Column-major, so that b comes first. It takes no turned b in this order: that is turned for it.
std::function<void()> xsmm(const Gemm& g, float* out) {
  const Product p(g, out);
  if (p.m * p.n * p.k > 1 << 24) return {};  // it is made for small products
  const auto size = [](std::int64_t x) { return static_cast<libxsmm_blasint>(x); };
  const libxsmm_blasint m = size(p.m), n = size(p.n), k = size(p.k), a = size(p.a_stride());
  const float one = 1, zero = 0;
  const int flags = p.a_turned ? LIBXSMM_GEMM_FLAG_TRANS_B : 0, prefetch = 0;
  const libxsmm_smmfunction kernel =
      libxsmm_smmdispatch(n, m, k, &n, &a, &n, &one, &zero, &flags, &prefetch);
  if (!kernel) return {};
  const auto turned = std::make_shared<std::vector<float>>(static_cast<std::size_t>(p.k * p.n));
  return [=] {
    for (std::int64_t i = 0; i < p.members; ++i) {
      const float* b = p.b_at(i);
      if (p.b_turned) {
        libxsmm_otrans(turned->data(), b, sizeof(float), k, n, k, n);
        b = turned->data();
      }
      kernel(b, p.a_at(i), p.out_at(i));
    }
  };
}
#endif

}  // namespace

std::vector<Rival> rivals() {
  if (omp_set_num_threads) omp_set_num_threads(1);
  return {
    {"eigen", eigen},
#if TUTTI_OPENBLAS
        {"openblas", openblas},
#endif
#if TUTTI_ONEDNN
        {"dnnl_sgemm", dnnl_products}, {"dnnl_matmul", dnnl_batch},
#endif
#if TUTTI_LIBXSMM
        {"libxsmm", xsmm},
#endif
  };
}

}  // namespace bench
