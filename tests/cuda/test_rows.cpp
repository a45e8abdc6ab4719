// Every row of the op table on the device, against the CPU: values in all element types and in
// other memory layouts, gradients, tangents, vmap, and in-place forms.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <set>
#include <string_view>

#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "../row_checks.h"
#include "../test.h"
#include "device_checks.h"
#include "gpu.h"

using namespace tutti;
using namespace tutti_test;

namespace {

Arrays samples(const std::vector<In>& inputs, Rng& rng, DType d) {
  Arrays out;
  for (const In& in : inputs) out.push_back(sample(in, rng, d));
  return out;
}

Values tensors(const std::vector<In>& inputs, const Arrays& a, DType d) {
  Values out;
  for (std::size_t i = 0; i < a.size(); ++i)
    out.push_back(to_tensor(a[i], dtype_of_input(inputs[i], d)));
  return out;
}

std::vector<std::size_t> real_inputs(const std::vector<In>& inputs) {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].kind == In::Kind::real) out.push_back(i);
  return out;
}

/// What could not run, and why.
std::map<std::string, std::string> not_there;

/// Runs a check; an op without a kernel is written down instead of failing.
void check(Tally& tally, const char* kind, const Row& row, const std::string& what,
           const std::function<std::string()>& body) {
  if (not_there.count(row.name)) return;
  std::string missing;
  tally.check(kind, row.name + what, [&]() -> std::string {
    try {
      return body();
    } catch (const NotImplementedError& e) {
      missing = e.what();
      return {};
    } catch (const DeviceError& e) {  // the row's own function makes tensors, on the CPU
      if (std::string_view(kind) != "value") throw;
      missing = e.what();
      return {};
    }
  });
  if (!missing.empty()) not_there[row.name] = missing;
}

/// The linear algebra op a row is about, which has no kernel; null for other rows.
const char* linear_algebra_of(const std::string& row) {
  static const std::map<std::string, const char*> ops = {
      {"cholesky", "cholesky"},
      {"solve", "solve"},
      {"triangular_solve", "triangular_solve"},
      {"linalg_solve_triangular", "triangular_solve"},
      {"inverse", "inverse"},
      {"det", "det"},
      {"slogdet", "slogdet"},
      {"qr", "qr"},
      {"eigh", "eigh"},
      {"svd", "svd"}};
  const auto at = ops.find(row.substr(0, row.find(' ')));
  return at == ops.end() ? nullptr : at->second;
}

/// Rows whose function makes tensors on the CPU, whatever its inputs.
bool cpu_only(const Row& row) {
  static const std::set<std::string> names = {"from_blob", "from_blob strides and deleter",
                                              "to device", "to cuda", "cpu"};
  return names.count(row.name) > 0;
}

Values transposed(const Values& v) {
  Values out;
  for (const Tensor& t : v)
    out.push_back(t.dim() < 2 ? t : t.transpose(0, -1).contiguous().transpose(0, -1));
  return out;
}
/// Every second element of a larger tensor, from an odd place on: no packs.
Values stepped(const Values& v) {
  Values out;
  for (const Tensor& t : v) {
    if (t.dim() == 0) {
      out.push_back(t);
      continue;
    }
    Shape wide = t.sizes().shape();
    wide.back() = 2 * wide.back() + 1;
    const Tensor memory = zeros(wide, TensorOptions(t.dtype()).device(t.device()));
    const Tensor place = memory.slice(-1, 1, std::nullopt, 2);
    place.copy_(t);
    out.push_back(place);
  }
  return out;
}

void check_values(const Row& row, Tally& tally) {
  Rng rng = rng_for(row.name);
  for (DType d :
       {kFloat32, kFloat64, kInt64, kInt32, kUInt8, kInt8, kInt16, kBool, kFloat16, kBFloat16}) {
    if (d == kBool ? !row.with_bool : is_integral(d) ? !row.with_integers : false) continue;
    if (is_half(d) && (row.refuses_half || row.skipped("dtype"))) continue;
    if (d != kFloat64 && row.skipped("dtype")) continue;
    if (row.inputs.empty() && d != kFloat32 && d != kFloat64 && d != kInt64) continue;
    const Values cpu = tensors(row.inputs, samples(row.inputs, rng, d), d);
    check(tally, "value", row, detail::str(" in ", d),
          [&] { return compare(row.f, cpu, on_gpu(cpu), d, row.tolerance); });
  }
  if (row.inputs.empty()) return;
  for (const std::vector<Index>& shapes : row.large_shapes) {
    std::vector<In> inputs = row.inputs;
    std::int64_t elements = 0;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      inputs[i].shape = shapes[i];
      elements += count(shapes[i]);
    }
    if (elements > 100000) continue;
    const Values cpu = tensors(inputs, samples(inputs, rng, kFloat32), kFloat32);
    check(tally, "large", row, detail::str(" ", IntArrayRef(shapes[0])),
          [&] { return compare(row.f, cpu, on_gpu(cpu), kFloat32, row.tolerance); });
  }
  const Values cpu = tensors(row.inputs, samples(row.inputs, rng, kFloat32), kFloat32);
  // view() takes no copy, so that it refuses some layouts, on the CPU, too.
  const auto takes = [&](const Values& v) {
    try {
      row.f(v);
    } catch (const ValueError&) {
      return false;
    }
    return true;
  };
  const auto laid_out = [&](const char* what, Values (*arrange)(const Values&)) {
    if (takes(arrange(cpu)))
      check(tally, "layout", row, what,
            [&] { return compare(row.f, cpu, arrange(on_gpu(cpu)), kFloat32, row.tolerance); });
  };
  laid_out(" transposed", transposed);
  laid_out(" stepped", stepped);
  if (row.in_place && real_inputs(row.inputs).size() > 0)
    check(tally, "in place", row, "", [&] {
      const auto f = [&](const Values& v) {
        Values own = v;
        own[0] = v[0].clone();
        row.in_place(own);
        return Values{own[0]};
      };
      return compare(f, cpu, on_gpu(cpu), kFloat32, row.tolerance);
    });
}

void check_transforms(const Row& row, Tally& tally) {
  const Subject s = subject_of(row);
  if (row.inputs.empty() || row.dynamic) return;
  Rng rng = rng_for(row.name + " transforms");
  const DType d = kFloat64;
  const Values cpu = tensors(row.inputs, samples(row.inputs, rng, d), d);
  const auto reals = real_inputs(row.inputs);
  if (differentiable(s)) {
    const auto gradients = [&](const Values& v) {
      Values c;
      for (const Tensor& y : floating(s.f(v))) c.push_back(ones_like(y) + y.detach() * 0.25);
      return vjp(s.f, v, reals, c).second;
    };
    check(tally, "vjp", row, "",
          [&] { return compare(gradients, cpu, on_gpu(cpu), d, row.tolerance); });
    const auto tangents = [&](const Values& v) {
      Values t;
      for (std::size_t i : reals) t.push_back(v[i] * 0.5 + 1);
      return jvp(s.f, v, reals, t).second;
    };
    check(tally, "jvp", row, "",
          [&] { return compare(tangents, cpu, on_gpu(cpu), d, row.tolerance); });
  }
  Values batch;
  for (const In& in : row.inputs)
    batch.push_back(to_tensor(sample_batch(in, 0, 3, rng), dtype_of_input(in, d)));
  const auto mapped = [&](const Values& v) {
    return vmap(s.f, std::vector<Axis>(v.size(), 0), v, 0, s.options);
  };
  check(tally, "vmap", row, "",
        [&] { return compare(mapped, batch, on_gpu(batch), d, row.tolerance); });
}

bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.sizes() != b.sizes()) return false;
  const Tensor x = a.cpu().contiguous(), y = b.cpu().contiguous();
  return x.numel() == 0 ||
         std::memcmp(x.raw(), y.raw(), static_cast<std::size_t>(x.numel() * x.element_size())) == 0;
}

/// Rows that a compiled function ran by a CUDA graph.
std::size_t by_graph = 0;

/// The row within a compiled function gives the same bits when graphs launch it.
void check_graphs(const Row& row, Tally& tally) {
  if (row.inputs.empty() || row.dynamic) return;
  Rng rng = rng_for(row.name + " graphs");
  const Values v = on_gpu(tensors(row.inputs, samples(row.inputs, rng, kFloat32), kFloat32));
  const auto f = [&](const Values& in) {  // several ops more, so that a graph pays
    Values out;
    for (const Tensor& y : row.f(in))
      out.push_back((((y.to(kFloat32) * 0.5).sin() + 2).log() * y.to(kFloat32)).tanh());
    return out;
  };
  check(tally, "graph", row, "", [&]() -> std::string {
    const NoGradGuard guard;
    const auto graphs = func::compile(f);
    const auto plain = func::compile(f, CompileOptions().cuda_graphs(false));
    Values want;
    try {
      manual_seed(7);
      want = plain(v);
    } catch (const TransformError&) {
      return {};  // it reads values, and is never recorded
    } catch (const DeviceError&) {
      return {};  // it captures something on the CPU, which is not recorded for a device either
    }
    for (int run = 0; run < 3; ++run) {
      manual_seed(7);
      const Values got = graphs(v);
      for (std::size_t i = 0; i < want.size(); ++i)
        if (!same_bits(got[i], want[i])) return detail::str("result ", i, " differs in run ", run);
    }
    by_graph += graphs.cuda_graphs().launches > 0;
    return {};
  });
}

}  // namespace

TEST_CASE("every op on the device") {
  REQUIRE(cuda::is_available());
  Tally tally;
  const auto rows = selected_rows();
  std::size_t on_cpu = 0;
  for (const Row& row : rows) {
    if (cpu_only(row)) {
      ++on_cpu;
      continue;
    }
    check_values(row, tally);
    check_transforms(row, tally);
    check_graphs(row, tally);
  }
  tally.print("op table on CUDA", rows.size() - on_cpu - not_there.size());
  std::printf("%zu rows, %zu run on CUDA, %zu concern the CPU, %zu have no kernel yet:\n",
              rows.size(), rows.size() - on_cpu - not_there.size(), on_cpu, not_there.size());
  std::printf("%zu rows were launched by CUDA graphs, too\n", by_graph);
  for (const auto& [name, why] : not_there) {
    std::printf("  %s: %s\n", name.c_str(), why.c_str());
    CHECK_MESSAGE(linear_algebra_of(name), name << " has no kernel, but is no linear algebra");
  }
  CHECK(tally.failed() == 0);
  cuda::check_errors();
}

TEST_CASE("linear algebra is refused in words that name the op and the way over the CPU") {
  Table table;
  linalg_rows(table);
  std::set<std::string> ops;
  for (const Row& row : table.rows) {
    const char* const op = linear_algebra_of(row.name);
    if (!op) continue;
    CAPTURE(row.name);
    ops.insert(op);
    const std::string words = detail::str(
        "[", op,
        "] not implemented on cuda:0; compute it on the CPU: move its tensors with cpu(), ",
        "and the result back with to()");
    Rng rng = rng_for(row.name);
    const Values cpu = tensors(row.inputs, samples(row.inputs, rng, kFloat32), kFloat32);
    const Values gpu = on_gpu(cpu);
    CHECK_THROWS_SAYING(row.f(gpu), NotImplementedError, words);
    CHECK_THROWS_SAYING(vjp(row.f, gpu, real_inputs(row.inputs), {}), NotImplementedError, words);
    CHECK_THROWS_SAYING(jvp(row.f, gpu, real_inputs(row.inputs), gpu), NotImplementedError, words);
    Values stacked;
    for (const Tensor& x : gpu) stacked.push_back(stack({x, x}));
    const std::vector<Axis> axes(stacked.size(), 0);
    CHECK_THROWS_SAYING(vmap(row.f, axes, stacked, 0, {}), NotImplementedError, words);
    // The way over the CPU.
    const Values back = on_gpu(row.f(to_device(gpu, kCPU)));
    CHECK(differs(to_arrays(back), to_arrays(row.f(cpu)), 0, 0) == "");
  }
  CHECK(ops.size() == 9);
}
