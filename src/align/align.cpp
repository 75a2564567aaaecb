#include "mha2mla/align.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <random>

#include "../rope/attention_order.hpp"
#include "../runtime/layer.hpp"
#include "adam.hpp"
#include "first_guess.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/plan.hpp"

namespace mha2mla {
namespace {

constexpr std::array<AlignQuality, 2> kQualities = {{
    {"fast", 60, 2048, "60 steps of gradient descent on each layer's own output"},
    {"best", 400, 2048, "400 of them"},
}};

constexpr std::int64_t kOrderTokens = 1024;   // that pairs are ranked on
constexpr std::int64_t kChoiceTokens = 4096;  // that splits and balances are compared on
constexpr std::int64_t kMostSplits = 8;
constexpr std::array<double, 3> kBalances = {0.5, 1.0, 2.0};
constexpr double kRate = 0.05;  // of the first step, in the root mean square of a weight matrix
constexpr double kWarmUp = 20;  // steps

/// What a layer should compute.
struct Lesson {
    Matrix input;   // normed hidden states of the converted model, [tokens, hidden]
    Matrix target;  // what the attention should add to them, [tokens, hidden]
    Vector weight;  // of a token's squared error: one over the mean square of the hidden state that it goes into
};

/// Rows [first, first + count) of a matrix.
Matrix rows_of(const Matrix& from, std::int64_t first, std::int64_t count) { return from.middleRows(first, count); }

/// d_output becomes the derivative of Σ weight·‖output − target‖² / tokens / hidden, which is returned.
double loss_of(const Matrix& output, const Matrix& target, const Vector& weight, Matrix* d_output) {
    const Matrix difference = output - target;
    const auto scale = 1.0 / static_cast<double>(output.size());
    const double loss =
        (difference.cast<double>().rowwise().squaredNorm().cwiseProduct(weight.cast<double>())).sum() * scale;
    if (d_output != nullptr) *d_output = weight.asDiagonal() * difference * static_cast<float>(2 * scale);
    return loss;
}

void embed(const Model& model, std::span<const TokenId> ids, Matrix& hidden) {
    hidden.resize(static_cast<Eigen::Index>(ids.size()), model.config.hidden_size);
    const auto width = static_cast<std::uint64_t>(hidden.cols());
    for (std::size_t t = 0; t < ids.size(); ++t) {
        if (ids[t] < 0 || ids[t] >= model.config.vocab_size) {
            throw Error(ErrorCode::format, "calibration token " + std::to_string(t) + " has id " +
                                               std::to_string(ids[t]) + ", but the model's vocab_size is " +
                                               std::to_string(model.config.vocab_size));
        }
        to_float(*model.embed_tokens, static_cast<std::uint64_t>(ids[t]) * width,
                 {hidden.row(static_cast<Eigen::Index>(t)).data(), width});
    }
}

}  // namespace

std::span<const AlignQuality> align_qualities() { return kQualities; }

const AlignQuality& find_align_quality(std::string_view name) {
    std::string known;
    for (const auto& quality : kQualities) {
        if (quality.name == name) return quality;
        known += (known.empty() ? "" : ", ") + std::string(quality.name);
    }
    throw Error(ErrorCode::usage, "unknown quality '" + std::string(name) + "'; choose one of " + known);
}

std::vector<Split> possible_splits(const ModelConfig& config, const AlignOptions& options) {
    if (options.rope_dim && options.kv_rank) return {{*options.rope_dim, *options.kv_rank}};
    if (!(options.kv_reduction > 0 && options.kv_reduction < 1)) {
        throw Error(ErrorCode::usage, "kv-reduction must lie between 0 and 1, such as 0.6875");
    }
    const auto budget = static_cast<std::int64_t>(
        std::floor(2 * static_cast<double>(config.head_dim) * (1 - options.kv_reduction) + 1e-9));
    std::vector<Split> all;
    for (std::int64_t rope_dim = 2; rope_dim <= config.head_dim && rope_dim < budget; rope_dim += 2) {
        const Split split{options.rope_dim.value_or(rope_dim), 0};
        const std::int64_t kv_rank = options.kv_rank.value_or(budget - split.rope_dim);
        const std::int64_t rows = config.num_key_value_heads * (2 * config.head_dim - split.rope_dim);
        const bool fits = kv_rank >= 1 && kv_rank <= std::min(rows, config.hidden_size) / config.num_key_value_heads;
        if (fits && (all.empty() || all.back().rope_dim != split.rope_dim)) all.push_back({split.rope_dim, kv_rank});
    }
    if (all.empty()) {
        throw Error(ErrorCode::usage, "kv-reduction leaves " + std::to_string(budget) +
                                          " numbers per token and KV head, with which there is no split into rotated "
                                          "and latent dimensions; the least is 3");
    }
    std::vector<Split> some;
    const auto count = static_cast<std::int64_t>(all.size());
    const std::int64_t wanted = std::min(count, kMostSplits);
    for (std::int64_t i = 0; i < wanted; ++i) {
        some.push_back(all[static_cast<std::size_t>(wanted == 1 ? 0 : i * (count - 1) / (wanted - 1))]);
    }
    return some;
}

std::int64_t align_tokens(const ModelConfig& config, const AlignQuality& quality) {
    const std::int64_t held = (std::int64_t{1} << 25) / config.hidden_size;
    return std::min(held, std::max(kChoiceTokens, quality.steps * quality.step_tokens));
}

struct Aligner::State {
    State(const Model& source, std::int64_t length, const AlignOptions& asked, Observer& reports)
        : model(source), seq_len(length), options(asked), observer(reports), rotary(source.config, length) {}

    const Model& model;
    std::int64_t seq_len;
    AlignOptions options;
    Observer& observer;
    RotaryTable rotary;
    Matrix original, converted;  // hidden states before the next layer, [tokens, hidden]
    PairRanks ranks;
    std::vector<Split> tried;
    Split chosen;
    std::int64_t layer = 0;
    LayerWorkspace work;
    LatentActivations activations;

    [[nodiscard]] std::int64_t block_tokens() const {
        return std::max<std::int64_t>(1, options.quality.step_tokens / seq_len) * seq_len;
    }
    template <typename Body>
    void for_each_block(std::int64_t tokens, const Body& body) const {
        for (std::int64_t first = 0; first < tokens; first += block_tokens()) {
            body(first, std::min(block_tokens(), tokens - first));
        }
    }
    /// A whole number of sequences.
    [[nodiscard]] std::int64_t tokens_up_to(std::int64_t most) const {
        return std::min<std::int64_t>(original.rows(), std::max(seq_len, most / seq_len * seq_len));
    }

    [[nodiscard]] std::vector<std::vector<std::int64_t>> kept_pairs(std::int64_t of_layer,
                                                                    std::int64_t rope_dim) const {
        std::vector<std::vector<std::int64_t>> pairs(static_cast<std::size_t>(ranks.kv_heads));
        for (std::int64_t head = 0; head < ranks.kv_heads; ++head) {
            for (std::int64_t k = 0; k < ranks.head_dim / 2; ++k) {
                if (ranks.rank(of_layer, head, k) < rope_dim / 2) pairs[static_cast<std::size_t>(head)].push_back(k);
            }
        }
        return pairs;
    }

    /// Moves the original's hidden states behind the attention of a layer, and says what it would take to bring `from`
    /// there too.
    [[nodiscard]] Lesson learn(std::int64_t at, const Matrix& from, Matrix& states) {
        const LayerView& view = model.layers[static_cast<std::size_t>(at)];
        Lesson lesson;
        rms_norm(*view.input_layernorm, model.config.rms_norm_eps, from, lesson.input);
        for_each_block(states.rows(), [&](std::int64_t first, std::int64_t count) {
            forward_attention(model, at, rotary, seq_len, states.middleRows(first, count), work, {});
        });
        lesson.target = states - from;
        const Vector bias = output_bias(at);
        if (bias.size() > 0) lesson.target.rowwise() -= bias.transpose();
        const auto width = static_cast<float>(states.cols());
        lesson.weight = ((states.rowwise().squaredNorm() / width).array() + 1e-20F).inverse();
        return lesson;
    }

    [[nodiscard]] Vector output_bias(std::int64_t at) const {
        const TensorView* bias = model.layers[static_cast<std::size_t>(at)].attention->o.bias;
        if (bias == nullptr) return {};
        Vector result(bias->shape[0]);
        to_float(*bias, 0, {result.data(), static_cast<std::size_t>(result.size())});
        return result;
    }

    double error_of(const LatentLayer& latent, const Lesson& lesson, std::int64_t tokens) {
        double sum = 0;
        for_each_block(tokens, [&](std::int64_t first, std::int64_t count) {
            run_latent(latent, rotary, seq_len, rows_of(lesson.input, first, count), activations);
            sum += static_cast<double>(count) * loss_of(activations.output, rows_of(lesson.target, first, count),
                                                        lesson.weight.segment(first, count), nullptr);
        });
        return sum / static_cast<double>(tokens);
    }

    /// The first guess with the balance that leaves the least error.
    LatentLayer guess(std::int64_t at, const Split& split, const Whitening& whitening, const Lesson& lesson,
                      double& error) {
        LatentLayer best;
        error = std::numeric_limits<double>::infinity();
        const auto pairs = kept_pairs(at, split.rope_dim);
        for (const double balance : kBalances) {
            LatentLayer latent = first_guess(model, at, pairs, split.kv_rank, whitening, balance);
            const double left = error_of(latent, lesson, tokens_up_to(kChoiceTokens));
            if (left < error) {
                error = left;
                best = std::move(latent);
            }
        }
        if (!std::isfinite(error)) {
            throw Error(ErrorCode::numeric, layer_prefix(at) + "self_attn: the attention's output is not finite");
        }
        return best;
    }

    void choose() {
        const ModelConfig& config = model.config;
        tried = possible_splits(config, options);
        ranks = {config.num_hidden_layers, config.num_key_value_heads, config.head_dim, {}};
        ranks.values.resize(static_cast<std::size_t>(ranks.layers * ranks.kv_heads * ranks.head_dim));
        Matrix states = original.topRows(tokens_up_to(kChoiceTokens));
        for (std::int64_t at = 0; at < config.num_hidden_layers; ++at) {
            observer.step("choose", at, config.num_hidden_layers);
            const Matrix before = states;
            const Lesson lesson = learn(at, before, states);
            rank_pairs(at, rows_of(lesson.input, 0, tokens_up_to(kOrderTokens)));
            if (tried.size() > 1) {
                const Whitening whitening(second_moment(lesson.input));
                for (Split& split : tried) {
                    double error = 0;
                    (void)guess(at, split, whitening, lesson, error);
                    split.error += error / static_cast<double>(config.num_hidden_layers);
                }
            }
            for_each_block(states.rows(), [&](std::int64_t first, std::int64_t count) {
                forward_mlp(model, at, states.middleRows(first, count), work);
            });
        }
        chosen = *std::min_element(tried.begin(), tried.end(),
                                   [](const Split& a, const Split& b) { return a.error < b.error; });
    }

    void rank_pairs(std::int64_t at, const Matrix& input) {
        const auto orders = attention_order(model, at, rotary, seq_len, input);
        for (std::int64_t head = 0; head < ranks.kv_heads; ++head) {
            const auto& order = orders[static_cast<std::size_t>(head)];
            const std::int64_t row = (at * ranks.kv_heads + head) * ranks.head_dim;
            for (std::size_t rank = 0; rank < order.size(); ++rank) {
                const auto first = static_cast<std::size_t>(row + order[rank]);
                ranks.values[first] = ranks.values[first + order.size()] = static_cast<std::uint8_t>(rank);
            }
        }
    }

    /// Gradient descent on the layer's own error, over all of its weights.
    void refine(LatentLayer& latent, const Lesson& lesson) {
        const std::int64_t sequences = lesson.input.rows() / seq_len;
        const std::int64_t batch = std::min(sequences, block_tokens() / seq_len);
        std::vector<std::int64_t> order(static_cast<std::size_t>(sequences));
        std::iota(order.begin(), order.end(), 0);
        std::mt19937 random(1);
        Adam adam(latent.weights);
        LatentWeights gradient;
        Matrix input(batch * seq_len, lesson.input.cols()), target(input.rows(), input.cols()), d_output;
        Vector weight(input.rows());
        std::int64_t taken = sequences;
        for (std::int64_t step = 0; step < options.quality.steps; ++step) {
            if (step % 16 == 0) observer.step("align", progress(step), progress_total());
            for (std::int64_t i = 0; i < batch; ++i) {
                if (taken == sequences) {
                    for (std::size_t j = order.size(); j > 1; --j) std::swap(order[j - 1], order[random() % j]);
                    taken = 0;
                }
                const std::int64_t from = order[static_cast<std::size_t>(taken++)] * seq_len;
                input.middleRows(i * seq_len, seq_len) = lesson.input.middleRows(from, seq_len);
                target.middleRows(i * seq_len, seq_len) = lesson.target.middleRows(from, seq_len);
                weight.segment(i * seq_len, seq_len) = lesson.weight.segment(from, seq_len);
            }
            run_latent(latent, rotary, seq_len, input, activations);
            (void)loss_of(activations.output, target, weight, &d_output);
            differentiate_latent(latent, rotary, seq_len, input, activations, d_output, gradient);
            const double turn = static_cast<double>(step) / static_cast<double>(options.quality.steps);
            const double fade = 0.5 * (1 + std::cos(std::numbers::pi * turn)) * 0.99 + 0.01;
            adam.step(gradient, kRate * fade * std::min(1.0, static_cast<double>(step + 1) / kWarmUp));
        }
    }

    [[nodiscard]] std::int64_t progress(std::int64_t step) const { return layer * options.quality.steps + step; }
    [[nodiscard]] std::int64_t progress_total() const { return model.config.num_hidden_layers * options.quality.steps; }

    LatentWeights align_next(double& error) {
        const Lesson lesson = learn(layer, converted, original);
        LatentLayer latent = guess(layer, chosen, Whitening(second_moment(lesson.input)), lesson, error);
        if (options.quality.steps > 0) {
            refine(latent, lesson);
            error = error_of(latent, lesson, tokens_up_to(kChoiceTokens));
        }
        const Vector bias = output_bias(layer);
        for_each_block(original.rows(), [&](std::int64_t first, std::int64_t count) {
            run_latent(latent, rotary, seq_len, rows_of(lesson.input, first, count), activations);
            converted.middleRows(first, count) += activations.output;
            if (bias.size() > 0) converted.middleRows(first, count).rowwise() += bias.transpose();
            forward_mlp(model, layer, converted.middleRows(first, count), work);
            forward_mlp(model, layer, original.middleRows(first, count), work);
        });
        ++layer;
        return std::move(latent.weights);
    }
};

Aligner::Aligner(const Model& model, std::span<const TokenId> windows, std::int64_t seq_len,
                 const AlignOptions& options, Observer& observer)
    : state_(std::make_unique<State>(model, seq_len, options, observer)) {
    if (model.config.latent) {
        throw Error(ErrorCode::usage, model.checkpoint.directory().string() +
                                          ": already converted to MLA; align the original checkpoint");
    }
    if (seq_len < 1 || windows.empty() || static_cast<std::int64_t>(windows.size()) % seq_len != 0) {
        throw Error(ErrorCode::usage, "no whole windows of " + std::to_string(seq_len) + " tokens to align on");
    }
    embed(model, windows, state_->original);
    state_->converted = state_->original;
    state_->choose();
}

Aligner::~Aligner() = default;

const Split& Aligner::chosen() const { return state_->chosen; }
std::span<const Split> Aligner::tried() const { return state_->tried; }
RopeSelection Aligner::selection() const {
    RopeSelection selection{"attention", state_->chosen.rope_dim, {}};
    for (std::int64_t layer = 0; layer < state_->ranks.layers; ++layer) {
        selection.pairs.push_back(state_->kept_pairs(layer, selection.rope_dim));
    }
    return selection;
}
LatentWeights Aligner::next(double& error) { return state_->align_next(error); }

}  // namespace mha2mla
