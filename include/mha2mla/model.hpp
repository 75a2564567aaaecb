#pragma once
/// Stage 2: what config.json says, and the tensors of each layer under the names that the rest of the library uses.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/architecture.hpp"
#include "mha2mla/checkpoint.hpp"
#include "mha2mla/latent.hpp"

namespace mha2mla {

/// One row per supported `model_type`.
struct ModelFamily {
    std::string_view model_type;
    std::string_view covers;  // for people
};
[[nodiscard]] std::span<const ModelFamily> model_families();

/// How rotary frequencies are stretched beyond the trained context.
struct RopeScaling {
    enum class Type : std::uint8_t { none, linear, llama3 };
    Type type = Type::none;
    double factor = 1.0;
    double low_freq_factor = 1.0;                    // llama3 only
    double high_freq_factor = 4.0;                   // llama3 only
    double original_max_position_embeddings = 8192;  // llama3 only
};

/// The keys of config.json, under their Hugging Face names and with absent ones filled in.
struct ModelConfig {
    std::string model_type;
    std::int64_t vocab_size = 0;
    std::int64_t hidden_size = 0;
    std::int64_t intermediate_size = 0;
    std::int64_t num_hidden_layers = 0;
    std::int64_t num_attention_heads = 0;
    std::int64_t num_key_value_heads = 0;
    std::int64_t head_dim = 0;
    std::int64_t max_position_embeddings = 0;
    double rms_norm_eps = 1e-6;
    double rope_theta = 10000.0;
    RopeScaling rope_scaling;
    bool attention_bias = false;
    bool mlp_bias = false;
    bool tie_word_embeddings = false;
    std::optional<std::int64_t> bos_token_id;
    std::optional<LatentConfig> latent;  // the object `mha2mla`: only in a converted checkpoint

    /// Query heads that share a KV head.
    [[nodiscard]] std::int64_t group_size() const { return num_attention_heads / num_key_value_heads; }
    /// Rotary pairs of a head.
    [[nodiscard]] std::int64_t num_pairs() const { return head_dim / 2; }
};

/// Reads a config.json. This is the only place that knows its keys.
/// @throws Error{io}, Error{format} naming the key, Error{unsupported} naming the family or feature.
[[nodiscard]] ModelConfig read_config(const std::filesystem::path& config_json);

/// θ_k of every rotary pair in radians per token, after rope_scaling: β^(−2k/d_h) (RoFormer, eq. 15), stretched as
/// Hugging Face's `rope_type` linear or llama3 does. [head_dim/2]
[[nodiscard]] std::vector<double> rope_frequencies(const ModelConfig& config);

/// A linear map as it lies in the file. `bias` is null where there is none.
struct LinearView {
    const TensorView* weight = nullptr;  // [out_features, in_features]
    const TensorView* bias = nullptr;    // [out_features]
    [[nodiscard]] std::int64_t out_features() const { return weight->shape[0]; }
    [[nodiscard]] std::int64_t in_features() const { return weight->shape[1]; }
};

/// A norm as it lies in the file. `weight` is null where there is no norm, `bias` where it has none.
struct NormView {
    const TensorView* weight = nullptr;  // [features]
    const TensorView* bias = nullptr;    // [features]
    NormRule rule;
    explicit operator bool() const { return weight != nullptr; }
};

/// Attention of an original checkpoint.
struct AttentionView {
    LinearView q;  // [num_heads * head_dim, hidden]
    LinearView k;  // [num_kv_heads * head_dim, hidden]
    LinearView v;  // [num_kv_heads * head_dim, hidden]
    LinearView o;  // [hidden, num_heads * head_dim]
};

/// Attention of a converted checkpoint. With `joint`, down_k and down_v are the same tensor; a null down means
/// that the up projection reads the hidden state itself.
struct LatentAttentionView {
    LinearView q;       // [num_heads * head_dim, hidden], rows: all RoPE rows, then all NoPE rows
    LinearView k_rope;  // [num_kv_heads * rope_dim, hidden]
    LinearView down_k;  // [rank of keys, hidden]
    LinearView down_v;  // [rank of values, hidden]
    LinearView up_k;    // [num_kv_heads * (head_dim - rope_dim), rank of keys or hidden]
    LinearView up_v;    // [num_kv_heads * head_dim, rank of values or hidden]
    LinearView o;       // [hidden, num_heads * head_dim]
};

struct LayerView {
    const TensorView* input_layernorm = nullptr;           // [hidden]
    const TensorView* post_attention_layernorm = nullptr;  // [hidden]
    std::optional<AttentionView> attention;                // exactly one of these two
    std::optional<LatentAttentionView> latent_attention;
    LinearView gate, up;  // [intermediate, hidden]
    LinearView down;      // [hidden, intermediate]
};
/// Every tensor of the layer once, for Checkpoint::will_need and done_with.
[[nodiscard]] std::vector<const TensorView*> tensors_of(const LayerView& layer);

/// A checkpoint whose tensors were found and agree with its config.json.
struct Model {
    ModelConfig config;
    Checkpoint checkpoint;
    const TensorView* embed_tokens = nullptr;  // [vocab, hidden]
    const TensorView* norm = nullptr;          // [hidden]
    const TensorView* lm_head = nullptr;       // [vocab, hidden]; equals embed_tokens where tied
    std::vector<LayerView> layers;

    /// Opens a checkpoint directory, original or converted.
    /// @throws Error{io}, Error{format} naming tensor and key where shapes and config.json disagree,
    /// Error{unsupported}.
    static Model open(const std::filesystem::path& directory);
};

/// "model.layers.<layer>."
[[nodiscard]] std::string layer_prefix(std::int64_t layer);

}  // namespace mha2mla
