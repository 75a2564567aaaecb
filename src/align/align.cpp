#include "mha2mla/align.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "../forward/layer.hpp"
#include "../forward/norm.hpp"
#include "../latent/first_guess.hpp"
#include "../rope/attention_order.hpp"
#include "../train/descent.hpp"
#include "../train/losses.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/plan.hpp"
#include "progress.hpp"

namespace mha2mla {
namespace {

constexpr std::array<double, 3> kBalances = {0.5, 1.0, 2.0};

/// Rows [first, first + count) of a matrix.
Matrix rows_of(const Matrix& from, std::int64_t first, std::int64_t count) { return from.middleRows(first, count); }

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

struct Aligner::State : AlignProgress {
    State(const Model& source, std::int64_t length, const AlignOptions& asked, Observer& reports)
        : model(source),
          seq_len(length),
          options(asked),
          observer(reports),
          rotary(source.config, length),
          window(std::clamp<std::int64_t>(asked.quality.window, 1, source.config.num_hidden_layers)) {}

    const Model& model;
    std::int64_t seq_len;
    AlignOptions options;
    Observer& observer;
    RotaryTable rotary;
    std::int64_t window;  // layers that are fitted together
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

    /// Moves the original's hidden states behind the attention of a layer, and says what it would take to bring `from`
    /// there too.
    [[nodiscard]] Lesson learn(std::int64_t at, const Matrix& from, Matrix& states) {
        for_each_block(states.rows(), [&](std::int64_t first, std::int64_t count) {
            forward_attention(model, at, rotary, seq_len, states.middleRows(first, count), work, {});
        });
        return lesson_from(at, from, states);
    }

    /// What brings `from`, before a layer, to `states`, behind its attention.
    [[nodiscard]] Lesson lesson_from(std::int64_t at, const Matrix& from, const Matrix& states) const {
        Lesson lesson;
        norm(model.layer(at).attention_norm, from, lesson.input);
        lesson.target = states - from;
        const Vector bias = output_bias(at);
        if (bias.size() > 0) lesson.target.rowwise() -= bias.transpose();
        lesson.weight = token_weights(states);
        return lesson;
    }

    [[nodiscard]] Vector output_bias(std::int64_t at) const {
        const TensorView* bias = model.layer(at).original_attention().o.bias;
        if (bias == nullptr) return {};
        Vector result(bias->shape[0]);
        to_float(*bias, 0, {result.data(), static_cast<std::size_t>(result.size())});
        return result;
    }

    double error_of(const LatentLayer& latent, const Lesson& lesson, std::int64_t tokens) {
        double sum = 0;
        for_each_block(tokens, [&](std::int64_t first, std::int64_t count) {
            run_latent(latent, {rotary, seq_len}, rows_of(lesson.input, first, count), activations);
            sum += static_cast<double>(count) * squared_loss(activations.output, rows_of(lesson.target, first, count),
                                                             lesson.weight.segment(first, count), nullptr);
        });
        return sum / static_cast<double>(tokens);
    }

    /// The first guess with the balance that leaves the least error.
    LatentLayer guess(std::int64_t at, const Split& split, const Whitening& whitening, const Lesson& lesson,
                      double& error) {
        LatentLayer best;
        error = std::numeric_limits<double>::infinity();
        const auto pairs = kept_pairs(ranks, at, split.rope_dim);
        for (const double balance : kBalances) {
            LatentLayer latent = first_guess(model, at, pairs, split.kv_rank, whitening, balance);
            const double left = error_of(latent, lesson, tokens_up_to(kAlignChoiceTokens));
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
        Matrix states = original.topRows(tokens_up_to(kAlignChoiceTokens));
        for (std::int64_t at = 0; at < config.num_hidden_layers; ++at) {
            observer.step("choose", at, config.num_hidden_layers);
            const Matrix before = states;
            const Lesson lesson = learn(at, before, states);
            rank_pairs(at, rows_of(lesson.input, 0, tokens_up_to(kAlignOrderTokens)));
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

    [[nodiscard]] std::int64_t steps_of_window() const { return window > 1 ? options.quality.window_steps : 0; }
    /// Of all gradient descent: each layer alone, then every window.
    [[nodiscard]] std::int64_t progress_total() const {
        const std::int64_t layers = model.config.num_hidden_layers;
        return layers * options.quality.steps + (layers - window + 1) * steps_of_window();
    }
    /// Told every few steps of a descent that takes `steps`.
    [[nodiscard]] Descent::Progress reporter(std::int64_t steps) {
        return [this, steps, done = taken](std::int64_t step) {
            observer.step("align", done + step, progress_total());
            taken = done + steps;
        };
    }

    /// Moves hidden states of the converted model through a layer of it.
    void advance(std::int64_t at, const LatentLayer& latent, Matrix& states) {
        const Vector bias = output_bias(at);
        Matrix input;
        for_each_block(states.rows(), [&](std::int64_t first, std::int64_t count) {
            norm(model.layer(at).attention_norm, states.middleRows(first, count), input);
            run_latent(latent, {rotary, seq_len}, input, activations);
            states.middleRows(first, count) += activations.output;
            if (bias.size() > 0) states.middleRows(first, count).rowwise() += bias.transpose();
            forward_mlp(model, at, states.middleRows(first, count), work);
        });
    }

    /// Aligns the next layer by itself, on what the open layers before it make of the text.
    void open_next() {
        const std::int64_t at = layer + static_cast<std::int64_t>(open.size());
        Matrix moved;
        if (!open.empty()) {
            moved = converted;
            for (std::size_t i = 0; i < open.size(); ++i) {
                advance(layer + static_cast<std::int64_t>(i), open[i].latent, moved);
            }
        }
        const Lesson lesson = learn(at, open.empty() ? converted : moved, original);
        OpenLayer& next = open.emplace_back();
        next.behind_attention = original.topRows(tokens_up_to(kAlignChoiceTokens));
        double error = 0;
        next.latent = guess(at, chosen, Whitening(second_moment(lesson.input)), lesson, error);
        if (options.quality.steps > 0) {
            const Descent descent{
                {rotary, seq_len}, options.quality.steps, options.quality.step_tokens, reporter(options.quality.steps)};
            descent.on_own_output(next.latent, lesson);
        }
        for_each_block(original.rows(), [&](std::int64_t first, std::int64_t count) {
            forward_mlp(model, at, original.middleRows(first, count), work);
        });
    }

    LatentWeights align_next(double& error) {
        bool more = false;
        for (; std::ssize(open) < window && layer + std::ssize(open) < model.config.num_hidden_layers; more = true) {
            open_next();
        }
        if (more && steps_of_window() > 0) {
            std::vector<LatentLayer*> layers;
            for (OpenLayer& of : open) layers.push_back(&of.latent);
            const Descent descent{
                {rotary, seq_len}, steps_of_window(), options.quality.step_tokens, reporter(steps_of_window())};
            descent.on_window(model, layer, layers, converted, original);
        }
        const LatentLayer latent = std::move(open.front().latent);
        const Lesson lesson =
            lesson_from(layer, converted.topRows(open.front().behind_attention.rows()), open.front().behind_attention);
        error = error_of(latent, lesson, lesson.input.rows());
        open.pop_front();
        advance(layer++, latent, converted);
        return latent.weights;
    }
};

Aligner::Aligner(std::unique_ptr<State> state) : state_(std::move(state)) {}

Aligner::Aligner(const Model& model, std::span<const TokenId> windows, std::int64_t seq_len,
                 const AlignOptions& options, Observer& observer)
    : state_(std::make_unique<State>(model, seq_len, options, observer)) {
    if (model.config.latent) {
        throw Error(ErrorCode::usage, model.checkpoint.directory().string() +
                                          ": already converted to MLA; align the original checkpoint");
    }
    refuse_conversion(model.config);
    if (seq_len < 1 || windows.empty() || static_cast<std::int64_t>(windows.size()) % seq_len != 0) {
        throw Error(ErrorCode::usage, "no whole windows of " + std::to_string(seq_len) + " tokens to align on");
    }
    embed(model, windows, state_->original);
    state_->converted = state_->original;
    state_->choose();
}

Aligner::~Aligner() = default;

std::unique_ptr<Aligner> Aligner::restore(const std::filesystem::path& path, const Model& model, std::int64_t seq_len,
                                          const AlignOptions& options, Observer& observer) {
    auto state = std::make_unique<State>(model, seq_len, options, observer);
    if (!load_progress(path, model, seq_len, *state)) return nullptr;
    return std::unique_ptr<Aligner>(new Aligner(std::move(state)));
}

void Aligner::save(const std::filesystem::path& path) const { save_progress(path, *state_); }

const Split& Aligner::chosen() const { return state_->chosen; }
std::span<const Split> Aligner::tried() const { return state_->tried; }
std::int64_t Aligner::layer() const { return state_->layer; }
RopeSelection Aligner::selection() const {
    RopeSelection selection{"attention", state_->chosen.rope_dim, {}};
    for (std::int64_t layer = 0; layer < state_->ranks.layers; ++layer) {
        selection.pairs.push_back(kept_pairs(state_->ranks, layer, selection.rope_dim));
    }
    return selection;
}
LatentWeights Aligner::next(double& error) { return state_->align_next(error); }

}  // namespace mha2mla
