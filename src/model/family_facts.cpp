// What is said of the families, from what their rules are.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "mha2mla/error.hpp"
#include "read_config.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::ordered_json;

/// Words of things that layers have, each once, and how many layers have them.
class Words {
public:
    void add(const std::string& word) {
        const auto known =
            std::find_if(counts_.begin(), counts_.end(), [&](const auto& row) { return row.first == word; });
        if (known != counts_.end()) {
            ++known->second;
        } else {
            counts_.emplace_back(word, 1);
        }
    }
    void add_if(bool has, const std::string& word) {
        if (has) add(word);
    }
    /// "sliding window in 6 of 8 layers" becomes "sliding window in some layers": the numbers are those of an example.
    [[nodiscard]] std::vector<std::string> texts(std::size_t layers) const {
        std::vector<std::string> texts;
        for (const auto& [word, count] : counts_) texts.push_back(word + (count < layers ? " in some layers" : ""));
        return texts;
    }

private:
    std::vector<std::pair<std::string, std::size_t>> counts_;
};

std::string mlp_words(const MlpRule& rule) {
    constexpr std::array<std::string_view, 4> kGated = {"SwiGLU", "GeGLU", "GeGLU (tanh)", "gated MLP of relu^2"};
    constexpr std::array<std::string_view, 4> kPlain = {"MLP of SiLU", "MLP of GELU", "MLP of GELU (tanh)",
                                                        "MLP of relu^2"};
    return std::string((rule.gated ? kGated : kPlain).at(static_cast<std::size_t>(rule.activation)));
}

std::string expert_words(const MixtureRule& rule) {
    std::string text = rule.score == ExpertScore::softmax ? "experts by softmax" : "experts by sigmoid";
    if (rule.corrected) text += " with a correction";
    if (rule.normalised) text += ", normalised";
    if (rule.groups > 1) text += ", in groups";
    if (rule.shared_width > 0) text += rule.shared_gate ? ", and a gated shared one" : ", and a shared one";
    return text;
}

void add_norms(const LayerRules& rules, Words& words) {
    words.add(std::string(rules.norm.kind == NormRule::Kind::rms ? "RMSNorm" : "LayerNorm") +
              (rules.norm.weight_offset != 0 ? " of 1 + weight" : ""));
    if (rules.post_norm) words.add(rules.pre_norm ? "norms before and behind" : "norms behind only");
    words.add_if(rules.parallel, "attention and MLP side by side");
}

void add_rotation(const LayerRules& rules, std::int64_t rotary_dims, Words& words) {
    const RotaryRule& rotary = rules.rotary;
    if (rotary.frequencies.empty()) return words.add("no RoPE");
    words.add_if(rotary.rotated_dims() < rotary_dims, "partial RoPE");
    words.add_if(rotary.interleaved, "RoPE of neighbours");
}

}  // namespace

Json example_config_json(const ModelFamily& family) {
    Json json = {{"model_type", family.model_type},
                 {"vocab_size", 64},
                 {"hidden_size", 64},
                 {"intermediate_size", 96},
                 {"num_hidden_layers", 8},
                 {"num_attention_heads", 4},
                 {"num_key_value_heads", 2},
                 {"max_position_embeddings", 128}};
    json.update(Json::parse(family.typical));
    return json;
}

ModelConfig example_config(const ModelFamily& family) {
    return read_config(example_config_json(family), "an example of " + std::string(family.model_type));
}

std::vector<std::string> operations_of(const ModelConfig& config) {
    const std::vector<LayerRules>& layers = config.rules.layers;
    const bool latent = config.latent && !config.latent->layout->model_type.empty();
    Words words;
    words.add_if(latent, "multi-head latent attention");
    for (const LayerRules& rules : layers) {
        add_norms(rules, words);
        words.add(rules.mlp.mixture.experts > 0 ? expert_words(rules.mlp.mixture) : mlp_words(rules.mlp));
        const AttentionRule& attention = rules.attention;
        words.add_if(attention.query_key_norm != QueryKeyNorm::none,
                     attention.query_key_norm == QueryKeyNorm::whole ? "QK-norm over all heads" : "QK-norm");
        words.add_if(attention.qkv_bias, attention.o_bias ? "biases" : "QKV biases");
        words.add_if(attention.window > 0, "sliding window");
        words.add_if(attention.softcap > 0, "soft-capped scores");
        add_rotation(rules, latent ? rules.rotary.rotated_dims() : config.head_dim, words);
        words.add_if(rules.residual_scale != 1, "scaled residuals");
    }
    std::vector<std::string> texts = words.texts(layers.size());
    if (latent) texts.erase(texts.begin()), texts.insert(texts.begin(), "multi-head latent attention");
    const auto add_if = [&](bool has, const char* text) {
        if (has) texts.emplace_back(text);
    };
    const auto other = std::find_if(layers.begin(), layers.end(), [&](const LayerRules& rules) {
        return !rules.rotary.frequencies.empty() && rules.rotary != layers.front().rotary;
    });
    add_if(other != layers.end() && !layers.front().rotary.frequencies.empty() && !latent, "RoPE by layer type");
    add_if(config.rules.embedding_scale != 1, "scaled embeddings");
    add_if(config.rules.logit_scale != 1, "scaled logits");
    add_if(config.rules.final_softcap != 0, "soft-capped logits");
    add_if(!config.names.qkv.empty() || !config.names.gate_up.empty(), "fused projections");
    return texts;
}

}  // namespace mha2mla
