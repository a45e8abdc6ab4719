// Tensors outside of any transform: handles, making, views, indexing, dtypes and promotion, data
// access, copying, printing.
#include <tutti/core/ops.h>
#include <tutti/core/tree.h>

#include "behaviour.h"

using namespace tutti;

using Sizes = std::vector<std::int64_t>;

// ---- handles

TEST_CASE("memory_stats follows what is taken, kept and given back") {
  empty_cache();
  const MemoryStats before = memory_stats();
  reset_peak_memory_stats();
  constexpr std::int64_t bytes = 40 << 20;
  {
    const Tensor x = zeros({bytes / 4});
    const MemoryStats with = memory_stats();
    CHECK(with.reserved - before.reserved >= bytes);
    CHECK(with.reserved - before.reserved < bytes + bytes / 2);
    CHECK(with.peak_reserved == with.reserved);
  }
  const MemoryStats after = memory_stats();
  CHECK(after.reserved - before.reserved == after.cached - before.cached);
  empty_cache();
  CHECK(memory_stats().reserved <= before.reserved + 4096);
  CHECK(memory_stats().peak_reserved - before.reserved >= bytes);
  reset_peak_memory_stats();
  CHECK(memory_stats().peak_reserved == memory_stats().reserved);
}

TEST_CASE("no more freed memory is kept than the limit allows") {
  struct Restore {
    std::size_t limit = cache_limit();
    ~Restore() { set_cache_limit(limit); }
  } restore;
  CHECK(restore.limit == std::size_t{256} << 20);
  set_cache_limit(0);
  const std::int64_t before = memory_stats().reserved;
  CHECK(memory_stats().cached == 0);
  { const Tensor small = zeros({10}), large = zeros({1 << 20}); }
  CHECK(memory_stats().reserved == before);
  set_cache_limit(std::size_t{16} << 20);
  { const Tensor x = zeros({std::int64_t{1} << 20}), y = zeros({std::int64_t{6} << 20}); }
  if (!tutti_test::sanitized) CHECK(memory_stats().cached >= 4 << 20);  // of x, not of y
  CHECK(memory_stats().cached <= 16 << 20);
  set_cache_limit(0);
  CHECK(memory_stats().cached == 0);
  CHECK(memory_stats().reserved == before);
}

TEST_CASE("a handle is cheap: copies share the value") {
  Tensor a = tensor({1.f, 2.f, 3.f});
  Tensor b = a;
  CHECK(a.is_same(b));
  b.add_(1);
  CHECK_VALUES(a, 2, 3, 4);
  Tensor c = a.clone();
  CHECK_FALSE(a.is_same(c));
  c.zero_();
  CHECK_VALUES(a, 2, 3, 4);
  const Tensor d = a;  // const-ness is that of the handle
  d.mul_(2);
  CHECK_VALUES(a, 4, 6, 8);
}

TEST_CASE("an undefined tensor says so and refuses questions") {
  Tensor none;
  CHECK_FALSE(none.defined());
  CHECK_THROWS_SAYING(none.sizes(), ValueError, "undefined");
  CHECK_THROWS_SAYING(none.dim(), ValueError, "undefined");
  CHECK_THROWS_SAYING(none + 1, Error, "defined");
  CHECK_THROWS_SAYING(none.item<float>(), ValueError, "undefined");
  CHECK(none.to_string() == "tensor(undefined)");
}

TEST_CASE("members work on rvalues and in chains") {
  CHECK(ones({2, 3}).sum().item<float>() == 6);
  CHECK(tensor({1.f, -2.f}).abs_().sum().item<float>() == 3);
  CHECK(zeros(3).add_(1).mul_(2).sum().item<int>() == 6);
}

// ---- making

TEST_CASE("dtypes of new tensors") {
  CHECK(tensor(2.0).dtype() == kFloat32);
  CHECK(tensor(2.f).dtype() == kFloat32);
  CHECK(tensor(2).dtype() == kInt64);
  CHECK(tensor(true).dtype() == kBool);
  CHECK(tensor({{1.f, 2.f}, {3.f, 4.f}}).sizes() == Sizes{2, 2});
  CHECK(tensor({1, 2, 3}).dtype() == kInt64);
  CHECK(tensor({1.0, 2.0}, kFloat64).dtype() == kFloat64);
  // As torch::tensor: vectors of floating values give float32, of integers int64.
  CHECK(tensor(std::vector<double>{1, 2}).dtype() == kFloat32);
  CHECK(tensor(std::vector<double>{1, 2}, kFloat64).dtype() == kFloat64);
  CHECK(tensor(std::vector<std::int32_t>{1, 2}).dtype() == kInt64);
  CHECK(tensor(std::vector<bool>{true, false}).dtype() == kBool);
  CHECK(zeros({2}).dtype() == kFloat32);
  CHECK(full({2}, 1.5).dtype() == kFloat32);
  CHECK(full({2}, 7).dtype() == kInt64);
  CHECK(full({2}, true).dtype() == kBool);
  CHECK(arange(4).dtype() == kInt64);
  CHECK(arange(0, 1, 0.25).dtype() == kFloat32);
  CHECK(eye(2).dtype() == kFloat32);
  CHECK(tensor(3).dim() == 0);
}

TEST_CASE("makers give the promised values") {
  CHECK_VALUES(arange(4), 0, 1, 2, 3);
  CHECK_VALUES(arange(1, 2, 0.25), 1, 1.25, 1.5, 1.75);
  CHECK_VALUES(arange(5, 0, -2), 5, 3, 1);
  CHECK_VALUES(linspace(0, 1, 5), 0, 0.25, 0.5, 0.75, 1);
  CHECK_VALUES(linspace(3, 9, 1), 3);
  CHECK_VALUES(eye(2, 3), 1, 0, 0, 0, 1, 0);
  CHECK_VALUES(full({2}, 7), 7, 7);
  CHECK_VALUES(scalar_tensor(2.5), 2.5);
  CHECK_VALUES(ones_like(arange(2)), 1, 1);
  CHECK(zeros_like(arange(2)).dtype() == kInt64);
  CHECK(zeros_like(arange(2), kFloat64).dtype() == kFloat64);
  CHECK(ones(2, kFloat64).new_zeros({3}).dtype() == kFloat64);
  std::vector<Tensor> g = meshgrid({arange(2), arange(3)});
  CHECK(g[0].sizes() == Sizes{2, 3});
  CHECK_VALUES(g[0], 0, 0, 0, 1, 1, 1);
  CHECK_VALUES(g[1], 0, 1, 2, 0, 1, 2);
}

TEST_CASE("options carry dtype, device and requires_grad") {
  Tensor x = zeros({2}, TensorOptions().dtype(kFloat64).device(kCPU).requires_grad(true));
  CHECK(x.dtype() == kFloat64);
  CHECK(x.device().is_cpu());
  CHECK(x.requires_grad());
  CHECK(x.is_leaf());
  CHECK(zeros(2, kInt32).options().dtype() == kInt32);
}

TEST_CASE("from_blob uses the caller's memory and gives it back") {
  float data[4] = {1, 2, 3, 4};
  int given_back = 0;
  {
    Tensor x = from_blob(data, {2, 2}, [&](void* p) { given_back += p == data; });
    x.add_(1);
    CHECK(data[3] == 5);
    Tensor row = x[1];  // keeps the memory too
    x.reset();
    CHECK(given_back == 0);
    CHECK_VALUES(row, 4, 5);
  }
  CHECK(given_back == 1);
  Tensor column_major = from_blob(data, {2, 2}, {1, 2});
  CHECK_VALUES(column_major, 2, 4, 3, 5);
}

TEST_CASE("meta tensors have shapes and no values") {
  Tensor x = zeros({2, 3}, kMeta), y = zeros({3, 4}, kMeta);
  CHECK(x.is_meta());
  Tensor z = x.matmul(y).relu().sum(0);
  CHECK(z.is_meta());
  CHECK(z.sizes() == Sizes{4});
  CHECK_THROWS_SAYING(z.to_vector<float>(), DeviceError, "meta");
  CHECK_THROWS_SAYING(z.sum().item<float>(), DeviceError, "meta");
  CHECK_THROWS_SAYING(x + ones({2, 3}), DeviceError, "cpu", "meta");
  Tensor real = ones({2, 3});
  CHECK(real.to(kMeta).sizes() == Sizes{2, 3});
  CHECK_THROWS_SAYING(real.copy_(x), DeviceError, "meta");
  CHECK_VALUES(real, 1, 1, 1, 1, 1, 1);
}

TEST_CASE("a build without CUDA says so") {
  CHECK_THROWS_AS(zeros({2}, kCUDA), DeviceError);
  CHECK_THROWS_AS(ones(2).cuda(), DeviceError);
  CHECK(Device("cuda:0").is_cuda());
}

// ---- shape and data

TEST_CASE("sizes and strides") {
  Tensor x = zeros({2, 3, 4});
  CHECK(x.dim() == 3);
  CHECK(x.numel() == 24);
  CHECK(x.size(0) == 2);
  CHECK(x.size(-1) == 4);
  CHECK(x.sizes() == Sizes{2, 3, 4});
  CHECK(x.strides() == Sizes{12, 4, 1});
  CHECK(x.stride(-2) == 4);
  CHECK(x.element_size() == 4);
  CHECK(x.is_contiguous());
  CHECK_FALSE(x.transpose(0, 1).is_contiguous());
  CHECK_THROWS_SAYING(x.size(3), IndexError, "3");
  CHECK_THROWS_SAYING(x.size(-4), IndexError, "-4");
  CHECK(zeros({0, 3}).numel() == 0);
  CHECK(zeros({}).numel() == 1);
  CHECK_THROWS_AS(zeros({-1}), Error);
}

TEST_CASE("item converts, data_ptr demands the dtype") {
  CHECK(tensor(2.75).item<int>() == 2);
  CHECK(tensor(3).item<double>() == 3);
  CHECK(tensor(true).item<float>() == 1);
  CHECK(tensor({{5.f}}).item<float>() == 5);
  CHECK(tensor(0.0).item<bool>() == false);
  CHECK_THROWS_SAYING(tensor({1.f, 2.f}).item<float>(), ValueError, "2");
  Tensor x = arange(6, kFloat32).reshape({2, 3});
  CHECK(x.data_ptr<float>()[4] == 4);
  CHECK_THROWS_SAYING(x.data_ptr<double>(), TypeError, "float64", "float32");
  CHECK_THROWS_SAYING(x.data_ptr<int>(), TypeError, "float32");
  CHECK(x[1].data_ptr<float>() == x.data_ptr<float>() + 3);
  auto a = x.t().accessor<float, 2>();
  CHECK(a[2][1] == 5);
  a[2][1] = 50;
  CHECK(x[1][2].item<float>() == 50);
  CHECK_THROWS_SAYING((x.accessor<float, 3>()), ShapeError, "3", "[2, 3]");
  CHECK(x.t().to_vector<int>() == std::vector<int>{0, 3, 1, 4, 2, 50});
  CHECK(tensor({0.f, 0.5f}).to_vector<bool>() == std::vector<bool>{false, true});
}

// ---- views

TEST_CASE("as_strided starts where its input starts, unless told otherwise") {
  Tensor part = arange(6, kFloat32).slice(0, 2);
  CHECK(part.as_strided({2, 2}, {1, 1}).to_vector<int>() == std::vector<int>{2, 3, 3, 4});
  CHECK(part.as_strided({2, 2}, {1, 1}, 0).to_vector<int>() == std::vector<int>{0, 1, 1, 2});
  CHECK_THROWS_SAYING(part.as_strided({2}, {1}, -1), ShapeError, "-1");
}

TEST_CASE("views share memory, both ways") {
  Tensor x = arange(12, kFloat32).reshape({3, 4});
  Tensor views[] = {x.view({4, 3}),
                    x.t(),
                    x[1],
                    x.narrow(1, 1, 2),
                    x.slice(0, 0, 3, 2),
                    x.unsqueeze(0),
                    x.flatten(),
                    x.permute({1, 0}),
                    x.diagonal(),
                    x.unfold(1, 2, 1),
                    x.select(1, 2),
                    x.as_strided({2}, {5}, 1),
                    x.expand({2, 3, 4})};
  for (const Tensor& v : views) {
    CHECK(v.is_view());
    const float before = v.flatten()[0].item<float>();
    x.add_(1);
    CHECK(v.flatten()[0].item<float>() == before + 1);
  }
  x[1].zero_();
  CHECK(x.sum(1)[1].item<float>() == 0);
  x.t()[3].fill_(7);
  CHECK_VALUES(x.select(1, 3), 7, 7, 7);
  x.diagonal().copy_(tensor({-1, -2, -3}));
  CHECK(x[2][2].item<float>() == -3);
  x.unbind(1)[0].fill_(9);
  CHECK_VALUES(x.select(1, 0), 9, 9, 9);
  x.chunk(2, 1)[1].zero_();
  CHECK_VALUES(x.slice(1, 2), 0, 0, 0, 0, 0, 0);
}

TEST_CASE("shapes and strides of views") {
  Tensor x = arange(24).reshape({2, 3, 4});
  CHECK(x.permute({2, 0, 1}).sizes() == Sizes{4, 2, 3});
  CHECK(x.permute({2, 0, 1}).strides() == Sizes{1, 12, 4});
  CHECK(x.movedim(0, -1).sizes() == Sizes{3, 4, 2});
  CHECK(x.mT().sizes() == Sizes{2, 4, 3});
  CHECK(x.slice(2, 0, 4, 2).strides() == Sizes{12, 4, 2});
  CHECK(x.slice(1, -2).storage_offset() == 4);
  CHECK(x.slice(1, 5, 9).sizes() == Sizes{2, 0, 4});
  CHECK(x.unfold(2, 3, 1).sizes() == Sizes{2, 3, 2, 3});
  CHECK(x.unflatten(2, {2, -1}).sizes() == Sizes{2, 3, 2, 2});
  CHECK(x.flatten(1).sizes() == Sizes{2, 12});
  CHECK(x.view({-1, 4}).sizes() == Sizes{6, 4});
  CHECK(x.unsqueeze(-1).sizes() == Sizes{2, 3, 4, 1});
  CHECK(zeros({1, 2, 1}).squeeze().sizes() == Sizes{2});
  CHECK(zeros({1, 2, 1}).squeeze(0).sizes() == Sizes{2, 1});
  CHECK(zeros({1, 2, 1}).squeeze(1).sizes() == Sizes{1, 2, 1});
  CHECK(zeros({3, 1}).expand({2, 3, 4}).strides() == Sizes{0, 1, 0});
  CHECK(zeros({3, 1}).expand({-1, 4}).sizes() == Sizes{3, 4});
  CHECK(x.split(2, 2)[1].sizes() == Sizes{2, 3, 2});
  CHECK(x.split(3, 2)[1].sizes() == Sizes{2, 3, 1});
  CHECK(x.diagonal(1, 0, 2).sizes() == Sizes{3, 2});
}

TEST_CASE("reshape copies only where it must; view refuses to") {
  Tensor x = arange(6).reshape({2, 3});
  CHECK(x.reshape({3, 2}).data_ptr<std::int64_t>() == x.data_ptr<std::int64_t>());
  Tensor y = x.t().reshape(6);
  CHECK_VALUES(y, 0, 3, 1, 4, 2, 5);
  CHECK_FALSE(y.is_view());
  CHECK_THROWS_SAYING(x.t().view(6), ValueError, "reshape");
  CHECK_THROWS_SAYING(x.view({4, 2}), ShapeError, "6");
  CHECK_THROWS_SAYING(x.view({-1, 4}), ShapeError, "6");
  CHECK_THROWS_AS(x.view({-1, -1}), Error);
  CHECK(x.contiguous().is_same(x));
  CHECK_FALSE(x.t().contiguous().is_same(x));
  CHECK(x.t().contiguous().strides() == Sizes{2, 1});
}

TEST_CASE("an expanded tensor cannot be written") {
  Tensor x = zeros({1, 3}).expand({2, 3});
  CHECK_THROWS_SAYING(x.add_(1), ValueError, "expand", "clone");
  CHECK_NOTHROW(x.clone().add_(1));
}

// ---- indexing

TEST_CASE("indexing with integers, Slice, None and Ellipsis") {
  Tensor x = arange(24).reshape({2, 3, 4});
  CHECK_VALUES(x.index({1, 2}), 20, 21, 22, 23);
  CHECK_VALUES(x.index({-1, -1, -1}), 23);
  CHECK_VALUES(x.index({0, Slice(None, 2), 1}), 1, 5);
  CHECK_VALUES(x.index({0, Slice(None, None, 2), Slice(1, 3)}), 1, 2, 9, 10);
  CHECK(x.index({Ellipsis, 0}).sizes() == Sizes{2, 3});
  CHECK(x.index({None, 0, Slice(), None}).sizes() == Sizes{1, 3, 1, 4});
  CHECK(x.index({Slice(-1)}).sizes() == Sizes{1, 3, 4});
  CHECK_VALUES(x[1][0], 12, 13, 14, 15);
  CHECK_THROWS_SAYING(x[2], IndexError, "2");
  CHECK_THROWS_SAYING(x.index({0, 3}), IndexError, "3");
  CHECK_THROWS_AS(x.index({0, 0, 0, 0}), IndexError);
  CHECK_THROWS_AS(tensor(1)[0], IndexError);
}

TEST_CASE("indexing with tensors and masks") {
  Tensor x = arange(6).reshape({2, 3});
  CHECK_VALUES(x.index({tensor({1, 0, 1})}), 3, 4, 5, 0, 1, 2, 3, 4, 5);
  CHECK_VALUES(x.index({tensor({0, 1}), tensor({2, 0})}), 2, 3);
  CHECK_VALUES(x.index({Slice(), tensor({2, 0})}), 2, 0, 5, 3);
  CHECK_VALUES(x.index({x > 2}), 3, 4, 5);
  CHECK_VALUES(x[tensor({1})], 3, 4, 5);
  x.index_put_({tensor({0, 1}), tensor({0, 0})}, tensor({-1, -2}));
  CHECK_VALUES(x, -1, 1, 2, -2, 4, 5);
  x.index_put_({1}, 0);
  CHECK_VALUES(x, -1, 1, 2, 0, 0, 0);
  Tensor sums = zeros(3, kInt64);
  sums.index_put_({tensor({0, 2, 0})}, tensor({1, 10, 100}), true);
  CHECK_VALUES(sums, 101, 0, 10);
  CHECK_VALUES(nonzero(tensor({0, 3, 4})), 1, 2);
  CHECK_VALUES(masked_select(tensor({1, 2, 3}), tensor({true, false, true})), 1, 3);
}

// ---- dtypes

TEST_CASE("promotion follows PyTorch: category first, then width; dimensions before scalars") {
  const Tensor f = ones(2), d = ones(2, kFloat64), i = ones(2, kInt64), s = ones(2, kInt16),
               u = ones(2, kUInt8), c = ones(2, kInt8), b = ones(2, kBool), h = ones(2, kFloat16),
               w = ones(2, kBFloat16);
  CHECK((f + d).dtype() == kFloat64);
  CHECK((i + f).dtype() == kFloat32);
  CHECK((i + s).dtype() == kInt64);
  CHECK((u + c).dtype() == kInt16);
  CHECK((b + u).dtype() == kUInt8);
  CHECK((h + w).dtype() == kFloat32);
  CHECK((h + i).dtype() == kFloat16);
  CHECK((i + 1).dtype() == kInt64);
  CHECK((i + 1.5).dtype() == kFloat32);
  CHECK((s + 1).dtype() == kInt16);
  CHECK((b + 1).dtype() == kInt64);
  CHECK((b + true).dtype() == kBool);
  CHECK((f + 1.0).dtype() == kFloat32);
  CHECK((h * 2.0).dtype() == kFloat16);
  CHECK((f + tensor(1.0, kFloat64)).dtype() == kFloat32);  // a 0-d tensor gives way
  CHECK((i + tensor(1.0, kFloat64)).dtype() == kFloat64);  // unless its category is higher
  CHECK((s + tensor(1)).dtype() == kInt16);
  CHECK((tensor(1.0, kFloat64) + tensor(1.f)).dtype() == kFloat64);
  CHECK((i / i).dtype() == kFloat32);
  CHECK((i / 2).dtype() == kFloat32);
  CHECK((f < d).dtype() == kBool);
  CHECK(i.sum().dtype() == kInt64);
  CHECK(b.sum().dtype() == kInt64);
  CHECK(s.sum().dtype() == kInt64);
  CHECK(exp(i).dtype() == kFloat32);
  CHECK(cat({i, f}).dtype() == kFloat32);
  CHECK(where(b, i, f).dtype() == kFloat32);
  CHECK(promote_types(kFloat16, kBFloat16) == kFloat32);
}

TEST_CASE("scalars work on either side") {
  Tensor x = tensor({1.f, 2.f, 4.f});
  CHECK_VALUES(1 + x, 2, 3, 5);
  CHECK_VALUES(1 - x, 0, -1, -3);
  CHECK_VALUES(8 / x, 8, 4, 2);
  CHECK_VALUES(2.0 * x, 2, 4, 8);
  CHECK_VALUES(-x, -1, -2, -4);
  CHECK_VALUES(2 < x, 0, 0, 1);
  CHECK_VALUES(2 >= x, 1, 1, 0);
  CHECK_VALUES(!(x == 2), 1, 0, 1);
  CHECK_VALUES(pow(2, x), 2, 4, 16);
  CHECK_VALUES(x.pow(2), 1, 4, 16);
}

TEST_CASE("integers keep their kind and wrap like C++ and PyTorch") {
  Tensor u = tensor({250, 10}, kUInt8);
  CHECK_VALUES(u + 10, 4, 20);
  CHECK_VALUES(div(tensor({-7, 7}), tensor({2, 2}), "floor"), -4, 3);
  CHECK_VALUES(div(tensor({-7, 7}), tensor({2, 2}), "trunc"), -3, 3);
  CHECK_VALUES(remainder(tensor({-7, 7}), 3), 2, 1);
  CHECK_VALUES(fmod(tensor({-7, 7}), tensor({3, 3})), -1, 1);
  CHECK_VALUES(tensor({1.9, -1.9}).to(kInt64), 1, -1);
  CHECK(tensor({9007199254740993}).to_vector<std::int64_t>()[0] == 9007199254740993);
}

TEST_CASE("half types are stored in two bytes and computed in float32") {
  Tensor h = tensor({1.0, 0.1, 65504.0}, kFloat16);
  CHECK(h.element_size() == 2);
  CHECK(h[1].item<float>() == static_cast<float>(Half(0.1f)));
  CHECK(std::abs(h[1].item<float>() - 0.1f) > 1e-6f);
  CHECK(std::isinf((h + h)[2].item<float>()));
  Tensor w = tensor({1.0, 3.0e38}, kBFloat16);
  CHECK(w[1].item<float>() > 2.9e38f);
  // 2048 ones: float16 additions would stop at 2048 only by luck of order; 4096 shows the float32.
  CHECK(ones(4096, kFloat16).sum().item<float>() == 4096);
  CHECK(ones({2, 64}, kFloat16).matmul(ones({64, 2}, kFloat16)).dtype() == kFloat16);
}

TEST_CASE("casting returns the same tensor when nothing changes") {
  Tensor x = ones(2);
  CHECK(x.to(kFloat32).is_same(x));
  CHECK(x.cpu().is_same(x));
  CHECK_FALSE(x.to(kFloat64).is_same(x));
  CHECK(x.type_as(arange(1)).dtype() == kInt64);
}

// ---- copying

TEST_CASE("copy_ casts and broadcasts, also between overlapping views") {
  Tensor x = zeros({2, 3});
  x.copy_(tensor({1, 2, 3}));
  CHECK_VALUES(x, 1, 2, 3, 1, 2, 3);
  CHECK_THROWS_SAYING(x.copy_(zeros({2})), ShapeError, "[2, 3]", "[2]");
  Tensor y = arange(5, kFloat32);
  y.narrow(0, 1, 4).copy_(y.narrow(0, 0, 4));
  CHECK_VALUES(y, 0, 0, 1, 2, 3);
  Tensor z = arange(4, kFloat32).reshape({2, 2});
  z.copy_(z.t());
  CHECK_VALUES(z, 0, 2, 1, 3);
  z.add_(z.t());
  CHECK_VALUES(z, 0, 3, 3, 6);
  Tensor i = zeros(2, kInt64);
  i.copy_(tensor({1.7f, -1.7f}));
  CHECK_VALUES(i, 1, -1);
}

TEST_CASE("in-place results must fit the destination") {
  Tensor i = ones(2, kInt64);
  CHECK_THROWS_AS(i.add_(ones({3, 2})), Error);
  CHECK_THROWS_AS(i.div_(2), TypeError);
  CHECK_THROWS_AS(i.add_(0.5), TypeError);
  CHECK_VALUES(i, 1, 1);
  Tensor f = ones(2);
  f.add_(ones(2, kFloat64));
  CHECK(f.dtype() == kFloat32);
}

TEST_CASE("empty and one-element tensors go through everything") {
  Tensor e = zeros({0, 3});
  CHECK((e + 1).sizes() == Sizes{0, 3});
  CHECK(e.sum().item<float>() == 0);
  CHECK_VALUES(e.sum(0), 0, 0, 0);
  CHECK(e.matmul(ones({3, 2})).sizes() == Sizes{0, 2});
  CHECK_VALUES(ones({2, 0}).matmul(ones({0, 2})), 0, 0, 0, 0);
  CHECK(cat({e, ones({1, 3})}).sizes() == Sizes{1, 3});
  CHECK(e.t().reshape({0, 5}).sizes() == Sizes{0, 5});
  CHECK_NOTHROW(e.add_(1));
}

// ---- reductions

TEST_CASE("reductions over any axes of any layout, short and long") {
  struct Case {
    Sizes base, order, dims;  // the tensor is `base` with its axes in this order
  };
  const Case cases[] = {
      {{5, 7}, {0, 1}, {1}},
      {{40, 3, 200}, {2, 1, 0}, {2}},  // many columns, which lie apart in the result
      {{3000, 2, 150}, {2, 1, 0}, {2}},
      {{150000}, {0}, {0}},
      {{3, 70000}, {1, 0}, {0}},
      {{1300, 40}, {0, 1}, {1}},
      {{20, 7, 600}, {0, 1, 2}, {0, 2}},
      {{6, 5, 4, 300}, {3, 0, 2, 1}, {1, 3}},
      {{6, 5, 4, 300}, {3, 0, 2, 1}, {0, 2}},
  };
  for (const DType t : {kBool, kUInt8, kInt8, kInt16, kInt32, kInt64, kFloat32, kFloat64})
    for (const Case& c : cases) {
      CAPTURE(t);
      CAPTURE(c.base.size());
      CAPTURE(c.base[0]);
      const std::int64_t numbers = t == kBool ? 2 : 7;
      const Tensor base = remainder(arange(numel_of(c.base)), numbers).reshape(c.base).to(t),
                   x = base.permute(c.order);
      const std::vector<double> values = x.to(kFloat64).contiguous().to_vector<double>();
      // Row-major through x, and where each element's result is.
      Shape index(x.sizes().size()), kept = x.sizes().shape();
      for (const std::int64_t d : c.dims) kept[static_cast<std::size_t>(d)] = 1;
      const Shape strides = contiguous_strides(kept);
      const auto results = static_cast<std::size_t>(numel_of(kept));
      std::vector<double> sums(results), most(results, -1), least(results, 99);
      for (const double v : values) {
        std::size_t at = 0;
        for (std::size_t d = 0; d < index.size(); ++d)
          if (kept[d] > 1) at += static_cast<std::size_t>(index[d] * strides[d]);
        sums[at] += v;
        most[at] = std::max(most[at], v);
        least[at] = std::min(least[at], v);
        for (std::size_t d = index.size(); d-- > 0 && ++index[d] == x.sizes()[d];) index[d] = 0;
      }
      const auto plain = [](const Tensor& y) { return y.to(kFloat64).to_vector<double>(); };
      CHECK(plain(x.sum(c.dims)) == sums);
      CHECK(plain(x.amax(c.dims)) == most);
      CHECK(plain(x.amin(c.dims)) == least);
      if (c.dims.size() > 1) continue;
      const auto truth = [](std::vector<double> v) {
        for (double& y : v) y = y != 0;
        return v;
      };
      CHECK(plain(x.any(c.dims[0])) == truth(most));
      CHECK(plain(x.all(c.dims[0])) == truth(least));
    }
}

// ---- comparing whole tensors

TEST_CASE("equal and allclose") {
  Tensor x = tensor({1.f, 2.f});
  CHECK(equal(x, x.clone()));
  CHECK_FALSE(equal(x, tensor({1.f, 3.f})));
  CHECK_FALSE(equal(x, tensor({{1.f, 2.f}})));
  CHECK(allclose(x, x + 1e-7));
  CHECK_FALSE(allclose(x, x + 1e-3));
  Tensor nan = full(2, NAN);
  CHECK_FALSE(allclose(nan, nan));
  CHECK(allclose(nan, nan, 1e-5, 1e-8, true));
}

// ---- dicts and trees

TEST_CASE("a dict whose values were resized says so") {
  const auto resized = [] {
    TensorDict d{{"a", ones(1)}, {"b", ones(2)}};
    d.values()[1] = ones(3);  // changing them is fine
    CHECK(d.at("b").numel() == 3);
    d.values().pop_back();
    return d;
  };
  const char* const message = "expected 2 values, one for each key, got 1";
  TensorDict d = resized();
  CHECK_THROWS_SAYING(d.at("b"), ValueError, message);
  CHECK_THROWS_SAYING(d.contains("b"), ValueError, message);
  CHECK_THROWS_SAYING(d["c"], ValueError, message);
  CHECK_THROWS_SAYING(d.items(), ValueError, message);
  CHECK_THROWS_SAYING(d.begin(), ValueError, message);
  CHECK_THROWS_SAYING(TensorDict::with_keys_of(d, {ones(1)}), ValueError, message);
}

TEST_CASE("a dict keeps its order, and copies do not see each other's changes") {
  TensorDict d = {{"b", ones(1)}, {"a", zeros(2)}};
  CHECK(d.keys() == std::vector<std::string>{"b", "a"});
  TensorDict copy = d;
  copy.insert("c", ones(3));
  copy["b"] = full({1}, 7.f);
  CHECK(d.size() == 2);
  CHECK_FALSE(d.contains("c"));
  CHECK_VALUES(d.at("b"), 1);
  CHECK_VALUES(copy.at("b"), 7);
  d.at("a").add_(1);  // the tensors themselves are shared
  CHECK_VALUES(copy.at("a"), 1, 1);
  std::string names;
  for (auto& [name, t] : copy) names += name + std::to_string(t.numel());
  CHECK(names == "b1a2c3");
  for (auto [name, t] : copy) t = t * 2;  // values are references
  CHECK_VALUES(copy.at("b"), 14);
  CHECK(copy.erase("a"));
  CHECK_FALSE(copy.erase("a"));
  CHECK(copy.keys() == std::vector<std::string>{"b", "c"});
  CHECK_THROWS_SAYING(copy.at("a"), KeyError, "\"a\"");
  CHECK(copy.items()[1].first == "c");
  CHECK(TensorDict().empty());
}

TEST_CASE("trees are taken apart and put together") {
  auto t = std::tuple(ones(1), std::vector<Tensor>{ones(2), ones(3)}, TensorDict{{"x", ones(4)}}, 5,
                      std::optional<Tensor>());
  CHECK(tree::count(t) == 4);
  Tensors flat = tree::flatten(t);
  CHECK(flat[3].numel() == 4);
  auto doubled = tree::map(t, [](const Tensor& x) { return x * 2; });
  CHECK_VALUES(std::get<1>(doubled)[0], 2, 2);
  CHECK(std::get<3>(doubled) == 5);
  CHECK_VALUES(std::get<1>(t)[0], 1, 1);
  auto back = tree::rebuild(doubled, flat);
  CHECK(std::get<2>(back).at("x").is_same(flat[3]));
}

// ---- printing, compared with what Python's PyTorch prints

TEST_CASE("printing") {
  CHECK(tensor({1.f, 2.f, 3.f}).to_string() == "tensor([1., 2., 3.])");
  CHECK(tensor({1.5f, 2.f}).to_string() == "tensor([1.5000, 2.0000])");
  CHECK(tensor({-1.5f, 2.f}).to_string() == "tensor([-1.5000,  2.0000])");
  CHECK(tensor({{1, 2}, {30, 4}}).to_string() == "tensor([[ 1,  2],\n        [30,  4]])");
  CHECK(tensor({true, false}).to_string() == "tensor([ True, False])");
  CHECK(tensor(3.14159f).to_string() == "tensor(3.1416)");
  CHECK(tensor(5).to_string() == "tensor(5)");
  CHECK(tensor({1e-5f, 1.f}).to_string() == "tensor([1.0000e-05, 1.0000e+00])");
  CHECK(tensor({NAN, 1.f, INFINITY}).to_string() == "tensor([nan, 1., inf])");
  CHECK(ones(2, kFloat64).to_string() == "tensor([1., 1.], dtype=float64)");
  CHECK(ones(2, kFloat16).to_string() == "tensor([1., 1.], dtype=float16)");
  CHECK(ones(2, TensorOptions().requires_grad(true)).to_string() ==
        "tensor([1., 1.], requires_grad=True)");
  CHECK(arange(8).reshape({2, 2, 2}).to_string() ==
        "tensor([[[0, 1],\n         [2, 3]],\n\n        [[4, 5],\n         [6, 7]]])");
  CHECK(arange(2000).to_string() == "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])");
  CHECK(zeros({0}).to_string() == "tensor([])");
  CHECK(zeros({2, 3}, kMeta).to_string() == "tensor(..., device='meta', size=(2, 3))");
}
