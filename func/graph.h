// Graph: a recorded function as a straight line of instructions on numbered values. Views are
// values that lie in the memory of another one, not instructions. A vmap that was recorded on its
// own is one instruction whose bodies are graphs for one block of members.
//
// func/trace.cpp records graphs, func/passes.cpp simplifies them, func/lanes.cpp lays members out
// in lanes, func/frame.cpp runs graphs.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <tutti/core/op.h>
#include <tutti/core/tensor_impl.h>

namespace tutti::detail {

struct GraphValue {
  Shape sizes, strides;
  DType dtype = kFloat32;
  std::int64_t offset = 0;  // in elements, from where the root begins
  int root = 0;             // the value whose memory it lies in: itself unless it is a view
  std::int64_t numel() const { return numel_of(sizes); }
  std::int64_t bytes() const { return numel() * size_of(dtype); }
  /// Of the memory from its first element to its last.
  std::int64_t span() const;
};

struct MapNode;

struct Instr {
  const Op* op = nullptr;  // null: map
  Attrs attrs;
  SmallVec<int, 4> in;  // values; -1: an undefined tensor
  SmallVec<int, 2> out;
  int draw = -1;            // random: which of the program's draws it takes
  bool per_member = false;  // random: attrs.dims begins with (size, offset, total) of the block
  std::shared_ptr<MapNode> map;
};

/// Where an input of a graph comes from.
struct Source {
  enum Kind { argument, captured, outer } kind = argument;
  int index = 0;    // of the argument, or the value of the graph around
  int axis = -1;    // outer: the block is a slice along this axis; -1: all of it
  Tensor tensor{};  // captured
};

struct Graph {
  struct Write {
    int input, value;
  };
  Device device;  // where all values lie
  std::vector<GraphValue> values;
  std::vector<Instr> instrs;
  std::vector<Source> sources;  // of the inputs
  std::vector<int> inputs;      // their values
  std::vector<int> outputs;     // -1: undefined
  std::vector<Write> writes;    // inputs (values) that get a new value at the end

  int add_value(Shape sizes, DType dtype);
  int add_view(int base, Shape sizes, Shape strides, std::int64_t offset);
  int add_input(Source source, const Tensor& like);
  int root(int v) const { return v < 0 ? -1 : values[static_cast<std::size_t>(v)].root; }
  GraphValue& at(int v) { return values[static_cast<std::size_t>(v)]; }
  const GraphValue& at(int v) const { return values[static_cast<std::size_t>(v)]; }
};

/// A vmapped function over `size` members, or a chain of instructions over as many rows, run in
/// blocks. A body's outputs are slices along axis 0
/// of the instruction's results.
struct MapNode {
  std::int64_t size = 0, block = 0;
  bool over_rows = false;  // no vmapped function: instructions that work on each row alone
  std::int64_t lanes = 0;  // of a vector, where members lie in lanes; 0: each in memory of its own
  std::vector<Graph> bodies;  // for `block` members, and for what remains, if it is less
  std::int64_t rest() const { return size % block; }
  std::int64_t blocks() const { return (size + block - 1) / block; }
  std::int64_t members(std::size_t body) const { return body == 0 ? block : rest(); }
};

/// The product of matrices whose members are in lanes.
extern const Op lane_matmul_op;
/// lane_matmul and an op with cpu_in_pieces that works on the product while it is made.
extern const Op lane_matmul_into_op;
/// That op.
const Op& op_after_product(const Instr& i);

/// For tests: overrides lanes_for().
enum class Lanes { automatic, never, always };
void set_lanes(Lanes lanes);

/// Whether it is a sum or the like, over the axes in attrs.dims.
bool reduces(const Instr& i);
/// Floating point operations of an instruction, for printing and for choosing blocks.
double flops(const Graph& g, const Instr& i);

/// Removes what nothing depends on, and merges what is computed twice.
void simplify(Graph& g);
/// Lays new values of inputs out as these, where instructions can write them like that.
void adopt_layouts(Graph& g);
/// Moves elementwise instructions after a map into its blocks where they work on its results.
void join_maps(Graph& g);
/// Turns chains of elementwise instructions on large operands, and the sums and the like over their
/// rows, into maps over rows, so that what is between them stays in the caches.
void block_chains(Graph& g);
/// How often each root is used.
std::vector<int> count_uses(const Graph& g);
/// Lanes of a vector if it pays to have each work for a member of its own, from a body recorded for
/// any number of members; else 0.
std::int64_t lanes_for(const Graph& body, std::int64_t total);
/// Rewrites the bodies of maps with lanes.
void put_members_in_lanes(Graph& g);
/// Gives every output of the bodies memory of its own.
void finish_bodies(Graph& g);
/// Inputs that may be written by the instruction that makes their new value: pairs (input, value).
std::vector<Graph::Write> writes_in_place(const Graph& g);

/// Readable text, and a drawing for graphviz.
std::string to_text(const Graph& g);
std::string to_dot(const Graph& g);

}  // namespace tutti::detail
