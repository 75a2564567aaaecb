#pragma once
/// What config.json of an output says.

#include <nlohmann/json.hpp>
#include <string>

#include "mha2mla/tensor.hpp"

namespace mha2mla {

/// Larger ones are not read.
inline constexpr std::size_t kMaxConfigBytes = 8'000'000;

/// What config.json calls F32, F16 or BF16.
[[nodiscard]] inline std::string config_dtype(Dtype dtype) {
    return dtype == Dtype::f32 ? "float32" : dtype == Dtype::f16 ? "float16" : "bfloat16";
}

/// The file: indented, unless that would make it too large to be read.
[[nodiscard]] inline std::string config_text(const nlohmann::ordered_json& config) {
    std::string text = config.dump(2);
    if (text.size() >= kMaxConfigBytes) text = config.dump();
    return text + "\n";
}

}  // namespace mha2mla
