#pragma once
/// What a decoder of a family computes, as data: filled in from config.json in one place (src/model), read by
/// everything that computes. Nothing else asks for the family's name.

#include <cstdint>
#include <vector>

namespace mha2mla {

/// y = (x − m) / √(v + eps) · (weight_offset + weight) + bias, where m is 0 and v the mean square for `rms`
/// (RMSNorm, Zhang and Sennrich 2019, eq. 4), and m the mean and v the variance for `layer` (Ba et al. 2016).
struct NormRule {
    enum class Kind : std::uint8_t { rms, layer };
    Kind kind = Kind::rms;
    double eps = 1e-6;
    float weight_offset = 0;  // Gemma: 1
};

/// Norm of queries and keys, between projection and rotation.
enum class QueryKeyNorm : std::uint8_t {
    none,
    per_head,  ///< over each head's head_dim numbers, one weight for all heads (Qwen3, Gemma 3)
    whole,     ///< over the whole projection (OLMo 2)
};

/// Rotary position embedding of a layer (RoFormer, eq. 34).
struct RotaryRule {
    std::vector<double> frequencies;  // θ_k of each rotated pair, radians per token, scaling included; empty: no RoPE
    float gain = 1;                   // of cos and sin: the attention factor of yarn and longrope
    bool interleaved = false;         // pair k is dims (2k, 2k+1) instead of (k, k + pairs) of the rotated ones

    /// Other frequencies for sequences of more than `trained_length` tokens; 0: the same for all lengths.
    std::int64_t trained_length = 0;
    std::vector<double> long_frequencies = {};  // longrope
    double dynamic_factor = 0;                  // dynamic: the base grows with the length of the sequence

    /// Leading dims of a head that rotate; the others pass.
    [[nodiscard]] std::int64_t rotated_dims() const { return 2 * static_cast<std::int64_t>(frequencies.size()); }
    /// The frequencies in a sequence of up to `length` tokens.
    [[nodiscard]] std::vector<double> frequencies_at(std::int64_t length) const;
    bool operator==(const RotaryRule&) const = default;
};

/// softmax(softcap · tanh(scale·qkᵀ / softcap)) over the newest `window` tokens that a query may see.
struct AttentionRule {
    float scale = 0;          // 1/√head_dim in most families
    float softcap = 0;        // 0: none
    std::int64_t window = 0;  // tokens, the query's own included; 0: all
    QueryKeyNorm query_key_norm = QueryKeyNorm::none;
    bool rotates_before_norm = false;  // of queries and keys (the MHA2MLA reference implementation's Qwen3)
    bool qkv_bias = false, o_bias = false;
};

enum class Activation : std::uint8_t { silu, gelu, gelu_tanh, relu_squared };

/// How the router's logits of a token become scores of the experts.
enum class ExpertScore : std::uint8_t {
    softmax,  ///< over all experts
    sigmoid,  ///< of each expert by itself (DeepSeek-V3)
};

/// A mixture of experts: Σ w_e · expert_e(x) over the experts with the highest scores, and a shared expert for every
/// token. w_e is the score of the expert, times `scale`.
struct MixtureRule {
    std::int64_t experts = 0;    // 0: none, the MLP is dense
    std::int64_t per_token = 0;  // experts that a token goes through
    std::int64_t width = 0;      // of an expert, where a dense MLP has intermediate_size
    ExpertScore score = ExpertScore::softmax;
    bool corrected = false;   // experts are chosen by their scores plus a correction that w_e has not (DeepSeek-V3)
    bool normalised = false;  // w_e is divided by the sum of the scores of the chosen experts
    float scale = 1;

    /// Groups of consecutive experts (DeepSeek-V2, section 2.1.2): a token chooses within its `groups_per_token` best.
    std::int64_t groups = 1, groups_per_token = 1;
    std::int64_t group_best = 1;  // a group is as good as the sum of its so many highest scores

    std::int64_t shared_width = 0;  // of the shared expert; 0: none
    bool shared_gate = false;       // what it adds is multiplied by a sigmoid of the token's own (Qwen2-MoE)
};

/// down(act(gate(x)) · up(x)), or down(act(up(x))) if not gated; or several of them, see MixtureRule.
struct MlpRule {
    Activation activation = Activation::silu;
    bool gated = true;
    bool bias = false;
    MixtureRule mixture = {};
};

/// A block: hidden += residual_scale · post(f(pre(hidden))), for f the attention and then the MLP.
struct LayerRules {
    NormRule norm;  // of all norms of the layer, those of queries and keys included
    bool pre_norm = true, post_norm = false;
    bool parallel = false;     // attention and MLP read the same normed hidden states, and both are added (Cohere)
    float residual_scale = 1;  // of what attention and MLP add (Granite)
    AttentionRule attention;
    RotaryRule rotary;
    MlpRule mlp;
};

struct ModelRules {
    std::vector<LayerRules> layers;
    NormRule final_norm = {};
    float embedding_scale = 1;  // Gemma: √hidden
    float logit_scale = 1;
    float final_softcap = 0;  // logits ← cap · tanh(logits / cap); 0: none
};

}  // namespace mha2mla
