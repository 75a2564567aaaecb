// A checkpoint in DeepSeek's layout computes what its layers were aligned to, in every form of attention.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "forward/layer.hpp"
#include "latent/attention_target.hpp"
#include "latent/build_layer.hpp"
#include "mha2mla/align.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/runtime.hpp"
#include "mha2mla/session.hpp"
#include "support/expect_error.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

constexpr std::int64_t kSeqLen = 12, kWindows = 8, kRopeDim = 6, kKvRank = 5;

struct Kind {
    const char* name;
    TinyModel model;
};
const std::vector<Kind> kKinds = {
    {"GQA", {}},
    {"GQA with biases", {.attention_bias = true}},
    {"MHA", {.kv_heads = 4}},
    {"MQA in BF16", {.kv_heads = 1, .dtype = "BF16"}},
};

std::vector<TokenId> random_tokens(std::int64_t count) {
    std::mt19937 random(7);
    std::vector<TokenId> ids;
    for (std::int64_t i = 0; i < count; ++i) ids.push_back(static_cast<TokenId>(random() % 64));
    return ids;
}

class DeepseekLayout : public testing::Test {
protected:
    /// Converts a random model into `directory_ / "out"`.
    void convert_kind(const Kind& kind) {
        std::filesystem::remove_all(directory_ / "model");
        write_tiny_model(directory_ / "model", kind.model);
        convert_model();
    }
    /// Converts `directory_ / "model"`.
    void convert_model() {
        std::filesystem::remove_all(directory_ / "out");
        source_.emplace(Model::open(directory_ / "model"));
        const auto windows = random_tokens(kWindows * kSeqLen);
        Aligner aligner(*source_, windows, kSeqLen, request_.options, observer_);
        (void)convert(*source_, directory_ / "out", {request_}, {nullptr, nullptr, &aligner}, observer_);
        converted_.emplace(Model::open(directory_ / "out"));
    }

    TemporaryDirectory directory_;
    Observer observer_;
    AlignRequest request_{{0, kRopeDim, kKvRank, {"", 2, 4 * kSeqLen, ""}, &deepseek_layout()}, kWindows, kSeqLen};
    std::optional<Model> source_, converted_;
};

TEST_F(DeepseekLayout, TheCheckpointComputesWhatWasAligned) {
    for (const Kind& kind : kKinds) {
        SCOPED_TRACE(kind.name);
        convert_kind(kind);
        const ModelConfig& config = source_->config;
        EXPECT_EQ(converted_->config.model_type, "deepseek_v3");
        Aligner aligner(*source_, random_tokens(kWindows * kSeqLen), kSeqLen, request_.options, observer_);
        const Matrix input = Matrix::Random(2 * kSeqLen, config.hidden_size);
        for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
            LatentLayer expected = empty_shared_key_layer(
                *source_, layer, config.latent_shape(kRopeDim, kKvRank, Factorization::whitened, deepseek_layout()),
                engine_frequencies(*source_, kRopeDim), kSeqLen);
            expected.weights = aligner.next().weights;
            LatentActivations at;
            run_latent(expected, kSeqLen, input, at);
            const Vector bias = output_bias(*source_, layer);
            if (bias.size() > 0) at.output.rowwise() += bias.transpose();
            LayerWorkspace work;
            work.normed = input;
            const RotaryTable rotary(converted_->rules(layer).rotary, kSeqLen);
            attend(*converted_, layer, rotary, kSeqLen, work, {});
            const float rounding = kind.model.dtype == "BF16" ? 2e-2F : 1e-4F;
            at.output *= std::sqrt(1e-6F / 1e-5F);  // of the whole residual stream, for the engines' epsilon
            EXPECT_LT((work.down - at.output).norm(), rounding * at.output.norm()) << "layer " << layer;
        }
    }
}

TEST_F(DeepseekLayout, EveryFormOfAttentionGivesTheSameAndTheCacheHoldsOneKeyAndOneLatent) {
    for (const Kind& kind : kKinds) {
        SCOPED_TRACE(kind.name);
        convert_kind(kind);
        const auto ids = random_tokens(kSeqLen);
        const Matrix whole = prefill(*converted_, ids, kSeqLen, observer_);
        for (const AttentionForm form : {AttentionForm::absorbed, AttentionForm::expanded}) {
            for (const std::int64_t step : {1, 5}) {
                Session session(*converted_, {.cache = {}, .sequences = 1, .capacity = kSeqLen, .form = form});
                EXPECT_EQ(session.cache_size().nominal_bytes_per_token,
                          4.0 * static_cast<double>(source_->config.num_hidden_layers * (kRopeDim + kKvRank)));
                for (std::int64_t first = 0; first < kSeqLen; first += step) {
                    const std::int64_t count = std::min(step, kSeqLen - first);
                    const Piece piece{
                        0, std::span(ids).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count))};
                    const Matrix part = session.advance({&piece, 1});
                    EXPECT_LT((part - whole.middleRows(first, count)).norm(), 1e-5F * whole.norm());
                }
            }
        }
    }
}

/// Engines whose class of this type knows no tying look for a head.
TEST_F(DeepseekLayout, TiedEmbeddingsAreStoredAsTheHeadToo) {
    const TinyModel tied{.tied = true};
    auto twice = tiny_tensors(tied);
    TinyTensor head = find_tensor(twice, "model.embed_tokens.weight");
    head.name = "lm_head.weight";
    twice.push_back(head);
    auto once = tiny_tensors(tied);
    find_tensor(once, "model.embed_tokens.weight").name = "lm_head.weight";
    request_.options.frequencies = RopeFrequencies::free;  // where nothing is lost
    request_.options.rope_dim = request_.options.kv_rank = 16;
    request_.options.quality = find_align_quality("none");
    for (const auto& tensors : {tiny_tensors(tied), twice, once}) {
        std::filesystem::remove_all(directory_ / "model");
        write_model(directory_ / "model", tiny_config(tied), tensors);
        convert_model();
        EXPECT_FALSE(converted_->config.tie_word_embeddings);
        ASSERT_NE(converted_->lm_head, converted_->embed_tokens);
        EXPECT_TRUE(std::ranges::equal(converted_->lm_head->data, converted_->embed_tokens->data));
        const auto ids = random_tokens(kSeqLen);
        const auto logits_of = [&](const Model& model) {
            return logits(model, prefill(model, ids, kSeqLen, observer_));
        };
        const Matrix expected = logits_of(*source_);
        EXPECT_LT((logits_of(*converted_) - expected).norm(), 1e-4F * expected.norm());
    }
}

TEST_F(DeepseekLayout, NumbersThatF16HasNotAreRefused) {
    write_tiny_model(directory_ / "model", {.dtype = "F16"});
    const Model source = Model::open(directory_ / "model");
    const auto windows = random_tokens(kWindows * kSeqLen);
    Aligner aligner(source, windows, kSeqLen, request_.options, observer_);
    const ConversionInputs inputs{nullptr, nullptr, &aligner};
    expect_error(ErrorCode::unsupported, {"F16", "BF16"},
                 [&] { (void)convert(source, directory_ / "out", {request_}, inputs, observer_); });
    EXPECT_FALSE(std::filesystem::exists(directory_ / "out"));
}

/// Conversions in which nothing is lost, and the kinds of models for which that is so.
struct Lossless {
    const char* name;
    RopeFrequencies frequencies;
    SharedKeyBasis basis;
    bool mqa_only;  // with one KV head TransMLA's blocks of one pair are whole heads
    const char* model_type;
};
constexpr Lossless kLossless[] = {
    {"free frequencies", RopeFrequencies::free, SharedKeyBasis::balanced, false, "mha2mla_deepseek"},
    {"shared frequencies", RopeFrequencies::shared, SharedKeyBasis::balanced, false, "deepseek_v3"},
    {"TransMLA", RopeFrequencies::engine, SharedKeyBasis::transmla, true, "deepseek_v3"},
    {"replicated heads", RopeFrequencies::engine, SharedKeyBasis::replicated, false, "deepseek_v3"},
    {"identity", RopeFrequencies::engine, SharedKeyBasis::replicated_identity, false, "deepseek_v3"},
};

TEST_F(DeepseekLayout, WhereEverythingIsKeptNothingChanges) {
    for (const Lossless& lossless : kLossless) {
        for (const Kind& kind : kKinds) {
            if (lossless.mqa_only && kind.model.kv_heads != 1) continue;
            SCOPED_TRACE(std::string(lossless.name) + ", " + kind.name);
            const std::int64_t keys = kind.model.kv_heads * 8;
            request_.options.rope_dim = keys;
            request_.options.kv_rank = keys;  // of values; all keys rotate
            request_.options.quality = find_align_quality("none");
            request_.options.frequencies = lossless.frequencies;
            request_.options.basis = lossless.basis;
            convert_kind(kind);
            EXPECT_EQ(converted_->config.model_type, lossless.model_type);
            const auto ids = random_tokens(2 * kSeqLen);
            const Matrix before = logits(*source_, prefill(*source_, ids, kSeqLen, observer_));
            const Matrix after = logits(*converted_, prefill(*converted_, ids, kSeqLen, observer_));
            const float rounding = kind.model.dtype == "BF16" ? 2e-2F : 2e-5F;
            EXPECT_LT((after - before).norm(), rounding * before.norm());
        }
    }
}

TEST_F(DeepseekLayout, FrequenciesAreReadAsTheyWereChosen) {
    request_.options.rope_dim = 8;
    for (const RopeFrequencies kind : {RopeFrequencies::shared, RopeFrequencies::free}) {
        request_.options.frequencies = kind;
        convert_kind(kKinds.front());
        Aligner aligner(*source_, random_tokens(kWindows * kSeqLen), kSeqLen, request_.options, observer_);
        const std::int64_t layers = source_->config.num_hidden_layers;
        for (std::int64_t layer = 0; layer < layers; ++layer) (void)aligner.next();
        const auto lists = aligner.frequencies();
        ASSERT_EQ(std::ssize(lists), kind == RopeFrequencies::shared ? 1 : layers);
        const std::vector<double>& own = source_->config.rules.layers.front().rotary.frequencies;
        for (std::int64_t layer = 0; layer < layers; ++layer) {
            const auto& expected = lists[lists.size() == 1 ? 0 : static_cast<std::size_t>(layer)];
            const auto& read = converted_->rules(layer).rotary.frequencies;
            ASSERT_EQ(read.size(), expected.size());
            for (std::size_t k = 0; k < read.size(); ++k) {
                EXPECT_NEAR(read[k], expected[k], 1e-12);
                EXPECT_TRUE(std::find(own.begin(), own.end(), expected[k]) != own.end());
            }
        }
    }
}

}  // namespace
}  // namespace mha2mla::test
