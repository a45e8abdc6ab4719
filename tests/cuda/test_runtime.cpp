// Devices, memory, streams and transfers; errors; what a program without a driver sees.
#include <cmath>
#include <filesystem>
#include <sstream>

#include <tutti/autograd/autograd.h>
#include <tutti/core/indexing.h>
#include <tutti/nn/nn.h>

#include "../test.h"
#include "gpu.h"

using namespace tutti;
using namespace tutti_test;

TEST_CASE("values go to the device and back") {
  const Tensor x = arange(24, kFloat32).reshape({2, 3, 4});
  const Tensor g = x.to(kCUDA);
  CHECK(g.is_cuda());
  CHECK(g.device() == Device("cuda:0"));
  CHECK(equal(g.cpu(), x));
  CHECK(g.to(kCUDA).is_same(g));
  CHECK(equal(x.permute({2, 0, 1}).to(kCUDA).cpu(), x.permute({2, 0, 1})));
  CHECK(equal(g.permute({2, 0, 1}).cpu(), x.permute({2, 0, 1})));
  CHECK(g[1][2][3].item<float>() == 23);
  CHECK(g.select(0, 1).to_vector<int>() == x.select(0, 1).to_vector<int>());
  std::ostringstream text;
  text << g.select(0, 0).select(0, 0);
  CHECK(text.str() == "tensor([0., 1., 2., 3.], device='cuda:0')");
  const Tensor empty_one = zeros({0, 3}, TensorOptions(kCUDA));
  CHECK(empty_one.cpu().sizes() == x.new_empty({0, 3}).sizes());
}

TEST_CASE("copy_ crosses devices and casts") {
  const Tensor x = arange(6, kFloat32).reshape({2, 3});
  Tensor g = zeros({3, 2}, TensorOptions(kInt32).device(kCUDA));
  g.t().copy_(x);
  CHECK(equal(g.cpu(), x.t().to(kInt32)));
  Tensor back = zeros({2, 3}, kFloat64);
  back.copy_(g.t());
  CHECK(equal(back, x.to(kFloat64)));
}

TEST_CASE("factories make tensors on the device") {
  const TensorOptions o = TensorOptions(kFloat32).device(kCUDA);
  CHECK(ones({3}, o).sum().item<float>() == 3);
  CHECK(equal(arange(5, o).cpu(), arange(5, kFloat32)));
  CHECK(equal(eye(3, o).cpu(), eye(3)));
  manual_seed(5);
  const Tensor u = rand({1000}, o), z = randn({1000}, o);
  manual_seed(5);
  CHECK(equal(u.cpu(), rand({1000})));
  CHECK((z.cpu() - randn({1000})).abs().max().item<float>() < 2e-6);
  const Tensor g = ones({2, 2}, o);
  const Tensor same = from_blob(g.data_ptr<float>(), {4}, o);
  CHECK(same.sum().item<float>() == 4);
}

TEST_CASE("gradients follow a move between devices") {
  Tensor w = tensor({1.0F, 2.0F}).requires_grad_();
  Tensor y = (w.to(kCUDA) * 3).sum().cpu();
  y.backward();
  CHECK(w.grad().is_cpu());
  CHECK(equal(w.grad(), full({2}, 3.0F)));
}

TEST_CASE("mixed devices are an error that names the op") {
  const Tensor x = ones({2}), g = x.to(kCUDA);
  CHECK_THROWS_SAYING(x + g, DeviceError, "add", "cpu", "cuda:0");
  CHECK_THROWS_SAYING(cholesky(eye(2).to(kCUDA)), NotImplementedError, "cholesky", "cpu()");
}

TEST_CASE("memory is reused, counted and given back") {
  cuda::synchronize();
  cuda::empty_cache();
  const auto before = cuda::memory_stats();
  {
    const Tensor x = zeros({1000}, TensorOptions(kFloat32).device(kCUDA));
    CHECK(cuda::memory_stats().allocated >= before.allocated + 4000);
    CHECK(cuda::memory_stats().blocks == before.blocks + 1);
  }
  CHECK(cuda::memory_stats().blocks == before.blocks);
  const auto calls = cuda::memory_stats().driver_calls;
  for (int i = 0; i < 5; ++i) zeros({1000}, TensorOptions(kFloat32).device(kCUDA));
  if (cuda::memory_stats().cached > 0) CHECK(cuda::memory_stats().driver_calls == calls);
  cuda::empty_cache();
  CHECK(cuda::memory_stats().cached == 0);
}

TEST_CASE("when memory runs out the cache is given back and the request repeated") {
  if (!Executor::present()) return;  // makes a request fail
  const TensorOptions o = TensorOptions(kFloat32).device(kCUDA);
  cuda::synchronize();
  cuda::empty_cache();
  zeros({1000}, o);
  Executor::fail_at(1, "malloc");
  const Tensor x = ones({70000}, o);
  CHECK(Executor::failed());
  Executor::fail_at(0, "malloc");
  CHECK(cuda::memory_stats().cached == 0);
  CHECK(x.sum().item<float>() == 70000);
  CHECK_THROWS_SAYING(empty({std::int64_t{1} << 42}, o), OutOfMemoryError, "17592186044416 bytes",
                      "in use", "cached");
}

TEST_CASE("products run on the current stream") {
  const cuda::CUDAStream a = cuda::new_stream();
  cuda::StreamGuard guard(a);
  const Tensor x = full({32, 32}, 2.0F, TensorOptions(kCUDA));
  CHECK(matmul(x, x).sum().item<float>() == 32 * 32 * 128);
}

TEST_CASE("streams: work of one waits for an event of another; memory moves between them safely") {
  const cuda::CUDAStream a = cuda::new_stream(), b = cuda::new_stream();
  Tensor x, y;
  cuda::CUDAEvent ready;
  {
    cuda::StreamGuard guard(a);
    CHECK(cuda::current_stream() == a);
    x = full({5000}, 2.0F, TensorOptions(kCUDA)) * 3;
    ready.record(a);
  }
  {
    cuda::StreamGuard guard(b);
    ready.block(b);
    cuda::record_stream(x, b);
    y = x + 1;
    x = Tensor();  // a's stream may use its memory again, but only after b has read it
  }
  {
    cuda::StreamGuard guard(a);
    const Tensor other = full({5000}, -7.0F, TensorOptions(kCUDA));
    CHECK(other.sum().item<float>() == -35000);
  }
  {
    cuda::StreamGuard guard(b);
    CHECK(y.max().item<float>() == 7);
    CHECK(y.min().item<float>() == 7);
  }
  a.synchronize();
  CHECK(a.query());
  CHECK(cuda::current_stream() == cuda::default_stream());
}

TEST_CASE("streams: waiting for an event is waiting for the stream it was recorded on") {
  const cuda::CUDAStream a = cuda::new_stream(), b = cuda::new_stream();
  Tensor x;
  cuda::CUDAEvent ready;
  {
    const cuda::StreamGuard guard(a);
    x = full({5000}, 2.0F, TensorOptions(kCUDA)) * 3;
    ready.record(a);
  }
  const cuda::StreamGuard guard(b);
  ready.block(b);
  cuda::record_stream(x, b);
  CHECK((x + 1).max().item<float>() == 7);  // nothing else has waited for a
}

TEST_CASE("streams: copies on the device run on the current one") {
  const cuda::StreamGuard guard(cuda::new_stream());
  const Tensor x = full({5000}, 2.0F, TensorOptions(kCUDA)) * 3;
  const Tensor y = empty({5000}, TensorOptions(kCUDA));
  y.copy_(x);
  CHECK(y.max().item<float>() == 6);
  CHECK(y.min().item<float>() == 6);
}

TEST_CASE("pinned memory is copied without waiting, and lives as long as the copy") {
  Tensor g = zeros({2000}, TensorOptions(kFloat32).device(kCUDA));
  {
    const Tensor p = cuda::pin_memory(arange(2000, kFloat32));
    CHECK(cuda::is_pinned(p));
    CHECK(!cuda::is_pinned(ones({3})));
    cuda::copy_async(g, p);
  }
  const Tensor back = cuda::pin_memory(zeros({2000}));
  cuda::copy_async(back, g * 2);
  cuda::synchronize();
  CHECK(equal(back, arange(2000, kFloat32) * 2));
  CHECK_THROWS_SAYING(cuda::copy_async(g, ones({2000})), DeviceError, "pinned");
}

TEST_CASE("a bad index is reported when the CPU next waits, and harms nothing") {
  const Tensor x = arange(6, kFloat32).to(kCUDA);
  const Tensor bad = tensor({0, 9, 1}, kInt64).to(kCUDA);
  const Tensor y = x.gather(0, bad);
  CHECK_THROWS_SAYING(cuda::synchronize(), IndexError, "gather", "9", "6 elements");
  CHECK(equal(y.cpu(), tensor({0.0F, 0.0F, 1.0F})));  // reported once
  const Tensor table = ones({4, 2}).to(kCUDA);
  CHECK_THROWS_SAYING(index(table, {TensorIndex(bad)}).cpu(), IndexError, "index", "9");
}

TEST_CASE("files: what was saved from the device loads on the CPU") {
  const std::string path =
      (std::filesystem::temp_directory_path() / "tutti_cuda.safetensors").string();
  const Tensor w = arange(6, kFloat32).reshape({2, 3});
  save(TensorDict{{"w", w.to(kCUDA)}}, path);
  const TensorDict d = load(path);
  std::filesystem::remove(path);
  CHECK(d.at("w").is_cpu());
  CHECK(equal(d.at("w"), w));
  CHECK(equal(d.at("w").to(kCUDA).cpu(), w));
}

TEST_CASE("modules move to the device and back") {
  nn::Sequential model(nn::Linear(3, 4), nn::BatchNorm1d(4), nn::Linear(4, 2));
  const Tensor x = arange(15, kFloat32).reshape({5, 3});
  model->eval();
  const Tensor expected = model(x).detach();
  model->to(kCUDA);
  for (const auto& [name, p] : model->named_parameters()) CHECK(p.is_cuda());
  for (const auto& [name, b] : model->named_buffers()) CHECK(b.is_cuda());
  CHECK(close(model(x.to(kCUDA)).detach().cpu(), expected, 1e-5));
  model->to(kCPU);
  CHECK(close(model(x).detach(), expected, 0));
}
