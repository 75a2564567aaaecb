#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mha2mla/checkpoint.hpp"

namespace mha2mla::test {

/// A file or directory of the golden material.
inline std::filesystem::path shared(const std::string& name) {
    return std::filesystem::path(MHA2MLA_SHARED_DIR) / name;
}
inline std::filesystem::path example(const std::string& name) {
    return std::filesystem::path(MHA2MLA_EXAMPLES_DIR) / name;
}

inline nlohmann::json read_json(const std::filesystem::path& path) {
    return nlohmann::json::parse(std::ifstream(path));
}

/// The checkpoints of golden/families that convert, and how a test of each is called.
inline constexpr const char* kFamilies[] = {"llama-gqa-untied-bf16", "llama-mha-tied-f16", "llama-mqa-bias-f32",
                                            "llama-linear-rope", "llama3-rope-scaling"};
inline std::string family_test_name(const testing::TestParamInfo<const char*>& info) {
    std::string name = info.param;
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

/// All elements of a float tensor of a safetensors file.
inline std::vector<float> read_floats(const SafetensorsFile& file, const std::string& name) {
    const TensorView* tensor = file.find(name);
    if (tensor == nullptr) throw std::runtime_error("no tensor " + name);
    std::vector<float> values(element_count(tensor->shape));
    to_float(*tensor, 0, values);
    return values;
}

}  // namespace mha2mla::test

/// Skips the test, visibly, where the golden material is absent.
#define MHA2MLA_NEEDS_SHARED(name)                                     \
    if (!std::filesystem::exists(mha2mla::test::shared(name))) {       \
        GTEST_SKIP() << mha2mla::test::shared(name) << " is not here"; \
    }
