#pragma once
/// A random Llama or Mixtral checkpoint of a few kilobytes. The same options give the same bytes on every machine.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace mha2mla::test {

struct TinyModel {
    std::int64_t layers = 2;
    std::int64_t hidden = 32;
    std::int64_t intermediate = 48;
    std::int64_t heads = 4;
    std::int64_t kv_heads = 2;
    std::int64_t head_dim = 8;
    std::int64_t vocab = 64;
    std::string dtype = "F32";  // or "BF16", "F16"
    bool attention_bias = false;
    bool tied = false;         // no lm_head.weight
    std::int64_t experts = 0;  // more: a Mixtral, of which a token goes through two
    std::uint32_t seed = 1;
};

/// One whose conversion takes some tenths of a second, in many pieces.
[[nodiscard]] TinyModel tiny_model_of_many_pieces();

/// A tensor before it is encoded. Name, dtype and shape are arbitrary; values are encoded for F32, BF16 and F16,
/// other dtypes become zeros of the right size (whole bytes per element only).
struct TinyTensor {
    std::string name;
    std::string dtype;
    std::vector<std::int64_t> shape;
    std::vector<float> values;  // row-major
};

/// The content of write_tiny_model(), for tests that damage it first.
[[nodiscard]] nlohmann::ordered_json tiny_config(const TinyModel& model = {});
[[nodiscard]] std::vector<TinyTensor> tiny_tensors(const TinyModel& model = {});
/// The tensor with this name; throws if there is none.
[[nodiscard]] TinyTensor& find_tensor(std::vector<TinyTensor>& tensors, const std::string& name);

/// One safetensors file with the tensors in this order.
void write_tensors(const std::filesystem::path& file, const std::vector<TinyTensor>& tensors);
/// Creates `directory` and writes config.json and model.safetensors to it.
void write_model(const std::filesystem::path& directory, const nlohmann::ordered_json& config,
                 const std::vector<TinyTensor>& tensors);
void write_tiny_model(const std::filesystem::path& directory, const TinyModel& model = {});

}  // namespace mha2mla::test
