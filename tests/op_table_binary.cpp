// Rows for the elementwise ops of several tensors and for comparisons (core/ops/binary.cpp,
// core/ops/compare.cpp).
#include "op_table.h"

namespace tutti_test {

using namespace tutti;

namespace {
// NaN wins.
double higher(double x, double y) { return std::isnan(x) || x > y ? x : y; }
double lower(double x, double y) { return std::isnan(x) || x < y ? x : y; }
double modulo(double x, double y) { return x - y * std::floor(x / y); }
double bits(double x, double y, int op) {
  const auto i = static_cast<std::int64_t>(x), j = static_cast<std::int64_t>(y);
  return static_cast<double>(op == 0 ? i & j : op == 1 ? i | j : i ^ j);
}
}  // namespace

void binary_rows(Table& t) {
  const std::vector<In> one{real({2, 3})}, two{real({2, 3}), real({2, 3})};
  const std::vector<In> spread{real({2, 3}), real({3})};
  const std::vector<In> quotient{real({2, 3}), positive({2, 3})};
  const std::vector<Gives> floats{Gives::floating};

  t.row("add", two, FN(add(v[0], v[1])))
      .large({{{101, 97}, {101, 97}}, {{101, 97}, {97}}, {{101, 1}, {1, 97}}})
      .ref(MAP(x + y))
      .inplace("add_", FN(add_(v[0], v[1])))
      .ints()
      .promoting()
      .specials();
  t.row("add alpha", two, FN(add(v[0], v[1], 3)))
      .ref(MAP(x + 3 * y))
      .inplace("add_", FN(add_(v[0], v[1], 3)))
      .ints()
      .promoting();
  t.row("add broadcast", spread, FN(add(v[0], v[1])))
      .ref(MAP(x + y))
      .inplace("add_", FN(add_(v[0], v[1])))
      .broadcasts();
  t.row("add to itself", one, FN(add(v[0], v[0])))
      .ref(MAP(x + x))
      .inplace("add_", FN(add_(v[0], v[0])));
  t.row("add number", one, FN(add(v[0], 2, 3)))
      .ref(MAP(x + 6))
      .inplace("add_", FN(add_(v[0], 2, 3)))
      .ints();
  t.row("add operators", two, FN(2 + v[0] + v[1] + 1)).ref(MAP(x + y + 3)).ints().broadcasts();
  t.row("sub", two, FN(sub(v[0], v[1])))
      .ref(MAP(x - y))
      .inplace("sub_", FN(sub_(v[0], v[1])))
      .ints()
      .broadcasts()
      .specials();
  t.row("sub alpha", two, FN(sub(v[0], v[1], 2)))
      .ref(MAP(x - 2 * y))
      .inplace("sub_", FN(sub_(v[0], v[1], 2)))
      .ints()
      .broadcasts();
  t.row("sub number", one, FN(sub(v[0], 2)))
      .ref(MAP(x - 2))
      .inplace("sub_", FN(sub_(v[0], 2)))
      .ints();
  t.row("sub operators", two, FN(2 - v[0] - v[1] - 1)).ref(MAP(1 - x - y)).ints().broadcasts();
  t.row("rsub", one, FN(rsub(v[0], 2))).ref(MAP(2 - x)).ints();
  t.row("mul", two, FN(mul(v[0], v[1])))
      .large({{{20003}, {20003}}, {{101, 97}, {}}})
      .ref(MAP(x * y))
      .inplace("mul_", FN(mul_(v[0], v[1])))
      .ints()
      .promoting()
      .specials();
  t.row("mul broadcast both", {real({2, 1}), real({1, 3})}, FN(mul(v[0], v[1])))
      .ref(MAP(x * y))
      .broadcasts();
  t.row("mul higher rank", {real({3}), real({2, 1, 3})}, FN(mul(v[0], v[1])))
      .ref(MAP(x * y))
      .broadcasts();
  t.row("mul 0-d", {real({}), real({2, 3})}, FN(mul(v[0], v[1]))).ref(MAP(x * y)).broadcasts();
  t.row("mul by itself", one, FN(mul(v[0], v[0])))
      .ref(MAP(x * x))
      .inplace("mul_", FN(mul_(v[0], v[0])));
  t.row("mul number", one, FN(mul(v[0], 3)))
      .ref(MAP(3 * x))
      .inplace("mul_", FN(mul_(v[0], 3)))
      .ints();
  t.row("mul operators", two, FN(2 * v[0] * v[1] * 3))
      .ref(MAP(6 * x * y))
      .ints()
      .broadcasts()
      .loose(2);
  t.row("mul bool", {mask({2, 3})}, FN(mul(v[0], true))).ref(MAP(x)).result({Gives::boolean});
  t.row("add bool", {mask({2, 3})}, FN(add(v[0], false))).ref(MAP(x)).result({Gives::boolean});
  t.row("div", quotient, FN(div(v[0], v[1])))
      .ref(MAP(x / y))
      .inplace("div_", FN(div_(v[0], v[1])))
      .result(floats)
      .ints()
      .promoting()
      .specials();
  t.row("div number", one, FN(div(v[0], 4)))
      .ref(MAP(x / 4))
      .inplace("div_", FN(div_(v[0], 4)))
      .result(floats)
      .ints();
  t.row("div operators", quotient, FN(2 / v[1] / (v[0] / 3 + 5)))
      .ref(MAP(2 / y / (x / 3 + 5)))
      .result(floats)
      .ints()
      .loose(3);
  // x is k + 0.3..0.7 and y close to 1, so that no quotient is near an integer.
  const std::vector<In> steps{fraction({2, 3}, 0.3, 0.7), real({2, 3}, 0.97, 1.03)};
  const std::vector<In> whole{real({2, 3}, -9, 9), real({2, 3}, 1, 4)};
  t.row("div trunc", steps, FN(div(v[0], v[1], "trunc"))).ref(MAP(std::trunc(x / y))).broadcasts();
  t.row("div floor", steps, FN(div(v[0], v[1], "floor"))).ref(MAP(std::floor(x / y))).broadcasts();
  t.row("div trunc number", {fraction({2, 3}, 0.3, 0.7)}, FN(div(v[0], 2, "trunc")))
      .ref(MAP(std::trunc(x / 2)))
      .ints();
  t.row("div floor number", {fraction({2, 3}, 0.3, 0.7)}, FN(div(v[0], 2, "floor")))
      .ref(MAP(std::floor(x / 2)))
      .ints();
  t.row("floor_divide", steps, FN(floor_divide(v[0], v[1])))
      .ref(MAP(std::floor(x / y)))
      .broadcasts();
  t.row("floor_divide number", {fraction({2, 3}, 0.3, 0.7)}, FN(floor_divide(v[0], 2)))
      .ref(MAP(std::floor(x / 2)))
      .ints();
  t.row("pow", {positive({2, 3}), real({2, 3})}, FN(pow(v[0], v[1])))
      .ref(MAP(std::pow(x, y)))
      .broadcasts();
  t.row("pow of integers", {real({2, 3}, 1, 3), real({2, 3}, 0, 3)}, FN(pow(v[0], v[1])))
      .ref(MAP(std::pow(x, y)))
      .ints()
      .loose(4)
      .promoting();
  t.row("pow number", {positive({2, 3})}, FN(pow(v[0], 2.5)))
      .ref(MAP(std::pow(x, 2.5)))
      .inplace("pow_", FN(pow_(v[0], 2.5)));
  t.row("pow square", one, FN(pow(v[0], 2)))
      .ref(MAP(x * x))
      .inplace("pow_", FN(pow_(v[0], 2)))
      .ints();
  t.row("pow cube", one, FN(pow(v[0], 3))).ref(MAP(x * x * x)).ints().loose(2);
  t.row("pow negative", {positive({2, 3})}, FN(pow(v[0], -1))).ref(MAP(1 / x));
  t.row("pow zero", one, FN(pow(v[0], 0))).ref(MAP(1));
  t.row("pow of number", one, FN(pow(2.0, v[0]))).ref(MAP(std::pow(2, x)));
  t.row("pow of whole number", one, FN(pow(2, v[0]))).ref(MAP(std::pow(2, x))).ints();
  t.row("pow inverse square", {positive({2, 3})}, FN(pow(v[0], -2))).ref(MAP(1 / (x * x)));
  t.row("fmod", steps, FN(fmod(v[0], v[1]))).ref(MAP(std::fmod(x, y))).broadcasts().loose(5);
  t.row("fmod number", {fraction({2, 3}, 0.3, 0.7)}, FN(fmod(v[0], 2)))
      .ref(MAP(std::fmod(x, 2)))
      .ints();
  t.row("remainder", steps, FN(remainder(v[0], v[1]))).ref(MAP(modulo(x, y))).broadcasts().loose(5);
  t.row("remainder number", {fraction({2, 3}, 0.3, 0.7)}, FN(remainder(v[0], 2)))
      .ref(MAP(modulo(x, 2)))
      .ints();
  t.row("remainder operator", {fraction({2, 3}, 0.3, 0.7)}, FN(v[0] % -2)).ref(MAP(modulo(x, -2)));
  for (int op = 0; op < 3; ++op) {
    const std::vector<In> counts{indices({2, 3}, 40), unique_indices({2, 3}, 3, 1)};
    const char* name[] = {"fmod integers", "remainder integers", "floor_divide integers"};
    t.row(name[op], counts,
          FN(op == 0   ? fmod(v[0] - 20, v[1] * 2 - 3)
             : op == 1 ? remainder(v[0] - 20, v[1] * 2 - 3)
                       : floor_divide(v[0] - 20, v[1] * 2 - 3)))
        .ref(MAP(op == 0   ? std::fmod(x - 20, 2 * y - 3)
                 : op == 1 ? modulo(x - 20, 2 * y - 3)
                           : std::floor((x - 20) / (2 * y - 3))))
        .result({Gives::int64})
        .flex({2});
  }
  t.row("atan2", {real({2, 3}).away({0}), real({2, 3}).away({0})}, FN(atan2(v[0], v[1])))
      .ref(MAP(std::atan2(x, y)))
      .broadcasts();
  const std::vector<In> apart{fraction({2, 3}, 0.1, 0.4), fraction({2, 3}, 0.6, 0.9)};
  t.row("minimum", apart, FN(minimum(v[0], v[1])))
      .ref(MAP(lower(x, y)))
      .ints()
      .promoting()
      .specials();
  t.row("maximum", apart, FN(maximum(v[0], v[1])))
      .ref(MAP(higher(x, y)))
      .ints()
      .promoting()
      .specials();
  t.row("lerp", two, FN(lerp(v[0], v[1], 0.3)))
      .ref(MAP(x + 0.3 * (y - x)))
      .inplace("lerp_", FN(lerp_(v[0], v[1], 0.3)))
      .broadcasts()
      .loose(2);
  t.row("lerp tensor", {real({2, 3}), real({2, 3}), real({3})}, FN(lerp(v[0], v[1], v[2])))
      .ref(MAP(x + z * (y - x)))
      .broadcasts()
      .loose(3);
  t.row("addcmul", {real({2, 3}), real({2, 3}), real({3})}, FN(addcmul(v[0], v[1], v[2], 0.5)))
      .ref(MAP(x + 0.5 * y * z))
      .inplace("addcmul_", FN(addcmul_(v[0], v[1], v[2], 0.5)))
      .broadcasts()
      .loose(3);
  t.row("addcdiv", {real({2, 3}), real({2, 3}), positive({3})}, FN(addcdiv(v[0], v[1], v[2], 0.5)))
      .ref(MAP(x + 0.5 * y / z))
      .inplace("addcdiv_", FN(addcdiv_(v[0], v[1], v[2], 0.5)))
      .broadcasts()
      .loose(3);

  const std::vector<In> choice{mask({2, 3}), real({2, 3}), real({2, 3})};
  t.row("where", choice, FN(where(v[0], v[1], v[2])))
      .large({{{101, 97}, {101, 97}, {97}}})
      .ref(MAP(x != 0 ? y : z))
      .all_types()
      .broadcasts()
      .specials();
  t.row("where broadcast", {mask({2, 1}), real({3}), real({2, 3})}, FN(where(v[0], v[1], v[2])))
      .ref(MAP(x != 0 ? y : z))
      .broadcasts();
  const std::vector<In> masked{mask({2, 3}), real({2, 3})};
  t.row("where right number", masked, FN(where(v[0], v[1], 2)))
      .ref(MAP(x != 0 ? y : 2))
      .ints()
      .broadcasts();
  t.row("where left number", masked, FN(where(v[0], 2, v[1])))
      .ref(MAP(x != 0 ? 2 : y))
      .ints()
      .broadcasts();
  t.row("where numbers", {mask({2, 3})}, FN(where(v[0], 2, 5)))
      .ref(MAP(x != 0 ? 2 : 5))
      .result({Gives::int64});
  t.row("masked_fill", {real({2, 3}), mask({2, 3})}, FN(masked_fill(v[0], v[1], 2)))
      .ref(MAP(y != 0 ? 2 : x))
      .inplace("masked_fill_", FN(masked_fill_(v[0], v[1], 2)))
      .ints();
  t.row("masked_fill broadcast mask", {real({2, 3}), mask({3})}, FN(masked_fill(v[0], v[1], 0.5)))
      .ref(MAP(y != 0 ? 0.5 : x))
      .inplace("masked_fill_", FN(masked_fill_(v[0], v[1], 0.5)));
  t.row("masked_fill tensor", {real({2, 3}), mask({2, 3}), real({})},
        FN(masked_fill(v[0], v[1], v[2])))
      .ref(MAP(y != 0 ? z : x))
      .all_types();

  // Comparisons see ties: integers and bool have many, and 0.5 is met by the rounded inputs.
  const std::vector<Gives> truth{Gives::boolean};
  const std::vector<In> tied{fraction({2, 3}, 0.1, 0.4), fraction({2, 3}, 0.6, 0.9)};
#define COMPARISON(name, op)                                                                  \
  t.row(#name, tied, FN(name(v[0], v[1])))                                                    \
      .ref(MAP(x op y))                                                                       \
      .result(truth)                                                                          \
      .all_types()                                                                            \
      .promoting()                                                                            \
      .specials();                                                                            \
  t.row(#name " number", tied, FN(name(v[0], 1))).ref(MAP(x op 1)).result(truth).all_types(); \
  t.row(#name " bool", {mask({2, 3})}, FN(name(v[0], true))).ref(MAP(x op 1)).result(truth);  \
  t.row(#name " ties", tied, FN(name(floor(v[0]), floor(v[1]))))                              \
      .ref(MAP(std::floor(x) op std::floor(y)))                                               \
      .result(truth);                                                                         \
  t.row(#name " operators", tied,                                                             \
        FN((v[0] op v[1]).logical_xor(1 op v[0]).logical_xor(v[1] op 1)))                     \
      .ref(MAP(((x op y) != (1 op x)) != (y op 1)))                                           \
      .result(truth)                                                                          \
      .ints()
  COMPARISON(eq, ==);
  COMPARISON(ne, !=);
  COMPARISON(lt, <);
  COMPARISON(le, <=);
  COMPARISON(gt, >);
  COMPARISON(ge, >=);
#undef COMPARISON
  t.row("logical_and", two, FN(logical_and(v[0], v[1])))
      .ref(MAP(x != 0 && y != 0))
      .result(truth)
      .all_types()
      .promoting()
      .specials();
  t.row("logical_or", two, FN(logical_or(v[0], v[1])))
      .ref(MAP(x != 0 || y != 0))
      .result(truth)
      .all_types()
      .promoting();
  t.row("logical_xor", two, FN(logical_xor(v[0], v[1])))
      .ref(MAP((x != 0) != (y != 0)))
      .result(truth)
      .all_types()
      .promoting();
  t.row("logical_and operators", {mask({2, 3}), mask({2, 3}), mask({3})},
        FN((v[0] && v[1]) || v[2]))
      .ref(MAP((x != 0 && y != 0) || z != 0))
      .result(truth)
      .broadcasts();
  const std::vector<In> masks{mask({2, 3}), mask({2, 3})};
  const std::vector<In> words{indices({2, 3}, 256), indices({2, 3}, 256)};
  for (int op = 0; op < 3; ++op) {
    const char* names[] = {"bitwise_and", "bitwise_or", "bitwise_xor"};
    const Fn f = FN(op == 0   ? bitwise_and(v[0], v[1])
                    : op == 1 ? bitwise_or(v[0], v[1])
                              : bitwise_xor(v[0], v[1]));
    t.row(names[op], words, f).ref(MAP(bits(x, y, op))).result({Gives::int64}).broadcasts();
    t.row(std::string(names[op]) + " of bool", masks, f)
        .ref(MAP(bits(x, y, op)))
        .result(truth)
        .broadcasts();
  }
  t.row("bitwise_and operators", words, FN((v[0] & v[1]) | (v[0] ^ 255 * v[1])))
      .ref(MAP(bits(bits(x, y, 0), bits(x, 255 * y, 2), 1)))
      .result({Gives::int64});
  t.row("isclose", two, FN(isclose(v[0], v[1], 0.1, 0.2)))
      .ref(MAP(x == y || (std::isfinite(y) && std::abs(x - y) <= 0.2 + 0.1 * std::abs(y))))
      .result(truth)
      .broadcasts()
      .specials();
  t.row("isclose equal nan", two, FN(isclose(v[0] / 0 * 0, v[1] / 0 * 0, 0, 0, true)))
      .ref(MAP(true))
      .result(truth);
  const char* reads = "the result is a C++ bool, which needs the values";
  t.row("allclose", two,
        FN(scalar_tensor(allclose(v[0], v[0] + 1e-9) && !allclose(v[0], v[1]), kBool)))
      .ref(REF(Array{{}, {a[0].data.empty() ? 0.0 : 1.0}}))
      .result(truth)
      .refused(reads);
  t.row("equal", two, FN(scalar_tensor(equal(v[0], v[0].clone()) && !equal(v[0], v[1]), kBool)))
      .ref(REF(Array{{}, {a[0].data.empty() ? 0.0 : 1.0}}))
      .result(truth)
      .refused(reads);
}

}  // namespace tutti_test
