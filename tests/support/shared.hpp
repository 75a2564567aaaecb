#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mha2mla/checkpoint.hpp"

namespace mha2mla::test {

/// A file or directory of the golden material: what is small and free lies in tests/data, the rest beside the checkout.
inline std::filesystem::path shared(const std::string& name) {
    const auto ours = std::filesystem::path(MHA2MLA_TEST_DATA_DIR) / name;
    return std::filesystem::exists(ours) ? ours : std::filesystem::path(MHA2MLA_SHARED_DIR) / name;
}
/// What tools/run_tests.sh downloaded: the Python environment `venv`, and `tokenizers`.
inline std::filesystem::path downloaded(const std::string& name) {
    const char* const cache = std::getenv("MHA2MLA_CACHE");
    return std::filesystem::path(cache != nullptr ? cache : MHA2MLA_DOWNLOADS_DIR) / name;
}
inline std::filesystem::path example(const std::string& name) {
    return std::filesystem::path(MHA2MLA_EXAMPLES_DIR) / name;
}

inline nlohmann::json read_json(const std::filesystem::path& path) {
    return nlohmann::json::parse(std::ifstream(path));
}

/// Small random checkpoints below golden/ that convert, and how a test of each is called.
inline constexpr const char* kFamilies[] = {
    "families/llama-gqa-untied-bf16",
    "families/llama-mha-tied-f16",
    "families/llama-mqa-bias-f32",
    "families/llama-linear-rope",
    "families/llama3-rope-scaling",
    "families5/llama-linear-mqa",
    "families5/llama-headdim",
    "families5/llama-bias-llama3",
    "families5/mixtral",
    "families5/qwen2-moe",
};
inline std::string family_test_name(const testing::TestParamInfo<const char*>& info) {
    std::string name = info.param;
    std::replace(name.begin(), name.end(), '-', '_');
    std::replace(name.begin(), name.end(), '/', '_');
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

/// Skips the test, visibly, where something was not downloaded.
#define MHA2MLA_NEEDS_DOWNLOAD(name)                                                                            \
    if (!std::filesystem::exists(mha2mla::test::downloaded(name))) {                                            \
        GTEST_SKIP() << mha2mla::test::downloaded(name) << " is not here; tools/run_tests.sh makes it of PyPI"; \
    }
