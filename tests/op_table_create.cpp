// Rows for making tensors (core/ops/create.cpp), for random numbers (core/ops/random.cpp) and for
// the in-place ops without a row elsewhere (core/ops/inplace.cpp).
#include "op_table.h"

namespace tutti_test {

using namespace tutti;

namespace {
// Values from memory of somebody else, which the deleter or a static keeps alive.
double* foreign_memory() {
  static double values[6] = {1, 2, 3, 4, 5, 6};
  return values;
}
Array constant(const Index& shape, double value) {
  return make(shape, [=](const Index&) { return value; });
}
Array counted(std::int64_t n, double start, double step) {
  return make({n}, [=](const Index& i) { return start + step * static_cast<double>(i[0]); });
}
}  // namespace

void create_rows(Table& t) {
  auto opt = [] { return creation_options(); };
  const std::vector<In> none, m{real({2, 3})};

  t.row("empty", none, FN(empty({2, 3}, opt()).fill_(4))).ref(REF(constant({2, 3}, 4)));
  t.row("zeros", none, FN(zeros({2, 3}, opt()))).ref(REF(constant({2, 3}, 0))).all_types();
  t.row("zeros nothing", none, FN(zeros({0, 3}, opt()))).ref(REF(constant({0, 3}, 0)));
  t.row("ones", none, FN(ones({3}, opt()))).ref(REF(constant({3}, 1))).all_types();
  t.row("full", none, FN(full({2, 3}, 4, opt()))).ref(REF(constant({2, 3}, 4))).ints();
  t.row("full 0-d", none, FN(full({}, 4, opt()))).ref(REF(constant({}, 4))).ints();
  t.row("arange", none, FN(arange(5, opt()))).ref(REF(counted(5, 0, 1))).ints();
  t.row("arange start", none, FN(arange(2, 5, opt()))).ref(REF(counted(3, 2, 1))).ints();
  t.row("arange step", none, FN(arange(1, 8, 3, opt()))).ref(REF(counted(3, 1, 3))).ints();
  t.row("arange backwards", none, FN(arange(5, 0, -2, opt()))).ref(REF(counted(3, 5, -2)));
  t.row("arange fractions", none, FN(arange(0.5, 2, 0.5, opt()))).ref(REF(counted(3, 0.5, 0.5)));
  t.row("linspace", none, FN(linspace(1, 3, 5, opt()))).ref(REF(counted(5, 1, 0.5)));
  t.row("linspace one", none, FN(linspace(1, 3, 1, opt()))).ref(REF(counted(1, 1, 0)));
  t.row("eye", none, FN(eye(3, opt())))
      .ref(REF(make({3, 3}, [](const Index& i) { return i[0] == i[1]; })))
      .ints();
  t.row("eye wide", none, FN(eye(2, 4, opt()))).ref(REF(make({2, 4}, [](const Index& i) {
    return i[0] == i[1];
  })));
  t.row("scalar_tensor", none, FN(scalar_tensor(3, opt()))).ref(REF(constant({}, 3))).ints();
  const char* memory = "it wraps given memory, which has a dtype and is on the CPU";
  t.row("from_blob", none, FN(from_blob(foreign_memory(), {2, 3}, kFloat64)))
      .ref(REF(reshaped(counted(6, 1, 1), {2, 3})))
      .skip("dtype", memory)
      .skip("meta", memory);
  t.row("from_blob strides and deleter", none,
        FN(from_blob(
            new double[6]{1, 2, 3, 4, 5, 6}, {3, 2}, {1, 3},
            [](void* p) { delete[] static_cast<double*>(p); }, kFloat64)))
      .ref(REF(permuted(reshaped(counted(6, 1, 1), {2, 3}), {1, 0})))
      .skip("dtype", memory)
      .skip("meta", memory);
  t.row("tensor", none, FN(tensor({{1, 2}, {3, 4}}, opt())))
      .ref(REF(reshaped(counted(4, 1, 1), {2, 2})))
      .ints();
  t.row("tensor vector", none, FN(tensor(std::vector<double>{1, 2, 3}, opt())))
      .ref(REF(counted(3, 1, 1)));
  t.row("meshgrid", {real({2}), real({3})}, FN(meshgrid({v[0], v[1]})))
      .ref(REF(Arrays{
          make({a[0].shape[0], a[1].shape[0]}, [&](const Index& i) { return a[0].at({i[0]}); }),
          make({a[0].shape[0], a[1].shape[0]}, [&](const Index& i) { return a[1].at({i[1]}); })}))
      .shares()
      .ints();
  t.row("empty_like", m, FN(empty_like(v[0]).copy_(v[0]))).ref(REF(a[0])).all_types();
  t.row("zeros_like", m, FN(zeros_like(v[0]))).ref(REF(constant(a[0].shape, 0))).all_types();
  t.row("ones_like", m, FN(ones_like(v[0]))).ref(REF(constant(a[0].shape, 1))).all_types();
  t.row("full_like", m, FN(full_like(v[0], 3))).ref(REF(constant(a[0].shape, 3))).ints();
  t.row("new_empty", m, FN(new_empty(v[0], {4}).fill_(2))).ref(REF(constant({4}, 2))).ints();
  t.row("new_zeros", m, FN(new_zeros(v[0], {4, 1}))).ref(REF(constant({4, 1}, 0))).ints();
  t.row("new_ones", m, FN(new_ones(v[0], {}))).ref(REF(constant({}, 1))).ints();
  t.row("new_full", m, FN(new_full(v[0], {2}, 3))).ref(REF(constant({2}, 3))).ints();
  t.row("zeros_like dtype", m, FN(zeros_like(v[0], kInt64)))
      .ref(REF(constant(a[0].shape, 0)))
      .result({Gives::int64});
  t.row("clone", m, FN(clone(v[0]))).ref(REF(a[0])).all_types();
  t.row("contiguous", m, FN(contiguous(transpose(v[0], 0, 1))))
      .large({{{101, 97}}})
      .ref(REF(permuted(a[0], {1, 0})))
      .all_types()
      .shares();
  t.row("to dtype", m, FN(to(v[0], kFloat64)))
      .ref(REF(a[0]))
      .result({Gives::float64})
      .ints()
      .shares();
  t.row("to narrower and back", {real({2, 3}, -100, 100)},
        FN(to(to(v[0] * 0 + 0.5, kFloat32), kFloat64)))
      .ref(REF(constant(a[0].shape, 0.5)))
      .result({Gives::float64});
  t.row("to integers", {fraction({2, 3}, 0.1, 0.9)}, FN(to(v[0], kInt64)))
      .ref(MAP(std::trunc(x)))
      .result({Gives::int64});
  t.row("to bool", m, FN(to(v[0], kBool)))
      .large({{{20003}}})
      .ref(MAP(x != 0))
      .result({Gives::boolean})
      .ints();
  const char* cpu_only = "its result is on the CPU";
  t.row("to device", m, FN(to(to(v[0], Device(kCPU)), kCPU)))
      .ref(REF(a[0]))
      .shares()
      .skip("meta", cpu_only);
  t.row("to options", m, FN(to(v[0], TensorOptions(kFloat64))))
      .ref(REF(a[0]))
      .result({Gives::float64})
      .shares();
  t.row("type_as", {real({2, 3}), real({})}, FN(type_as(v[0], v[1]))).ref(REF(a[0])).shares();
  t.row("to cuda", m, BLOCK({
          if (v[0].is_meta()) return v[0];
          try {
            return v[0].cuda().cpu();
          } catch (const DeviceError&) {  // a build without CUDA says so
            return v[0];
          }
        }))
      .ref(REF(a[0]))
      .shares();
  t.row("cpu", m, FN(cpu(v[0]))).ref(REF(a[0])).shares().skip("meta", cpu_only);
  t.row("detach", m, FN(detach(v[0]) * v[0]))
      .ref(MAP(x * x))
      .skip("difference", "its derivative is that of a constant by definition");

  // In-place ops that are not the op of the same name.
  t.row("copy_", {real({2, 3}), real({3})}, BLOCK({
          Tensor x = v[0] * 1;
          copy_(x, v[1]);
          x.mul_(v[0]);  // must not reach v[1]
          return Values{x, v[1] * 1};
        }))
      .ref(REF(Arrays{
          make(a[0].shape, [&](const Index& i) { return a[0].at(i) * a[1].at({i[1]}); }), a[1]}));
  t.row("copy_ alone", {real({2, 3}), real({3})}, BLOCK({
          Tensor x = v[0].clone();
          copy_(x, v[1]);
          return x;
        }))
      .ref(MAP(y));
  t.row("copy_ same shape", {real({2, 3}), real({2, 3})}, BLOCK({
          Tensor x = zeros_like(v[0]);
          copy_(x, v[1]);
          return x;
        }))
      .ref(MAP(y));
  t.row("copy_ other dtype", m, BLOCK({
          Tensor x = new_zeros(v[0], {2, 3}, kFloat32);
          copy_(x, v[0]);
          return x.to(kFloat64);
        }))
      .ref(REF(make(a[0].shape, [&](const Index& i) { return static_cast<float>(a[0].at(i)); })))
      .fixed()
      .result({Gives::float64})
      .loose(1000)
      .skip("difference", "float32 is too coarse for central differences");
  t.row("zero_", m, BLOCK({
          Tensor x = v[0].clone();
          zero_(x);
          return x + v[0];
        }))
      .ref(REF(a[0]));
  t.row("fill_", m, BLOCK({
          Tensor x = v[0].clone();
          fill_(x, 3);
          return x * v[0];
        }))
      .ref(MAP(3 * x));
  t.row("fill_ tensor", {real({2, 3}), real({})}, BLOCK({
          Tensor x = v[0].clone();
          fill_(x, v[1]);
          return x;
        }))
      .ref(MAP(y))
      .ints();
}

void random_rows(Table& t) {
  auto opt = [] { return creation_options(); };
  const std::vector<In> none, m{real({2, 3})}, chances{real({2, 3}, 0.3, 0.7)};

  t.row("rand", none, FN(rand({2, 3}, opt()))).random();
  t.row("randn", none, FN(randn({2, 3}, opt()))).random();
  t.row("randint", none, FN(randint(1000000, {4}))).random().result({Gives::int64});
  t.row("randint low", none, FN(randint(-500000, 500000, {4}, opt()))).random();
  t.row("randperm", none, FN(randperm(20))).random().result({Gives::int64});
  t.row("normal", {real({2, 3}), positive({3})}, FN(normal(v[0], v[1]))).random();
  t.row("normal numbers", none, FN(normal(1, 2, {2, 3}, opt()))).random();
  t.row("rand_like", m, FN(rand_like(v[0]) * v[0])).random();
  t.row("randn_like", m, FN(randn_like(v[0]) * v[0])).random();
  t.row("randint_like", m, FN(randint_like(v[0], 0, 1000000))).random();
  t.row("bernoulli", {real({40}, 0.3, 0.7)}, FN(bernoulli(v[0])))
      .random()
      .skip("difference", "it steps where the probability passes the draw");
  t.row("bernoulli number", {real({40})}, FN(bernoulli(v[0], 0.5))).random();
  t.row("multinomial", {positive({2, 9})}, FN(multinomial(v[0], 8)))
      .random()
      .fixed()
      .result({Gives::int64});
  t.row("multinomial replacement", {positive({9})}, FN(multinomial(v[0], 20, true)))
      .random()
      .fixed()
      .result({Gives::int64});
  t.row("dropout", {positive({40})}, FN(dropout(v[0], 0.4))).random();
  t.row("dropout in evaluation", m, FN(dropout(v[0], 0.4, false))).ref(REF(a[0])).shares();
  t.row("uniform_", m, FN(uniform_(v[0] * 1, -1, 1) * v[0])).random();
  t.row("normal_", m, FN(normal_(v[0] * 1, 1, 2) * v[0])).random();
  t.row("bernoulli_", {real({40})}, FN(bernoulli_(v[0] * 1, 0.5) * v[0])).random();
  t.row("random_", m, FN(random_(v[0] * 1, 0, 1000000))).random();
}

}  // namespace tutti_test
