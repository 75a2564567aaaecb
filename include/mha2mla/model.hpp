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
#include <variant>
#include <vector>

#include "mha2mla/architecture.hpp"
#include "mha2mla/checkpoint.hpp"
#include "mha2mla/layout.hpp"

namespace mha2mla {

struct ModelConfig;

/// One row per supported `model_type`. All can be evaluated and can generate text.
struct ModelFamily {
    std::string_view model_type;
    std::string_view covers;  // for people
    bool converts = false;    // to MLA, where refuse_conversion() finds no rule that prevents it
    /// Keys of config.json by which its published models differ from the family's defaults, as a JSON object.
    std::string_view typical = "{}";
};
[[nodiscard]] std::span<const ModelFamily> model_families();

/// Names of a layer's tensors that differ between families, after layer_prefix() and without ".weight" or ".bias".
struct TensorNames {
    std::string_view attention_norm = "input_layernorm";
    std::string_view attention_post_norm;
    std::string_view mlp_norm = "post_attention_layernorm";
    std::string_view mlp_post_norm;
    std::string_view qkv;      // rows of q_proj, k_proj and v_proj in one tensor; empty: three tensors
    std::string_view gate_up;  // rows of gate_proj and up_proj in one tensor; empty: two tensors
    std::string_view up = "mlp.up_proj", down = "mlp.down_proj";

    std::string_view router = "mlp.gate";
    std::string_view experts = "mlp.experts";  // before the number of an expert and its own names:
    std::string_view expert_gate = "gate_proj", expert_up = "up_proj", expert_down = "down_proj";
    std::string_view shared_expert = "mlp.shared_experts";  // before gate_proj, up_proj and down_proj
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
    bool tie_word_embeddings = false;
    std::optional<std::int64_t> bos_token_id;
    std::int64_t num_nextn_predict_layers = 0;  // stored after the others, for further tokens; nothing here reads them
    ModelRules rules;
    TensorNames names;
    std::optional<LatentConfig> latent;  // only of a converted checkpoint

    /// Query heads that share a KV head.
    [[nodiscard]] std::int64_t group_size() const { return num_attention_heads / num_key_value_heads; }
    /// Rotary pairs of a head.
    [[nodiscard]] std::int64_t num_pairs() const { return head_dim / 2; }
    [[nodiscard]] AttentionShape attention_shape() const {
        return {num_attention_heads, num_key_value_heads, head_dim, hidden_size};
    }
    /// LatentShape::key_norms, the same in all layers.
    [[nodiscard]] std::int64_t key_norms() const {
        if (rules.layers.empty()) return 0;  // sizes alone are known
        const QueryKeyNorm norm = rules.layers.front().attention.query_key_norm;
        return norm == QueryKeyNorm::none ? 0 : norm == QueryKeyNorm::whole ? 1 : num_key_value_heads;
    }
    /// Of a conversion with these sizes.
    [[nodiscard]] LatentShape latent_shape(std::int64_t rope_dim, std::int64_t kv_rank, Factorization factorization,
                                           const LatentLayout& layout = reference_layout()) const {
        return {attention_shape(), rope_dim, kv_rank, factorization, &layout, 0, 0, key_norms()};
    }
    /// Of a converted checkpoint.
    [[nodiscard]] LatentShape latent_shape() const {
        return {attention_shape(),  latent->rope.rope_dim, latent->kv_rank, latent->factorization, latent->layout,
                latent->query_rank, latent->nope_dim,      key_norms(),     latent->value_heads};
    }
};

/// Reads a config.json. This is the only place that knows its keys.
/// @throws Error{io}, Error{format} naming the key, Error{unsupported} naming the family or feature.
[[nodiscard]] ModelConfig read_config(const std::filesystem::path& config_json);

/// The config.json of a small model of the family with the keys of ModelFamily::typical, and what it says.
[[nodiscard]] nlohmann::ordered_json example_config_json(const ModelFamily& family);
[[nodiscard]] ModelConfig example_config(const ModelFamily& family);
/// What a model computes, in words, from its rules: "RMSNorm", "QK-norm", "sliding window", ...
[[nodiscard]] std::vector<std::string> operations_of(const ModelConfig& config);
/// What prevents a conversion to MLA, in words; empty where nothing does.
[[nodiscard]] std::string conversion_obstacle(const ModelConfig& config);

/// Nothing if a model with these rules can be calibrated on and converted to MLA.
/// @throws Error{unsupported} naming the family and the rule that no conversion is known for.
void refuse_conversion(const ModelConfig& config);
/// What layout deepseek has no place for, in words; empty where a DeepSeek block says all of this model.
[[nodiscard]] std::string deepseek_obstacle(const ModelConfig& config);

/// θ_k = β^(−2k/d) of the rotary pairs of d dims in radians per token (RoFormer, eq. 15). [dims/2]
[[nodiscard]] std::vector<double> rope_frequencies(double theta, std::int64_t dims);

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
    bool by_part = false;  // of a latent layer's heads: weights of what rotates, then of the others
    explicit operator bool() const { return weight != nullptr; }
};

/// Attention of an original checkpoint.
struct AttentionView {
    LinearView q;             // [num_heads * head_dim, hidden]
    LinearView k;             // [num_kv_heads * head_dim, hidden]
    LinearView v;             // [num_kv_heads * head_dim, hidden]
    LinearView o;             // [hidden, num_heads * head_dim]
    NormView q_norm, k_norm;  // [head_dim], or [num_heads * head_dim] and [num_kv_heads * head_dim]
};

/// Attention of a converted checkpoint, or of one that was MLA from the start. Where keys and values share a latent,
/// down_k and down_v are the same tensor; a null down means that the up projection reads the hidden state itself.
/// LatentShape has the sizes, and its layout's `rows` the places of heads in q, up_k and up_v.
struct LatentAttentionView {
    LinearView q_down;                  // [query_rank, hidden], or null: q reads the hidden state
    NormView q_norm;                    // [query_rank], of what q_down gives
    LinearView q;                       // [num_heads * (rope_dim + nope_dim), hidden or query_rank]
    LinearView k_rope;                  // [rope_keys * rope_dim, hidden]
    LinearView down_k;                  // [rank of keys, hidden]
    LinearView down_v;                  // [rank of values, hidden]
    NormView latent_norm;               // [rank], of what down_k gives; null in most layouts
    NormView head_q_norm, head_k_norm;  // the original's norms of queries and keys, in its order of dims
    LinearView up_k;  // [up_heads * nope_dim, rank of keys or hidden]; rows of values between them if it is up_v
    LinearView up_v;  // [up_heads * head_dim, rank of values or hidden]
    LinearView o;     // [hidden, num_heads * head_dim]

    /// Whether one tensor holds the up projections of keys and of values.
    [[nodiscard]] bool one_up() const { return up_k.weight == up_v.weight; }
};

/// An MLP of one width.
struct MlpView {
    LinearView gate;  // [width, hidden]; null in one that is not gated
    LinearView up;    // [width, hidden]
    LinearView down;  // [hidden, width]
};

/// The experts of a layer; empty where the MLP is dense.
struct MixtureView {
    LinearView router;                       // [experts, hidden]
    const TensorView* correction = nullptr;  // [experts], see MixtureRule::corrected
    std::vector<MlpView> experts;
    MlpView shared;          // null: none
    LinearView shared_gate;  // [1, hidden]
};

struct LayerView {
    NormView attention_norm, attention_post_norm;  // [hidden], before and behind the attention
    NormView mlp_norm, mlp_post_norm;              // [hidden], before and behind the MLP
    std::variant<AttentionView, LatentAttentionView> attention;
    LinearView gate, up;  // [intermediate, hidden]; no gate in an MLP that is not gated
    LinearView down;      // [hidden, intermediate]
    MixtureView mixture;  // instead of these three

    [[nodiscard]] bool latent() const { return std::holds_alternative<LatentAttentionView>(attention); }
    /// The attention of a layer that is not latent().
    [[nodiscard]] const AttentionView& original_attention() const { return std::get<AttentionView>(attention); }
    /// The attention of a layer that is latent().
    [[nodiscard]] const LatentAttentionView& latent_attention() const {
        return std::get<LatentAttentionView>(attention);
    }
    [[nodiscard]] const LinearView& output_projection() const {
        return latent() ? latent_attention().o : original_attention().o;
    }
};
/// Every tensor of the layer once but those of expert_tensors_of(), for Checkpoint::will_need and done_with.
[[nodiscard]] std::vector<const TensorView*> tensors_of(const LayerView& layer);
/// The tensors that few tokens read all of: those of the experts that tokens choose.
[[nodiscard]] std::vector<const TensorView*> expert_tensors_of(const LayerView& layer);
/// Every linear map behind the attention: of the MLP, or of the mixture with its router. Those that are not there are
/// null.
[[nodiscard]] std::vector<LinearView> mlp_linears(const LayerView& layer);

struct OpenOptions {
    /// What the architecture has no place for becomes a warning instead of an error.
    bool ignore_unused = false;
};

/// A checkpoint whose tensors were found and agree with its config.json.
struct Model {
    ModelConfig config;
    Checkpoint checkpoint;
    const TensorView* embed_tokens = nullptr;  // [vocab, hidden]
    NormView norm;                             // [hidden]
    const TensorView* lm_head = nullptr;       // [vocab, hidden]; equals embed_tokens where tied
    std::vector<LayerView> layers;
    std::vector<std::unique_ptr<TensorView>> parts;  // rows of tensors that hold several weights
    std::vector<std::vector<std::byte>> repeated;  // rows of values that several heads of keys share, for each of them
    /// Tensors, and files of weights, that the architecture has no place for although they would change the result.
    std::vector<std::string> unused;
    std::vector<std::string> warnings;  // for people: what was decided where config.json and the weights disagree

    [[nodiscard]] const LayerView& layer(std::int64_t index) const { return layers[static_cast<std::size_t>(index)]; }
    [[nodiscard]] const LayerRules& rules(std::int64_t layer) const {
        return config.rules.layers[static_cast<std::size_t>(layer)];
    }

    /// Opens a checkpoint directory, original or converted.
    /// @throws Error{io}, Error{format} naming tensor and key where shapes and config.json disagree,
    /// Error{unsupported}, also for what would be `unused`.
    static Model open(const std::filesystem::path& directory, const OpenOptions& options = {});

    /// Whether a tensor of the checkpoint is among `unused`.
    [[nodiscard]] bool is_unused(std::string_view tensor) const;
};

/// The frequencies of rotary pairs that the config.json of an original describes for vectors of `dims` dimensions, as
/// engines compute them for the rotated key of DeepSeek's layout. Reads config.json. [dims / 2], radians per token
[[nodiscard]] std::vector<double> engine_frequencies(const Model& model, std::int64_t dims);

/// "model.layers.<layer>."
[[nodiscard]] std::string layer_prefix(std::int64_t layer);

}  // namespace mha2mla
