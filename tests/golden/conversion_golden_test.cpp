// NLL of conversions compared with figures of the reference implementation and of transformers.
#include <cmath>

#include "mha2mla/convert.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/token_file.hpp"
#include "mha2mla/tokenizer.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

constexpr const char* kModel = "models/TinyStories-656K";
constexpr const char* kGolden = "golden/TinyStories-656K";

double nll(const Model& model, std::span<const TokenId> ids, std::int64_t context, std::int64_t windows) {
    Observer observer;
    const auto batch = make_windows(model.config, ids, {context, windows});
    return evaluate(model, batch, context, observer).nll;
}

std::vector<TokenId> tiny_stories_tokens() {
    return read_token_file(shared(kGolden) / "eval_tokens.u16", TokenFormat::u16, 2048);
}

/// A recorded case of reference.json as a plan of this library. With `split` the reference's `low_rank` is that of
/// keys and of values each, so d_kv is twice that.
StagedPlan stages_of(const nlohmann::json& recorded) {
    StagedPlan stages;
    stages.rope = {recorded.at("partial_rope_version"), recorded.at("rope_dim_for_mla"), 0};
    const std::string method = recorded.at("svd_init_method");
    for (const auto& row : kFactorizations) {
        if (row.reference_name == method && !row.needs_moments()) stages.factorization = row.factorization;
    }
    stages.kv_rank = recorded.at("low_rank").get<std::int64_t>() * (method == "split" ? 2 : 1);
    return stages;
}

/// Compares the logits of the 32 probe tokens with the recorded ones of the reference.
void expect_logits(const Model& model, const std::vector<TokenId>& probe, const std::vector<float>& recorded,
                   const std::string& name) {
    Observer observer;
    const Matrix result = logits(model, prefill(model, probe, static_cast<std::int64_t>(probe.size()), observer));
    ASSERT_EQ(static_cast<std::size_t>(result.size()), recorded.size());
    double largest = 0;
    for (std::size_t i = 0; i < recorded.size(); ++i) {
        largest = std::max(largest, std::abs(static_cast<double>(result.data()[i]) - recorded[i]));
    }
    EXPECT_LT(largest, 5e-3) << name;  // both sides round a factorisation to float32
}

TEST(ConversionGolden, EveryRecordedConversionHasTheRecordedNllAndLogits) {
    MHA2MLA_NEEDS_SHARED(kModel);
    const auto reference = read_json(shared(kGolden) / "reference.json");
    const SafetensorsFile recorded_logits(shared(kGolden) / "reference_logits.safetensors");
    const TensorView& probe_view = *recorded_logits.find("probe_ids");
    std::vector<TokenId> probe(static_cast<std::size_t>(probe_view.rows()));
    std::memcpy(probe.data(), probe_view.data.data(), probe_view.data.size());
    const Model source = Model::open(shared(kModel));
    const auto ids = tiny_stories_tokens();
    const PairRanks ranks = read_rank_file(shared(kGolden) / "2_norm_rank.pth");
    EXPECT_NEAR(nll(source, ids, 256, 24), reference.at("original_nll").get<double>(), 3e-4);
    expect_logits(source, probe, read_floats(recorded_logits, "logits.original"), "original");
    const TemporaryDirectory directory;
    Observer observer;
    for (const auto& recorded : reference.at("cases")) {
        const std::string name = recorded.at("name");
        const auto output = directory.path() / name;
        (void)convert(source, output, {stages_of(recorded)}, {&ranks}, observer);
        const Model converted = Model::open(output);
        EXPECT_NEAR(nll(converted, ids, 256, 24), recorded.at("nll").get<double>(), 3e-4) << name;
        if (recorded_logits.find("logits." + name) != nullptr) {
            expect_logits(converted, probe, read_floats(recorded_logits, "logits." + name), name);
        }
    }
}

TEST(ConversionGolden, SigmaPlacementDoesNotChangeTheModel) {
    const Model source = Model::open(example("kjv-1.8M"));
    const auto ids = Tokenizer::load(example("kjv-1.8M/tokenizer.json"))
                         .encode(read_text(example("kjv-eval.txt")).substr(0, 4000), false);
    const TemporaryDirectory directory;
    Observer observer;
    std::vector<double> results;
    for (const auto sigma : {SigmaPlacement::balanced, SigmaPlacement::up, SigmaPlacement::down}) {
        StagedPlan stages;
        stages.rope = {"uniform", 8, 0};
        stages.kv_rank = 16;
        stages.svd.sigma = sigma;
        const auto output = directory.path() / std::to_string(results.size());
        (void)convert(source, output, {stages, Dtype::f32}, {}, observer);
        results.push_back(nll(Model::open(output), ids, 256, 2));
    }
    EXPECT_NEAR(results[0], results[1], 1e-4);
    EXPECT_NEAR(results[0], results[2], 1e-4);
}

/// With all pairs rotated and full rank the conversion is exact.
class FullRank : public testing::TestWithParam<const char*> {};

TEST_P(FullRank, LogitsEqualTheOriginals) {
    MHA2MLA_NEEDS_SHARED(GetParam());
    const Model source = Model::open(shared(GetParam()));
    const ModelConfig& config = source.config;
    const TemporaryDirectory directory;
    Observer observer;
    StagedPlan stages;
    stages.rope = {"high", config.head_dim, 0};
    stages.kv_rank = std::min(config.head_dim, config.hidden_size / config.num_key_value_heads);
    (void)convert(source, directory.path() / "out", {stages, Dtype::f32}, {}, observer);
    const Model converted = Model::open(directory.path() / "out");
    std::vector<TokenId> ids;
    for (int i = 0; i < 64; ++i) ids.push_back((i * 37 + 11) % 300);
    const Matrix before = logits(source, prefill(source, ids, 32, observer));
    const Matrix after = logits(converted, prefill(converted, ids, 32, observer));
    EXPECT_LT((before - after).cwiseAbs().maxCoeff(), 2e-4);
}

INSTANTIATE_TEST_SUITE_P(Models, FullRank,
                         testing::Values("models/TinyStories-656K", "models/TinyStories-656K-bf16",
                                         "models/stories260K", "models/kjv-1.8M",
                                         "golden/families/llama-gqa-untied-bf16", "golden/families/llama-mha-tied-f16",
                                         "golden/families/llama-mqa-bias-f32", "golden/families/llama3-rope-scaling"),
                         [](const auto& info) {
                             std::string name = std::filesystem::path(info.param).filename();
                             std::replace_if(
                                 name.begin(), name.end(), [](char c) { return std::isalnum(c) == 0; }, '_');
                             return name;
                         });

TEST(ConversionGolden, NllOfKjvEqualsTransformers) {
    MHA2MLA_NEEDS_SHARED("golden/kjv-1.8M");
    const auto expected = read_json(shared("golden/kjv-1.8M/expected.json")).at("nll");
    const Model model = Model::open(example("kjv-1.8M"));
    const auto ids = read_token_file(shared("golden/kjv-1.8M/eval_tokens.u16"), TokenFormat::u16, 1024);
    EXPECT_NEAR(nll(model, ids, 256, 24), expected.at("context 256, 24 windows").at("nll").get<double>(), 1e-4);
    EXPECT_NEAR(nll(model, ids, 512, 60), expected.at("context 512, 60 windows").at("nll").get<double>(), 1e-4);
}

TEST(ConversionGolden, BfloatSiblingAndStories260KConvertAndEvaluate) {
    MHA2MLA_NEEDS_SHARED("models/stories260K");
    const TemporaryDirectory directory;
    Observer observer;
    const auto check = [&](const char* name, const std::vector<TokenId>& ids, double largest_gap) {
        const Model source = Model::open(shared(name));
        StagedPlan stages;
        stages.rope = {"uniform", source.config.head_dim / 2, 0};
        stages.kv_rank = source.config.head_dim;
        const auto output = directory.path() / std::filesystem::path(name).filename();
        (void)convert(source, output, {stages}, {}, observer);
        const double before = nll(source, ids, 128, 8);
        const double after = nll(Model::open(output), ids, 128, 8);
        EXPECT_GT(after, before);
        EXPECT_LT(after - before, largest_gap) << name;
    };
    const auto ids = tiny_stories_tokens();
    check("models/TinyStories-656K", ids, 1.0);
    check("models/TinyStories-656K-bf16", ids, 1.0);
    // stories260K has no tokenizer here; any ids below its vocabulary size are valid.
    std::vector<TokenId> small;
    for (const TokenId id : ids) small.push_back(id % 512);
    const Model stories = Model::open(shared("models/stories260K"));
    EXPECT_TRUE(std::isfinite(nll(stories, small, 128, 8)));
    check("models/stories260K", small, 5.0);
}

}  // namespace
}  // namespace mha2mla::test
