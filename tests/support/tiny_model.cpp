#include "tiny_model.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <stdexcept>

#include "safetensors_bytes.hpp"
#include "temporary.hpp"

namespace mha2mla::test {
namespace {

/// The BF16 nearest to a float32, ties to even.
std::uint16_t to_bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) return 0x7fc0;
    return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16U & 1U)) >> 16U);
}

/// The F16 nearest to a float32, ties to even. 2^(exponent - 10) is the step between neighbours; a full mantissa
/// carries into the exponent.
std::uint16_t to_f16(float value) {
    const std::uint32_t sign = std::signbit(value) ? 0x8000U : 0U;
    if (std::isnan(value)) return 0x7e00;
    if (std::abs(value) >= 65520.0F) return static_cast<std::uint16_t>(sign | 0x7c00U);
    int exponent = 0;
    std::frexp(value, &exponent);
    exponent = std::max(exponent - 1, -14);
    const auto steps = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(std::abs(value), 10 - exponent)));
    return static_cast<std::uint16_t>(sign | (static_cast<std::uint32_t>(exponent + 14) * 1024U + steps));
}

std::size_t element_bytes(const std::string& dtype) {
    if (dtype == "F64" || dtype == "I64") return 8;
    if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
    if (dtype == "BF16" || dtype == "F16" || dtype == "I16") return 2;
    return 1;
}

std::string encode(const TinyTensor& tensor) {
    std::string bytes;
    for (const float value : tensor.values) {
        if (tensor.dtype == "F32") {
            bytes += little_endian(std::bit_cast<std::uint32_t>(value), 4);
        } else if (tensor.dtype == "BF16") {
            bytes += little_endian(to_bf16(value), 2);
        } else if (tensor.dtype == "F16") {
            bytes += little_endian(to_f16(value), 2);
        } else {
            bytes.append(element_bytes(tensor.dtype), '\0');
        }
    }
    return bytes;
}

/// Fills tensors in a fixed order. The distributions of the standard library differ between implementations; mt19937
/// does not.
class Maker {
public:
    explicit Maker(const TinyModel& model) : dtype_(model.dtype), random_(model.seed) {}

    /// Uniform values around `centre`, with the variance for which a linear map preserves the size of its input.
    void add(const std::string& name, std::vector<std::int64_t> shape, float centre = 0.0F) {
        std::size_t count = 1;
        for (const auto dimension : shape) count *= static_cast<std::size_t>(dimension);
        const float radius = std::sqrt(3.0F / static_cast<float>(shape.back()));
        std::vector<float> values(count);
        for (auto& value : values) {
            value = centre + radius * (static_cast<float>(random_() >> 8U) / 8388608.0F - 1.0F);
        }
        tensors.push_back({name, dtype_, std::move(shape), std::move(values)});
    }
    void add_linear(const std::string& name, std::int64_t out, std::int64_t in, bool bias) {
        add(name + ".weight", {out, in});
        if (bias) add(name + ".bias", {out});
    }

    std::vector<TinyTensor> tensors;

private:
    std::string dtype_;
    std::mt19937 random_;
};

void add_experts(const TinyModel& model, const std::string& prefix, Maker& maker) {
    maker.add_linear(prefix + "gate", model.experts, model.hidden, false);
    for (std::int64_t i = 0; i < model.experts; ++i) {
        const std::string expert = prefix + "experts." + std::to_string(i);
        maker.add_linear(expert + ".w1", model.intermediate, model.hidden, false);
        maker.add_linear(expert + ".w2", model.hidden, model.intermediate, false);
        maker.add_linear(expert + ".w3", model.intermediate, model.hidden, false);
    }
}

nlohmann::ordered_json llama_config(const TinyModel& model) {
    return {{"architectures", {"LlamaForCausalLM"}},
            {"model_type", "llama"},
            {"vocab_size", model.vocab},
            {"hidden_size", model.hidden},
            {"intermediate_size", model.intermediate},
            {"num_hidden_layers", model.layers},
            {"num_attention_heads", model.heads},
            {"num_key_value_heads", model.kv_heads},
            {"head_dim", model.head_dim},
            {"hidden_act", "silu"},
            {"max_position_embeddings", 128},
            {"rms_norm_eps", 1e-5},
            {"rope_theta", 10000.0},
            {"attention_bias", model.attention_bias},
            {"tie_word_embeddings", model.tied},
            {"bos_token_id", 1},
            {"torch_dtype", model.dtype == "F32"   ? "float32"
                            : model.dtype == "F16" ? "float16"
                                                   : "bfloat16"}};
}

}  // namespace

TinyModel tiny_model_of_many_pieces() {
    TinyModel model;
    model.layers = 24;
    model.hidden = 256;
    model.intermediate = 320;
    model.heads = 8;
    model.kv_heads = 8;
    model.head_dim = 32;
    return model;
}

nlohmann::ordered_json tiny_config(const TinyModel& model) {
    nlohmann::ordered_json config = llama_config(model);
    if (model.experts == 0) return config;
    config["architectures"] = {"MixtralForCausalLM"};
    config["model_type"] = "mixtral";
    config["num_local_experts"] = model.experts;
    config["num_experts_per_tok"] = 2;
    return config;
}

std::vector<TinyTensor> tiny_tensors(const TinyModel& model) {
    Maker maker(model);
    const std::int64_t query = model.heads * model.head_dim;
    const std::int64_t kv = model.kv_heads * model.head_dim;
    maker.add("model.embed_tokens.weight", {model.vocab, model.hidden});
    for (std::int64_t layer = 0; layer < model.layers; ++layer) {
        const std::string prefix = "model.layers." + std::to_string(layer) + ".";
        maker.add(prefix + "input_layernorm.weight", {model.hidden}, 1.0F);
        maker.add_linear(prefix + "self_attn.q_proj", query, model.hidden, model.attention_bias);
        maker.add_linear(prefix + "self_attn.k_proj", kv, model.hidden, model.attention_bias);
        maker.add_linear(prefix + "self_attn.v_proj", kv, model.hidden, model.attention_bias);
        maker.add_linear(prefix + "self_attn.o_proj", model.hidden, query, model.attention_bias);
        maker.add(prefix + "post_attention_layernorm.weight", {model.hidden}, 1.0F);
        if (model.experts > 0) {
            add_experts(model, prefix + "block_sparse_moe.", maker);
            continue;
        }
        maker.add_linear(prefix + "mlp.gate_proj", model.intermediate, model.hidden, false);
        maker.add_linear(prefix + "mlp.up_proj", model.intermediate, model.hidden, false);
        maker.add_linear(prefix + "mlp.down_proj", model.hidden, model.intermediate, false);
    }
    maker.add("model.norm.weight", {model.hidden}, 1.0F);
    if (!model.tied) maker.add("lm_head.weight", {model.vocab, model.hidden});
    return std::move(maker.tensors);
}

TinyTensor& find_tensor(std::vector<TinyTensor>& tensors, const std::string& name) {
    const auto it = std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == name; });
    if (it == tensors.end()) throw std::runtime_error("no tensor " + name);
    return *it;
}

void write_tensors(const std::filesystem::path& file, const std::vector<TinyTensor>& tensors) {
    nlohmann::ordered_json header = {{"__metadata__", {{"format", "pt"}}}};
    std::string data;
    for (const auto& tensor : tensors) {
        const std::size_t begin = data.size();
        data += encode(tensor);
        header[tensor.name] = {
            {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
    }
    write_text(file, safetensors_bytes(header.dump(), data));
}

void write_model(const std::filesystem::path& directory, const nlohmann::ordered_json& config,
                 const std::vector<TinyTensor>& tensors) {
    std::filesystem::create_directories(directory);
    write_text(directory / "config.json", config.dump(2) + "\n");
    write_tensors(directory / "model.safetensors", tensors);
}

void write_tiny_model(const std::filesystem::path& directory, const TinyModel& model) {
    write_model(directory, tiny_config(model), tiny_tensors(model));
}

}  // namespace mha2mla::test
