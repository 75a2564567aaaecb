// Gradients of whole small models compared with those of transformers in float64.
#include <map>

#include "forward/forward.hpp"
#include "support/shared.hpp"
#include "train/losses.hpp"
#include "train/original_block.hpp"

namespace mha2mla::test {
namespace {

/// The derivatives by all tensors of a model, by their names.
class Gradients {
public:
    float* of(const TensorView* tensor) {
        if (tensor == nullptr) return nullptr;
        auto& values = all_[tensor->name];
        values.resize(element_count(tensor->shape));
        return values.data();
    }
    LinearGradient of(const LinearView& view) { return {of(view.weight), of(view.bias)}; }
    NormGradient of(const NormView& view) { return {of(view.weight), of(view.bias)}; }
    MlpGradient of(const MlpView& view) { return {of(view.gate), of(view.up), of(view.down)}; }
    MixtureGradient of(const MixtureView& view) {
        MixtureGradient result{of(view.router), {}, of(view.shared), of(view.shared_gate)};
        for (const MlpView& expert : view.experts) result.experts.push_back(of(expert));
        return result;
    }
    OriginalGradient of(const LayerView& view) {
        const AttentionView& attention = view.original_attention();
        return {{of(view.attention_norm), of(view.attention_post_norm), of(view.mlp_norm), of(view.mlp_post_norm),
                 of(mlp_of(view)), of(view.mixture)},
                of(attention.q_norm),
                of(attention.k_norm),
                of(attention.q),
                of(attention.k),
                of(attention.v),
                of(attention.o)};
    }
    [[nodiscard]] const std::vector<float>& named(const std::string& name) const { return all_.at(name); }
    [[nodiscard]] std::size_t size() const { return all_.size(); }

private:
    std::map<std::string, std::vector<float>> all_;
};

class GradientGolden : public testing::TestWithParam<const char*> {};

TEST_P(GradientGolden, OfEveryTensorEqualsThatOfTransformers) {
    const std::string folder = std::string("golden/families5/") + GetParam();
    MHA2MLA_NEEDS_SHARED(folder);
    const auto expected = read_json(shared(folder) / "gradients.json");
    const auto ids = expected.at("ids").get<std::vector<TokenId>>();
    const auto tokens = std::ssize(ids);
    const Model model = Model::open(shared(folder));
    const ModelConfig& config = model.config;
    std::vector<OriginalActivations> at(model.layers.size());
    std::vector<RotaryTable> tables;
    for (const LayerRules& rules : config.rules.layers) tables.emplace_back(rules.rotary, tokens);
    const auto block = [&](std::size_t layer) {
        return OriginalBlock{model, static_cast<std::int64_t>(layer), {tables[layer], tokens}};
    };
    for (std::size_t layer = 0; layer < at.size(); ++layer) {
        Matrix& input = at[layer].input;
        input.resize(tokens, config.hidden_size);
        if (layer == 0) {
            embed(model, ids, {input.data(), input.rows(), input.cols()});
        } else {
            input = at[layer - 1].output;
        }
        run_block(block(layer), at[layer]);
    }
    std::vector<TokenId> targets(ids.begin() + 1, ids.end());
    targets.push_back(-1);
    Gradients gradients;
    Matrix d_hidden;
    const HeadView head = head_of(model);
    const double loss = next_token_loss({config.rules, head}, at.back().output, targets, d_hidden,
                                        {gradients.of(head.norm), gradients.of(head.lm_head)});
    EXPECT_NEAR(loss, expected.at("loss").get<double>(), 1e-5);
    for (std::size_t layer = at.size(); layer-- > 0;) {
        differentiate_block(block(layer), at[layer], d_hidden, gradients.of(model.layers[layer]));
    }
    embedding_gradient(config.rules.embedding_scale, ids, d_hidden, gradients.of(model.embed_tokens));
    EXPECT_EQ(gradients.size(), expected.at("gradients").size());
    for (const auto& [name, figures] : expected.at("gradients").items()) {
        const std::vector<float>& ours = gradients.named(name);
        const double norm = figures.at("norm").get<double>();
        const Eigen::Map<const Vector> all(ours.data(), std::ssize(ours));
        EXPECT_NEAR(all.cast<double>().norm(), norm, 5e-5 * norm) << name;
        for (std::size_t i = 0; i < figures.at("indices").size(); ++i) {
            EXPECT_NEAR(ours.at(figures.at("indices")[i].get<std::size_t>()), figures.at("values")[i].get<double>(),
                        5e-5 * norm)
                << name << ", entry " << i;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Families, GradientGolden,
                         testing::Values("llama-bias-llama3", "qwen2", "qwen3", "gemma2", "mixtral"), family_test_name);

}  // namespace
}  // namespace mha2mla::test
