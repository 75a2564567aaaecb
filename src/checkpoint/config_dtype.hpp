#pragma once
#include <string>

#include "mha2mla/tensor.hpp"

namespace mha2mla {

/// What config.json calls F32, F16 or BF16.
[[nodiscard]] inline std::string config_dtype(Dtype dtype) {
    return dtype == Dtype::f32 ? "float32" : dtype == Dtype::f16 ? "float16" : "bfloat16";
}

}  // namespace mha2mla
