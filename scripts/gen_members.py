#!/usr/bin/env python3
"""Writes the member forms of the ops from core/ops.h: core/tensor_members.inc (declarations inside class Tensor) and
core/tensor_members_impl.inc (definitions that forward to the free functions).

Every free function of namespace tutti in core/ops.h whose first parameter is `const Tensor& self` becomes a const
member without that parameter, with the same default arguments. usage: gen_members.py [--check]"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "core/ops.h"
DECLARATIONS = ROOT / "core/tensor_members.inc"
DEFINITIONS = ROOT / "core/tensor_members_impl.inc"
SELF = re.compile(r"^(?:const )?Tensor& self$")
FUNCTION = re.compile(r"^(?P<result>[\w:<>, ]+?[&*]?)\s+(?P<name>\w+)\((?P<params>.*)\)$")

OWNING = re.compile(r"^(?!.*&$)(Tensors?\b|std::(vector|function|string|optional<Generator>)(?!_)).*")  # moved along


def split(text):
    """Splits at commas outside brackets."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "<({[") - (c in ">)}]")
        if c == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return parts + [text[start:].strip()] if text.strip() else []


def statements(text):
    """The statements of the header at namespace level, each on one line, without comments and directives."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)
    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.M)
    body = re.search(r"namespace tutti \{(.*)\}", text, re.S).group(1)
    depth, current = 0, ""
    for c in body:
        if c == ";" and depth == 0:
            yield " ".join(current.split())
            current = ""
            continue
        depth += (c in "({") - (c in ")}")
        current = "" if c == "}" and depth == 0 else current + c  # the end of an inline body


def members():
    """Yields (result, name, [(type, name, default)], is_in_place) for every member form."""
    for statement in statements(SOURCE.read_text()):
        match = FUNCTION.match(statement)
        if not match:
            continue
        params = split(match["params"])
        if not params or not SELF.match(params[0]):
            continue
        parsed = []
        for param in params[1:]:
            declared, _, default = (p.strip() for p in param.partition("="))
            kind, name = re.match(r"(.*[\s&*>])(\w+)$", declared).groups()
            parsed.append((kind.strip(), name, default))
        yield match["result"], match["name"], parsed, not params[0].startswith("const")


def declare(result, name, params):
    text = ", ".join(f"{kind} {arg}" + (f" = {default}" if default else "") for kind, arg, default in params)
    return f"{result} {name}({text}) const;"


def define(result, name, params, writes_self):
    text = ", ".join(f"{kind} {arg}" for kind, arg, _ in params)
    this = "const_cast<Tensor&>(*this)" if writes_self else "*this"
    call = ", ".join([this] + [f"std::move({arg})" if OWNING.match(kind) else arg for kind, arg, _ in params])
    return f"inline {result} Tensor::{name}({text}) const {{ return tutti::{name}({call}); }}"


def generate():
    """Returns {path: text} of both files."""
    found = list(members())
    if not found:
        sys.exit(f"{SOURCE}: no function with a first parameter `const Tensor& self`")
    note = "written by scripts/gen_members.py from core/ops.h; do not edit."
    return {
        DECLARATIONS: "\n".join([f"// Members of Tensor, {note}"] + [declare(*m[:3]) for m in found]) + "\n",
        DEFINITIONS: "\n".join([f"// Members of Tensor forward to the free functions; {note}"]
                               + [define(*m) for m in found]) + "\n",
    }


def main():
    stale = 0
    for path, text in generate().items():
        current = path.read_text() if path.exists() else None
        if current == text:
            continue
        stale += 1
        if "--check" in sys.argv:
            print(f"{path.relative_to(ROOT)} is not current: run `make members`")
        else:
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
