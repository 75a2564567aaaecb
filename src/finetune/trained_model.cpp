#include "trained_model.hpp"

#include <algorithm>

#include "../forward/forward.hpp"
#include "../latent/build_layer.hpp"

namespace mha2mla {
namespace {

bool is_of_latent(const std::string& name) {
    return std::ranges::any_of(std::initializer_list<std::string_view>{"k_rope", "down", "up_k", "up_v"},
                               [&](std::string_view part) { return name.starts_with(part); });
}

/// ‖h − wanted‖² / ‖wanted‖² per token, summed and divided by `scored`; adds share times its derivative.
double hidden_loss(const Matrix& output, const Matrix& wanted, const TrainingBatch& batch, double share,
                   Matrix& d_output) {
    double sum = 0;
    for (std::int64_t t = 0; t < output.rows(); ++t) {
        if (batch.next[static_cast<std::size_t>(t)] < 0) continue;
        const double energy = std::max(1e-30, wanted.row(t).cast<double>().squaredNorm());
        const double weight = 1 / (energy * static_cast<double>(batch.scored));
        sum += weight * (output.row(t) - wanted.row(t)).cast<double>().squaredNorm();
        d_output.row(t) += static_cast<float>(2 * weight * share) * (output.row(t) - wanted.row(t));
    }
    return sum;
}

}  // namespace

TrainedModel::TrainedModel(const Model& source, TrainedPart part, std::int64_t seq_len, bool keep_activations)
    : floats_(source),
      seq_len_(seq_len),
      rotary_(source.config.rules, seq_len),
      latents_(source.layers.size()),
      keep_activations_(keep_activations),
      activations_(keep_activations ? source.layers.size() : 1),
      inputs_(keep_activations ? 0 : source.layers.size()) {
    for (std::size_t layer = 0; layer < latents_.size(); ++layer) {
        if (!source.layers[layer].latent()) continue;
        latents_[layer].emplace().stored = read_stored_layer(source, static_cast<std::int64_t>(layer), seq_len);
    }
    choose(part);
}

void TrainedModel::choose(TrainedPart part) {
    const Model& model = floats_.model();
    const auto train = [&](const LinearView& view) {
        if (view.weight != nullptr) floats_.train(*view.weight, true);
        if (view.bias != nullptr) floats_.train(*view.bias, false);
    };
    const auto train_norm = [&](const NormView& view) {
        if (view.weight != nullptr) floats_.train(*view.weight, false);
        if (view.bias != nullptr) floats_.train(*view.bias, false);
    };
    const bool all = part == TrainedPart::all, norms = all || part == TrainedPart::attention_norms;
    for (std::size_t layer = 0; layer < model.layers.size(); ++layer) {
        const LayerView& view = model.layers[layer];
        if (norms) {
            for (const auto* norm :
                 {&view.attention_norm, &view.attention_post_norm, &view.mlp_norm, &view.mlp_post_norm}) {
                train_norm(*norm);
            }
        }
        if (all) {
            for (const LinearView& linear : mlp_linears(view)) train(linear);
        }
        if (latents_[layer]) {
            const TensorView* output_bias = view.latent_attention().o.bias;
            if (part != TrainedPart::kv && output_bias != nullptr) floats_.train(*output_bias, false);
            choose_latent(part, static_cast<std::int64_t>(layer));
            if (norms) {
                train_norm(view.latent_attention().head_q_norm);
                train_norm(view.latent_attention().head_k_norm);
            }
            continue;
        }
        const AttentionView& attention = view.original_attention();
        if (part != TrainedPart::kv) {
            train(attention.q);
            train(attention.o);
        }
        train(attention.k);
        train(attention.v);
        if (norms) {
            train_norm(attention.q_norm);
            train_norm(attention.k_norm);
        }
    }
    added_.norms = norms;
    if (norms) train_norm(model.norm);
    if (!all) return;
    floats_.train(*model.embed_tokens, true);
    floats_.train(*model.lm_head, true);
}

void TrainedModel::choose_latent(TrainedPart part, std::int64_t layer) {
    Latent& latent = *latents_[static_cast<std::size_t>(layer)];
    latent.gradient.biases = true;
    for (Parameter& parameter : mha2mla::parameters(latent.stored.layer, latent.gradient)) {
        if (parameter.value.empty() || (part == TrainedPart::kv && !is_of_latent(parameter.name))) continue;
        if (parameter.name == "down") {
            const auto [first, count] = latent.stored.made_rows();
            const auto columns = static_cast<std::size_t>(latent.stored.layer.weights.down.cols());
            const std::size_t offset = static_cast<std::size_t>(first) * columns;
            const std::size_t size = static_cast<std::size_t>(count) * columns;
            if (size == 0) continue;
            parameter.value = parameter.value.subspan(offset, size);
            parameter.gradient = parameter.gradient.subspan(offset, size);
        }
        parameter.decays = !parameter.name.ends_with("bias");
        parameter.name.insert(0, layer_prefix(layer) + "self_attn.");
        latent_parameters_.push_back(std::move(parameter));
    }
}

std::vector<Parameter> TrainedModel::parameters() {
    std::vector<Parameter> all = floats_.parameters();
    all.insert(all.end(), latent_parameters_.begin(), latent_parameters_.end());
    return all;
}

void TrainedModel::clear_gradients() {
    for (const Parameter& parameter : parameters()) std::ranges::fill(parameter.gradient, 0.0F);
}

SurroundingGradient TrainedModel::around(const LayerView& view) {
    const auto of_mlp = [&](const MlpView& mlp) {
        return MlpGradient{gradient(mlp.gate), gradient(mlp.up), gradient(mlp.down)};
    };
    const MixtureView& mixture = view.mixture;
    MixtureGradient experts{gradient(mixture.router), {}, of_mlp(mixture.shared), gradient(mixture.shared_gate)};
    for (const MlpView& expert : mixture.experts) experts.experts.push_back(of_mlp(expert));
    return {gradient(view.attention_norm), gradient(view.attention_post_norm),
            gradient(view.mlp_norm),       gradient(view.mlp_post_norm),
            of_mlp(mlp_of(view)),          std::move(experts)};
}

OriginalGradient TrainedModel::gradient_of(const LayerView& view) {
    const AttentionView& attention = view.original_attention();
    return {around(view),          gradient(attention.q_norm), gradient(attention.k_norm), gradient(attention.q),
            gradient(attention.k), gradient(attention.v),      gradient(attention.o)};
}

BlockStates& TrainedModel::states(std::int64_t layer) {
    Activations& at = activations_[keep_activations_ ? static_cast<std::size_t>(layer) : 0];
    if (latents_[static_cast<std::size_t>(layer)]) return at.latent;
    return at.original;
}

void TrainedModel::run(std::int64_t layer, std::span<const std::int64_t> begins) {
    Activations& at = activations_[keep_activations_ ? static_cast<std::size_t>(layer) : 0];
    const Model& model = floats_.model();
    if (auto& latent = latents_[static_cast<std::size_t>(layer)]) {
        if (added_.norms) read_head_norms(model.layer(layer), latent->stored.layer);  // they change
        return run_block(LatentBlock{model, layer, latent->stored.layer, seq_len_, begins}, at.latent);
    }
    run_block(OriginalBlock{model, layer, {rotary_[layer], seq_len_, begins}}, at.original);
}

void TrainedModel::go_back(std::int64_t layer, Matrix& d_hidden) {
    Activations& at = activations_[keep_activations_ ? static_cast<std::size_t>(layer) : 0];
    const Model& model = floats_.model();
    const LayerView& view = model.layer(layer);
    if (auto& latent = latents_[static_cast<std::size_t>(layer)]) {
        differentiate_block({model, layer, latent->stored.layer, seq_len_}, at.latent, d_hidden, added_, around(view),
                            floats_.gradient(view.latent_attention().o.bias));
        latent->stored.keep_parts(added_.weights);
        const auto to = matrices(latent->gradient.weights), from = matrices(added_.weights);
        for (std::size_t i = 0; i < to.size(); ++i) *to[i] += *from[i];
        const auto to_biases = biases(latent->gradient.weights), from_biases = biases(added_.weights);
        for (std::size_t i = 0; i < to_biases.size(); ++i) *to_biases[i] += *from_biases[i];
        if (added_.head_norms) add_head_norms(view, latent->stored.layer);
        return;
    }
    differentiate_block({model, layer, {rotary_[layer], seq_len_}}, at.original, d_hidden, gradient_of(view));
}

void TrainedModel::add_head_norms(const LayerView& view, const LatentLayer& layer) {
    const auto add = [&](const NormView& norm, const HeadNorm& gradient) {
        if (float* to = floats_.gradient(norm.weight)) gradient.add_to_weights(norm, layer.shape, layer.pairs, to);
    };
    add(view.latent_attention().head_q_norm, added_.head_norms->query);
    add(view.latent_attention().head_k_norm, added_.head_norms->key);
}

std::array<double, 3> TrainedModel::accumulate(const TrainingBatch& batch, const Teacher* teacher,
                                               const LossShares& shares) {
    const Model& model = floats_.model();
    const std::int64_t layers = model.config.num_hidden_layers;
    Matrix hidden(std::ssize(batch.ids), model.config.hidden_size);
    embed(model, batch.ids, {hidden.data(), hidden.rows(), hidden.cols()});
    for (std::int64_t layer = 0; layer < layers; ++layer) {
        BlockStates& at = states(layer);
        if (!keep_activations_) inputs_[static_cast<std::size_t>(layer)] = hidden;
        at.input = std::move(hidden);
        run(layer, batch.begins);
        hidden = at.output;
    }
    const TokenHead head{model.config.rules, head_of(model)};
    LossTargets targets;
    targets.next = batch.next;
    targets.next_share = shares.next_token;
    targets.teacher_share = shares.teacher;
    targets.teacher = shares.teacher > 0 ? teacher : nullptr;
    targets.scored = batch.scored;
    Matrix d_hidden;
    const LossSums sums =
        head_loss(head, hidden, targets, d_hidden, {gradient(head.view.norm), gradient(head.view.lm_head)});
    double apart = 0;
    if (shares.hidden > 0) apart = hidden_loss(hidden, teacher->hidden, batch, shares.hidden, d_hidden);
    for (std::int64_t layer = layers; layer-- > 0;) {
        if (!keep_activations_ && layer + 1 < layers) {
            states(layer).input = std::move(inputs_[static_cast<std::size_t>(layer)]);
            run(layer, batch.begins);
        }
        go_back(layer, d_hidden);
    }
    if (float* to = floats_.gradient(model.embed_tokens)) {
        embedding_gradient(model.config.rules.embedding_scale, batch.ids, d_hidden, to);
    }
    return {sums.next_token, sums.teacher, apart};
}

const Model& TrainedModel::stored() {
    const Model& model = floats_.model();
    for (std::size_t layer = 0; layer < latents_.size(); ++layer) {
        if (!latents_[layer]) continue;
        const StoredLayer& stored = latents_[layer]->stored;
        const LatentShape shape = model.config.latent_shape();
        const TensorView* output_bias = model.layers[layer].latent_attention().o.bias;
        Vector bias;
        if (output_bias != nullptr) {
            const auto values = floats_.values(*output_bias);
            bias = Eigen::Map<const Vector>(values.data(), std::ssize(values));
        }
        const float scale = 1 / std::sqrt(static_cast<float>(shape.rope_dim + shape.nope_dim()));  // as it was read
        const LayerContent content{stored.layer.weights, shape, scale, bias, false, stored.latent_norm};
        const std::string prefix = layer_prefix(static_cast<std::int64_t>(layer));
        const auto put = [&](const std::string& name, const float* from) {
            if (const TensorView* tensor = model.checkpoint.find(name)) {
                const auto to = floats_.values(*tensor);
                std::copy_n(from, to.size(), to.data());
            }
        };
        for (const LatentTensor& tensor : shape.layout->tensors(shape)) {
            const TensorContent of = content_of(tensor, content);
            put(prefix + std::string(tensor.name) + ".weight", stored.part_of(tensor.role, of.weight).data());
            if (of.bias.size() > 0) put(prefix + std::string(tensor.name) + ".bias", of.bias.data());
        }
    }
    return model;
}

}  // namespace mha2mla
