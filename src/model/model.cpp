#include "mha2mla/model.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <string>
#include <utility>

#include "find_tensors.hpp"
#include "mha2mla/error.hpp"
#include "unused.hpp"

namespace mha2mla {
namespace {

/// Finds tensors by name and checks them against the shape that config.json implies.
class Finder {
public:
    /// @param used takes the tensors that are found.
    /// @param problems takes what is wrong, instead of an exception, if it is not null.
    Finder(Model& model, std::set<const TensorView*>& used, std::vector<std::string>* problems)
        : checkpoint_(model.checkpoint),
          config_(model.config),
          parts_(model.parts),
          repeated_(model.repeated),
          used_(used),
          problems_(problems) {}

    /// `because` says in words which configuration the shape comes from.
    const TensorView* tensor(const std::string& name, const Shape& shape, const std::string& because) const {
        const TensorView* found = checkpoint_.find(name);
        used_.insert(found);
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

    /// No norm where `name` is empty.
    NormView norm(const std::string& prefix, std::string_view name, std::int64_t features, const NormRule& rule,
                  const std::string& because) const {
        NormView view;
        view.rule = rule;
        if (name.empty()) return view;
        const std::string whole = prefix + std::string(name);
        view.weight = tensor(whole + ".weight", {features}, because);
        if (rule.kind == NormRule::Kind::layer && checkpoint_.find(whole + ".bias") != nullptr) {
            view.bias = tensor(whole + ".bias", {features}, because);
        }
        return view;
    }

    LayerView layer(std::int64_t index) const {
        const std::string prefix = layer_prefix(index);
        const LayerRules& rules = config_.rules.layers[static_cast<std::size_t>(index)];
        const TensorNames& names = config_.names;
        const std::int64_t hidden = config_.hidden_size;
        const std::string words = "hidden_size " + std::to_string(hidden);
        LayerView view;
        view.attention_norm = norm(prefix, names.attention_norm, hidden, rules.norm, words);
        view.attention_post_norm = norm(prefix, names.attention_post_norm, hidden, rules.norm, words);
        view.mlp_norm = norm(prefix, names.mlp_norm, hidden, rules.norm, words);
        view.mlp_post_norm = norm(prefix, names.mlp_post_norm, hidden, rules.norm, words);
        if (rules.mlp.mixture.experts > 0) {
            view.mixture = mixture(prefix, rules.mlp);
        } else {
            find_mlp(prefix, rules.mlp, view);
        }
        if (config_.latent) {
            view.attention = latent_attention(prefix, rules.attention);
        } else {
            view.attention = attention(prefix, rules);
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

    /// Rows [first, first + count) of a linear map; null tensors stay null.
    LinearView rows_of(const LinearView& whole, std::int64_t first, std::int64_t count) const {
        const auto part = [&](const TensorView* tensor) -> const TensorView* {
            if (tensor == nullptr) return nullptr;
            parts_.push_back(std::make_unique<TensorView>(rows(*tensor, first, count)));
            return parts_.back().get();
        };
        return {part(whole.weight), part(whole.bias)};
    }

    void find_mlp(const std::string& prefix, const MlpRule& rule, LayerView& view) const {
        const std::int64_t hidden = config_.hidden_size;
        const std::int64_t width = config_.intermediate_size;
        const std::string words =
            "intermediate_size " + std::to_string(width) + ", hidden_size " + std::to_string(hidden);
        const auto find = [&](std::string_view name, std::int64_t out, std::int64_t in) {
            return linear(prefix + std::string(name), out, in, rule.bias, words);
        };
        if (!config_.names.gate_up.empty()) {
            const LinearView both = find(config_.names.gate_up, 2 * width, hidden);
            view.gate = rows_of(both, 0, width);
            view.up = rows_of(both, width, width);
        } else {
            if (rule.gated) view.gate = find("mlp.gate_proj", width, hidden);
            view.up = find(config_.names.up, width, hidden);
        }
        view.down = find(config_.names.down, hidden, width);
    }

    /// transformers 4 stores a tensor for each expert; transformers 5 also knows one for the experts of a layer, under
    /// the names of its own modules in all families.
    MixtureView mixture(const std::string& prefix, const MlpRule& rule) const {
        const MixtureRule& mixture = rule.mixture;
        const std::int64_t hidden = config_.hidden_size;
        const std::string fused = prefix + std::string(TensorNames().experts) + ".";
        const bool is_fused = checkpoint_.find(fused + "gate_up_proj") != nullptr;
        const std::string router = prefix + std::string(is_fused ? TensorNames().router : config_.names.router);
        const std::string words = std::to_string(mixture.experts) + " experts, hidden_size " + std::to_string(hidden);
        MixtureView view;
        view.router = linear(router, mixture.experts, hidden, false, words);
        if (mixture.corrected) {
            view.correction = tensor(router + ".e_score_correction_bias", {mixture.experts}, words);
        }
        if (is_fused) {
            find_fused_experts(fused, mixture, view);
        } else {
            find_experts(prefix + std::string(config_.names.experts) + ".", rule, view);
        }
        if (mixture.shared_width == 0) return view;
        const std::string shared = prefix + std::string(config_.names.shared_expert);
        view.shared = expert(shared + ".", {"gate_proj", "up_proj", "down_proj"}, mixture.shared_width, rule.bias,
                             "a shared expert of ");
        if (mixture.shared_gate) view.shared_gate = linear(shared + "_gate", 1, hidden, false, words);
        return view;
    }

    MlpView expert(const std::string& prefix, const std::array<std::string_view, 3>& names, std::int64_t width,
                   bool bias, const std::string& kind) const {
        const std::int64_t hidden = config_.hidden_size;
        const std::string words = kind + std::to_string(width) + ", hidden_size " + std::to_string(hidden);
        MlpView view;
        view.gate = linear(prefix + std::string(names[0]), width, hidden, bias, words);
        view.up = linear(prefix + std::string(names[1]), width, hidden, bias, words);
        view.down = linear(prefix + std::string(names[2]), hidden, width, bias, words);
        return view;
    }

    void find_experts(const std::string& prefix, const MlpRule& rule, MixtureView& view) const {
        const TensorNames& names = config_.names;
        const std::size_t known = problems_ != nullptr ? problems_->size() : 0;
        const std::string kind = std::to_string(rule.mixture.experts) + " experts of ";
        for (std::int64_t i = 0; i < rule.mixture.experts; ++i) {
            if (problems_ != nullptr && problems_->size() > known + kProblemsOfExperts) return;
            view.experts.push_back(expert(prefix + std::to_string(i) + ".",
                                          {names.expert_gate, names.expert_up, names.expert_down}, rule.mixture.width,
                                          false, kind));
        }
    }

    void find_fused_experts(const std::string& prefix, const MixtureRule& rule, MixtureView& view) const {
        const std::int64_t hidden = config_.hidden_size, width = rule.width;
        const std::string words = std::to_string(rule.experts) + " experts of " + std::to_string(width) +
                                  ", hidden_size " + std::to_string(hidden);
        const TensorView* gate_up = tensor(prefix + "gate_up_proj", {rule.experts, 2 * width, hidden}, words);
        const TensorView* down = tensor(prefix + "down_proj", {rule.experts, hidden, width}, words);
        if (gate_up == nullptr || down == nullptr) return;
        for (std::int64_t i = 0; i < rule.experts; ++i) {
            const LinearView both = {matrix_of(*gate_up, i), nullptr};
            view.experts.push_back(
                {rows_of(both, 0, width), rows_of(both, width, width), {matrix_of(*down, i), nullptr}});
        }
    }

    /// One of the matrices that a tensor of three dimensions holds.
    const TensorView* matrix_of(const TensorView& stack, std::int64_t index) const {
        TensorView matrix = rows(stack, index, 1);
        matrix.shape.erase(matrix.shape.begin());
        parts_.push_back(std::make_unique<TensorView>(std::move(matrix)));
        return parts_.back().get();
    }

    AttentionView attention(const std::string& prefix, const LayerRules& rules) const {
        const AttentionRule& rule = rules.attention;
        const std::int64_t query_rows = config_.num_attention_heads * config_.head_dim;
        const std::int64_t kv_rows = config_.num_key_value_heads * config_.head_dim;
        const std::int64_t hidden = config_.hidden_size;
        const std::string query_words = head_words(config_.num_attention_heads, " heads of ");
        const std::string kv_words = head_words(config_.num_key_value_heads, " KV heads of ");
        const std::string names = prefix + "self_attn.";
        AttentionView view;
        if (!config_.names.qkv.empty()) {
            const LinearView all = linear(prefix + std::string(config_.names.qkv), query_rows + 2 * kv_rows, hidden,
                                          rule.qkv_bias, query_words + ", " + kv_words);
            view.q = rows_of(all, 0, query_rows);
            view.k = rows_of(all, query_rows, kv_rows);
            view.v = rows_of(all, query_rows + kv_rows, kv_rows);
        } else {
            view.q = linear(names + "q_proj", query_rows, hidden, rule.qkv_bias, query_words);
            view.k = linear(names + "k_proj", kv_rows, hidden, rule.qkv_bias, kv_words);
            view.v = linear(names + "v_proj", kv_rows, hidden, rule.qkv_bias, kv_words);
        }
        view.o = linear(names + "o_proj", hidden, query_rows, rule.o_bias, query_words);
        find_head_norms(names, rule, query_words, kv_words, view.q_norm, view.k_norm);
        return view;
    }

    /// Of queries and keys.
    void find_head_norms(const std::string& names, const AttentionRule& rule, const std::string& query_words,
                         const std::string& kv_words, NormView& q_norm, NormView& k_norm) const {
        if (rule.query_key_norm == QueryKeyNorm::none) return;
        const bool whole = rule.query_key_norm == QueryKeyNorm::whole;
        const NormRule& norms = config_.rules.layers.front().norm;
        const std::int64_t dim = config_.head_dim;
        q_norm = norm(names, "q_norm", whole ? config_.num_attention_heads * dim : dim, norms, query_words);
        k_norm = norm(names, "k_norm", whole ? config_.num_key_value_heads * dim : dim, norms, kv_words);
        q_norm.by_part = k_norm.by_part = config_.latent && config_.latent->norms_by_part;
    }

    LatentAttentionView latent_attention(const std::string& prefix, const AttentionRule& rule) const {
        const LatentConfig& latent = *config_.latent;
        const std::string query_words = head_words(config_.num_attention_heads, " heads of ");
        const std::string words = head_words(config_.num_key_value_heads, " KV heads of ") + ", rope_dim_for_mla " +
                                  std::to_string(latent.rope.rope_dim) + ", kv_rank " + std::to_string(latent.kv_rank);
        LatentAttentionView view;
        const LatentShape shape = config_.latent_shape();
        for (const LatentTensor& tensor : latent.layout->tensors(shape)) {
            const std::string name = prefix + std::string(tensor.name);
            const bool by_query = tensor.from == Projection::query || tensor.from == Projection::output;
            const std::string& because = by_query ? query_words : words;
            if (tensor.columns == 0) {
                NormView& to = tensor.role == LatentRole::query_norm ? view.q_norm : view.latent_norm;
                to = norm(prefix, tensor.name, tensor.rows, kLatentNorm, because);
                continue;
            }
            const bool bias = tensor.from == Projection::output ? rule.o_bias : rule.qkv_bias;
            const std::int64_t rows = tensor.stored_rows(shape);
            const LinearView found = linear(name, rows, tensor.columns, tensor.biased && bias, because);
            place(tensor.role, shape, repeat_heads(found, rows > 0 ? tensor.rows / rows : 1), view);
        }
        find_head_norms(prefix + "self_attn.", rule, query_words, words, view.head_q_norm, view.head_k_norm);
        return view;
    }

    /// Each head's rows `times` times behind one another.
    LinearView repeat_heads(const LinearView& heads, std::int64_t times) const {
        if (times == 1) return heads;
        const auto repeat = [&](const TensorView* tensor) -> const TensorView* {
            if (tensor == nullptr) return nullptr;
            const auto head = static_cast<std::size_t>(config_.head_dim) * tensor->data.size() /
                              static_cast<std::size_t>(tensor->rows());
            auto& bytes = repeated_.emplace_back();
            for (std::size_t first = 0; first < tensor->data.size(); first += head) {
                const auto rows = tensor->data.subspan(first, head);
                for (std::int64_t i = 0; i < times; ++i) bytes.insert(bytes.end(), rows.begin(), rows.end());
            }
            auto whole = std::make_unique<TensorView>(*tensor);
            whole->shape[0] *= times;
            whole->data = bytes;
            parts_.push_back(std::move(whole));
            return parts_.back().get();
        };
        return {repeat(heads.weight), repeat(heads.bias)};
    }

    void place(LatentRole role, const LatentShape& shape, const LinearView& found, LatentAttentionView& view) const {
        if (role == LatentRole::down) {
            view.down_k = view.down_v = found;
        } else if (role == LatentRole::down_and_key_rope) {
            view.down_k = view.down_v = rows_of(found, 0, shape.kv_rank);
            view.k_rope = rows_of(found, shape.kv_rank, shape.rope_dim);
        } else if (role == LatentRole::up) {
            view.up_k = view.up_v = found;
        } else {
            view.*kViews.at(static_cast<std::size_t>(role)) = found;
        }
    }

    static constexpr NormRule kLatentNorm = {NormRule::Kind::rms, kLatentNormEps, 0};

    /// In the order of LatentRole; null for those that place() and norms have rows of their own for.
    static constexpr std::array<LinearView LatentAttentionView::*, 12> kViews = {&LatentAttentionView::q,
                                                                                 &LatentAttentionView::k_rope,
                                                                                 nullptr,
                                                                                 &LatentAttentionView::down_k,
                                                                                 &LatentAttentionView::down_v,
                                                                                 &LatentAttentionView::up_k,
                                                                                 &LatentAttentionView::up_v,
                                                                                 &LatentAttentionView::o,
                                                                                 nullptr,
                                                                                 nullptr,
                                                                                 nullptr,
                                                                                 &LatentAttentionView::q_down};

    /// Of a layer whose experts are missing, doctor names so many tensors.
    static constexpr std::size_t kProblemsOfExperts = 8;

    const Checkpoint& checkpoint_;
    const ModelConfig& config_;
    std::vector<std::unique_ptr<TensorView>>& parts_;
    std::vector<std::vector<std::byte>>& repeated_;
    std::set<const TensorView*>& used_;
    std::vector<std::string>* problems_;
};

/// Whether two tensors hold other values: compared at some places, which a trained head differs at.
bool differ(const TensorView& a, const TensorView& b) {
    constexpr std::size_t kPlaces = 64, kBytes = 256;
    if (a.dtype != b.dtype || a.shape != b.shape || a.data.size() != b.data.size()) return true;
    for (std::size_t i = 0; i < kPlaces; ++i) {
        const std::size_t first = (a.data.size() - std::min(kBytes, a.data.size())) / (kPlaces - 1) * i;
        const std::size_t count = std::min(kBytes, a.data.size());
        if (std::memcmp(a.data.data() + first, b.data.data() + first, count) != 0) return true;
    }
    return false;
}

Model find_model(ModelConfig config, Checkpoint checkpoint, std::vector<std::string>* problems) {
    Model model;
    model.config = std::move(config);
    model.checkpoint = std::move(checkpoint);
    std::set<const TensorView*> used;
    const Finder finder(model, used, problems);
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
        // One that was trained apart counts, as in transformers.
        const TensorView* stored = model.checkpoint.find(head);
        if (!under_head && stored != nullptr && model.embed_tokens != nullptr && differ(*stored, *model.embed_tokens)) {
            model.lm_head = finder.tensor(head, table, words);
            model.warnings.push_back(model.checkpoint.directory().string() +
                                     ": config.json says tie_word_embeddings true, but '" + head +
                                     "' is not the embeddings: what is stored counts");
        }
    } else {
        model.embed_tokens = finder.tensor(embed, table, words);
        model.lm_head = finder.tensor(head, table, words + " and tie_word_embeddings false");
    }
    model.norm = finder.norm("model.", "norm", model.config.hidden_size, model.config.rules.final_norm, words);
    for (std::int64_t layer = 0; layer < model.config.num_hidden_layers; ++layer) {
        model.layers.push_back(finder.layer(layer));
    }
    model.unused = find_unused(model, used);
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
    const auto add_norm = [&](const NormView& norm) {
        add(norm.weight);
        add(norm.bias);
    };
    for (const auto* norm :
         {&layer.attention_norm, &layer.attention_post_norm, &layer.mlp_norm, &layer.mlp_post_norm}) {
        add_norm(*norm);
    }
    if (layer.latent()) {
        const LatentAttentionView& view = layer.latent_attention();
        for (const auto* linear :
             {&view.q_down, &view.q, &view.k_rope, &view.down_k, &view.down_v, &view.up_k, &view.up_v, &view.o}) {
            add_linear(*linear);
        }
        add_norm(view.q_norm);
        add_norm(view.latent_norm);
        add_norm(view.head_q_norm);
        add_norm(view.head_k_norm);
    } else {
        const AttentionView& view = layer.original_attention();
        for (const auto* linear : {&view.q, &view.k, &view.v, &view.o}) add_linear(*linear);
        add_norm(view.q_norm);
        add_norm(view.k_norm);
    }
    const MixtureView& mixture = layer.mixture;
    for (const auto* linear : {&layer.gate, &layer.up, &layer.down, &mixture.router, &mixture.shared.gate,
                               &mixture.shared.up, &mixture.shared.down, &mixture.shared_gate}) {
        add_linear(*linear);
    }
    add(mixture.correction);
    return tensors;
}

std::vector<LinearView> mlp_linears(const LayerView& layer) {
    const MixtureView& mixture = layer.mixture;
    std::vector<LinearView> linears = {layer.gate, layer.up, layer.down, mixture.router, mixture.shared_gate};
    const auto add = [&](const MlpView& mlp) { linears.insert(linears.end(), {mlp.gate, mlp.up, mlp.down}); };
    add(mixture.shared);
    for (const MlpView& expert : mixture.experts) add(expert);
    return linears;
}

std::vector<const TensorView*> expert_tensors_of(const LayerView& layer) {
    std::vector<const TensorView*> tensors;
    for (const MlpView& expert : layer.mixture.experts) {
        for (const auto* linear : {&expert.gate, &expert.up, &expert.down}) {
            tensors.push_back(linear->weight);
            if (linear->bias != nullptr) tensors.push_back(linear->bias);
        }
    }
    return tensors;
}

Model Model::open(const std::filesystem::path& directory, const OpenOptions& options) {
    auto checkpoint = Checkpoint::open(directory);  // first: it knows best what is wrong with a directory
    Model model = find_model(read_config(directory / "config.json"), std::move(checkpoint), nullptr);
    if (model.unused.empty()) return model;
    if (!options.ignore_unused) throw Error(ErrorCode::unsupported, describe_unused(model), Remedy::ignore_unused);
    model.warnings.push_back(describe_unused(model) + ": left out");
    return model;
}

bool Model::is_unused(std::string_view tensor) const {
    return std::binary_search(unused.begin(), unused.end(), tensor);
}

Model find_tensors(ModelConfig config, Checkpoint checkpoint, std::vector<std::string>& problems) {
    return find_model(std::move(config), std::move(checkpoint), &problems);
}

}  // namespace mha2mla
