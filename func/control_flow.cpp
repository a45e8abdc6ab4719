// cond, while_loop and scan on lists of tensors.
#include <algorithm>

#include <tutti/autograd/jvp_interpreter.h>
#include <tutti/core/watch.h>
#include <tutti/func/context.h>
#include <tutti/func/control_flow.h>
#include <tutti/func/custom_function.h>
#include <tutti/func/vmap_interpreter.h>

namespace tutti {

ScanOptions& ScanOptions::length(std::int64_t n) {
  check<ValueError>(n >= 0, "scan", "expected a length that is not negative, got ", n);
  length_ = n;
  return *this;
}

namespace detail {

namespace {

// Whether x differs between the examples of some running vmap.
bool is_batched(const Tensor& x) {
  Tensor v = resolved(x);
  for (const Interpreter* i = thread_state().current; i; i = i->parent) {
    if (!i->mine(v)) continue;
    const Vmap* m = dynamic_cast<const Vmap*>(i);
    if (m && m->split(v, "cond").second >= 0) return true;
    v = Tensor(as_box(v)->inner);
  }
  return false;
}

std::vector<bool> all_values(const Tensor& x) { return func::peek(x).to_vector<bool>(); }

bool differentiating(const Tensors& in) {
  for (const Interpreter* i = thread_state().current; i; i = i->parent)
    if (dynamic_cast<const Jvp*>(i)) return true;
  return records(in);
}

// x, for all but the `chosen` examples without history: where a derivative is not finite there, the
// zero that reaches it from behind gives NaN, which ends here and not in x.
Tensor without_history_unless(const Tensor& chosen, const Tensor& x) {
  return where(chosen, x, x.detach());
}

}  // namespace

Condition::Condition(const Tensor& p, const char* op) {
  check<ValueError>(p.defined(), op, "expected a condition, got an undefined tensor");
  check<TypeError>(p.dtype() == kBool, op, "expected a bool condition, got dtype ", p.dtype(),
                   "; compare it, for example with x > 0");
  check<ShapeError>(p.numel() == 1, op,
                    "expected a condition of one element (per example), got shape ", p.sizes(),
                    "; reduce it, for example with all() or any()");
  differs = is_batched(p);
  if (differs)
    tensor = p.dim() == 0 ? p : reshape(p, IntArrayRef());
  else
    value = all_values(p)[0];
}

bool LoopMask::next(const Condition& c) {
  if (!c.differs && !active_.defined()) return c.value;
  if (!c.differs && !c.value) return false;
  if (c.differs) active_ = active_.defined() ? logical_and(active_, c.tensor) : c.tensor;
  const std::vector<bool> on = all_values(active_);
  const auto running = std::count(on.begin(), on.end(), true);
  partial_ = running < static_cast<std::ptrdiff_t>(on.size());
  return running > 0;
}

Tensors LoopMask::enter(const Tensors& carry) const {
  if (!partial_ || !differentiating(carry)) return carry;
  return enter_branch(active_, carry);
}

Tensors LoopMask::merge(const Tensors& next, const Tensors& old) const {
  return partial_ ? select_each(active_, next, old, "while_loop", "the carry to keep its shapes")
                  : next;
}

Tensors enter_branch(const Tensor& chosen, const Tensors& args) {
  if (!differentiating(args)) return args;
  Tensors r;
  for (const Tensor& x : args)
    r.push_back(x.defined() && is_floating(x.dtype()) ? without_history_unless(chosen, x) : x);
  return r;
}

Tensors call_guarded(ListFn f, const Tensors& args, const char* op, const char* whose, bool all) {
  WriteGuard guard(op, whose, "return the new value instead, or clone the tensor first",
                   all ? nullptr : &args);
  return f(args);
}

Tensors select_each(const Tensor& p, const Tensors& a, const Tensors& b, const char* op,
                    const char* what) {
  Tensors r;
  for (std::size_t k = 0; k < a.size(); ++k) {
    if (!a[k].defined()) {
      r.push_back({});
      continue;
    }
    check<ShapeError>(a[k].sizes() == b[k].sizes(), op, "expected ", what, ", got ", a[k].sizes(),
                      " and ", b[k].sizes(), " for tensor ", k, " of the result");
    check<TypeError>(a[k].dtype() == b[k].dtype(), op, "expected ", what, ", got ", a[k].dtype(),
                     " and ", b[k].dtype(), " for tensor ", k, " of the result");
    r.push_back(where(p, a[k], b[k]));
  }
  return r;
}

void check_carry(const Tensors& next, const Tensors& old, const char* op) {
  for (std::size_t k = 0; k < old.size(); ++k) {
    if (!old[k].defined()) continue;
    check<ShapeError>(next[k].sizes() == old[k].sizes(), op,
                      "expected the carry to keep its shapes, got ", next[k].sizes(), " after ",
                      old[k].sizes(), " for tensor ", k, " of it; start with the final shape");
    check<TypeError>(next[k].dtype() == old[k].dtype(), op,
                     "expected the carry to keep its dtypes, got ", next[k].dtype(), " after ",
                     old[k].dtype(), " for tensor ", k, " of it; cast it with to()");
  }
}

void check_structure(const std::string& a, const std::string& b, const char* op,
                     const char* expected) {
  check<ValueError>(a == b, op, "expected ", expected, ", got ", a, " and ", b,
                    " (* stands for a tensor)");
}

void fail_no_tensor(const char* op, const char* what) {
  fail<ValueError>(op, "expected ", what,
                   " to have tensors only, got a value that is none and cannot differ per example; "
                   "make it a tensor");
}

std::int64_t scan_length(const Tensors& xs, const ScanOptions& options) {
  std::optional<std::int64_t> n = options.length();
  for (const Tensor& x : xs) {
    check<ShapeError>(x.defined() && x.dim() > 0, "scan",
                      "expected xs with an axis to loop over, got ",
                      x.defined() ? "a 0-d tensor" : "an undefined tensor");
    check<ShapeError>(!n || *n == x.size(0), "scan", "expected all xs to have length ",
                      n.value_or(0), " along their first axis, got shape ", x.sizes());
    n = x.size(0);
  }
  check<ValueError>(n.has_value(), "scan",
                    "expected xs with tensors, or ScanOptions().length(n), to know the number of "
                    "steps");
  return *n;
}

Tensors scan_inputs(const Tensors& xs, std::int64_t step, bool empty) {
  Tensors r;
  for (const Tensor& x : xs)
    r.push_back(empty ? zeros(x.sizes().shape().size() > 1
                                  ? IntArrayRef(x.sizes().data() + 1, x.sizes().size() - 1)
                                  : IntArrayRef(),
                              x.options())
                      : select(x, 0, step));
  return r;
}

Tensors scan_outputs(const std::vector<Tensors>& ys) {
  Tensors r;
  for (std::size_t k = 0; k < ys[0].size(); ++k) {
    std::vector<Tensor> steps;
    for (const Tensors& y : ys) {
      check<ValueError>(y[k].defined(), "scan", "the function returned an undefined tensor in y");
      check<ShapeError>(y[k].sizes() == ys[0][k].sizes(), "scan",
                        "expected every step to return a y of the same shape, got ", y[k].sizes(),
                        " and ", ys[0][k].sizes(), " for tensor ", k, " of it");
      check<TypeError>(y[k].dtype() == ys[0][k].dtype(), "scan",
                       "expected every step to return a y of the same dtype, got ", y[k].dtype(),
                       " and ", ys[0][k].dtype(), " for tensor ", k, " of it");
      steps.push_back(y[k]);
    }
    r.push_back(stack(steps));
  }
  return r;
}

Tensors scan_no_outputs(const Tensors& y) {
  Tensors r;
  for (const Tensor& t : y) {
    check<ValueError>(t.defined(), "scan", "the function returned an undefined tensor in y");
    Shape sizes = t.sizes().shape();
    sizes.insert(sizes.begin(), 0);
    r.push_back(zeros(sizes, t.options()));
  }
  return r;
}

}  // namespace detail
}  // namespace tutti
