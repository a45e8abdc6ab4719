// The rules of gemm_rules.h.
#include <algorithm>

#include <tutti/cuda/gemm_rules.h>

namespace tutti::cuda {
namespace {

/// A row-major operand [rows, columns] for cuBLAS; false: not without a copy.
bool as_operand(const kernels::Matrices& x, std::int64_t rows, std::int64_t columns,
                GemmOperand& out) {
  // Where there is one column (or row), its stride means nothing.
  if ((x.column == 1 || columns == 1) && (rows == 1 || x.row >= columns)) {
    out.transposed = false;
    out.leading = rows == 1 ? std::max<std::int64_t>(columns, 1) : x.row;
    return columns == 1 || x.column == 1;
  }
  if ((x.row == 1 || rows == 1) && (columns == 1 || x.column >= rows)) {
    out.transposed = true;
    out.leading = columns == 1 ? std::max<std::int64_t>(rows, 1) : x.column;
    return rows == 1 || x.row == 1;
  }
  return false;
}

/// What a packed operand looks like: dense and row-major; without copies of what is repeated.
kernels::Matrices packed(const kernels::Matrices& x, IntArrayRef batch, std::int64_t rows,
                         std::int64_t columns) {
  kernels::Matrices p = x;
  p.row = columns;
  p.column = 1;
  std::int64_t next = rows * columns;
  for (std::size_t d = batch.size(); d-- > 0;) {
    if (x.batch[d] == 0) continue;
    p.batch[d] = next;
    next *= batch[d];
  }
  return p;
}

}  // namespace

GemmPlan plan_gemm(const kernels::Gemm& g) {
  GemmPlan p;
  p.m = g.m;
  p.n = g.n;
  p.k = g.k;
  const std::int64_t members = numel_of(g.batch);
  if (g.m == 0 || g.n == 0 || g.k == 0 || members == 0) return p;

  kernels::Matrices a = g.a, b = g.b;
  if (!as_operand(a, g.m, g.k, p.a)) {
    p.pack_a = true;
    a = packed(a, g.batch, g.m, g.k);
    as_operand(a, g.m, g.k, p.a);
  }
  if (!as_operand(b, g.k, g.n, p.b)) {
    p.pack_b = true;
    b = packed(b, g.batch, g.k, g.n);
    as_operand(b, g.k, g.n, p.b);
  }

  // Merge neighbouring batch axes; the result is dense, so its strides always fit.
  Shape sizes, a_strides, b_strides;
  for (std::size_t d = 0; d < g.batch.size(); ++d) {
    const std::int64_t size = g.batch[d];
    if (size == 1) continue;
    if (!sizes.empty() && a_strides.back() == size * a.batch[d] &&
        b_strides.back() == size * b.batch[d]) {
      sizes.back() *= size;
      a_strides.back() = a.batch[d];
      b_strides.back() = b.batch[d];
    } else {
      sizes.push_back(size);
      a_strides.push_back(a.batch[d]);
      b_strides.push_back(b.batch[d]);
    }
  }
  if (sizes.empty()) {
    p.kind = GemmPlan::Kind::plain;
    return p;
  }
  if (sizes.size() == 1) {
    p.batch = sizes[0];
    p.a.stride = a_strides[0];
    p.b.stride = b_strides[0];
    const bool even =
        !p.a.transposed && (g.m == 1 ? p.a.stride >= g.k : p.a.stride == g.m * p.a.leading);
    if (p.b.stride == 0 && even) {
      if (g.m == 1) p.a.leading = p.a.stride;
      p.kind = GemmPlan::Kind::plain;
      p.m = g.m * p.batch;
      p.batch = 1;
      p.a.stride = 0;
      return p;
    }
    p.kind = GemmPlan::Kind::strided;
    return p;
  }
  p.kind = GemmPlan::Kind::pointers;
  p.batch = members;
  p.batch_sizes = sizes;
  p.a_strides = a_strides;
  p.b_strides = b_strides;
  return p;
}

}  // namespace tutti::cuda
