// Golden error texts, a row each: an expression that throws, and "id: " with the whole text. Every
// text names the op, what was expected, what came and, after ";", what to do. Rows about shapes run
// inside vmap as well, where the text must be that of one example and say which axis is mapped.
#include <cmath>
#include <functional>

#include <tutti/autograd/autograd.h>
#include <tutti/core/parallel.h>
#include <tutti/func/func.h>
#include <tutti/nn/nn.h>

#include "behaviour.h"
#include "message.h"

using namespace tutti;
using autograd::gradcheck;
using func::grad;
using func::vmap;
using indexing::Ellipsis;
using std::nullopt;
using tutti_test::message;

namespace {

/// Whether a text is "family.op: [op] expectation and what came; what to do".
bool in_form(const std::string& s) {
  const std::size_t dot = s.find('.'), colon = s.find(": ");
  if (dot == s.npos || colon == s.npos || colon < dot) return false;
  const std::string op = "[" + s.substr(dot + 1, colon - dot - 1) + "] ";
  const std::size_t advice = s.find("; ");
  return s.compare(colon + 2, op.size(), op) == 0 && advice != s.npos &&
         advice > colon + 2 + op.size() && s.back() != '.';
}

struct Row {
  const char* expression;
  std::function<void()> run;
  std::string text;
};
#define ROW(expression, ...)                                         \
  Row {                                                              \
#expression, [&] { static_cast<void>(expression); }, __VA_ARGS__ \
  }

void check_rows(const std::vector<Row>& rows) {
  for (const Row& r : rows) {
    const std::string expression = r.expression;
    CAPTURE(expression);
    CHECK(message(r.run) == r.text);
    CHECK_MESSAGE(in_form(r.text), r.text);
  }
}

// Rows about shapes: a is float [2, 3], b is float [4, 5], i is int64 {0, 5}.
struct ShapeRow {
  const char* expression;
  void (*run)(const Tensor& a, const Tensor& b, const Tensor& i);
  std::string text;
};
#define SHAPES(expression, ...)                                                  \
  ShapeRow {                                                                     \
#expression, [](const Tensor& a, const Tensor& b, const Tensor& i) {           \
      static_cast<void>(a), static_cast<void>(b), static_cast<void>(i);            \
      static_cast<void>(expression);                                               \
    }, __VA_ARGS__ \
  }

Tensor seven(const Tensor& x, std::int64_t axis) { return stack({x, x, x, x, x, x, x}, axis); }

void check_shape_rows(const std::vector<ShapeRow>& rows) {
  for (const ShapeRow& r : rows) {
    const std::string expression = r.expression;
    CAPTURE(expression);
    const auto a = [] { return ones({2, 3}); };
    const auto b = [] { return ones({4, 5}); };
    const auto i = [] { return tensor({0, 5}); };
    CHECK(message([&] { r.run(a(), b(), i()); }) == r.text);
    CHECK_MESSAGE(in_form(r.text), r.text);
    const auto f = [&](const Tensor& x, const Tensor& y, const Tensor& z) {
      r.run(x, y, z);
      return x;
    };
    const std::string inside =
        r.text + "; inside vmap, shapes are per example (mapped and not shown: axis ";
    CHECK(message([&] {
            vmap(f, {0, 2, 1})(seven(a(), 0), seven(b(), 2), seven(i(), 1));
          }) == inside + "0 or 2 or 1 of size 7)");
    CHECK(message([&] {
            vmap(f, {-3, nullopt, nullopt})(seven(a(), 0), b(), i());
          }) == inside + "0 of size 7)");
    CHECK(message([&] {
            grad([&](const Tensor& w) {
              return vmap(f, {0, nullopt, nullopt})(seven(w, 0), b(), i()).sum();
            })(a());
          }) == inside + "0 of size 7)");
  }
}

nn::BatchNorm1d batch_norm(3);

struct TiedImpl : nn::Module {
  TiedImpl() {
    a = register_parameter("a", ones(1));
    register_parameter("b", a);
  }
  Tensor forward(const Tensor& x) { return x; }
  nn::Parameter a;
};
TUTTI_MODULE(Tied);

// c is another name of a or of b.
struct ThreeImpl : nn::Module {
  explicit ThreeImpl(bool of_a) {
    const nn::Parameter a = register_parameter("a", ones(1)), b = register_parameter("b", ones(1));
    register_parameter("c", of_a ? a : b);
  }
};
TUTTI_MODULE(Three);

}  // namespace

TEST_CASE("elementwise and broadcasting: also per example") {
  check_shape_rows({
      SHAPES(a + b,
             "shape.add: [add] expected shapes that broadcast, got [2, 3] and [4, 5]; make axis -2 "
             "equal or 1"),
      SHAPES(where(a > 0, a, b),
             "shape.where: [where] expected shapes that broadcast, got [2, 3] and [4, 5]; make "
             "axis -2 equal or 1"),
      SHAPES(a.masked_fill(b > 0, 1),
             "shape.masked_fill: [masked_fill] expected shapes that broadcast, got [2, 3] and [4, "
             "5]; make axis -2 equal or 1"),
      SHAPES(masked_fill(a, a > 0, b),
             "shape.masked_fill: [masked_fill] expected a 0-d value, got shape [4, 5]; use where() "
             "for larger ones"),
      SHAPES(a.lerp(b, 0.5),
             "shape.lerp: [lerp] expected shapes that broadcast, got [2, 3] and [4, 5]; make axis "
             "-2 equal or 1"),
      SHAPES(a.copy_(b),
             "shape.assign: [assign] expected shapes that broadcast, got [4, 5] and [2, 3]; make "
             "axis -2 equal or 1"),
      SHAPES(a.add_(b),
             "shape.add: [add] expected shapes that broadcast, got [2, 3] and [4, 5]; make axis -2 "
             "equal or 1"),
      SHAPES(a.fill_(b),
             "shape.fill_: [fill_] expected a 0-d value, got shape [4, 5]; use copy_() for larger "
             "ones"),
      SHAPES(a[0].add_(a),
             "shape.add: [add] expected an operand that broadcasts to self's shape [3], got shape "
             "[2, 3]; use the form without underscore"),
      SHAPES(mse_loss(a, b),
             "shape.mse_loss: [mse_loss] expected shapes that broadcast, got [2, 3] and [4, 5]; "
             "make axis -2 equal or 1"),
  });
}

TEST_CASE("products: also per example") {
  check_shape_rows({
      SHAPES(a.matmul(b),
             "shape.matmul: [matmul] expected the last axis of [2, 3] (3) to equal the "
             "second-to-last axis of [4, 5] (4); transpose or reshape one"),
      SHAPES(a.matmul(b[0][0]),
             "shape.matmul: [matmul] expected operands of at least 1 axis, got shapes [2, 3] and "
             "[]; use mul() for numbers"),
      SHAPES(a.mm(b),
             "shape.mm: [mm] expected shapes [n, k] and [k, m], got [2, 3] and [4, 5]; transpose "
             "one, or use matmul() for other ranks"),
      SHAPES(a.unsqueeze(0).bmm(b.unsqueeze(0)),
             "shape.bmm: [bmm] expected shapes [b, n, k] and [b, k, m], got [1, 2, 3] and [1, 4, "
             "5]; transpose one, or use matmul() to broadcast"),
      SHAPES(a.mv(b[0]),
             "shape.mv: [mv] expected shapes [n, k] and [k], got [2, 3] and [5]; transpose the "
             "matrix, or use matmul() for other ranks"),
      SHAPES(a[0].dot(b[0]),
             "shape.dot: [dot] expected two vectors of one length, got shapes [3] and [5]; "
             "flatten() or narrow() one"),
      SHAPES(a.outer(b),
             "shape.outer: [outer] expected two vectors, got shapes [2, 3] and [4, 5]; flatten() "
             "them first"),
      SHAPES(addmm(b, a, a.t()),
             "shape.addmm: [addmm] expected shapes that broadcast, got [4, 5] and [2, 2]; make "
             "axis -2 equal or 1"),
      SHAPES(linear(a, b),
             "shape.linear: [linear] expected input with last axis 5 (weight is [4, 5]), got [2, "
             "3]; reshape the input, or make the layer that wide"),
      SHAPES(linear(a, a, b),
             "shape.linear: [linear] expected bias of shape [2] (weight is [2, 3]), got [4, 5]; "
             "give one number per output"),
      SHAPES(linear(a, a[0], b[0].unsqueeze(-1).expand({5, 2})),
             "shape.linear: [linear] expected a bias that broadcasts to the result, [2] (weight is "
             "[3]), got [5, 2]; give one number"),
      SHAPES(linear(a, a.unsqueeze(0)),
             "shape.linear: [linear] expected weight [out, in] or [in], got [1, 2, 3]; reshape it, "
             "or map over its members with vmap"),
      SHAPES(a[0].trace(),
             "shape.trace: [trace] expected a matrix, got shape [3]; use diagonal().sum(-1) for "
             "stacks of matrices"),
  });
}

TEST_CASE("views: also per example") {
  check_shape_rows({
      SHAPES(a.view({4, 2}),
             "shape.view: [view] expected sizes for 6 elements, got [4, 2]; their product must be "
             "that number"),
      SHAPES(a.view({-1, -1}),
             "shape.view: [view] expected at most one -1 in the sizes, got [-1, -1]; write the "
             "others out"),
      SHAPES(a.view({-1, 4}),
             "shape.view: [view] expected sizes for 6 elements, got [-1, 4]; their product must be "
             "that number"),
      SHAPES(a.view({-2, 3}),
             "shape.view: [view] expected sizes of at least 0 (or one -1), got [-2, 3]; only -1 "
             "stands for a size to be worked out"),
      SHAPES(a.t().view(6),
             "value.view: [view] expected memory that can be seen as [6] without a copy, got sizes "
             "[3, 2] with strides [1, 3]; use reshape()"),
      SHAPES(a.reshape(7),
             "shape.reshape: [reshape] expected sizes for 6 elements, got [7]; their product must "
             "be that number"),
      SHAPES(a.expand({2, 4}),
             "shape.expand: [expand] expected sizes that shape [2, 3] broadcasts to, got [2, 4]; "
             "only axes of size 1 can grow, repeat() copies others"),
      SHAPES(a.expand(3),
             "shape.expand: [expand] expected at least 2 sizes for shape [2, 3], got [3]; -1 keeps "
             "a size"),
      SHAPES(a.permute({0}),
             "shape.permute: [permute] expected 2 axes for shape [2, 3], got [0]; name each axis "
             "once"),
      SHAPES(a.permute({0, 0}),
             "index.permute: [permute] expected distinct axes, got [0, 0]: axis 0 appears twice; "
             "name each once"),
      SHAPES(a.unsqueeze(0).t(),
             "shape.t: [t] expected at most 2 axes, got shape [1, 2, 3]; use transpose() or mT()"),
      SHAPES(a[0].mT(),
             "shape.mT: [mT] expected at least 2 axes, got shape [3]; unsqueeze() it first"),
      SHAPES(a.movedim({0, 1}, {0}),
             "shape.movedim: [movedim] expected as many new places as axes, got [0, 1] and [0]; "
             "give one for each"),
      SHAPES(a.flatten(1, 0),
             "shape.flatten: [flatten] expected start <= end, got axes 1 and 0; swap them"),
      SHAPES(a.unflatten(0, {3, -1}),
             "shape.unflatten: [unflatten] expected sizes for 2 elements, got [3, -1]; their "
             "product must be that number"),
      SHAPES(a.diagonal(0, 1, 1),
             "shape.diagonal: [diagonal] expected two different axes, got 1 and 1 for shape [2, "
             "3]; name two axes of the tensor"),
      SHAPES(a.as_strided({2}, {1, 1}),
             "shape.as_strided: [as_strided] expected as many strides as sizes and no negative "
             "number, got sizes [2], strides [1, 1], offset 0; give a stride per size, use flip() "
             "to go backwards"),
      SHAPES(a.unfold(1, 4, 1),
             "value.unfold: [unfold] expected a window of at most 3 along axis 1 of shape [2, 3], "
             "got 4; take a smaller one, or pad the axis"),
      SHAPES(a.split(std::vector<std::int64_t>{1, 1}, 1),
             "shape.split: [split] expected piece sizes that add up to 3, got [1, 1]; narrow() "
             "takes one part only"),
      SHAPES(a.narrow(1, 2, 2),
             "index.narrow: [narrow] expected start + length of at most 3 for axis 1 of shape [2, "
             "3], got 2 + 2; slice() clips instead"),
      SHAPES(a.narrow(1, 4, 0),
             "index.narrow: [narrow] expected a start in [-3, 3] for axis 1 of shape [2, 3], got "
             "4; start within the axis"),
  });
}

TEST_CASE("joining: also per example") {
  check_shape_rows({
      SHAPES(cat({a, b}),
             "shape.cat: [cat] expected shapes equal but for axis 0, got [2, 3] and [4, 5]; "
             "reshape one, or join along another axis"),
      SHAPES(cat({a[0][0]}),
             "shape.cat: [cat] expected tensors of at least 1 axis, got a 0-d one; use stack()"),
      SHAPES(stack({a, b}),
             "shape.stack: [stack] expected equal shapes, got [2, 3] and [4, 5]; expand() one, or "
             "use cat() for other sizes along one axis"),
      SHAPES(a.repeat(2),
             "shape.repeat: [repeat] expected at least 2 repeats for shape [2, 3], got [2]; give 1 "
             "for axes that stay"),
  });
}

TEST_CASE("axes: also per example") {
  check_shape_rows({
      SHAPES(a.sum(2),
             "index.sum: [sum] expected an axis in [-2, 1], got 2; count axes from 0, or from the "
             "end by -1"),
      SHAPES(a.sum({0, 0}),
             "index.sum: [sum] expected distinct axes, got [0, 0]: axis 0 appears twice; name each "
             "once"),
      SHAPES(a.size(2),
             "index.size: [size] expected an axis in [-2, 1], got 2; count axes from 0, or from "
             "the end by -1"),
      SHAPES(a.transpose(0, 5),
             "index.transpose: [transpose] expected an axis in [-2, 1], got 5; count axes from 0, "
             "or from the end by -1"),
      SHAPES(a.unsqueeze(5),
             "index.unsqueeze: [unsqueeze] expected an axis in [-3, 2], got 5; count axes from 0, "
             "or from the end by -1"),
      SHAPES(a.softmax(2),
             "index.softmax: [softmax] expected an axis in [-2, 1], got 2; count axes from 0, or "
             "from the end by -1"),
      SHAPES(a.cumsum(-3),
             "index.cumsum: [cumsum] expected an axis in [-2, 1], got -3; count axes from 0, or "
             "from the end by -1"),
      SHAPES(a.flip(3),
             "index.flip: [flip] expected an axis in [-2, 1], got 3; count axes from 0, or from "
             "the end by -1"),
      SHAPES(stack({a, a}, 4),
             "index.stack: [stack] expected an axis in [-3, 2], got 4; count axes from 0, or from "
             "the end by -1"),
      SHAPES(cat({a, a}, 2),
             "index.cat: [cat] expected an axis in [-2, 1], got 2; count axes from 0, or from the "
             "end by -1"),
      SHAPES(a.topk(4),
             "index.topk: [topk] expected k between 0 and the 3 elements along axis 1, got 4; take "
             "all with sort()"),
      SHAPES(a.narrow(1, 0, 0).max(1),
             "index.argmax/argmin: [argmax/argmin] expected at least one element along axis 1, got "
             "shape [2, 0]; give axes that are not empty"),
      SHAPES(a.narrow(1, 0, 0).median(1),
             "index.median: [median] expected at least one element along axis 1, got shape [2, 0]; "
             "give an axis that is not empty"),
  });
}

TEST_CASE("indices: also per example") {
  check_shape_rows({
      SHAPES(a.select(0, 2),
             "index.select: [select] expected an index in [-2, 1] for axis 0 of shape [2, 3], got "
             "2; count from 0, or from the end by -1"),
      SHAPES(a[0][0][0],
             "index.select: [select] expected a tensor with axes to index, got a 0-d tensor; use "
             "item()"),
      SHAPES(a.index({0, 0, 0}),
             "index.index: [index] expected at most 2 indices for shape [2, 3], got 3; None adds "
             "an axis, Ellipsis stands for all that are left"),
      SHAPES(a.index({Ellipsis, Ellipsis}),
             "index.index: [index] expected at most one Ellipsis, got 2; write Slice() for single "
             "axes"),
      SHAPES(a.index({b > 0}),
             "index.index: [index] expected a mask that fits axes 0 to 1 of shape [2, 3], got [4, "
             "5]; compare the tensor itself to get such a mask"),
      SHAPES(a.index({b}),
             "index.index: [index] expected integer or bool index tensors, got float32; convert "
             "with to(kInt64)"),
      SHAPES(a.index_select(0, b),
             "shape.index_select: [index_select] expected a 1-d index, got shape [4, 5]; flatten() "
             "it, or use index() for more axes"),
      SHAPES(a.index_select(0, i.unsqueeze(0)),
             "shape.index_select: [index_select] expected a 1-d index, got shape [1, 2]; flatten() "
             "it, or use index() for more axes"),
      SHAPES(a.gather(0, i),
             "shape.gather: [gather] expected an index of the same rank, not larger than [2, 3] "
             "but along axis 0, got shape [2]; use index_select() for a 1-d index, "
             "take_along_dim() to broadcast"),
      SHAPES(a.index_add(0, i, b),
             "shape.index_add: [index_add] expected src of shape [2, 3], got [4, 5]; give one "
             "slice per index"),
      SHAPES(take_along_dim(a, i, 0),
             "shape.take_along_dim: [take_along_dim] expected an index of the same rank as shape "
             "[2, 3], got [2]; unsqueeze() it"),
      SHAPES(a.roll({1, 1}, 0),
             "shape.roll: [roll] expected as many shifts as axes, got [1, 1] and [0]; give one for "
             "each"),
      SHAPES(a[0].tril(),
             "shape.tril: [tril] expected at least 2 axes, got shape [3]; unsqueeze() it first"),
      SHAPES(a.index_put_({b > 0}, 1),
             "index.index_put_: [index_put_] expected a mask that fits the first axes of shape [2, "
             "3], got [4, 5]; compare the tensor itself to get such a mask"),
  });
}

TEST_CASE("layers and losses: also per example") {
  check_shape_rows({
      SHAPES(batch_norm(a[0]),
             "value.BatchNorm1d: [BatchNorm1d] expected an input [N, C] or [N, C, L], got shape "
             "[3]; keep the batch axis, as the statistics are over it"),
      SHAPES(nn::functional::cross_entropy(a, b),
             "shape.cross_entropy: [cross_entropy] expected input and target of one shape, got [2, "
             "3] and [4, 5]; reshape or expand() one"),
      SHAPES(nn::functional::cross_entropy(a, i.unsqueeze(0)),
             "shape.cross_entropy: [cross_entropy] expected class indices of shape [2] for an "
             "input of shape [2, 3], got [1, 2]; put the classes on axis 1 of the input, or "
             "squeeze() the target"),
      SHAPES(nn::functional::cross_entropy(a[0][0], i),
             "shape.cross_entropy: [cross_entropy] expected an input [C] or [N, C, ...], got a 0-d "
             "tensor; keep the axis of the classes"),
      SHAPES(nn::functional::cross_entropy(a, i, nn::CrossEntropyLossOptions().weight(i)),
             "shape.cross_entropy: [cross_entropy] expected a weight per class [3], got [2]; give "
             "one number per class"),
      SHAPES(nn::functional::binary_cross_entropy(a, b),
             "shape.binary_cross_entropy: [binary_cross_entropy] expected input and target of one "
             "shape, got [2, 3] and [4, 5]; reshape or expand() one"),
      SHAPES(nn::functional::kl_div(a[0][0], a[0][0], nn::KLDivLossOptions(kBatchMean)),
             "shape.kl_div: [kl_div] expected an input with a batch axis for \"batchmean\", got a "
             "0-d tensor; use \"mean\""),
      SHAPES(nn::functional::embedding(i, a[0]),
             "shape.embedding: [embedding] expected a weight of shape [n, d], got [3]; give one "
             "row per index value"),
      SHAPES(nn::functional::layer_norm(
                 a, nn::functional::LayerNormFuncOptions({3}).weight(ones({1}))),
             "shape.layer_norm: [layer_norm] expected weight and bias of shape [3], got [1]; give "
             "one number per element"),
      SHAPES(nn::functional::layer_norm(a, nn::functional::LayerNormFuncOptions({2})),
             "shape.layer_norm: [layer_norm] expected an input whose shape ends in [2], got [2, "
             "3]; give the trailing sizes"),
      SHAPES(nn::functional::batch_norm(a[0], Tensor(), Tensor(),
                                        nn::functional::BatchNormFuncOptions().training(true)),
             "value.batch_norm: [batch_norm] expected an input [N, C, ...], got shape [3]; keep "
             "the batch axis, as the statistics are over it"),
      SHAPES(nn::functional::batch_norm(a.narrow(0, 0, 1), Tensor(), Tensor(),
                                        nn::functional::BatchNormFuncOptions().training(true)),
             "value.batch_norm: [batch_norm] expected more than 1 value per channel when training, "
             "got shape [1, 3]; use a larger batch, or eval()"),
      SHAPES(nn::functional::batch_norm(a, b[0], b[0]),
             "shape.batch_norm: [batch_norm] expected statistics, weight and bias of shape [3], "
             "the input's axis 1, got [5]; give one number per channel"),
      SHAPES(a[0][0].multinomial(1),
             "shape.multinomial: [multinomial] expected probabilities [..., k], got a 0-d tensor; "
             "use bernoulli() for one probability"),
  });
}

TEST_CASE("numbers and values of indices") {
  Tensor a = ones({2, 3});
  const Tensor b = ones({4, 5}), i = tensor({0, 5});
  check_rows({
      ROW(where(a, a, a),
          "type.where: [where] expected a bool mask, got float32; compare with something, or "
          "convert with to(kBool)"),
      ROW(a.unfold(1, 2, 0),
          "value.unfold: [unfold] expected a positive step, got 0; use flip() to go backwards"),
      ROW(a.split(0, 1),
          "value.split: [split] expected a positive piece size, got 0; use chunk() to give the "
          "number of pieces"),
      ROW(a.chunk(0),
          "value.chunk: [chunk] expected a positive number of pieces, got 0; use split() to give "
          "their size"),
      ROW(a.slice(1, 0, 3, -1),
          "value.slice: [slice] expected a positive step, got -1; use flip() to go backwards"),
      ROW(a.repeat({2, -1}),
          "value.repeat: [repeat] expected repeats of at least 0, got [2, -1]; give 1 for axes "
          "that stay"),
      ROW(a.index_select(0, i),
          "index.index_select: [index_select] expected indices in [0, 1], got 5; the axis has 2 "
          "elements"),
      ROW(a.index({i}),
          "index.index: [index] expected indices in [-2, 1], got 5; the axis has 2 elements"),
      ROW(a.gather(0, i.unsqueeze(1)),
          "index.gather: [gather] expected indices in [0, 1], got 5; the axis has 2 elements"),
      ROW(a.scatter(0, i.unsqueeze(1), b),
          "index.scatter: [scatter] expected indices in [0, 1], got 5; the axis has 2 elements"),
      ROW(a.scatter_add(0, i.unsqueeze(1), b),
          "index.scatter: [scatter] expected indices in [0, 1], got 5; the axis has 2 elements"),
      ROW(one_hot(i, 3),
          "index.one_hot: [one_hot] expected indices in [0, 2], got 5; the axis has 3 elements"),
      ROW(masked_select(a, a),
          "type.masked_select: [masked_select] expected a bool mask, got float32; compare with "
          "something, or convert with to(kBool)"),
      ROW(nn::functional::cross_entropy(a, i),
          "index.cross_entropy: [cross_entropy] expected indices in [0, 2], got 5; the axis has 3 "
          "elements"),
      ROW(nn::functional::cross_entropy(a, i, nn::CrossEntropyLossOptions().label_smoothing(2)),
          "value.cross_entropy: [cross_entropy] expected a label_smoothing between 0 and 1, got 2; "
          "0 is none"),
      ROW(cross_entropy_loss(a, i, {}, 3),
          "value.cross_entropy_loss: [cross_entropy_loss] expected the reduction 0 (none), 1 "
          "(mean) "
          "or 2 (sum), got 3; give one of them"),
      ROW(nn::functional::embedding(a, b),
          "type.embedding: [embedding] expected integer indices, got float32; convert them with "
          "to(kInt64)"),
      ROW(nn::functional::embedding(i, a),
          "index.embedding: [embedding] expected indices in [0, 1], got 5; the axis has 2 "
          "elements"),
      ROW(nn::functional::batch_norm(a, Tensor(), Tensor()),
          "value.batch_norm: [batch_norm] expected running_mean and running_var when not training, "
          "got none; pass both, or set training"),
      ROW(a.multinomial(7),
          "value.multinomial: [multinomial] expected at most as many draws as classes, got 7 draws "
          "from 3 classes; draw with replacement or less"),
  });
}

TEST_CASE("dtypes") {
  Tensor a = ones({2, 3});
  check_rows({
      ROW(a.data_ptr<double>(),
          "type.data_ptr: [data_ptr] expected the tensor's dtype float32, got float64; convert "
          "with to()"),
      ROW(arange(3).mean(),
          "type.mean: [mean] expected a floating dtype, got int64; convert with to(kFloat32)"),
      ROW(a.matmul(a.t().to(kFloat64)),
          "type.matmul: [matmul] expected operands of one dtype, got float32 and float64; convert "
          "one with to()"),
      ROW((a > 0).matmul(a.t() > 0),
          "type.matmul: [matmul] expected numbers, got bool; convert with to()"),
      ROW(linear(a, a.to(kFloat64)),
          "type.linear: [linear] expected operands of one dtype, got float32 and float64; convert "
          "one with to()"),
      ROW(a.bitwise_and(a),
          "type.bitwise_and: [bitwise_and] expected integers or bools, got float32 and float32; "
          "use the logical_ form for truth values"),
      ROW(-(a > 0), "type.neg: [neg] expected numbers, got bool; cast with to() first"),
      ROW(a.to(kInt64).add(a.to(kInt64), 0.5),
          "type.add: [add] expected an integer alpha for a result of dtype int64, got a floating "
          "one; cast the operands with to(kFloat32)"),
      ROW(a.to(kInt64).add_(a),
          "type.add: [add] the result has dtype float32 and does not fit into self of dtype int64; "
          "use the form without underscore or cast self first"),
      ROW(a.to(kInt64).div_(2),
          "type.div: [div] the result has dtype float32 and does not fit into self of dtype int64; "
          "use the form without underscore or cast self first"),
      ROW((a > 0) - (a > 0),
          "type.sub: [sub] expected at least one operand that is not bool, got two bools; use "
          "logical_xor for bools"),
      ROW(a.to(kInt64).lerp(a.to(kInt64), 0.5),
          "type.lerp: [lerp] expected floating tensors, got int64 and int64; convert with "
          "to(kFloat32)"),
      ROW(a.to(kInt64).pow(-1),
          "value.pow: [pow] expected an exponent of at least 0 for integers, got -1; cast with "
          "to(kFloat32) first"),
      ROW((a > 0).pow(a > 0),
          "type.pow: [pow] expected at least one operand that is not bool, got two bools; use "
          "logical_xor for bools"),
      ROW(bitwise_not(a),
          "type.bitwise_not: [bitwise_not] expected integers or bool, got float32; use logical_not "
          "for truth values"),
      ROW(a.scatter(0, zeros({1, 3}, kInt64), ones({1, 3}, kFloat64)),
          "type.scatter: [scatter] expected src of dtype float32, got float64; convert with to()"),
      ROW(randn(3, kInt64),
          "type.randn: [randn] expected a floating dtype, got int64; draw integers with randint or "
          "random_, or convert with to(kFloat32)"),
      ROW(normal(0.0, -1.0, 3),
          "value.normal: [normal] expected std >= 0, got -1; give the deviation, not the variance "
          "or its logarithm"),
      ROW(arange(3).requires_grad_(),
          "type.requires_grad_: [requires_grad_] expected a floating tensor, since only those have "
          "gradients, got int64; convert with to(kFloat32)"),
      ROW(arange(3).dropout(0.5, true),
          "type.dropout: [dropout] expected a floating dtype, got int64; draw integers with "
          "randint or random_, or convert with to(kFloat32)"),
      ROW(arange(3).softmax(0),
          "type.softmax: [softmax] expected a floating dtype, got int64; convert with "
          "to(kFloat32)"),
  });
}

TEST_CASE("values") {
  Tensor a = ones({2, 3});
  check_rows({
      ROW(a.item<float>(),
          "value.item: [item] expected a tensor with exactly one element, got shape [2, 3]; index "
          "it or reduce it first"),
      ROW((a.accessor<float, 1>()),
          "shape.accessor: [accessor] expected a tensor with 1 axes, got shape [2, 3]; name the "
          "rank in accessor<T, N>()"),
      ROW(a.div(a, "up"),
          "value.div: [div] expected rounding to be \"trunc\" or \"floor\", got \"up\"; leave it "
          "out for true division"),
      ROW(a.to(kInt64).floor_divide(0),
          "value.floor_divide: [floor_divide] expected a divisor other than 0 for integers, got 0; "
          "divide floating tensors to get inf"),
      ROW(a.gelu("fast"),
          "value.gelu: [gelu] expected approximate to be \"none\" or \"tanh\", got \"fast\"; leave "
          "it out for the exact form"),
      ROW(a.clamp(nullopt, nullopt),
          "value.clamp: [clamp] expected a lower or an upper bound, got neither; give one"),
      ROW(a.dropout(1.5, true),
          "value.dropout: [dropout] expected a probability between 0 and 1, got 1.5; give the "
          "share of ones (bernoulli) or zeros (dropout)"),
      ROW(arange(0, 3, 0),
          "value.arange: [arange] expected a step other than 0, got 0; use full() to repeat one "
          "value"),
      ROW(arange(0, 3, -1),
          "value.arange: [arange] expected a step towards the end, got start 0, end 3 and step -1; "
          "change the step's sign, or flip() the result"),
      ROW(linspace(0, 1, -1),
          "value.linspace: [linspace] expected a number of steps that is not negative, got -1; use "
          "flip() to go backwards"),
      ROW(zeros({2, -1}),
          "shape.zeros: [zeros] expected sizes that are not negative, got [2, -1]; -1 works in "
          "reshape() only"),
      ROW(zeros({std::int64_t{1} << 40, std::int64_t{1} << 40}),
          "shape.zeros: [zeros] expected fewer than 2^63 elements, got sizes [1099511627776, "
          "1099511627776]; make it smaller"),
      ROW(randint(3, 3, {2}),
          "value.randint: [randint] expected low < high, got 3 and 3; high itself is not drawn"),
      ROW(randperm(-1),
          "value.randperm: [randperm] expected n >= 0, got -1; give the number of elements"),
      ROW(ones(3).multinomial(4),
          "value.multinomial: [multinomial] expected at most as many draws as classes, got 4 draws "
          "from 3 classes; draw with replacement or less"),
      ROW(ones(3).uniform_(2, 1),
          "value.uniform_: [uniform_] expected from <= to, got 2 and 1; swap them"),
      ROW(isclose(a, a, -1),
          "value.isclose: [isclose] expected tolerances that are not negative, got rtol -1 and "
          "atol 1e-08; give 0 for an exact comparison"),
      ROW(cat({}),
          "value.cat: [cat] expected at least one tensor, got an empty list; check what fills it"),
      ROW(stack({}),
          "value.stack: [stack] expected at least one tensor, got an empty list; check what fills "
          "it"),
      ROW(one_hot(arange(3), 0),
          "value.one_hot: [one_hot] expected a positive number of classes, got 0; leave it out to "
          "take the largest value + 1"),
      ROW(tensor({{1, 2}, {3}}),
          "shape.tensor: [tensor] expected rows of equal shape, got [2] and [1]; fill up the "
          "shorter ones"),
      ROW(from_blob(nullptr, {2}),
          "value.from_blob: [from_blob] expected an address, got null; give the memory, or use "
          "empty()"),
      ROW(nn::functional::layer_norm(ones({2, 3}, kInt64),
                                     nn::functional::LayerNormFuncOptions({3})),
          "type.layer_norm: [layer_norm] expected a floating input, got int64; convert with "
          "to(kFloat32)"),
      ROW(set_num_threads(0),
          "value.set_num_threads: [set_num_threads] expected 1 to 4096 threads, got 0; 1 runs "
          "everything on the caller's"),
      ROW(Tensor().sizes(),
          "value.sizes: [sizes] expected a defined tensor, got an undefined one; assign it a value "
          "first"),
      ROW(Tensor() + a,
          "value.dtype: [dtype] expected a defined tensor, got an undefined one; assign it a value "
          "first"),
      ROW(a.copy_(Tensor()),
          "value.assign: [assign] expected defined tensors, got an undefined one; assign it a "
          "value first"),
      ROW(tensor(1.f)[0],
          "index.select: [select] expected a tensor with axes to index, got a 0-d tensor; use "
          "item()"),
      ROW(tensor(1.f).size(0),
          "index.size: [size] expected a tensor with axes, got a 0-d tensor; it has no sizes"),
      ROW(IntArrayRef({1, 2}).at(2),
          "index.IntArrayRef: [IntArrayRef] expected an index below 2, got 2; ask size() first"),
      ROW(a.expand({5, 2, 3}).add_(1),
          "value.assign: [assign] expected a destination whose elements have memory of their own, "
          "got an expanded tensor; clone() it first"),
  });
}

TEST_CASE("devices") {
  Tensor a = ones({2, 3});
  check_rows({
    ROW(a + zeros({2, 3}, kMeta),
        "device.add: [add] expected all tensors on one device, got cpu and meta; move one with "
        "to()"),
        ROW(zeros(1, kMeta).item<float>(),
            "device.item: [item] expected a tensor with data, got one on the meta device, which "
            "has "
            "a shape only; make it on the CPU"),
        ROW(a.copy_(zeros({2, 3}, kMeta)),
            "device.assign: [assign] expected a tensor with values, got one on the meta device; "
            "make "
            "it on the CPU"),
#if !TUTTI_CUDA  // other builds: tests/cuda/test_no_driver.cpp
        ROW(zeros(2, kCUDA),
            "device.zeros: [zeros] expected cpu or meta, got cuda; this build has no CUDA support"),
        ROW(a.to(kCUDA),
            "device.to: [to] expected cpu or meta, got cuda; this build of tutti has no CUDA"),
        ROW(a.cuda(),
            "device.to: [to] expected cpu or meta, got cuda; this build of tutti has no CUDA"),
#endif
        ROW(zeros(2, kMeta).to(kCPU),
            "device.to: [to] expected a tensor with values, got one on the meta device to move to "
            "cpu; make one there with empty_like()"),
        ROW(Device("gpu"),
            "value.Device: [Device] expected \"cpu\", \"meta\", \"cuda\" or \"cuda:N\", got "
            "\"gpu\"; "
            "write one of them"),
        ROW(nonzero(zeros(2, kMeta)),
            "device.nonzero: [nonzero] expected a tensor with values, got device meta; the "
            "result's "
            "shape depends on them"),
  });
}

TEST_CASE("dicts") {
  TensorDict d = {{"weight", ones(1)}, {"bias", ones(1)}};
  check_rows({
      ROW(d.at("wieght"), "key.Dict: [Dict] no key \"wieght\"; did you mean \"weight\"?"),
      ROW(d.at("something else"),
          "key.Dict: [Dict] no key \"something else\"; contains() asks and keys() lists them"),
      ROW(TensorDict::with_keys_of(d, {ones(1)}),
          "value.Dict: [Dict] expected 2 values, one for each key, got 1; give them in order"),
  });
}

TEST_CASE("autograd") {
  Tensor x = ones(2).requires_grad_();
  Tensor y = x.exp().sum();
  y.backward();
  Tensor e = x.exp(), z = e.sum();
  e.add_(1);
  check_rows({
      ROW((x * 2).backward(),
          "autograd.backward: [backward] expected an output with one element, got shape [2]; "
          "reduce it, or give a gradient of that shape"),
      ROW(ones(1).backward(),
          "autograd.backward: [backward] expected a tensor with history, got one that does not "
          "require grad; call requires_grad_() on the leaves"),
      ROW(x.sum().backward(ones(2)),
          "shape.backward: [backward] expected a gradient of shape [], got [2]; give one like the "
          "output"),
      ROW(x.add_(1),
          "autograd.assign: [assign] in-place change of a leaf that requires grad; wrap it in a "
          "NoGradGuard, or clone the leaf first"),
      ROW(x[0].add_(1),
          "autograd.assign: [assign] in-place change of a leaf that requires grad (through a "
          "view); wrap it in a NoGradGuard, or clone the leaf first"),
      ROW(y.backward(),
          "autograd.backward: [backward] the graph was already used and freed; pass retain_graph = "
          "true to the first backward"),
      ROW(z.backward(),
          "autograd.backward: [backward] a value that exp needs for its derivative was changed in "
          "place (version 1, expected 0); clone it before the in-place op"),
      ROW(autograd::grad({x.sum()}, {x, ones(1).requires_grad_()}),
          "autograd.autograd::grad: [autograd::grad] expected inputs that the outputs depend on, "
          "got input 1, which was not used; pass allow_unused = true to get an undefined gradient"),
      ROW(autograd::grad({x.sum(), x.sum()}, {x}, {ones(1)}),
          "value.autograd::grad: [autograd::grad] expected 2 gradients of the outputs, got 1; give "
          "one per output, undefined for ones"),
      ROW((x * 2).requires_grad_(false),
          "autograd.requires_grad_: [requires_grad_] expected a leaf, got a result with history; "
          "use detach()"),
      ROW(ones(2).mutable_grad(),
          "autograd.mutable_grad: [mutable_grad] expected a tensor that requires grad, got one "
          "that does not; call requires_grad_()"),
      ROW(ones(2).retain_grad(),
          "autograd.retain_grad: [retain_grad] expected a tensor with history, got one that does "
          "not require grad; call requires_grad_() on the leaves"),
      ROW(linear(Tensor(), x),
          "value.linear: [linear] expected a defined input and weight, got an undefined one; "
          "assign it first"),
      ROW(linear(ones({2, 3}), ones(3), ones(2, kFloat64)),
          "type.linear: [linear] expected operands of one dtype, got float32 and float64; convert "
          "one with to()"),
      ROW(ones(2).register_hook([](const Tensor& g) { return g; }),
          "autograd.register_hook: [register_hook] expected a tensor with history, got one that "
          "does not require grad; call requires_grad_() on the leaves"),
      ROW(Tensor().requires_grad(),
          "value.requires_grad: [requires_grad] expected a defined tensor, got an undefined one; "
          "assign it a value first"),
      ROW(x.as_strided({2}, {1}, 5),
          "shape.as_strided: [as_strided] expected a view within 2 elements of memory, got sizes "
          "[2], strides [1], offset 5; make one of them smaller"),
      ROW(gradcheck([](const std::vector<Tensor>& v) { return v[0]; }, {ones(2)}),
          "type.gradcheck: [gradcheck] expected float64 inputs, got float32; convert with "
          "to(kFloat64)"),
  });
}

TEST_CASE("vmap") {
  Tensor a = ones({2, 3});
  Tensor kept = ones(3), vmap_leaked;
  auto mul = [](const Tensor& v, const Tensor& w) { return v * w; };
  auto id = [](const Tensor& v) { return v; };
  vmap([&](const Tensor& v) { return vmap_leaked = v * 2; })(a);
  check_rows({
      ROW(vmap(mul, {0, 1})(a, a),
          "value.vmap: [vmap] expected mapped axes of one size, got sizes 2, 3; check in_dims, or "
          "use nullopt for what is shared"),
      ROW(vmap(mul, {0, 2})(a, a),
          "value.vmap: [vmap] in_dims gives axis 2 for an argument of shape [2, 3], which has 2 "
          "axes; count from 0, or from the end by -1"),
      ROW(vmap(mul, {0, 0, 0})(a, a),
          "value.vmap: [vmap] in_dims does not match the structure of the values: expected a list "
          "of 2 entries, got {0, 0, 0}; give one per part"),
      ROW(vmap(mul, {{0}, 0})(a, a),
          "value.vmap: [vmap] in_dims does not match the structure of the values: got the list {0} "
          "for a single leaf; give an axis or nullopt"),
      ROW(vmap(mul, nullopt)(a, a),
          "value.vmap: [vmap] expected at least one tensor to map over, got none; in_dims leaves "
          "all of them unmapped"),
      ROW(vmap(id)(Tensor()),
          "value.vmap: [vmap] in_dims gives an axis for an undefined tensor; use nullopt there"),
      ROW(vmap(id, 0, 2)(a),
          "index.vmap: [vmap] out_dims gives axis 2 for an output of shape [3] per example, which "
          "has 2 axes with the mapped one; count from 0, or from the end by -1"),
      ROW(vmap(id, 0, nullopt)(a),
          "value.vmap: [vmap] expected an axis in out_dims for an output that differs per example, "
          "got nullopt; give it an axis"),
      ROW(vmap(id, 0, Dims(std::vector<Dims>{0, 0}))(a),
          "value.vmap: [vmap] out_dims does not match the structure of the values: got the list "
          "{0, 0} for a single leaf; give an axis or nullopt"),
      ROW(vmap([](const Tensor&) { return 1.5; })(a),
          "value.vmap: [vmap] out_dims gives an axis for a value of type double, which is not a "
          "tensor; use nullopt there"),
      ROW(vmap([](const Tensor&, int) { return ones(1); })(a, 3),
          "value.vmap: [vmap] in_dims gives an axis for a value of type int, which is not a "
          "tensor; use nullopt there"),
      ROW(vmap([](const Tensor&) { return Tensor(); })(a),
          "value.vmap: [vmap] the function returned an undefined tensor; give it nullopt in "
          "out_dims"),
      ROW(VmapOptions().chunk_size(0),
          "value.vmap: [vmap] expected a positive chunk_size, got 0; use nullopt for one call"),
      ROW(vmap([](const Tensor& v) { return v * v.sum().item<double>(); })(a),
          "transform.item: [item] expected a tensor with values of its own, got one inside vmap, "
          "which stands for all examples at once; use where() instead of a branch on a value, or "
          "return it from the mapped function and read it there"),
      ROW(vmap([](const Tensor& v) { return *v.data_ptr<float>() > 0 ? v : v; })(a),
          "transform.data_ptr: [data_ptr] expected a tensor outside transforms, got one inside "
          "vmap, whose memory may not be written; use in-place ops such as copy_(), or "
          "const_data_ptr() for reading"),
      ROW(vmap([](const Tensor& v) { return v + randn(3); })(a),
          "transform.random_bits: [random_bits] random op inside vmap; choose "
          "VmapOptions().randomness(Randomness::different) (a draw per example) or "
          "Randomness::same (one draw for all); for jacfwd and hessian it is JacOptions()"),
      ROW(vmap([](const Tensor& v) { return nonzero(v); })(a),
          "transform.nonzero: [nonzero] cannot run inside vmap: the size of the result depends on "
          "the values; use where() or masked_fill() instead"),
      ROW(vmap([](const Tensor& v) { return masked_select(v, v > 0); })(a),
          "transform.masked_select: [masked_select] cannot run inside vmap: the size of the result "
          "depends on the values; use where() or masked_fill() instead"),
      ROW(vmap([](const Tensor& v) { return one_hot(v.to(kInt64)); })(a),
          "transform.one_hot: [one_hot] expected the number of classes, or indices whose largest "
          "value is known here, got indices inside vmap or linearize that stand for many values; "
          "give the number of classes"),
      ROW(vmap([&](const Tensor& v) { return kept.add_(v); })(a),
          "transform.assign: [assign] inside vmap, in-place change of a captured tensor by a value "
          "that differs per example; pass the tensor in as a mapped argument, or return the value"),
      ROW(vmap([](const Tensor& s, const Tensor& v) { return s.add_(v); }, {nullopt, 0})(ones(3),
                                                                                         a),
          "transform.assign: [assign] inside vmap, in-place change of an argument that is not "
          "mapped (in_dims nullopt) by a value that differs per example; map the argument, or "
          "clone it first"),
      ROW(vmap([](const Tensor& v, const Tensor& w) { return v.add_(w); })(a, a),
          "transform.vmap: [vmap] argument 0 was changed in place, but argument 1 shares its "
          "memory; clone one of them"),
      ROW(vmap([](const Tensor& v) { return v.requires_grad_(); })(a),
          "transform.requires_grad_: [requires_grad_] cannot be used inside vmap; differentiate "
          "with func::grad instead, or call it outside"),
      ROW(vmap([](const Tensor& v) {
            v.sum().backward();
            return v;
          })(a),
          "transform.backward: [backward] cannot be called inside a transform; use "
          "func::grad_and_value or "
          "func::vjp"),
      ROW(vmap([](const Tensor& v) { return v + ones(4); })(a),
          "shape.add: [add] expected shapes that broadcast, got [3] and [4]; make axis -1 equal or "
          "1; inside vmap, shapes are per example (mapped and not shown: axis 0 of size 2)"),
      ROW(vmap([](const Tensor& v) { return v.sum(1); }, 1)(a),
          "index.sum: [sum] expected an axis in [-1, 0], got 1; count axes from 0, or from the end "
          "by -1; inside vmap, shapes are per example (mapped and not shown: axis 1 of size 3)"),
      ROW(vmap(mul, {0, 1})(ones({2, 3}), ones({4, 2})),
          "shape.mul: [mul] expected shapes that broadcast, got [3] and [4]; make axis -1 equal or "
          "1; inside vmap, shapes are per example (mapped and not shown: axis 0 or 1 of size 2)"),
      ROW(vmap(
              [](const Tensor& v) {
                return vmap([](const Tensor& w) { return w + ones(4); }, 1)(v);
              },
              1)(ones({2, 3, 5})),
          "shape.add: [add] expected shapes that broadcast, got [2] and [4]; make axis -1 equal or "
          "1; inside vmap, shapes are per example (mapped and not shown: axis 1 of size 3, axis 1 "
          "of size 5)"),
      ROW(vmap([](const Tensor& v) { return v.sum(1); }, 0, 0, VmapOptions().chunk_size(1))(a),
          "index.sum: [sum] expected an axis in [-1, 0], got 1; count axes from 0, or from the end "
          "by -1; inside vmap, shapes are per example (mapped and not shown: axis 0 of size 2)"),
      ROW(vmap(grad(id))(a),
          "value.grad: [grad] the function must return a 0-d tensor, got shape [3]; reduce it, for "
          "example with sum() or mean(); inside vmap, shapes are per example (mapped and not "
          "shown: axis 0 of size 2)"),
      ROW(vmap_leaked + 1,
          "transform.add: [add] this tensor escaped from a finished vmap; return it from the "
          "transformed function instead of keeping it"),
  });
}

TEST_CASE("grad, vjp, jvp") {
  Tensor a = ones({2, 3});
  Tensor grad_leaked;
  auto id = [](const Tensor& v) { return v; };
  grad([&](const Tensor& v) {
    grad_leaked = v * 2;
    return v.sum();
  })(a);
  auto recorded = func::vjp([](const Tensor& v) { return v * 2; }, a);
  check_rows({
      ROW(grad(id)(a),
          "value.grad: [grad] the function must return a 0-d tensor, got shape [2, 3]; reduce it, "
          "for example with sum() or mean()"),
      ROW(grad([](const Tensor&) { return Tensor(); })(a),
          "value.grad: [grad] the function must return a 0-d tensor, got an undefined one; reduce "
          "it, for example with sum() or mean()"),
      ROW(grad([](const Tensor& v) { return v.argmax(); })(a),
          "type.grad: [grad] the function must return a floating tensor, got int64; return others "
          "as aux"),
      ROW(grad([](const Tensor& v) { return v.sum(); })(arange(2)),
          "type.grad: [grad] only floating tensors can be differentiated, got int64; cast it, or "
          "choose other arguments to differentiate"),
      ROW(grad([](const Tensor& v) { return v.sum(); })(Tensor()),
          "value.grad: [grad] expected defined arguments to differentiate, got an undefined "
          "tensor; pass a value"),
      ROW(grad([](const Tensor& v) { return v.mul_(2).sum(); })(a),
          "transform.assign: [assign] inside grad, in-place change of an argument that is being "
          "differentiated; clone it first"),
      ROW(grad([&](const Tensor& v) { return a.add_(v).sum(); })(ones(3)),
          "transform.assign: [assign] inside grad, in-place change of a captured tensor by a value "
          "that depends on the differentiated arguments; pass the tensor in as an argument, or "
          "return the value"),
      ROW(grad([](const Tensor& v) {
            v.sum().backward();
            return v.sum();
          })(a),
          "transform.backward: [backward] cannot be called inside a transform; use "
          "func::grad_and_value or "
          "func::vjp"),
      ROW(grad([](const Tensor& v) { return v.requires_grad_().sum(); })(a),
          "transform.requires_grad_: [requires_grad_] cannot be used inside grad; differentiate "
          "with func::grad instead, or call it outside"),
      ROW(grad([](const Tensor& v) { return v.retain_grad(), v.sum(); })(a),
          "transform.retain_grad: [retain_grad] cannot be used inside grad; use "
          "func::grad_and_value or "
          "func::vjp"),
      ROW(grad([](const Tensor& v) { return *v.data_ptr<float>() > 0 ? v.sum() : v.sum(); })(a),
          "transform.data_ptr: [data_ptr] expected a tensor outside transforms, got one inside "
          "grad, whose memory may not be written; use in-place ops such as copy_(), or "
          "const_data_ptr() for reading"),
      ROW(grad_leaked + 1,
          "transform.add: [add] this tensor escaped from a finished grad; return it from the "
          "transformed function instead of keeping it"),
      ROW(recorded.second(ones(3)),
          "shape.vjp: [vjp] the cotangent of output 0 must have shape [2, 3], got [3]; make it "
          "like the output"),
      ROW(recorded.second(ones({2, 3}, kFloat64)),
          "type.vjp: [vjp] the cotangent of output 0 must have dtype float32, got float64; convert "
          "with to()"),
      ROW(recorded.second(std::vector<Tensor>{ones({2, 3}), ones({2, 3})}),
          "value.vjp: [vjp] expected 1 cotangent tensors, as many as the function has outputs, got "
          "2; give one per output"),
      ROW(func::vjp([](const Tensor& v) { return v.argmax(); }, a),
          "type.vjp: [vjp] the function must return floating tensors, got int64; return others as "
          "aux"),
      ROW(func::vjp([](const Tensor&) { return std::vector<Tensor>(); }, a),
          "value.vjp: [vjp] expected a function that returns tensors, got none; return what is to "
          "be differentiated"),
      ROW(func::vjp(
              [](const Tensor& v) {
                return TensorDict{{"y", v}};
              },
              a)
              .second(TensorDict{{"z", a}}),
          "value.vjp: [vjp] expected cotangents with the same names, got \"z\" as well; leave it "
          "out"),
      ROW(func::jvp(id, std::tuple(a), std::tuple(ones(2))),
          "shape.jvp: [jvp] the tangent of argument tensor 0 must have the shape of its primal [2, "
          "3], got [2]; make it like the primal"),
      ROW(func::jvp(id, std::tuple(a), std::tuple(a.to(kFloat64))),
          "type.jvp: [jvp] the tangent of argument tensor 0 must have the (floating) dtype of its "
          "primal, float32, got float64; convert with to()"),
      ROW(func::jvp(id, std::tuple(arange(2)), std::tuple(arange(2))),
          "type.jvp: [jvp] the tangent of argument tensor 0 must have the (floating) dtype of its "
          "primal, int64, got int64; convert with to()"),
      ROW(func::jvp([](const std::vector<Tensor>& v) { return v[0]; },
                    func::args(std::vector<Tensor>{a}), func::args(std::vector<Tensor>())),
          "value.jvp: [jvp] expected tangents of the same structure: a list of 1 parts, got 0; "
          "give one per part"),
      ROW(func::jvp([](const TensorDict& v) { return v.at("x"); }, func::args(TensorDict{{"x", a}}),
                    func::args(TensorDict())),
          "value.jvp: [jvp] expected tangents with the same names, got none for \"x\"; give it "
          "one"),
      ROW(func::jvp([](int) { return ones(1); }, func::args(1), func::args(1)),
          "value.jvp: [jvp] expected primals with at least one tensor, got none; pass what is to "
          "be differentiated"),
      ROW(func::jvp([](const Tensor& v) { return v.add_(1); }, std::tuple(a), std::tuple(a)),
          "transform.assign: [assign] inside jvp, in-place change of an argument that is being "
          "differentiated; clone it first"),
  });
}

TEST_CASE("functional_call") {
  nn::Linear m(3, 2);
  const Tensor x3 = ones({1, 3});
  TensorDict d2 = {{"bias", ones(2)}};
  Tied tied;
  nn::Sequential shared(m, m);
  check_rows({
      ROW(func::functional_call(m, {{"wieght", ones({2, 3})}}, x3),
          "key.functional_call: [functional_call] unknown names \"wieght\" for module nn::Linear; "
          "did you mean \"weight\"?"),
      ROW(func::functional_call(m, {{"bias", ones(2)}}, FunctionalCallOptions().strict(true), x3),
          "key.functional_call: [functional_call] missing names \"weight\"; give them, or leave "
          "strict out to use the module's own"),
      ROW(func::functional_call(m, {{"wieght", ones(2)}}, FunctionalCallOptions().strict(true), x3),
          "key.functional_call: [functional_call] unknown names \"wieght\" for module nn::Linear; "
          "did you mean \"weight\"? missing names \"bias\", \"weight\"; give them, or leave strict "
          "out to use the module's own"),
      ROW(func::functional_call(m, {d2, d2}, x3),
          "value.functional_call: [functional_call] the name \"bias\" is in two of the dicts; give "
          "it once"),
      ROW(func::functional_call(
              m, std::vector<std::pair<std::string, Tensor>>{{"bias", x3}, {"bias", x3}}, x3),
          "value.functional_call: [functional_call] the name \"bias\" occurs twice; give it once"),
      ROW(func::functional_call(tied, {{"a", ones(1)}, {"b", ones(1)}}, x3),
          "value.functional_call: [functional_call] got different values for \"b\" and \"a\", "
          "which are tied; give one, or use tie_weights(false)"),
      ROW(func::functional_call(shared, {{"0.weight", ones({2, 3})}, {"1.weight", ones({2, 3})}},
                                x3),
          "value.functional_call: [functional_call] \"0.weight\" and \"1.weight\" are one tensor "
          "of the module, but got different values; give it once"),
  });
}

TEST_CASE("stack_module_state") {
  nn::Linear m(3, 2), no_bias(nn::LinearOptions(3, 2).bias(false)), wide(3, 2), meta(3, 2),
      off(3, 2), frozen(3, 2);
  wide->to(kFloat64);
  meta->to(kMeta);
  off->eval();
  frozen->bias.requires_grad_(false);
  std::vector<Three> ties = {Three(true), Three(false)};
  nn::Sequential seq1(nn::Linear(1, 1), nn::Dropout(0.1)), seq2(nn::Linear(1, 1), nn::Tanh()),
      seq3(nn::Linear(1, 1), nn::Dropout(0.5)),
      seq4(nn::Linear(1, 1), nn::Dropout(0.1), nn::Tanh());
  check_rows({
      ROW(func::stack_module_state(std::vector<nn::Linear>()),
          "value.stack_module_state: [stack_module_state] expected at least one model, got an "
          "empty list; check what fills it"),
      ROW(func::stack_module_state(std::vector<nn::Linear>{m, nn::Linear(nullptr)}),
          "value.ModuleHolder: [ModuleHolder] expected a module, got an empty handle; assign one "
          "first"),
      ROW(func::stack_module_state(std::vector<nn::Linear>{m, nn::Linear(3, 4)}),
          "shape.stack_module_state: [stack_module_state] \"weight\" of member 1 has shape [4, 3], "
          "member 0 has [2, 3]; stack members of one shape"),
      ROW(func::stack_module_state(std::vector<nn::Linear>{m, no_bias}),
          "value.stack_module_state: [stack_module_state] member 1 has no parameter \"bias\", "
          "which member 0 has; all members need the same names"),
      ROW(func::stack_module_state(std::vector<nn::Linear>{no_bias, m}),
          "value.stack_module_state: [stack_module_state] member 1 has the parameter \"bias\", "
          "which member 0 has not; all members need the same names"),
      ROW(func::stack_module_state(std::vector<nn::Linear>{m, wide}),
          "type.stack_module_state: [stack_module_state] \"weight\" of member 1 is float64, member "
          "0 has float32; convert with to()"),
      ROW(func::stack_module_state(std::vector<nn::Linear>{m, meta}),
          "device.stack_module_state: [stack_module_state] \"weight\" of member 1 is on meta, "
          "member 0 on cpu; move with to()"),
      ROW(func::stack_module_state(std::vector<nn::Linear>{m, off}),
          "value.stack_module_state: [stack_module_state] member 1 is in eval mode, member 0 in "
          "train mode; call train() or eval() on all of them"),
      ROW(func::stack_module_state(std::vector<nn::Linear>{m, frozen}),
          "value.stack_module_state: [stack_module_state] \"bias\" of member 1 does not require "
          "grad, unlike member 0; use the same requires_grad in every member"),
      ROW(func::stack_module_state(std::vector<nn::Module*>{m.get(), seq1.get()}),
          "type.stack_module_state: [stack_module_state] member 1 has a nn::Sequential, member 0 a "
          "nn::Linear; all members must be of the same class"),
      ROW(func::stack_module_state(std::vector<nn::Sequential>{seq1, seq2}),
          "type.stack_module_state: [stack_module_state] member 1 has a nn::Tanh at \"1\", member "
          "0 a nn::Dropout; all members must be of the same class"),
      ROW(func::stack_module_state(std::vector<nn::Sequential>{seq1, seq3}),
          "value.stack_module_state: [stack_module_state] member 1 has nn::Dropout(p=0.5, "
          "inplace=false) at \"1\", member 0 has nn::Dropout(p=0.1, inplace=false); one forward "
          "runs for all members, so give them the same options"),
      ROW(func::stack_module_state(std::vector<nn::Sequential>{seq1, seq4}),
          "value.stack_module_state: [stack_module_state] member 1 has the module \"2\", member 0 "
          "has not; one forward runs for all members, so give them the same modules"),
      ROW(func::stack_module_state(ties),
          "value.stack_module_state: [stack_module_state] \"c\" of member 1 is \"b\", that of "
          "member 0 is \"a\"; tie the same names in every member"),
      ROW(func::unstack_module_state({{"weight", ones({2, 2, 3})}}, {},
                                     std::vector<nn::Linear>{m, m}),
          "key.unstack_module_state: [unstack_module_state] the stacked state has no parameter "
          "\"bias\", which member 0 has; give the state that was stacked"),
      ROW(func::unstack_module_state({{"weight", ones({2, 2, 3})}, {"bias", ones(2)}}, {},
                                     std::vector<nn::Linear>{m, m}),
          "shape.unstack_module_state: [unstack_module_state] \"bias\" has shape [2], expected [2, "
          "2] for 2 members (member 0); give as many models as were stacked"),
      ROW(func::unstack_module_state(
              {{"weight", ones({2, 2, 3})}, {"bias", ones({2, 2}, kFloat64)}}, {},
              std::vector<nn::Linear>{m, m}),
          "type.unstack_module_state: [unstack_module_state] \"bias\" is float64, member 0 has "
          "float32; convert with to()"),
      ROW(func::unstack_module_state(
              {{"weight", ones({2, 2, 3})}, {"bias", ones({2, 2})}, {"x", ones(2)}}, {},
              std::vector<nn::Linear>{m, m}),
          "key.unstack_module_state: [unstack_module_state] member 0 has no parameter \"x\"; give "
          "the state that was stacked"),
  });
}

TEST_CASE("modules") {
  Tensor a = ones({2, 3});
  Tensor x = ones(2).requires_grad_(), inf = ones(2).requires_grad_();
  inf.mutable_grad() = ones(2) / 0;
  nn::Linear m(3, 2);
  check_rows({
      ROW(m->register_parameter("weight", ones(1)),
          "value.register_parameter: [register_parameter] the name \"weight\" is already "
          "registered in nn::Linear; choose another one"),
      ROW(m->register_parameter("a.b", ones(1)),
          "value.register_parameter: [register_parameter] expected a name without a dot, got "
          "\"a.b\"; dots separate modules in state dicts"),
      ROW(m->register_parameter("", ones(1)),
          "value.register_parameter: [register_parameter] expected a name, got an empty one; state "
          "dicts need it"),
      ROW(m->register_parameter("p", (x * 2).sum()),
          "value.register_parameter: [register_parameter] expected \"p\" to be a leaf, got a "
          "tensor with history; detach() it first"),
      ROW(m->register_module("l", std::shared_ptr<nn::LinearImpl>()),
          "value.register_module: [register_module] expected a module for \"l\", got an empty "
          "handle; make one first"),
      ROW(m->replace_module("l", nn::Linear(1, 1)),
          "key.replace_module: [replace_module] no child \"l\" in nn::Linear; add it with "
          "register_module()"),
      ROW(m->unregister_module("l"),
          "key.unregister_module: [unregister_module] no child \"l\" in nn::Linear; "
          "named_children() lists them"),
      ROW(m->load_state_dict({{"weight", ones({2, 3})}}),
          "key.load_state_dict: [load_state_dict] expected the names of nn::Linear, got none for "
          "\"bias\"; pass strict = false to load what matches"),
      ROW(m->load_state_dict({{"weight", ones({2, 3})}, {"bias", ones(2)}, {"other", ones(2)}}),
          "key.load_state_dict: [load_state_dict] expected the names of nn::Linear, got unexpected "
          "\"other\"; pass strict = false to load what matches"),
      ROW(m->load_state_dict({{"weight", ones({2, 2})}, {"bias", ones(2)}}),
          "shape.load_state_dict: [load_state_dict] \"weight\" has shape [2, 3], the given tensor "
          "[2, 2]; load it into a module made with the same options"),
      ROW(m->to(kInt64),
          "type.to: [to] expected a floating dtype for a module, got int64; integer buffers stay "
          "as they are"),
      ROW(nn::Linear(nullptr)(a),
          "value.ModuleHolder: [ModuleHolder] expected a module, got an empty handle; assign one "
          "first"),
      ROW(nn::Linear(-1, 2),
          "value.Linear: [Linear] expected sizes that are not negative, got -1 and 2; give "
          "in_features, out_features"),
      ROW(nn::Dropout(1.5),
          "value.Dropout: [Dropout] expected a probability between 0 and 1, got 1.5; give the "
          "share of zeros"),
      ROW(nn::Embedding(nn::EmbeddingOptions(3, 2).padding_idx(3)),
          "value.Embedding: [Embedding] expected padding_idx within num_embeddings = 3, got 3; "
          "count from 0, or from the end by -1"),
      ROW(nn::Sequential()->forward(a),
          "value.Sequential: [Sequential] expected at least one module, got none; push_back() "
          "some"),
      ROW(nn::Reduction("avg"),
          "value.Reduction: [Reduction] expected \"none\", \"mean\", \"sum\" or \"batchmean\", got "
          "\"avg\"; write one of them"),
      ROW(nn::init::xavier_uniform_(ones(3)),
          "shape.xavier_uniform_: [xavier_uniform_] expected a tensor with at least 2 axes, got "
          "shape [3]; initialise biases with zeros_() or uniform_()"),
      ROW(nn::init::calculate_gain("sine"),
          "value.calculate_gain: [calculate_gain] expected a layer or an activation, got \"sine\"; "
          "multiply by a gain of your own"),
      ROW(nn::init::trunc_normal_(a, 0, -1),
          "value.trunc_normal_: [trunc_normal_] expected std > 0 and low < high, got std -1, low "
          "-2, high 2; give the deviation and the interval"),
      ROW(nn::init::eye_(ones(3)),
          "shape.eye_: [eye_] expected a matrix, got shape [3]; reshape it first"),
      ROW(nn::utils::vector_to_parameters(ones(3), {a}),
          "shape.vector_to_parameters: [vector_to_parameters] expected a vector of 6 elements, got "
          "shape [3]; make it with parameters_to_vector()"),
      ROW(nn::utils::parameters_to_vector({}),
          "value.parameters_to_vector: [parameters_to_vector] expected at least one parameter, got "
          "none; give parameters()"),
      ROW(nn::utils::clip_grad_norm_(std::vector<Tensor>{inf}, 1.0, 2, true),
          "value.clip_grad_norm_: [clip_grad_norm_] expected gradients of finite norm, got inf; "
          "lower the learning rate, or look for NaN"),
  });
}

TEST_CASE("optimizers") {
  Tensor a = ones({2, 3});
  Tensor x = ones(2).requires_grad_();
  optim::SGD sgd(std::vector<Tensor>{x}, 0.1), named(TensorDict{{"w", x}}, 0.1);
  check_rows({
      ROW(optim::SGD(std::vector<Tensor>{}, 0.1),
          "value.optimizer: [optimizer] expected at least one parameter, got none; give "
          "parameters()"),
      ROW(optim::SGD(std::vector<Tensor>{x}, -0.1),
          "value.SGD: [SGD] expected lr >= 0, got -0.1; choose another one"),
      ROW(optim::SGD(std::vector<Tensor>{x}, optim::SGDOptions(0.1).nesterov(true)),
          "value.SGD: [SGD] expected a momentum and no dampening for nesterov, got momentum 0 and "
          "dampening 0; set momentum"),
      ROW(optim::Adam(std::vector<Tensor>{x}, optim::AdamOptions(0.1).betas({0.9, 1.0})),
          "value.Adam: [Adam] expected betas in [0, 1), got 1; 0.9 and 0.999 are usual"),
      ROW(optim::SGD(std::vector<Tensor>{x}, optim::SGDOptions({1.0, 2.0, 3.0})),
          "shape.optimizer: [optimizer] expected lr for 2 members, as many as \"0\" of shape [2] "
          "has "
          "along axis 0, got values for 3; give one for each, or a number for all"),
      ROW(optim::SGD(std::vector<Tensor>{ones({}).requires_grad_()}, optim::SGDOptions({1.0, 2.0})),
          "shape.optimizer: [optimizer] expected a number for lr, as \"0\" has no axis of members, "
          "got values for 2 members; stack the parameters of the members"),
      ROW(optim::SGD(std::vector<Tensor>{x}, optim::SGDOptions({1.0, -1.0})),
          "value.SGD: [SGD] expected lr >= 0, got -1 for member 1; choose another one"),
      ROW(optim::SGDOptions(a),
          "shape.lr: [lr] expected one value for each member, of shape [M], got shape [2, 3]; give "
          "a number if all members share it"),
      ROW(optim::SGDOptions(arange(3)),
          "type.lr: [lr] expected floating values, got int64; convert with to()"),
      ROW(optim::SGDOptions({1.0, std::nan("")}),
          "value.lr: [lr] expected a number for each member, got nan for member 1; look where it "
          "comes from"),
      ROW(optim::SGDOptions({1.0, 2.0}).lr(),
          "value.lr: [lr] expected one value for all members, but each of the 2 has its own; read "
          "lr_values(), scale them with scale_lr(), or set them anew"),
      ROW(optim::AdamOptions().betas({0.5, std::vector<double>{0.1, 0.2}}).betas(),
          "value.betas: [betas] expected one value for all members, but each of the 2 has its own; "
          "read betas_values(), or set them anew"),
      ROW(optim::SGD(std::vector<Tensor>{Tensor()}, 0.1),
          "value.optimizer: [optimizer] expected defined parameters, got an undefined one for "
          "\"0\"; leave it out"),
      ROW(optim::SGD(std::vector<Tensor>{arange(3)}, 0.1),
          "type.optimizer: [optimizer] expected floating parameters, got int64 for \"0\"; leave it "
          "out"),
      ROW(optim::SGD(std::vector<Tensor>{x * 2}, 0.1),
          "value.optimizer: [optimizer] parameter \"0\" is not a leaf; detach() it first"),
      ROW(optim::SGD(std::vector<Tensor>{x, x}, 0.1),
          "value.optimizer: [optimizer] parameter \"1\" is already in this optimizer; give it "
          "once"),
      ROW(sgd.step(std::vector<Tensor>{a, a}),
          "value.step: [step] expected 1 gradients, one per parameter, got 2; give an undefined "
          "Tensor for a parameter that should stay as it is"),
      ROW(sgd.step(std::vector<Tensor>{a}),
          "shape.step: [step] expected a gradient of shape [2] for \"0\", got [2, 3]; give the "
          "gradients in the parameters' order"),
      ROW(sgd.step(std::vector<Tensor>{ones(2, kFloat64)}),
          "type.step: [step] expected a gradient of dtype float32 for \"0\", got float64; convert "
          "with to()"),
      ROW(named.step(TensorDict{{"v", ones(2)}}),
          "key.step: [step] expected one gradient per parameter, got none for \"w\", and unknown "
          "\"v\"; give an undefined Tensor for a parameter that should stay as it is"),
      ROW(named.load_state_dict({{"v.step", ones(1)}}),
          "key.load_state_dict: [load_state_dict] expected the names that state_dict() gives, got "
          "\"v.step\"; make the optimizer of the same parameters"),
      ROW(vmap([&](const Tensor& v) {
            sgd.step();
            return v;
          })(a),
          "transform.step: [step] an optimizer cannot be used inside vmap; return the gradients "
          "from the transformed function and call step(grads) outside of it"),
  });
}

TEST_CASE("data and files") {
  Tensor a = ones({2, 3});
  check_rows({
      ROW(data::TensorDataset(tensor(1.f)),
          "shape.TensorDataset: [TensorDataset] expected data of shape [N, ...], got a tensor "
          "without axes; give examples along axis 0"),
      ROW(data::TensorDataset(a, ones(3)),
          "shape.TensorDataset: [TensorDataset] expected as many targets as examples, got data [2, "
          "3] and target [3]; give one per example"),
      ROW(data::TensorDataset(a).get(2),
          "index.TensorDataset: [TensorDataset] expected an index in [0, 2), got 2; size() gives "
          "the number of examples"),
      ROW(data::DataLoader(data::TensorDataset(a), data::DataLoaderOptions(0)),
          "value.DataLoader: [DataLoader] expected a batch size of at least 1, got 0; give the "
          "examples per batch"),
      ROW(data::DataLoader(data::TensorDataset(a), data::DataLoaderOptions(1).members(-1)),
          "value.DataLoader: [DataLoader] expected a number of members, or 0 for batches without a "
          "member axis, got -1; give one of them"),
      ROW(data::parse_csv("1,2\n3\n"),
          "file.read_csv: [read_csv] text:2: expected 2 columns as in the rows before, got 1; "
          "repair or remove this line"),
      ROW(data::parse_csv("1,2\n3,x\n"),
          "file.read_csv: [read_csv] text:2: field 2 (\"x\") is not a number; repair or remove "
          "this line"),
      ROW(data::parse_csv(""),
          "file.read_csv: [read_csv] text:1: expected at least one row of numbers, got an empty "
          "file; check that this is the right file and that it was copied in full"),
      ROW(data::parse_csv("1,2\n", data::CsvOptions().columns(3)),
          "file.read_csv: [read_csv] text:1: expected 3 columns, got 2; repair or remove this "
          "line"),
      ROW(data::parse_csv("1,2\n", data::CsvOptions().dtype(kInt64)),
          "type.read_csv: [read_csv] expected dtype float32 or float64, got int64; convert the "
          "result with to()"),
      ROW(data::read_csv("/no/such/file.csv"),
          "file.read_csv: [read_csv] cannot read /no/such/file.csv: No such file or directory; "
          "check the path"),
      ROW(save({{"x", zeros(2, kMeta)}}, "x.safetensors"),
          "value.save: [save] \"x\" has no data to save: it is a Meta tensor; leave it out"),
      ROW(save({{"x", Tensor()}}, "x.safetensors"),
          "value.save: [save] \"x\" has no data to save: it is undefined; leave it out"),
      ROW(save({{"__metadata__", a}}, "x.safetensors"),
          "value.save: [save] \"__metadata__\" cannot name a tensor; rename it"),
      ROW(save({{"x", a}}, ""),
          "file.save: [save] expected the name of a file, got an empty path; give one"),
      ROW(save({{"x", a}}, "."),
          "file.save: [save] cannot write .: it is a folder; give the name of a file"),
      ROW(save({{"x", a}}, "/no/such/folder/x.safetensors"),
          "file.save: [save] cannot write /no/such/folder/x.safetensors: No such file or "
          "directory; check that the folder exists and that you may write there"),
      ROW(load("/no/such/file.safetensors"),
          "file.load: [load] cannot read /no/such/file.safetensors: No such file or directory; "
          "check the path"),
  });
}

TEST_CASE("every error is a tutti::Error and a std::runtime_error") {
  try {
    ones({2, 3}) + ones(4);
    CHECK(false);
  } catch (const std::runtime_error& e) {
    CHECK(dynamic_cast<const Error*>(&e) != nullptr);
    CHECK(dynamic_cast<const ShapeError*>(&e) != nullptr);
  }
}

TEST_CASE("an op made of smaller ones is named, and only while it runs") {
  CHECK(message([] {
          nn::functional::embedding(tensor({7}), ones({2, 3}));
        }).starts_with("index.embedding: [embedding] "));
  CHECK(message([] { ones({2, 3}).gather(0, tensor({{7}})); }).starts_with("index.gather: "));
  {
    Naming outer("outer"), inner("inner");
    CHECK(message([] { ones(2) + ones(3); }).starts_with("shape.outer: [outer] "));
  }
  CHECK(message([] { ones(2) + ones(3); }).starts_with("shape.add: [add] "));
}
