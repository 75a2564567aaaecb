#pragma once
/// Writing one safetensors file.

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "mha2mla/tensor.hpp"

namespace mha2mla {

/// Writes one safetensors file atomically (temporary name, flush, rename).
/// @param data returns the data of tensor i. It is called for each tensor in order; its result must be valid until the
/// next
///        call, so that the tensors need not be in memory together.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorSpec>& tensors,
                       const std::function<std::span<const std::byte>(std::size_t)>& data,
                       const std::map<std::string, std::string>& metadata);

}  // namespace mha2mla
