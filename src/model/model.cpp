#include "mha2mla/model.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "find_tensors.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

/// Finds tensors by name and checks them against the shape that config.json implies.
class Finder {
public:
    /// @param problems takes what is wrong, instead of an exception, if it is not null.
    Finder(const Checkpoint& checkpoint, const ModelConfig& config, std::vector<std::string>* problems)
        : checkpoint_(checkpoint), config_(config), problems_(problems) {}

    /// `because` says in words which configuration the shape comes from.
    const TensorView* tensor(const std::string& name, const Shape& shape, const std::string& because) const {
        const TensorView* found = checkpoint_.find(name);
        if (found == nullptr) {
            return refuse({ErrorCode::format, checkpoint_.directory().string() + ": tensor '" + name +
                                                  "' is missing, but config.json says " + because});
        }
        if (found->shape != shape) {
            return refuse({ErrorCode::format, found->file + ": tensor '" + name + "' has shape " +
                                                  to_string(found->shape) + ", but config.json says " + because + ": " +
                                                  to_string(shape) + ". Is config.json from another model?"});
        }
        if (!is_compute_dtype(found->dtype)) {
            return refuse({ErrorCode::unsupported, found->file + ": tensor '" + name + "' is " +
                                                       std::string(dtype_name(found->dtype)) +
                                                       ", which cannot be computed with; dequantise the checkpoint to "
                                                       "BF16, F16 or F32 first"});
        }
        return found;
    }

    /// Some checkpoints hold biases that config.json does not announce, so the file decides.
    LinearView linear(const std::string& name, std::int64_t out, std::int64_t in, bool bias,
                      const std::string& because) const {
        LinearView view;
        view.weight = tensor(name + ".weight", {out, in}, because);
        if (bias || checkpoint_.find(name + ".bias") != nullptr) {
            const bool mlp = name.find(".mlp.") != std::string::npos;
            const std::string words = !bias ? "" : mlp ? "mlp_bias true and " : "attention_bias true and ";
            view.bias = tensor(name + ".bias", {out}, words + because);
        }
        return view;
    }

    LayerView layer(std::int64_t index) const {
        const std::string prefix = layer_prefix(index);
        const std::int64_t hidden = config_.hidden_size;
        const std::int64_t intermediate = config_.intermediate_size;
        const std::string hidden_words = "hidden_size " + std::to_string(hidden);
        const std::string mlp_words = "intermediate_size " + std::to_string(intermediate) + ", " + hidden_words;
        LayerView view;
        view.input_layernorm = tensor(prefix + "input_layernorm.weight", {hidden}, hidden_words);
        view.post_attention_layernorm = tensor(prefix + "post_attention_layernorm.weight", {hidden}, hidden_words);
        view.gate = linear(prefix + "mlp.gate_proj", intermediate, hidden, config_.mlp_bias, mlp_words);
        view.up = linear(prefix + "mlp.up_proj", intermediate, hidden, config_.mlp_bias, mlp_words);
        view.down = linear(prefix + "mlp.down_proj", hidden, intermediate, config_.mlp_bias, mlp_words);
        if (config_.latent) {
            view.latent_attention = latent_attention(prefix + "self_attn.");
        } else {
            view.attention = attention(prefix + "self_attn.");
        }
        return view;
    }

private:
    const TensorView* refuse(const Error& error) const {
        if (problems_ == nullptr) throw error;
        problems_->emplace_back(error.what());
        return nullptr;
    }

    [[nodiscard]] std::string head_words(std::int64_t heads, const char* kind) const {
        return std::to_string(heads) + kind + std::to_string(config_.head_dim) + " and hidden_size " +
               std::to_string(config_.hidden_size);
    }

    AttentionView attention(const std::string& prefix) const {
        const std::int64_t query_rows = config_.num_attention_heads * config_.head_dim;
        const std::int64_t kv_rows = config_.num_key_value_heads * config_.head_dim;
        const std::int64_t hidden = config_.hidden_size;
        const std::string query_words = head_words(config_.num_attention_heads, " heads of ");
        const std::string kv_words = head_words(config_.num_key_value_heads, " KV heads of ");
        AttentionView view;
        view.q = linear(prefix + "q_proj", query_rows, hidden, config_.attention_bias, query_words);
        view.k = linear(prefix + "k_proj", kv_rows, hidden, config_.attention_bias, kv_words);
        view.v = linear(prefix + "v_proj", kv_rows, hidden, config_.attention_bias, kv_words);
        view.o = linear(prefix + "o_proj", hidden, query_rows, config_.attention_bias, query_words);
        return view;
    }

    LatentAttentionView latent_attention(const std::string& prefix) const {
        const LatentConfig& latent = *config_.latent;
        const std::int64_t heads = config_.num_key_value_heads;
        const std::int64_t hidden = config_.hidden_size;
        const std::int64_t query_rows = config_.num_attention_heads * config_.head_dim;
        const std::int64_t rope_rows = heads * latent.rope.rope_dim;
        const std::int64_t nope_rows = heads * config_.head_dim - rope_rows;
        const auto widths =
            latent_widths(latent.factorization, heads, config_.head_dim, latent.rope.rope_dim, latent.kv_rank);
        const std::string query_words = head_words(config_.num_attention_heads, " heads of ");
        const std::string words = head_words(heads, " KV heads of ") + ", rope_dim_for_mla " +
                                  std::to_string(latent.rope.rope_dim) + ", kv_rank " + std::to_string(latent.kv_rank);
        const std::string kv = prefix + "kv_proj.";
        LatentAttentionView view;
        view.q = linear(prefix + "q_proj", query_rows, hidden, config_.attention_bias, query_words);
        view.k_rope = linear(prefix + "k_r_proj", rope_rows, hidden, config_.attention_bias, words);
        if (shares_latent(latent.factorization)) {
            view.down_k = view.down_v = linear(kv + "down_kv", widths.key, hidden, false, words);
        } else {
            if (widths.key > 0) view.down_k = linear(kv + "down_k", widths.key, hidden, false, words);
            if (widths.value > 0) view.down_v = linear(kv + "down_v", widths.value, hidden, false, words);
        }
        view.up_k = linear(kv + "up_k", nope_rows, widths.key > 0 ? widths.key : hidden, config_.attention_bias, words);
        view.up_v = linear(kv + "up_v", heads * config_.head_dim, widths.value > 0 ? widths.value : hidden,
                           config_.attention_bias, words);
        view.o = linear(prefix + "o_proj", hidden, query_rows, config_.attention_bias, query_words);
        return view;
    }

    const Checkpoint& checkpoint_;
    const ModelConfig& config_;
    std::vector<std::string>* problems_;
};

Model find_model(ModelConfig config, Checkpoint checkpoint, std::vector<std::string>* problems) {
    Model model{std::move(config), std::move(checkpoint), nullptr, nullptr, nullptr, {}};
    const Finder finder(model.checkpoint, model.config, problems);
    const Shape table{model.config.vocab_size, model.config.hidden_size};
    const std::string words = "vocab_size " + std::to_string(model.config.vocab_size) + ", hidden_size " +
                              std::to_string(model.config.hidden_size);
    const std::string embed = "model.embed_tokens.weight";
    const std::string head = "lm_head.weight";
    if (model.config.tie_word_embeddings) {
        // Tied embeddings are stored once, under either name, or twice.
        const bool under_head = model.checkpoint.find(embed) == nullptr && model.checkpoint.find(head) != nullptr;
        model.embed_tokens = finder.tensor(under_head ? head : embed, table, words);
        model.lm_head = model.embed_tokens;
    } else {
        model.embed_tokens = finder.tensor(embed, table, words);
        model.lm_head = finder.tensor(head, table, words + " and tie_word_embeddings false");
    }
    model.norm = finder.tensor("model.norm.weight", {model.config.hidden_size}, words);
    for (std::int64_t layer = 0; layer < model.config.num_hidden_layers; ++layer) {
        model.layers.push_back(finder.layer(layer));
    }
    return model;
}

}  // namespace

std::string layer_prefix(std::int64_t layer) { return "model.layers." + std::to_string(layer) + "."; }

std::vector<const TensorView*> tensors_of(const LayerView& layer) {
    std::vector<const TensorView*> tensors;
    const auto add = [&](const TensorView* tensor) {
        if (tensor != nullptr && std::find(tensors.begin(), tensors.end(), tensor) == tensors.end()) {
            tensors.push_back(tensor);
        }
    };
    const auto add_linear = [&](const LinearView& linear) {
        add(linear.weight);
        add(linear.bias);
    };
    add(layer.input_layernorm);
    add(layer.post_attention_layernorm);
    if (layer.attention) {
        const AttentionView& view = *layer.attention;
        for (const auto* linear : {&view.q, &view.k, &view.v, &view.o}) add_linear(*linear);
    }
    if (layer.latent_attention) {
        const LatentAttentionView& view = *layer.latent_attention;
        for (const auto* linear : {&view.q, &view.k_rope, &view.down_k, &view.down_v, &view.up_k, &view.up_v, &view.o})
            add_linear(*linear);
    }
    for (const auto* linear : {&layer.gate, &layer.up, &layer.down}) add_linear(*linear);
    return tensors;
}

Model Model::open(const std::filesystem::path& directory) {
    auto checkpoint = Checkpoint::open(directory);  // first: it knows best what is wrong with a directory
    return find_model(read_config(directory / "config.json"), std::move(checkpoint), nullptr);
}

Model find_tensors(ModelConfig config, Checkpoint checkpoint, std::vector<std::string>& problems) {
    return find_model(std::move(config), std::move(checkpoint), &problems);
}

}  // namespace mha2mla
