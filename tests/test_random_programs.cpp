// Random straight-line programs of rows of the op table, with views and in-place writes, under the
// transforms: vmap against the loop, chunked against whole, vjp against jvp, jvp against central
// differences, compiled against plain. rapidcheck draws the programs and shrinks those that fail.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <sstream>

#include <rapidcheck.h>

#include <tutti/core/interpreter.h>
#include <tutti/func/compile.h>
#include <tutti/func/trace.h>

#include "op_table.h"
#include "test.h"

using namespace tutti;
using namespace tutti_test;

namespace {

/// One instruction. Its numbers are taken modulo what there is when it runs, so every list of
/// instructions is a program, a shortened one too.
struct Step {
  int kind;               // 0..9: see Machine::run
  unsigned row, a, b, c;  // the row; which registers
  unsigned seed;          // of its constants
};

void showValue(const Step& s, std::ostream& os) {
  os << "{" << s.kind << ", " << s.row << ", " << s.a << ", " << s.b << ", " << s.c << ", "
     << s.seed << "}";
}

struct Program {
  std::vector<Step> steps;
  unsigned inputs;  // seed of their shapes and values
};

void showValue(const Program& p, std::ostream& os);

// ---- what the rows ask of their inputs

bool usable(const Row& r) {
  if (r.inputs.empty() || r.is_random || r.dynamic) return false;
  for (const auto& [check, reason] : r.skips)
    if (check != "layout" && check != "memory" && check != "meta") return false;
  // Values that are not set, or that go through less precise ones.
  for (const char* word : {"empty_like", "new_empty", "dtype", "to cpu", "type_as"})
    if (r.name.find(word) != std::string::npos) return false;
  return true;
}

struct Rows {
  std::vector<const Row*> plain, views, writing;
  Rows() {
    for (const Row& r : table()) {
      if (!usable(r)) continue;
      plain.push_back(&r);
      if (r.memory == Row::Memory::view) views.push_back(&r);
      if (r.in_place) writing.push_back(&r);
    }
  }
};
const Rows& rows() {
  static const Rows r;
  return r;
}

// Constants are made below all transforms, so they are the same for every example.
Tensor constant(const Array& a, DType dtype = kFloat64) {
  Under root(nullptr);
  return to_tensor(a, dtype);
}

/// How far a value of this input may move and still keep what In promises.
double margin(const In& in) {
  double m = INFINITY;
  if (in.is_distinct)
    m = std::min(
        m, (in.hi - in.lo) / (10 * std::max<double>(1, static_cast<double>(count(in.shape)))));
  if (!in.avoid.empty()) m = std::min(m, 0.02);
  if (in.frac_hi > 0) m = std::min(m, 0.02);
  if (in.is_near_identity) m = std::min(m, 0.02);
  return m;
}

/// x with in's shape: part of it, or repetitions. A view of x if x is contiguous and large enough.
Tensor fitted(const Tensor& x, const Index& shape) {
  const std::int64_t n = count(shape), have = x.numel();
  if (n == 0 || have == 0) return zeros(shape, kFloat64);
  Tensor flat = x.flatten();
  if (have < n) flat = flat.repeat({(n + have - 1) / have});
  return flat.narrow(0, 0, n).reshape(shape);
}

/// Values of x, moved smoothly into the domain of an input.
Tensor in_domain(const Tensor& x, const In& in, Rng& rng) {
  const Tensor c = constant(sample(in, rng));
  if (const double m = margin(in); m < INFINITY) return c + m * x.sin();
  const double mid = (in.lo + in.hi) / 2, half = (in.hi - in.lo) / 2;
  return mid + half * (x + c).sin();
}

/// Runs programs on registers. A register is a tensor that the program may use and, if it is no
/// overlapping view, write to.
class Machine {
 public:
  explicit Machine(const Values& inputs) {
    for (const Tensor& x : inputs) add(x * 1, true, true);  // arguments stay as they are
  }

  void run(const Step& s) {
    Rng rng(s.seed);
    if (s.kind < 6)
      plain(s, rng);
    else if (s.kind < 8)
      view(s, rng);
    else
      write(s, rng);
  }

  Values results() const {
    Values v;
    for (const Register& r : registers_) v.push_back(r.value);
    return v;
  }

  std::vector<std::string> names;  // of the rows that ran
  std::string text;                // what was run, one line per step
  bool views = false, writes = false;

 private:
  struct Register {
    Tensor value;
    bool own;       // contiguous, so that parts of it are views of it
    bool writable;  // no two elements share memory
  };

  void add(const Tensor& x, bool own, bool writable) {
    registers_.push_back({is_floating(x.dtype()) ? x : x.to(kFloat64), own, writable});
  }
  const Register& at(unsigned i) const { return registers_[i % registers_.size()]; }

  void note(const char* how, const Row& row, std::initializer_list<unsigned> used) {
    names.push_back(row.ops.empty() ? row.name : row.ops.front());
    text += "  r" + std::to_string(registers_.size()) + " = " + how + " " + row.name + " of";
    for (unsigned u : used) text += " r" + std::to_string(u % registers_.size());
    text += "\n";
  }

  /// Input k of a row, from a register.
  Tensor input(const In& in, const Tensor& x, Rng& rng) const {
    switch (in.kind) {
      case In::Kind::index:
        return constant(sample(in, rng), kInt64);
      case In::Kind::boolean: {
        const In threshold = real(in.shape, -1, 1);
        return fitted(x, in.shape).sin() > constant(sample(threshold, rng));
      }
      case In::Kind::real:
        break;
    }
    return in_domain(fitted(x, in.shape), in, rng);
  }
  Values inputs(const Row& row, const Step& s, Rng& rng, std::size_t from = 0) const {
    const unsigned used[] = {s.a, s.b, s.c};
    Values v(from);
    for (std::size_t k = from; k < row.inputs.size(); ++k)
      v.push_back(input(row.inputs[k], at(used[k % 3]).value, rng));
    return v;
  }

  void plain(const Step& s, Rng& rng) {
    const Row& row = *rows().plain[s.row % rows().plain.size()];
    note("op", row, {s.a, s.b, s.c});
    const Values out = row.f(inputs(row, s, rng));
    for (const Tensor& y : out)  // some results are views, of inputs nobody else has
      add(row.memory == Row::Memory::own ? y : y.clone(), true, true);
  }

  void view(const Step& s, Rng& rng) {
    const Row& row = *rows().views[s.row % rows().views.size()];
    note("view", row, {s.a});
    views = true;
    const Register& r = at(s.a);
    // Whether flattening copies must not depend on where a mapped axis lies.
    const Tensor base = r.own && r.writable ? r.value : r.value.clone();
    Values v = inputs(row, s, rng, 1);
    v[0] = fitted(base, row.inputs[0].shape);
    add(row.f(v)[0], false, true);
  }

  void write(const Step& s, Rng& rng) {
    const Row& row = *rows().writing[s.row % rows().writing.size()];
    note("write", row, {s.a, s.b, s.c});
    writes = true;
    const In& first = row.inputs[0];
    const Register r = at(s.a);
    const bool whole = row.elementwise || row.inputs.size() == 1;
    Tensor target = r.value;
    if (!r.writable || !whole || s.seed % 3 == 0) {
      // Into the middle of a fresh copy.
      const std::int64_t n = count(first.shape);
      const Tensor base = fitted(r.value, {n + 2}).clone();
      add(base, true, true);
      target = base.narrow(0, 1, n).reshape(first.shape);
    }
    const Index shape = shape_of(target);
    const auto shaped = [&](In in) {
      if (whole) in.shape = shape;
      return in;
    };
    Values v{target};
    const unsigned used[] = {s.a, s.b, s.c};
    for (std::size_t k = 1; k < row.inputs.size(); ++k)
      v.push_back(input(shaped(row.inputs[k]), at(used[k % 3]).value, rng));
    target.copy_(in_domain(target, shaped(first), rng));
    row.in_place(v);
  }

  std::vector<Register> registers_;
};

Fn function_of(const Program& p) {
  return [p](const Values& xs) {
    Machine m(xs);
    for (const Step& s : p.steps) m.run(s);
    return m.results();
  };
}

std::vector<In> inputs_of(const Program& p) {
  Rng rng(p.inputs);
  std::vector<In> ins;
  for (int i = 0; i < 2; ++i) {
    Index shape;
    for (std::int64_t d = integer(rng, 1, 3); d > 0; --d) shape.push_back(integer(rng, 1, 4));
    ins.push_back(real(shape));
  }
  return ins;
}

void showValue(const Program& p, std::ostream& os) {
  Rng rng(p.inputs);
  Values xs;
  for (const In& in : inputs_of(p)) xs.push_back(constant(sample(in, rng)));
  Machine m(xs);
  os << "inputs " << p.inputs << "\n";
  try {
    for (const Step& s : p.steps) m.run(s);
  } catch (const std::exception& e) {
    m.text += std::string("  throws: ") + e.what() + "\n";
  }
  os << m.text;
  for (const Step& s : p.steps) {
    showValue(s, os);
    os << "\n";
  }
}

// ---- the properties

std::string compare(const char* what, const Arrays& a, const Arrays& b, double tol) {
  const std::string d = differs(a, b, tol, tol);
  return d.empty() ? "" : std::string(what) + ": " + d;
}

/// "" or what is wrong with the program.
std::string find_problem(const Program& p) {
  const Fn f = function_of(p);
  const std::vector<In> ins = inputs_of(p);
  Rng rng(p.inputs);
  Values xs;
  for (const In& in : ins) xs.push_back(constant(sample(in, rng)));

  // Mapped over a first or last axis, or over one input only.
  const std::int64_t size = integer(rng, 1, 3);
  std::vector<tutti_test::Axis> axes;
  Values batch;
  const std::int64_t unmapped = integer(rng, 0, 3);
  for (std::size_t i = 0; i < ins.size(); ++i) {
    if (static_cast<std::int64_t>(i) == unmapped) {
      axes.push_back(std::nullopt);
      batch.push_back(xs[i]);
      continue;
    }
    const std::size_t axis = integer(rng, 0, 1) ? ins[i].shape.size() : 0;
    axes.push_back(static_cast<std::int64_t>(axis));
    batch.push_back(constant(sample_batch(ins[i], axis, size, rng)));
  }
  const Values mapped = tutti_test::vmap(f, axes, batch);
  std::string d = compare("vmap against the loop", to_arrays(mapped), loop(f, axes, batch), 1e-9);
  if (!d.empty()) return d;
  const Values chunked =
      tutti_test::vmap(f, axes, batch, 0, VmapOptions().chunk_size(1 + size / 2));
  d = compare("chunked against whole", to_arrays(chunked), to_arrays(mapped), 1e-9);
  if (!d.empty()) return d;

  // Compiled, twice: whole, mapped in blocks of two, and its gradients in blocks; with members in
  // lanes where their number is odd.
  const auto all_axes = [&](const Values& v) { return tutti_test::vmap(f, axes, v); };
  const auto slopes = [&](const Values& v) {
    return tutti_test::vmap(
        [&](const Values& x) {
          std::vector<std::size_t> all(x.size());
          for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
          const Values y = floating(f(x));
          Values ones;
          for (const Tensor& t : y) ones.push_back(ones_like(t));
          return tutti_test::vjp(f, x, all, ones).second;
        },
        axes, v);
  };
  using tutti::detail::Lanes;
  tutti::detail::set_block_members(2);
  tutti::detail::set_lanes(size % 2 == 1 ? Lanes::always : Lanes::never);
  struct Reset {
    ~Reset() {
      tutti::detail::set_block_members(0);
      tutti::detail::set_lanes(Lanes::automatic);
    }
  } reset;
  const auto one = func::compile([&](const Values& v) { return f(v); });
  const auto many = func::compile(all_axes);
  const auto gradients = func::compile(slopes);
  const Arrays plain = to_arrays(f(xs)), each = to_arrays(mapped),
               slope_each = to_arrays(slopes(batch));
  for (int k = 0; k < 2 && d.empty(); ++k) {
    d = compare("compiled against plain", to_arrays(one(xs)), plain, 1e-9);
    if (d.empty()) d = compare("compiled vmap against plain", to_arrays(many(batch)), each, 1e-9);
    if (d.empty())
      d = compare("compiled gradients against plain", to_arrays(gradients(batch)), slope_each,
                  1e-9);
  }
  if (!d.empty()) return d;

  std::vector<std::size_t> wrt;
  Values ts;
  for (std::size_t i = 0; i < xs.size(); ++i) {
    wrt.push_back(i);
    ts.push_back(constant(sample(real(ins[i].shape), rng)));
  }
  const auto [primal, tangents] = tutti_test::jvp(f, xs, wrt, ts);
  Values cotangents;
  for (const Tensor& y : floating(primal))
    cotangents.push_back(constant(sample(real(shape_of(y)), rng)));
  const Values grads = tutti_test::vjp(f, xs, wrt, cotangents).second;
  const Arrays t = to_arrays(tangents);
  const double forward = inner(t, to_arrays(cotangents));
  const double reverse = inner(to_arrays(grads), to_arrays(ts));
  double scale = 1;
  for (const Array& a : t)
    for (double x : a.data) scale = std::max(scale, std::abs(x));
  if (!(std::abs(forward - reverse) <= 1e-9 * scale * static_cast<double>(1 + t.size())) &&
      !(std::isnan(forward) && std::isnan(reverse)))
    return "vjp against jvp: " + std::to_string(reverse) + " and " + std::to_string(forward);

  // A step that crosses a jump or is too long for the curvature gives a wrong difference, a wrong
  // derivative a wrong one for every step.
  std::string last;
  for (const double unit : {1.0, 0.03, 1e-3}) {
    Values shorter;
    for (const Tensor& v : ts) shorter.push_back(v * unit);
    Arrays slope = central_difference(f, xs, wrt, shorter);
    for (Array& a : slope)
      for (double& x : a.data) x /= unit;
    last = compare("jvp against differences", t, slope, 1e-4 * std::max(1.0, scale));
    if (last.empty()) return "";
  }
  return last;
}

std::string problem_of(const Program& p) {
  try {
    return find_problem(p);
  } catch (const std::exception& e) {
    return std::string("throws ") + e.what();
  }
}

/// Without the steps it fails without.
Program minimal(Program p) {
  for (std::size_t i = p.steps.size(); i-- > 0;) {
    Program shorter{{}, p.inputs};
    for (std::size_t k = 0; k < p.steps.size(); ++k)
      if (k != i) shorter.steps.push_back(p.steps[k]);
    if (!problem_of(shorter).empty()) p = shorter;
  }
  return p;
}

struct Coverage {
  std::map<std::string, std::int64_t> runs;
  std::int64_t programs = 0, with_views_and_writes = 0;
};
Coverage& coverage() {
  static Coverage c;
  return c;
}

rc::Gen<Program> programs() {
  const auto number = rc::gen::inRange(0u, 1u << 16);
  const auto step = rc::gen::build<Step>(
      rc::gen::set(&Step::kind, rc::gen::inRange(0, 10)), rc::gen::set(&Step::row, number),
      rc::gen::set(&Step::a, number), rc::gen::set(&Step::b, number),
      rc::gen::set(&Step::c, number), rc::gen::set(&Step::seed, number));
  const auto any = rc::gen::container<std::vector<Step>>(rc::gen::resize(100, step));
  const auto steps =
      rc::gen::suchThat(rc::gen::resize(30, any), [](const auto& v) { return v.size() >= 5; });
  return rc::gen::build<Program>(rc::gen::set(&Program::steps, steps),
                                 rc::gen::set(&Program::inputs, rc::gen::resize(100, number)));
}

}  // namespace

TEST_CASE("random programs") {
  // TUTTI_PROGRAMS: how many; the slow suite runs 100,000.
  const char* wanted = std::getenv("TUTTI_PROGRAMS");
  const std::string n = wanted ? wanted : "300";
  const std::string params =
      "max_success=" + n + " max_size=100 seed=" + std::to_string(run_seed());
  setenv("RC_PARAMS", params.c_str(), 0);
  const bool ok = rc::check("transforms agree with what they mean", [] {
    const Program p = *programs();
    const std::string problem = problem_of(p);
    if (!problem.empty()) {
      std::ostringstream text;
      showValue(minimal(p), text);
      RC_FAIL(problem + "\n" + text.str());
    }
    Values xs;
    for (const In& in : inputs_of(p)) xs.push_back(zeros(in.shape, kFloat64));
    Machine m(xs);
    for (const Step& s : p.steps) m.run(s);
    Coverage& c = coverage();
    ++c.programs;
    c.with_views_and_writes += m.views && m.writes;
    for (const std::string& name : m.names) ++c.runs[name];
  });
  CHECK(ok);

  const Coverage& c = coverage();
  std::set<std::string> known;
  for (const Row* r : rows().plain) known.insert(r->ops.empty() ? r->name : r->ops.front());
  std::printf("random programs: %lld, %lld with views and in-place writes; %zu of %zu ops\n",
              static_cast<long long>(c.programs), static_cast<long long>(c.with_views_and_writes),
              c.runs.size(), known.size());
  std::size_t column = 0;
  for (const std::string& name : known) {
    const auto found = c.runs.find(name);
    std::printf("%-20s %8lld%s", name.c_str(),
                static_cast<long long>(found == c.runs.end() ? 0 : found->second),
                ++column % 4 == 0 ? "\n" : "  ");
  }
  std::printf("\n");
  CHECK(c.with_views_and_writes * 5 >= c.programs);
}
