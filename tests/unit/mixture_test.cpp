// Mixtures of experts: which experts a token goes through, and what of the file is read.
#include "forward/mixture.hpp"

#include <limits>
#include <random>
#include <set>

#include "mha2mla/align.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/runtime.hpp"
#include "support/expect_error.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

const TinyModel kMixtral{.layers = 1, .experts = 5};

Matrix logits_of(const std::filesystem::path& directory, const std::vector<TokenId>& windows, std::int64_t length) {
    Observer observer;
    const Model model = Model::open(directory);
    return logits(model, prefill(model, windows, length, observer));
}

Matrix logits_of(const std::filesystem::path& directory, std::int64_t tokens) {
    std::vector<TokenId> ids;
    for (TokenId id = 0; id < tokens; ++id) ids.push_back(id);
    return logits_of(directory, ids, tokens);
}

/// The tensors of transformers' own modules instead of one for each expert.
std::vector<TinyTensor> fused(const TinyModel& model) {
    std::vector<TinyTensor> tensors;
    TinyTensor gate_up{"", model.dtype, {model.experts, 2 * model.intermediate, model.hidden}, {}};
    TinyTensor down{"", model.dtype, {model.experts, model.hidden, model.intermediate}, {}};
    const auto all = tiny_tensors(model);
    for (const TinyTensor& tensor : all) {
        const std::size_t place = tensor.name.find("block_sparse_moe.");
        if (place == std::string::npos) {
            tensors.push_back(tensor);
            continue;
        }
        const std::string layer = tensor.name.substr(0, place);
        if (tensor.name.ends_with("gate.weight")) {
            tensors.push_back({layer + "mlp.gate.weight", tensor.dtype, tensor.shape, tensor.values});
        }
        gate_up.name = layer + "mlp.experts.gate_up_proj";
        down.name = layer + "mlp.experts.down_proj";
    }
    for (std::int64_t i = 0; i < model.experts; ++i) {
        const std::string expert = "model.layers.0.block_sparse_moe.experts." + std::to_string(i);
        const auto append = [&](TinyTensor& to, const char* name) {
            for (const TinyTensor& tensor : all) {
                if (tensor.name != expert + name) continue;
                to.values.insert(to.values.end(), tensor.values.begin(), tensor.values.end());
            }
        };
        append(gate_up, ".w1.weight");
        append(gate_up, ".w3.weight");
        append(down, ".w2.weight");
    }
    tensors.push_back(gate_up);
    tensors.push_back(down);
    return tensors;
}

TEST(Mixture, FusedTensorsGiveTheSameBits) {
    const TemporaryDirectory directory;
    write_tiny_model(directory / "separate", kMixtral);
    write_model(directory / "fused", tiny_config(kMixtral), fused(kMixtral));
    EXPECT_EQ(logits_of(directory / "separate", 20), logits_of(directory / "fused", 20));
}

TEST(Mixture, WeightsOfExpertsThatNoTokenChoseAreNotRead) {
    const TemporaryDirectory directory;
    write_tiny_model(directory / "whole", kMixtral);
    const Matrix expected = logits_of(directory / "whole", 1);
    int read = 0;
    for (std::int64_t i = 0; i < kMixtral.experts; ++i) {
        auto tensors = tiny_tensors(kMixtral);
        for (TinyTensor& tensor : tensors) {
            if (tensor.name.find("experts." + std::to_string(i) + ".") == std::string::npos) continue;
            std::fill(tensor.values.begin(), tensor.values.end(), std::numeric_limits<float>::quiet_NaN());
        }
        const std::filesystem::path damaged = directory / std::to_string(i);
        write_model(damaged, tiny_config(kMixtral), tensors);
        read += logits_of(damaged, 1) == expected ? 0 : 1;
    }
    EXPECT_EQ(read, 2);  // num_experts_per_tok
}

TEST(Mixture, AConversionThatLeavesAllDimensionsComputesTheSame) {
    const TemporaryDirectory directory;
    const TinyModel tiny{.layers = 3, .experts = 5};
    write_tiny_model(directory / "tiny", tiny);
    StagedPlan stages;
    stages.rope = {"uniform", tiny.head_dim, 0};
    stages.kv_rank = tiny.head_dim / 2;  // of nothing
    stages.factorization = Factorization::none;
    Observer observer;
    (void)convert(Model::open(directory / "tiny"), directory / "tiny-mla", {stages}, {}, observer);
    const Matrix expected = logits_of(directory / "tiny", 20), found = logits_of(directory / "tiny-mla", 20);
    EXPECT_LT((found - expected).cwiseAbs().maxCoeff(), 1e-5F * expected.cwiseAbs().maxCoeff());
}

TEST(Mixture, ExpertsConvertInLayoutMha2mlaAlone) {
    const TemporaryDirectory directory;
    write_tiny_model(directory / "tiny", kMixtral);
    const ModelConfig config = read_config(directory / "tiny" / "config.json");
    AlignOptions options;
    options.layout = &deepseek_layout();
    expect_error(ErrorCode::unsupported, {"'mixtral'", "experts", "layout deepseek", "layout mha2mla"},
                 [&] { refuse_alignment(config, options); });
    options.layout = &reference_layout();
    refuse_alignment(config, options);
}

TEST(Mixture, LayersAreFittedTogetherThroughTheirExperts) {
    const TemporaryDirectory directory;
    const TinyModel tiny{.layers = 3, .experts = 4};
    write_tiny_model(directory / "tiny", tiny);
    const Model source = Model::open(directory / "tiny");
    constexpr std::int64_t kLength = 16;
    std::vector<TokenId> ids;
    for (std::int64_t i = 0; i < 16 * kLength; ++i)
        ids.push_back(static_cast<TokenId>((7 * i * i + i / 5) % tiny.vocab));
    Observer observer;
    const auto distance = [&](const AlignQuality& quality, const char* name) {
        const AlignOptions options{0, 4, 4, quality};
        Aligner aligner(source, ids, kLength, options, observer);
        const AlignRequest request{options, 16, kLength};
        (void)convert(source, directory / name, {request, Dtype::f32}, {nullptr, nullptr, &aligner}, observer);
        return (logits_of(directory / name, ids, kLength) - logits_of(directory / "tiny", ids, kLength)).norm();
    };
    const double alone = distance({"", 20, 4 * kLength, ""}, "alone");
    const double together = distance({"", 20, 4 * kLength, "", 2, 60}, "together");
    EXPECT_LT(together, 0.9 * alone);
}

TEST(Mixture, TokensChooseWithinTheirBestGroups) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    constexpr std::int64_t kTokens = 40;
    for (const bool later : {false, true}) {
        MixtureRule rule;
        rule.experts = 12, rule.per_token = 4, rule.groups = 4, rule.groups_per_token = 2;
        rule.score = later ? ExpertScore::sigmoid : ExpertScore::softmax;
        rule.group_best = later ? 2 : 1;
        rule.normalised = later;
        rule.scale = 2.5F;
        Matrix scores = Matrix::NullaryExpr(kTokens, rule.experts, [&] { return normal(random); });
        const Matrix before = scores;
        Matrix weights;
        std::vector<std::vector<RoutedToken>> routed;
        route(rule, {}, scores, weights, routed);
        std::vector<std::set<std::size_t>> groups(kTokens);
        std::vector<int> experts(kTokens);
        std::vector<float> sums(kTokens);
        for (std::size_t e = 0; e < routed.size(); ++e) {
            for (const RoutedToken& token : routed[e]) {
                const auto t = static_cast<std::size_t>(token.token);
                groups[t].insert(e / 3);
                ++experts[t];
                sums[t] += token.weight;
            }
        }
        for (std::size_t t = 0; t < kTokens; ++t) {
            Eigen::Index best = 0;
            before.row(static_cast<Eigen::Index>(t)).maxCoeff(&best);
            EXPECT_EQ(experts[t], rule.per_token);
            EXPECT_EQ(groups[t].size(), 2U);  // four experts do not fit one group of three
            if (later) {
                EXPECT_NEAR(sums[t], rule.scale, 1e-5F);
            } else {
                EXPECT_LT(sums[t], rule.scale);
                EXPECT_TRUE(groups[t].contains(static_cast<std::size_t>(best) / 3));
            }
        }
    }
}

}  // namespace
}  // namespace mha2mla::test
