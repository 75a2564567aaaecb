#include "mha2mla/align.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "forward/layer.hpp"
#include "forward/norm.hpp"
#include "latent/build_layer.hpp"
#include "latent/latent_layer.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/threads.hpp"
#include "model/head_order.hpp"
#include "support/expect_error.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"
#include "train/block.hpp"
#include "train/losses.hpp"

namespace mha2mla::test {
namespace {

constexpr std::int64_t kSeqLen = 12;

Matrix random_matrix(std::int64_t rows, std::int64_t columns, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    Matrix matrix(rows, columns);
    for (Eigen::Index i = 0; i < matrix.size(); ++i) matrix.data()[i] = normal(random);
    return matrix;
}

std::vector<TokenId> some_tokens(std::int64_t count, std::int64_t vocab) {
    std::mt19937 random(7);
    std::vector<TokenId> ids;
    for (std::int64_t i = 0; i < count; ++i)
        ids.push_back(static_cast<TokenId>(random() % static_cast<unsigned>(vocab)));
    return ids;
}

class Align : public testing::Test {
protected:
    Align() { write_tiny_model(directory_ / "model", {.attention_bias = true}); }
    [[nodiscard]] Model model() const { return Model::open(directory_ / "model"); }
    TemporaryDirectory directory_;
    Observer observer_;
};

LayerPairs all_pairs(const ModelConfig& config) {
    std::vector<std::int64_t> pairs;
    for (std::int64_t k = 0; k < config.num_pairs(); ++k) pairs.push_back(k);
    return LayerPairs(static_cast<std::size_t>(config.num_key_value_heads), pairs);
}

/// A layer of the original with whitened factors of the given rank, moments being the identity.
LatentLayer factored_layer(const Model& model, std::int64_t layer, const LayerPairs& pairs, std::int64_t kv_rank) {
    LatentLayer result = layer_of_original(model, layer, pairs, kSeqLen);
    const LatentShape shape = model.config.latent_shape(result.shape.rope_dim, kv_rank, Factorization::whitened);
    const AttentionView& view = model.layer(layer).original_attention();
    const Matrix kv = gather_kv(*view.k.weight, layer_rows(model, layer, pairs).key_nope, *view.v.weight);
    const Whitening whitening(MatrixD::Identity(shape.hidden, shape.hidden));
    set_factors(factorize(shape.factorization, kv, shape.nope_rows(), shape.widths(), {}, {&whitening, 1, nullptr}),
                result);
    return result;
}

TEST_F(Align, AtFullRankALayerComputesWhatTheOriginalDoes) {
    const Model source = model();
    const RotaryTable rotary(source.config, kSeqLen);
    const Matrix hidden = random_matrix(3 * kSeqLen, source.config.hidden_size, 1);
    const LatentLayer latent = factored_layer(source, 0, all_pairs(source.config), source.config.head_dim);
    Matrix input;
    norm(source.layer(0).attention_norm, hidden, input);
    LatentActivations at;
    run_latent(latent, kSeqLen, input, at);
    Matrix after = hidden;
    LayerWorkspace work;
    forward_attention(source, 0, rotary, kSeqLen, after, work, {});
    Matrix expected = after - hidden;
    if (const TensorView* bias = source.layer(0).original_attention().o.bias; bias != nullptr) {
        Eigen::RowVectorXf row(bias->shape[0]);
        to_float(*bias, 0, {row.data(), static_cast<std::size_t>(row.size())});
        expected.rowwise() -= row;
    }
    EXPECT_LT((at.output - expected).cwiseAbs().maxCoeff(), 1e-4 * expected.cwiseAbs().maxCoeff());
}

TEST_F(Align, TheGradientIsTheSlopeOfTheLoss) {
    const Model source = model();
    const ModelConfig& config = source.config;
    const RotaryTable rotary(config, kSeqLen);
    const LayerPairs pairs(static_cast<std::size_t>(config.num_key_value_heads), {0, 2});
    LatentLayer latent = factored_layer(source, 1, pairs, config.head_dim / 2);
    const Matrix input = random_matrix(2 * kSeqLen, config.hidden_size, 2);
    const Matrix d_output = random_matrix(2 * kSeqLen, config.hidden_size, 3);
    LatentActivations at;
    LatentGradient gradient;
    run_latent(latent, kSeqLen, input, at);
    differentiate_latent(latent, kSeqLen, input, at, d_output, gradient);
    const auto loss = [&] {
        run_latent(latent, kSeqLen, input, at);
        return at.output.cast<double>().cwiseProduct(d_output.cast<double>()).sum();
    };
    const auto weights = matrices(latent.weights);
    const auto gradients = matrices(gradient.weights);
    for (std::size_t i = 0; i < weights.size(); ++i) {
        ASSERT_EQ(weights[i]->size(), gradients[i]->size()) << i;
        // The slope along a random direction, by central difference.
        const Matrix before = *weights[i];
        const Matrix direction = random_matrix(before.rows(), before.cols(), 10 + static_cast<unsigned>(i));
        const float step = 2e-3F * before.norm() / direction.norm();
        *weights[i] = before + step * direction;
        const double above = loss();
        *weights[i] = before - step * direction;
        const double below = loss();
        *weights[i] = before;
        const double expected = gradients[i]->cast<double>().cwiseProduct(direction.cast<double>()).sum();
        EXPECT_NEAR((above - below) / (2.0 * step), expected, 5e-3 * std::abs(expected) + 5e-3 * gradients[i]->norm())
            << i;
    }
}

TEST_F(Align, TheGradientThroughBlocksAndTheHeadIsTheSlopeOfTheDivergence) {
    const Model source = model();
    const ModelConfig& config = source.config;
    const RotaryTable rotary(config, kSeqLen);
    const LayerPairs pairs(static_cast<std::size_t>(config.num_key_value_heads), {0, 2});
    std::array<LatentLayer, 2> layers = {factored_layer(source, 0, pairs, config.head_dim / 2),
                                         factored_layer(source, 1, pairs, config.head_dim / 2)};
    const Matrix input = random_matrix(2 * kSeqLen, config.hidden_size, 2);
    const Matrix wanted = random_matrix(2 * kSeqLen, config.hidden_size, 3);
    std::array<BlockActivations, 2> blocks;
    const TokenHead head{source.config.rules, head_of(source)};
    const auto forward = [&] {
        blocks[0].input = input;
        run_block({source, 0, layers[0], kSeqLen}, blocks[0]);
        blocks[1].input = blocks[0].output;
        run_block({source, 1, layers[1], kSeqLen}, blocks[1]);
    };
    const auto loss = [&] {
        forward();
        Matrix ignored;
        return distribution_loss(head, blocks[1].output, wanted, ignored);
    };
    forward();
    Matrix d_hidden;
    EXPECT_GT(distribution_loss(head, blocks[1].output, wanted, d_hidden), 0);
    EXPECT_NEAR(distribution_loss(head, wanted, wanted, d_hidden), 0, 1e-6);
    EXPECT_LT(d_hidden.norm(), 1e-6);
    (void)distribution_loss(head, blocks[1].output, wanted, d_hidden);
    std::array<LatentGradient, 2> gradient;
    for (std::size_t i = 2; i-- > 0;) {
        differentiate_block({source, static_cast<std::int64_t>(i), layers[i], kSeqLen}, blocks[i], d_hidden,
                            gradient[i]);
    }
    for (std::size_t layer = 0; layer < 2; ++layer) {
        const auto weights = matrices(layers[layer].weights);
        const auto gradients = matrices(gradient[layer].weights);
        for (std::size_t i = 0; i < weights.size(); ++i) {
            const Matrix before = *weights[i];
            // Along the gradient itself the slope is its norm, well above the rounding of a loss in float.
            const Matrix direction = *gradients[i] / gradients[i]->norm();
            const float step = 1e-2F * before.norm();
            *weights[i] = before + step * direction;
            const double above = loss();
            *weights[i] = before - step * direction;
            const double below = loss();
            *weights[i] = before;
            EXPECT_NEAR((above - below) / (2.0 * step), gradients[i]->norm(), 0.02 * gradients[i]->norm())
                << "layer " << layer << ", matrix " << i;
        }
    }
}

TEST_F(Align, TheBytesDoNotDependOnTheThreads) {
    const Model source = model();
    const auto windows = some_tokens(8 * kSeqLen, source.config.vocab_size);
    const auto aligned_by = [&](int threads) {
        const ThreadScope scope(threads);
        Aligner aligner(source, windows, kSeqLen, {0.5, {}, {}, {"", 5, 4 * kSeqLen, "", 2, 5}}, observer_);
        std::vector<AlignedLayer> layers;
        while (aligner.layer() < source.config.num_hidden_layers) layers.push_back(aligner.next());
        return layers;
    };
    const auto one = aligned_by(1);
    for (const int threads : {2, 3}) {
        const auto several = aligned_by(threads);
        for (std::size_t layer = 0; layer < one.size(); ++layer) {
            EXPECT_GT(one[layer].error, 0);
            EXPECT_EQ(one[layer].error, several[layer].error) << threads << " threads, layer " << layer;
            for (std::size_t i = 0; i < matrices(one[layer].weights).size(); ++i) {
                EXPECT_EQ(*matrices(one[layer].weights)[i], *matrices(several[layer].weights)[i])
                    << threads << " threads, layer " << layer << ", matrix " << i;
            }
        }
    }
}

TEST_F(Align, ASavedAlignerGoesOnToTheSameBits) {
    write_tiny_model(directory_ / "model", {.layers = 4, .attention_bias = true});
    const Model source = model();
    const auto windows = some_tokens(8 * kSeqLen, source.config.vocab_size);
    const auto path = directory_ / "saved";
    for (const std::int64_t window : {1, 2, 3}) {
        const AlignOptions options{0.5, {}, {}, {"", 3, 4 * kSeqLen, "", window, 3}};
        Aligner whole(source, windows, kSeqLen, options, observer_);
        for (std::int64_t layer = 0; layer < 4; ++layer) {
            whole.save(path);
            const auto restored = Aligner::restore(path, source, kSeqLen, options, observer_);
            ASSERT_NE(restored, nullptr);
            EXPECT_EQ(restored->layer(), layer);
            EXPECT_EQ(restored->selection().pairs, whole.selection().pairs);
            const AlignedLayer next = restored->next();
            const AlignedLayer expected = whole.next();
            EXPECT_EQ(next.error, expected.error);
            for (std::size_t i = 0; i < matrices(next.weights).size(); ++i) {
                EXPECT_EQ(*matrices(next.weights)[i], *matrices(expected.weights)[i])
                    << "matrix " << i << " of layer " << layer;
            }
        }
    }
}

TEST_F(Align, ASavedAlignerThatIsDamagedOrOfAnotherModelIsNotRestored) {
    const Model source = model();
    const auto windows = some_tokens(4 * kSeqLen, source.config.vocab_size);
    const AlignOptions options{0.5, {}, {}, {"", 1, 4 * kSeqLen, "", 2, 1}};
    const auto path = directory_ / "saved";
    const auto restore = [&](const Model& of) { return Aligner::restore(path, of, kSeqLen, options, observer_); };
    EXPECT_EQ(restore(source), nullptr);
    Aligner aligner(source, windows, kSeqLen, options, observer_);
    (void)aligner.next();
    aligner.save(path);
    ASSERT_NE(restore(source), nullptr);
    const std::string whole = read_text(path);
    for (std::size_t at = 0; at < whole.size(); at += whole.size() / 37) {
        std::string damaged = whole;
        damaged[at] = static_cast<char>(damaged[at] ^ 4);
        write_text(path, damaged);
        EXPECT_EQ(restore(source), nullptr) << "byte " << at;
        write_text(path, whole.substr(0, at));
        EXPECT_EQ(restore(source), nullptr) << at << " bytes";
    }
    write_text(path, whole);
    write_tiny_model(directory_ / "other", {.hidden = 48});
    EXPECT_EQ(restore(Model::open(directory_ / "other")), nullptr);
}

TEST_F(Align, MoreStepsLeaveLessErrorAndTheOutputIsCloserToTheOriginal) {
    const Model source = model();
    const auto windows = some_tokens(16 * kSeqLen, source.config.vocab_size);
    struct Result {
        double first_error = 0, divergence = 0;
    };
    const auto converted_with = [&](const AlignQuality& quality, const std::string& name) {
        const AlignRequest request{{0, 4, 3, quality}, 16, kSeqLen};
        Aligner aligner(source, windows, kSeqLen, request.options, observer_);
        const ConvertReport report =
            convert(source, directory_ / name, {request}, {nullptr, nullptr, &aligner}, observer_);
        EXPECT_EQ(report.alignment_error.size(), source.layers.size());
        const Model converted = Model::open(directory_ / name);
        return Result{report.alignment_error.front(), verify(source, converted, windows, kSeqLen, observer_).mean_kl};
    };
    const Result none = converted_with({"", 0, 8 * kSeqLen, ""}, "none");
    const Result some = converted_with({"", 10, 8 * kSeqLen, ""}, "some");
    const Result many = converted_with({"", 80, 8 * kSeqLen, ""}, "many");
    EXPECT_LT(some.first_error, none.first_error);
    EXPECT_LT(many.first_error, some.first_error);
    EXPECT_LT(many.divergence, none.divergence);
    const Result together = converted_with({"", 80, 8 * kSeqLen, "", 2, 80}, "together");
    EXPECT_LT(together.divergence, many.divergence);
}

TEST_F(Align, TheChosenSplitIsThatOfTheLeastErrorAndKeepsToTheBudget) {
    const Model source = model();
    const auto windows = some_tokens(8 * kSeqLen, source.config.vocab_size);
    const Aligner aligner(source, windows, kSeqLen, {0.5, {}, {}, {"", 1, 8 * kSeqLen, ""}}, observer_);
    ASSERT_GT(aligner.tried().size(), 1);
    for (const Split& split : aligner.tried()) EXPECT_GE(split.error, aligner.chosen().error);
    const PlanOptions plan{aligner.chosen().rope_dim, aligner.chosen().kv_rank};
    EXPECT_GE(plan_conversion(source.config, plan).reduction(), 0.5);
}

TEST_F(Align, ImpossibleRequestsSayWhatIsPossible) {
    const Model source = model();
    const auto windows = some_tokens(2 * kSeqLen, source.config.vocab_size);
    const auto attempt = [&](double reduction) {
        return [&, reduction] { const Aligner aligner(source, windows, kSeqLen, {reduction, {}, {}, {}}, observer_); };
    };
    expect_error(ErrorCode::usage, {"between 0 and 1"}, attempt(1.5));
    expect_error(ErrorCode::usage, {"the least is 3"}, attempt(0.99));
    ModelConfig narrow = source.config;  // fewer hidden dimensions than keys have
    narrow.hidden_size = narrow.num_key_value_heads * narrow.head_dim / 2;
    const AlignOptions all{0.01, {}, {}, align_qualities().front(), &deepseek_layout()};
    expect_error(ErrorCode::usage, {"more than the 24", "save more"}, [&] { (void)possible_splits(narrow, all); });
}

TEST(AlignTokens, AreSeveralForEachDimensionAndFitInMemory) {
    for (const AlignQuality& quality : align_qualities()) {
        for (const std::int64_t hidden : {64, 576, 1536, 4096, 8192}) {
            ModelConfig config;
            config.hidden_size = hidden;
            const std::int64_t tokens = align_tokens(config, quality);
            EXPECT_GE(tokens, 4 * hidden) << quality.name;
            EXPECT_LE(tokens * hidden * 4, std::int64_t{1} << 30) << quality.name << ", hidden " << hidden;
        }
    }
}

TEST_F(Align, KeysThatTurnAtFrequenciesOfTheModelArePreferred) {
    ModelConfig config = model().config;
    config.hidden_size = 576;
    config.num_attention_heads = 9;
    config.num_key_value_heads = 3;
    config.head_dim = 64;
    const auto widths = [&](double reduction) {
        std::set<std::int64_t> found;
        const AlignOptions options{reduction, {}, {}, align_qualities().front(), &deepseek_layout()};
        for (const Split& split : possible_splits(config, options)) found.insert(split.rope_dim);
        return found;
    };
    EXPECT_EQ(widths(0.8125), (std::set<std::int64_t>{16, 24, 32}));      // of 72 numbers
    EXPECT_EQ(widths(0.6875), (std::set<std::int64_t>{24, 32, 48, 64}));  // of 120
}

TEST_F(Align, SplitsKeepToTheBudgetWhateverElseIsGiven) {
    const ModelConfig config = model().config;  // 2 KV heads of 8: 32 numbers per token and layer
    for (const LatentLayout& layout : latent_layouts()) {
        const std::int64_t budget = 16;
        for (const bool rope_given : {false, true}) {
            for (const bool rank_given : {false, true}) {
                if (rope_given && rank_given) continue;
                AlignOptions options{0.5, {}, {}, align_qualities().front(), &layout};
                if (rope_given) options.rope_dim = 4;
                if (rank_given) options.kv_rank = layout.shared_rope_key ? 10 : 5;
                const auto splits = possible_splits(config, options);
                for (const Split& split : splits) {
                    const std::int64_t numbers =
                        config.latent_shape(split.rope_dim, split.kv_rank, Factorization::whitened, layout)
                            .cached_numbers();
                    EXPECT_LE(numbers, budget) << layout.name;
                    EXPECT_GE(numbers, budget - 2 * config.num_key_value_heads) << layout.name;
                    EXPECT_TRUE(!rope_given || split.rope_dim == 4);
                    EXPECT_TRUE(!rank_given || split.kv_rank == *options.kv_rank);
                }
                EXPECT_EQ(std::adjacent_find(splits.begin(), splits.end(),
                                             [](const Split& a, const Split& b) {
                                                 return a.rope_dim == b.rope_dim && a.fold == b.fold;
                                             }),
                          splits.end());
            }
        }
        AlignOptions too_wide{0.5, 40, {}, align_qualities().front(), &layout};
        expect_error(ErrorCode::usage, {"rope-dim 40"}, [&] { (void)possible_splits(config, too_wide); });
    }
}

}  // namespace
}  // namespace mha2mla::test
