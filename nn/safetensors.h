// save and load: named tensors in .safetensors files, which Python's safetensors package reads and
// writes too.
#pragma once
#include <map>
#include <string>

#include <tutti/core/dict.h>
#include <tutti/core/tensor.h>

namespace tutti {

/// Notes of a safetensors file, its "__metadata__".
using Metadata = std::map<std::string, std::string>;

/// Writes tensors of any dtype, dense on the CPU or moved there, to `path`; an older file is
/// replaced only once the new one is complete. ValueError for an undefined or Meta tensor or a name
/// that is not UTF-8, FileError where the file cannot be written. As safetensors.torch.save_file.
void save(const TensorDict& tensors, const std::string& path, const Metadata& metadata = {});

/// Reads what save() or another program wrote: new CPU tensors, in the order of the file's header.
/// Trusts nothing in the file: FileError, naming it and what is wrong, if it is missing, cut off or
/// malformed, or holds a dtype that tutti has not. As safetensors.torch.load_file.
TensorDict load(const std::string& path);

/// The notes of a file alone; empty if it has none. Errors as load().
Metadata load_metadata(const std::string& path);

}  // namespace tutti
