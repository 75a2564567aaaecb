#include "mha2mla/align.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "../forward/for_each_token.hpp"
#include "../forward/forward.hpp"
#include "../forward/layer.hpp"
#include "../forward/norm.hpp"
#include "../latent/refit_output.hpp"
#include "../rope/attention_order.hpp"
#include "../rope/shared_key_slots.hpp"
#include "../train/descent.hpp"
#include "layer_start.hpp"
#include "mha2mla/error.hpp"
#include "progress.hpp"

namespace mha2mla {
namespace {

constexpr std::array<double, 3> kBalances = {0.5, 1.0, 2.0};
// Where errors count as what queries and W_o make of them, the best balance is near 1: splits are compared with it.
constexpr std::array<double, 1> kEqualBalance = {1.0};

constexpr std::int64_t kNarrow = 512;  // hidden dimensions below which a layer is fitted in twice the steps
// Rates of the first step, in the root mean square of a weight matrix. Steps as large as narrow models gain by fit a
// wide one to the text that it is converted on, at the cost of all others (docs/study.md).
constexpr double kNarrowRate = 0.05, kRate = 0.01;
constexpr std::int64_t kComparedLayers = 10;  // that splits are compared on, at least, where they share a key
// See expected_error().
constexpr double kBestKeyShare = 0.29, kSharePenalty = 1.5, kForeignFrequencies = 1.2;
constexpr std::int64_t kTokensOfColumn = 4;  // of W_o, where candidates are compared

}  // namespace

struct Aligner::State {
    State(const Model& source, std::int64_t length, const AlignOptions& asked, Observer& reports)
        : model(source),
          seq_len(length),
          options(asked),
          observer(reports),
          rotary(source.config.rules, length),
          window(std::clamp<std::int64_t>(asked.quality.window, 1, source.config.num_hidden_layers)) {
        slots.kind = asked.frequencies;
        work.mlp.precision = ProductPrecision::split;
    }

    const Model& model;
    std::int64_t seq_len;
    AlignOptions options;
    Observer& observer;
    RotaryTables rotary;
    std::int64_t window;  // layers that are fitted together
    AlignProgress progress;
    SlotFrequencies slots;
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
        return std::min<std::int64_t>(progress.original.rows(), std::max(seq_len, most / seq_len * seq_len));
    }
    [[nodiscard]] OutputMeasure measure(std::int64_t tokens) const { return {seq_len, block_tokens(), tokens}; }

    /// What the original's attention gives, before its bias and a norm behind it.
    [[nodiscard]] Matrix own_output(std::int64_t at, const Matrix& states) {
        Matrix output(states.rows(), states.cols());
        for_each_block(states.rows(), [&](std::int64_t first, std::int64_t count) {
            read_input(model, at, states.middleRows(first, count), work.normed);
            attend(model, at, rotary[at], seq_len, work, {});
            output.middleRows(first, count) = work.down;
        });
        const Vector bias = output_bias(model, at);
        if (bias.size() > 0) output.rowwise() -= bias.transpose();
        return output;
    }

    /// Moves the original's hidden states behind the attention of a layer. @return what would bring `from` there too;
    /// behind a norm, which has no inverse, what the original's attention gives.
    [[nodiscard]] AttentionTarget move_behind_attention(std::int64_t at, const Matrix& from, Matrix& states) {
        const bool normed = model.rules(at).post_norm;
        Matrix own = normed ? own_output(at, states) : Matrix();
        for_each_block(states.rows(), [&](std::int64_t first, std::int64_t count) {
            forward_attention(model, at, rotary[at], seq_len, states.middleRows(first, count), work, {});
        });
        AttentionTarget target = target_between(model, at, from, states);
        if (normed) {
            target.weight = token_weights(own);
            target.output = std::move(own);
        }
        return target;
    }
    /// Moves the original's hidden states from behind the attention of a layer to its end.
    /// @param before its attention; looked at where the MLP reads them.
    void move_behind_mlp(std::int64_t at, const Matrix& before, Matrix& states) {
        for_each_block(states.rows(), [&](std::int64_t first, std::int64_t count) {
            if (model.rules(at).parallel) read_input(model, at, before.middleRows(first, count), work.normed);
            forward_mlp(model, at, states.middleRows(first, count), work);
        });
    }

    /// A split without the channels that the layout adds.
    [[nodiscard]] Split inside(Split split) const {
        split.kv_rank = filled_rank(model.config, options, split);
        return split;
    }
    [[nodiscard]] bool shared_key() const { return options.layout->shared_rope_key; }
    /// Whether layers are fitted to what those before them got wrong; published methods do not.
    [[nodiscard]] bool corrects() const { return options.basis == SharedKeyBasis::balanced; }
    [[nodiscard]] bool is_replicated() const {
        return options.basis == SharedKeyBasis::replicated || options.basis == SharedKeyBasis::replicated_identity;
    }

    /// What a layer starts from. @param target must outlive it.
    [[nodiscard]] std::unique_ptr<LayerStart> start(std::int64_t at, const AttentionTarget& target) const {
        const StartInputs inputs{model, at, target, start_measure(), options.without_bias};
        if (!shared_key()) return per_head_start(inputs, progress.ranks);
        if (is_replicated()) {
            return replicated_start(inputs, options.basis == SharedKeyBasis::replicated_identity);
        }
        if (options.basis == SharedKeyBasis::transmla) return transmla_start(inputs, slots);
        return shared_key_start(inputs, tokens_up_to(kAlignOrderTokens), slots);
    }
    [[nodiscard]] OutputMeasure start_measure() const {
        return measure(choice_tokens(shared_key() ? kAlignChoiceTokens / 2 : kAlignChoiceTokens));
    }
    /// W_o is fitted on what candidates are compared on: with fewer tokens than it has columns every candidate would be
    /// perfect.
    [[nodiscard]] std::int64_t choice_tokens(std::int64_t least) const {
        const std::int64_t columns = model.config.num_attention_heads * model.config.head_dim;
        return tokens_up_to(std::max(least, kTokensOfColumn * columns));
    }

    /// Runs the beginning of the text through the original. @param body is given each layer and its target.
    template <typename Body>
    void for_each_layer(const Body& body) {
        const std::int64_t layers = model.config.num_hidden_layers;
        Matrix states = progress.original.topRows(choice_tokens(kAlignChoiceTokens));
        for (std::int64_t at = 0; at < layers; ++at) {
            observer.step("choose", at, layers);
            const Matrix before = states;
            body(at, move_behind_attention(at, before, states));
            move_behind_mlp(at, before, states);
        }
    }

    /// What is left after refinement, but for a factor. On all models that were refined the best of several keys had
    /// two to three tenths of the budget (docs/study.md), so that other shares need a smaller error; and so do
    /// frequencies that the model does not have: a key of a whole part of a head's width, of which each block of pairs
    /// keeps one component, has none of those.
    [[nodiscard]] double expected_error(const Split& split) const {
        if (!shared_key() || steps_of_layer() == 0) return split.error;
        const double share = static_cast<double>(split.rope_dim) / static_cast<double>(split.rope_dim + split.kv_rank);
        const double away = std::log(share / kBestKeyShare);
        const bool own =
            options.frequencies == RopeFrequencies::free || split.fold * split.rope_dim == model.config.head_dim;
        return split.error * std::exp(kSharePenalty * away * away) * (own ? 1 : kForeignFrequencies);
    }

    /// Ranks the pairs of every layer, where it has a key for each KV head, and chooses the split with the least error.
    void choose() {
        const ModelConfig& config = model.config;
        PairRanks& ranks = progress.ranks;
        progress.tried = possible_splits(config, options);
        ranks = {shared_key() ? 0 : config.num_hidden_layers, config.num_key_value_heads, config.head_dim, {}};
        if (shared_key()) {
            for (const Split& split : progress.tried) {
                slots.engine.try_emplace(split.rope_dim, engine_frequencies(model, split.rope_dim));
            }
        }
        const std::int64_t stride =
            shared_key() ? std::max<std::int64_t>(1, config.num_hidden_layers / kComparedLayers) : 1;
        const std::int64_t first = stride / 2;
        // Errors of early layers are the largest, but the layers behind them mend those.
        const bool by_ratio = shared_key() && corrects();
        const auto compared = static_cast<double>((config.num_hidden_layers - first + stride - 1) / stride);
        if (!shared_key() || progress.tried.size() > 1) {
            for_each_layer([&](std::int64_t at, const AttentionTarget& target) {
                if (!shared_key()) {
                    append_ranks(
                        attention_order(model, at, seq_len, target.input.topRows(tokens_up_to(kAlignOrderTokens))),
                        ranks);
                }
                if (progress.tried.size() == 1 || at < first || (at - first) % stride != 0) return;
                const auto from = start(at, target);
                for (Split& split : progress.tried) {
                    const double error = from->with(inside(split), balances()).error;
                    split.error += (by_ratio ? std::log(error) : error) / compared;
                }
            });
            for (Split& split : progress.tried) split.error = by_ratio ? std::exp(split.error) : split.error;
        }
        progress.chosen =
            *std::min_element(progress.tried.begin(), progress.tried.end(),
                              [&](const Split& a, const Split& b) { return expected_error(a) < expected_error(b); });
        if (!shared_key() || options.frequencies == RopeFrequencies::free) return;
        if (options.frequencies == RopeFrequencies::shared) choose_frequencies();
        if (!is_replicated()) {
            const bool engines = options.frequencies == RopeFrequencies::engine;
            progress.frequencies = {engines ? slots.engine.at(progress.chosen.rope_dim) : slots.shared};
        }
    }

    /// Those that serve all layers best; each layer's rotation counts alike.
    void choose_frequencies() {
        const std::vector<double> own = frequencies_of(head_pairs(model.rules(0).rotary, model.config.head_dim));
        const std::int64_t count = progress.chosen.rope_dim / 2;
        std::vector<MatrixD> values;
        std::vector<double> weights;
        for_each_layer([&](std::int64_t at, const AttentionTarget& target) {
            values.push_back(shared_key_values({model, at, target, start_measure(), options.without_bias},
                                               tokens_up_to(kAlignOrderTokens), progress.chosen.fold));
            Eigen::VectorXd best = values.back().colwise().maxCoeff().transpose();
            std::partial_sort(best.begin(), best.begin() + count, best.end(), std::greater<>());
            const double sum = best.head(count).sum();
            weights.push_back(sum > 0 ? 1 / sum : 0);
        });
        slots.shared = shared_frequencies(values, weights, own, count);
    }

    /// A norm that the steps reckon with. Numbers of the latent that stay 0 count in its mean square.
    void put_norm(LatentLayer& latent) const {
        if (options.latent_norm != LatentNorm::trained) return;
        latent.norm_eps = kLatentNormEps * static_cast<double>(progress.chosen.kv_rank) /
                          static_cast<double>(latent.weights.down.rows());
    }

    /// What choose() found, from the progress.
    void restore_slots() {
        if (!shared_key()) return;
        for (auto& open : progress.open) put_norm(open.latent);
        const std::int64_t rope_dim = progress.chosen.rope_dim;
        slots.engine.try_emplace(rope_dim, engine_frequencies(model, rope_dim));
        if (options.frequencies == RopeFrequencies::shared) slots.shared = progress.frequencies.front();
    }

    /// Keeps what a new layer turns at, so that it can be reported and restored.
    void note_frequencies(const LatentLayer& layer) {
        auto& lists = progress.frequencies;
        if (!shared_key()) return;
        if (lists.empty() || options.frequencies == RopeFrequencies::free) {
            lists.push_back(layer.rotary->frequencies());
        }
    }

    /// Of keys against values, that are tried for every split.
    [[nodiscard]] std::span<const double> balances() const {
        return shared_key() ? std::span<const double>(kEqualBalance) : kBalances;
    }

    /// With one rotated key a layer has more to learn; where steps are cheap it gets twice as many.
    [[nodiscard]] std::int64_t steps_of_layer() const {
        return (shared_key() && is_narrow() ? 2 : 1) * options.quality.steps;
    }
    /// Of the last layer towards the next-token distributions, where no window does that.
    [[nodiscard]] std::int64_t steps_at_the_end() const {
        if (!shared_key() || window > 1) return 0;
        return is_narrow() ? options.quality.steps : options.quality.steps / 2;
    }
    [[nodiscard]] bool is_narrow() const { return model.config.hidden_size < kNarrow; }
    [[nodiscard]] std::int64_t steps_of_window() const { return window > 1 ? options.quality.window_steps : 0; }
    /// Of all gradient descent: each layer alone, then every window.
    [[nodiscard]] std::int64_t total_steps() const {
        const std::int64_t layers = model.config.num_hidden_layers;
        return layers * steps_of_layer() + steps_at_the_end() + (layers - window + 1) * steps_of_window();
    }
    /// Gradient descent that reports its steps behind those that were done before it.
    [[nodiscard]] Descent descent(std::int64_t steps) const {
        return {seq_len, steps, options.quality.step_tokens, is_narrow() ? kNarrowRate : kRate,
                [this](std::int64_t step) { observer.step("align", progress.steps_done + step, total_steps()); }};
    }

    /// Moves hidden states of the converted model behind the attention of a layer of it.
    void pass_attention(std::int64_t at, const LatentLayer& latent, Matrix& states) {
        const Vector bias = output_bias(model, at);
        const NormView& post = model.layer(at).attention_post_norm;
        for_each_block(states.rows(), [&](std::int64_t first, std::int64_t count) {
            read_input(model, at, states.middleRows(first, count), work.normed);
            run_latent(latent, seq_len, work.normed, activations);
            Matrix& output = activations.output;
            if (bias.size() > 0) output.rowwise() += bias.transpose();
            if (post) norm(post, output, output);
            const float scale = model.rules(at).residual_scale;
            for_each_token(count, [&](std::int64_t t) { states.row(first + t) += scale * output.row(t); });
        });
    }
    /// Moves hidden states of the converted model through a layer of it.
    void advance(std::int64_t at, const LatentLayer& latent, Matrix& states) {
        const Matrix before = model.rules(at).parallel ? states : Matrix();
        pass_attention(at, latent, states);
        move_behind_mlp(at, before, states);
    }

    /// Aligns the next layer by itself, on what the open layers before it make of the text.
    void open_next() {
        auto& open = progress.open;
        const std::int64_t at = progress.layer + std::ssize(open);
        Matrix moved;
        if (!open.empty()) {
            moved = progress.converted;
            for (std::size_t i = 0; i < open.size(); ++i) {
                advance(progress.layer + static_cast<std::int64_t>(i), open[i].latent, moved);
            }
        }
        if (!corrects()) moved = progress.original;
        const Matrix before = model.rules(at).parallel ? progress.original : Matrix();
        const AttentionTarget target =
            move_behind_attention(at, open.empty() && corrects() ? progress.converted : moved, progress.original);
        auto& next = open.emplace_back();
        next.behind_attention = progress.original.topRows(tokens_up_to(kAlignChoiceTokens));
        next.latent = start(at, target)->with(inside(progress.chosen), kBalances).layer;
        note_frequencies(next.latent);
        put_norm(next.latent);
        if (shared_key() && corrects()) (void)refit_output(next.latent, target, measure(target.input.rows()));
        if (steps_of_layer() > 0) {
            descent(steps_of_layer()).on_own_output(next.latent, target);
            progress.steps_done += steps_of_layer();
            if (shared_key()) (void)refit_output(next.latent, target, measure(target.input.rows()));
        }
        move_behind_mlp(at, before, progress.original);
        if (at + 1 == model.config.num_hidden_layers && steps_at_the_end() > 0) {
            LatentLayer* const last = &next.latent;
            const Matrix& before = open.size() == 1 ? progress.converted : moved;
            descent(steps_at_the_end()).on_window(model, at, {&last, 1}, before, progress.original);
            progress.steps_done += steps_at_the_end();
        }
    }

    AlignedLayer align_next() {
        auto& open = progress.open;
        std::int64_t& layer = progress.layer;
        bool more = false;
        for (; std::ssize(open) < window && layer + std::ssize(open) < model.config.num_hidden_layers; more = true) {
            open_next();
        }
        if (more && steps_of_window() > 0) {
            std::vector<LatentLayer*> layers;
            for (auto& of : open) layers.push_back(&of.latent);
            descent(steps_of_window()).on_window(model, layer, layers, progress.converted, progress.original);
            progress.steps_done += steps_of_window();
        }
        LatentLayer latent = std::move(open.front().latent);
        const Matrix& behind = open.front().behind_attention;
        Matrix moved = progress.converted.topRows(behind.rows());
        pass_attention(layer, latent, moved);
        const double error = squared_loss(moved, behind, token_weights(behind), nullptr);
        open.pop_front();
        advance(layer++, latent, progress.converted);
        return {std::move(latent.weights), error};
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
    refuse_alignment(model.config, options);
    if (seq_len < 1 || windows.empty() || static_cast<std::int64_t>(windows.size()) % seq_len != 0) {
        throw Error(ErrorCode::usage, "no whole windows of " + std::to_string(seq_len) + " tokens to align on");
    }
    check_ids(model, windows);
    Matrix& original = state_->progress.original;
    original.resize(static_cast<Eigen::Index>(windows.size()), model.config.hidden_size);
    embed(model, windows, {original.data(), original.rows(), original.cols()});
    state_->progress.converted = original;
    state_->choose();
}

Aligner::~Aligner() = default;

std::unique_ptr<Aligner> Aligner::restore(const std::filesystem::path& path, const Model& model, std::int64_t seq_len,
                                          const AlignOptions& options, Observer& observer) {
    auto state = std::make_unique<State>(model, seq_len, options, observer);
    if (!load_progress(path, model, seq_len, *options.layout, state->progress)) return nullptr;
    state->restore_slots();
    return std::unique_ptr<Aligner>(new Aligner(std::move(state)));
}

void Aligner::save(const std::filesystem::path& path) const { save_progress(path, state_->progress); }

const Split& Aligner::chosen() const { return state_->progress.chosen; }
std::span<const Split> Aligner::tried() const { return state_->progress.tried; }
std::int64_t Aligner::layer() const { return state_->progress.layer; }
RopeSelection Aligner::selection() const {
    const AlignProgress& progress = state_->progress;
    if (state_->shared_key()) return {"shared key", progress.chosen.rope_dim, {}};
    RopeSelection selection{"attention", progress.chosen.rope_dim, {}};
    for (std::int64_t layer = 0; layer < progress.ranks.layers; ++layer) {
        selection.pairs.push_back(kept_pairs(progress.ranks, layer, selection.rope_dim));
    }
    return selection;
}
std::vector<std::vector<double>> Aligner::frequencies() const {
    const bool engines = state_->options.frequencies == RopeFrequencies::engine && !state_->is_replicated();
    return engines ? std::vector<std::vector<double>>() : state_->progress.frequencies;
}
AlignedLayer Aligner::next() { return state_->align_next(); }

}  // namespace mha2mla
