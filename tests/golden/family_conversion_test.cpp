// Every family that converts, on small random checkpoints made by transformers: what loses nothing computes what the
// original computes, and a cache of latents gives what whole sequences give.
#include "mha2mla/align.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/runtime.hpp"
#include "mha2mla/session.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

constexpr std::int64_t kLength = 48, kRows = 2;

class FamilyConversion : public testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        const std::string folder = std::string("golden/") + GetParam();
        MHA2MLA_NEEDS_SHARED(folder);
        source_.emplace(Model::open(shared(folder)));
    }

    [[nodiscard]] std::vector<TokenId> text(std::int64_t tokens) const {
        std::vector<TokenId> ids;
        for (std::int64_t i = 0; i < tokens; ++i) {
            ids.push_back(static_cast<TokenId>((i * i * 7 + 3 * i) % source_->config.vocab_size));
        }
        return ids;
    }
    [[nodiscard]] Matrix logits_of(const Model& model) {
        return logits(model, prefill(model, text(kRows * kLength), kLength, observer_));
    }
    [[nodiscard]] Model staged(std::int64_t rope_dim, std::int64_t kv_rank, Factorization factorization) {
        StagedPlan stages;
        stages.rope = {"uniform", rope_dim, 0};
        stages.kv_rank = kv_rank;
        stages.factorization = factorization;
        (void)convert(*source_, directory_ / "out", {stages, Dtype::f32}, {}, observer_);
        return Model::open(directory_ / "out");
    }
    void expect_the_original(const Model& converted, float tolerance) {
        const Matrix expected = logits_of(*source_), result = logits_of(converted);
        EXPECT_LT((result - expected).cwiseAbs().maxCoeff(), tolerance * expected.cwiseAbs().maxCoeff());
    }
    /// @param step tokens that go through the layers together.
    [[nodiscard]] Matrix decoded(const Model& model, std::size_t step) const {
        const auto all = text(kRows * kLength);
        Matrix hidden(std::ssize(all), model.config.hidden_size);
        Session session(model, {.cache = {}, .sequences = kRows, .capacity = kLength});
        for (std::size_t t = 0; t < all.size(); t += step) {
            const Piece piece{static_cast<std::int64_t>(t) / kLength, std::span(all).subspan(t, step)};
            hidden.middleRows(static_cast<Eigen::Index>(t), static_cast<Eigen::Index>(step)) =
                session.advance({&piece, 1});
        }
        return logits(model, hidden);
    }

    std::optional<Model> source_;
    TemporaryDirectory directory_;
    Observer observer_;
};

TEST_P(FamilyConversion, WithAllPairsAndNoSvdItIsTheOriginal) {
    const std::int64_t dim = source_->config.head_dim;
    expect_the_original(staged(dim, dim, Factorization::none), 1e-5F);
}

TEST_P(FamilyConversion, WithSomePairsItsCacheGivesWhatWholeSequencesGive) {
    const std::int64_t dim = source_->config.head_dim;
    for (const Factorization factorization : {Factorization::joint, Factorization::none}) {
        const TemporaryDirectory directory;
        const Model converted = staged(dim / 4 * 2, dim / 2, factorization);
        const Matrix whole = logits_of(converted);
        for (const std::size_t step : {std::size_t{1}, std::size_t{16}}) {
            EXPECT_LT((decoded(converted, step) - whole).cwiseAbs().maxCoeff(), 1e-4F * whole.cwiseAbs().maxCoeff());
        }
        std::filesystem::remove_all(directory_ / "out");
    }
}

TEST_P(FamilyConversion, AlignedAtFullWidthItIsTheOriginal) {
    const ModelConfig& config = source_->config;
    if (config.num_key_value_heads * config.head_dim > config.hidden_size) return;  // the latent cannot hold all
    const AlignRequest request{
        {0, config.head_dim, config.head_dim, find_align_quality("none"), &reference_layout()}, 4, kLength};
    const auto calibration = text(4 * kLength);
    Aligner aligner(*source_, calibration, kLength, request.options, observer_);
    (void)convert(*source_, directory_ / "out", {request, Dtype::f32}, {nullptr, nullptr, &aligner}, observer_);
    expect_the_original(Model::open(directory_ / "out"), 2e-3F);
}

TEST_P(FamilyConversion, StepsOfGradientDescentBringItCloser) {
    const std::int64_t dim = source_->config.head_dim;
    const auto calibration = text(8 * kLength);
    std::vector<double> errors;
    const bool experts = source_->config.rules.layers.back().mlp.mixture.experts > 0;  // whose gradient is not known
    for (std::int64_t window = 1; window <= (experts ? 1 : 2); ++window) {
        for (const std::int64_t steps : {0, 40}) {
            const AlignQuality quality{"", window == 1 ? steps : 0, 4 * kLength, "", window, window == 1 ? 0 : steps};
            const AlignRequest request{{0, dim / 4 * 2, dim / 2, quality, &reference_layout()}, 8, kLength};
            Aligner aligner(*source_, calibration, kLength, request.options, observer_);
            double sum = 0;
            for (std::int64_t layer = 0; layer < source_->config.num_hidden_layers; ++layer)
                sum += aligner.next().error;
            errors.push_back(sum);
        }
    }
    EXPECT_LT(errors[1], 0.9 * errors[0]);
    if (!experts) {
        EXPECT_LT(errors[3], errors[2]);
    }
}

/// Families that norm queries and keys, with the rotation that people give them for long texts: its gain cannot go into
/// rows that are normed.
class NormsAndYarn : public FamilyConversion {
protected:
    void SetUp() override {
        const std::string folder = std::string("golden/") + GetParam();
        MHA2MLA_NEEDS_SHARED(folder);
        std::filesystem::copy(shared(folder), directory_ / "yarn");
        auto config = read_json(directory_ / "yarn" / "config.json");
        config["rope_parameters"] = {
            {"rope_type", "yarn"}, {"rope_theta", 1e4}, {"factor", 4.0}, {"original_max_position_embeddings", 16}};
        std::filesystem::remove(directory_ / "yarn" / "config.json");
        write_text(directory_ / "yarn" / "config.json", config.dump());
        source_.emplace(Model::open(directory_ / "yarn"));
    }
};

TEST_P(NormsAndYarn, WithAllPairsAndNoSvdItIsTheOriginal) {
    ASSERT_GT(source_->rules(0).rotary.gain, 1.1F);
    const std::int64_t dim = source_->config.head_dim;
    expect_the_original(staged(dim, dim, Factorization::none), 1e-5F);
}

TEST_P(NormsAndYarn, AlignedWithAllPairsItIsTheOriginal) {
    const std::int64_t dim = source_->config.head_dim;
    const AlignRequest request{{0, dim, dim, find_align_quality("none"), &reference_layout()}, 4, kLength};
    const auto calibration = text(4 * kLength);
    Aligner aligner(*source_, calibration, kLength, request.options, observer_);
    (void)convert(*source_, directory_ / "out", {request, Dtype::f32}, {nullptr, nullptr, &aligner}, observer_);
    expect_the_original(Model::open(directory_ / "out"), 2e-3F);
}

INSTANTIATE_TEST_SUITE_P(Families, NormsAndYarn,
                         testing::Values("families5/qwen3", "families5/qwen3-moe", "families5/olmo2"),
                         family_test_name);

constexpr const char* kConverted[] = {
    "families5/llama-yarn",    "families5/llama-dynamic", "families5/llama-longrope", "families5/qwen2",
    "families5/qwen2-sliding", "families5/mistral",       "families5/ministral",      "families5/phi3-longrope",
    "families5/phi3-partial",  "families5/gemma",         "families5/gemma2",         "families5/smollm3",
    "families5/granite",       "families5/cohere",        "families5/cohere2",        "families5/stablelm",
    "families5/glm",           "families5/glm4",          "families5/starcoder2",     "families5/arcee",
    "families5/nemotron",      "families5/helium",        "families5/seed-oss",       "families5/qwen3",
    "families5/qwen3-moe",     "families5/gemma3",        "families5/olmo2",          "families5/olmo3",
    "families5/exaone4",
};
INSTANTIATE_TEST_SUITE_P(Families, FamilyConversion, testing::ValuesIn(kFamilies), family_test_name);
INSTANTIATE_TEST_SUITE_P(OtherFamilies, FamilyConversion, testing::ValuesIn(kConverted), family_test_name);

}  // namespace
}  // namespace mha2mla::test
