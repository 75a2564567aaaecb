// Weights that an architecture has no place for, and what is known of the families.
#include "mha2mla/convert.hpp"
#include "mha2mla/diagnosis.hpp"
#include "mha2mla/model.hpp"
#include "mha2mla/runtime.hpp"
#include "support/expect_error.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

TinyTensor ones(const std::string& name, std::int64_t size) {
    return {name, "F32", {size}, std::vector<float>(static_cast<std::size_t>(size), 1.0F)};
}

/// A tiny model with further tensors.
void write_with(const fs::path& directory, const std::vector<TinyTensor>& more, const TinyModel& shape = {}) {
    auto tensors = tiny_tensors(shape);
    tensors.insert(tensors.end(), more.begin(), more.end());
    write_model(directory, tiny_config(shape), tensors);
}

Matrix logits_of(const Model& model) {
    Observer observer;
    const std::vector<TokenId> ids = {1, 5, 9, 2, 33, 7};
    return logits(model, prefill(model, ids, 6, observer));
}

struct Unused {
    std::string tensor, reason;
};
const std::vector<Unused> kUnused = {
    {"model.layers.1.self_attn.q_norm.weight", "config.json from another model"},
    {"model.layers.0.self_attn.q_proj.lora_A.weight", "merge the adapter"},
    {"model.layers.2.mlp.up_proj.weight", "num_hidden_layers 2"},
    {"lm_head.bias", "another model"},
    {"model.vision_tower.weight", "another model"},
};

TEST(UnusedWeights, AreAnErrorOrAWarning) {
    const TemporaryDirectory root;
    write_tiny_model(root / "plain");
    for (const Unused& unused : kUnused) {
        const fs::path directory = root / unused.tensor;
        write_with(directory, {ones(unused.tensor, 8)});
        expect_error(ErrorCode::unsupported, {"model.safetensors", unused.tensor, "no place", unused.reason},
                     [&] { (void)Model::open(directory); });
        const Model model = Model::open(directory, {.ignore_unused = true});
        EXPECT_EQ(model.unused, std::vector<std::string>{unused.tensor});
        ASSERT_EQ(model.warnings.size(), 1U);
        EXPECT_NE(model.warnings.front().find(unused.tensor), std::string::npos);
        EXPECT_EQ(logits_of(model), logits_of(Model::open(root / "plain")));
    }
}

TEST(UnusedWeights, AnAdapterBesideTheWeightsCountsToo) {
    const TemporaryDirectory root;
    write_tiny_model(root / "model");
    write_tensors(root / "model" / "adapter_model.safetensors", {ones("base_model.model.lora_A.weight", 8)});
    expect_error(ErrorCode::unsupported, {"adapter_model.safetensors", "merge"},
                 [&] { (void)Model::open(root / "model"); });
    EXPECT_EQ(Model::open(root / "model", {.ignore_unused = true}).warnings.size(), 1U);
}

TEST(UnusedWeights, WhatChangesNothingIsNoneOfThem) {
    const TemporaryDirectory root;
    const TinyModel shape{.tied = true};
    auto tensors = tiny_tensors(shape);
    TinyTensor head = find_tensor(tensors, "model.embed_tokens.weight");
    head.name = "lm_head.weight";
    tensors.push_back(head);
    tensors.push_back(ones("model.layers.0.self_attn.rotary_emb.inv_freq", 4));
    tensors.push_back(ones("model.layers.2.eh_proj.weight", 4));
    auto config = tiny_config(shape);
    config["num_nextn_predict_layers"] = 1;
    write_model(root / "model", config, tensors);
    const Model model = Model::open(root / "model");
    EXPECT_TRUE(model.unused.empty());
    EXPECT_TRUE(model.warnings.empty());
}

TEST(UnusedWeights, AHeadThatIsStoredCountsThoughConfigSaysTied) {
    const TemporaryDirectory root;
    TinyModel shape;
    write_tiny_model(root / "untied", shape);
    auto config = tiny_config(shape);
    config["tie_word_embeddings"] = true;
    write_model(root / "model", config, tiny_tensors(shape));
    const Model model = Model::open(root / "model");
    ASSERT_EQ(model.warnings.size(), 1U);
    EXPECT_NE(model.warnings.front().find("tie_word_embeddings"), std::string::npos);
    EXPECT_EQ(logits_of(model), logits_of(Model::open(root / "untied")));
}

TEST(UnusedWeights, AConversionLeavesThemOut) {
    const TemporaryDirectory root;
    write_with(root / "model", {ones("model.layers.0.self_attn.q_norm.weight", 8)});
    const Model model = Model::open(root / "model", {.ignore_unused = true});
    ConversionPlan plan;
    StagedPlan stages;
    stages.rope = {"high", 4, 0};
    stages.kv_rank = 4;
    plan.weights = stages;
    Observer observer;
    (void)convert(model, root / "mla", plan, {}, observer);
    const Model converted = Model::open(root / "mla");
    EXPECT_EQ(converted.checkpoint.find("model.layers.0.self_attn.q_norm.weight"), nullptr);
}

TEST(UnusedWeights, DoctorListsAll) {
    const TemporaryDirectory root;
    std::vector<TinyTensor> more;
    for (const Unused& unused : kUnused) more.push_back(ones(unused.tensor, 8));
    write_with(root / "model", more);
    Observer observer;
    for (const bool ignored : {false, true}) {
        std::size_t found = 0;
        DiagnosisOptions options;
        options.ignore_unused = ignored;
        for (const Finding& finding : diagnose(root / "model", options, observer)) {
            if (finding.topic != "unused") continue;
            ++found;
            EXPECT_EQ(finding.verdict, ignored ? Verdict::warning : Verdict::problem);
        }
        EXPECT_EQ(found, kUnused.size());
    }
}

TEST(Families, EveryExampleIsReadAndDescribed) {
    for (const ModelFamily& family : model_families()) {
        const ModelConfig config = example_config(family);
        EXPECT_EQ(config.model_type, family.model_type);
        EXPECT_GE(operations_of(config).size(), 2U) << family.model_type;
        EXPECT_EQ(conversion_obstacle(config).empty(), family.converts) << family.model_type;
    }
}

TEST(Families, OperationsAreThoseOfTheRules) {
    const auto has = [](const std::string& family, const std::string& operation) {
        for (const ModelFamily& row : model_families()) {
            if (row.model_type != family) continue;
            const auto all = operations_of(example_config(row));
            return std::find(all.begin(), all.end(), operation) != all.end();
        }
        return false;
    };
    EXPECT_TRUE(has("llama", "SwiGLU"));
    EXPECT_FALSE(has("llama", "QK-norm"));
    EXPECT_TRUE(has("qwen3", "QK-norm"));
    EXPECT_TRUE(has("olmo2", "QK-norm over all heads"));
    EXPECT_TRUE(has("gemma2", "soft-capped scores"));
    EXPECT_TRUE(has("gemma2", "sliding window in some layers"));
    EXPECT_TRUE(has("gemma3_text", "RoPE by layer type"));
    EXPECT_TRUE(has("smollm3", "no RoPE in some layers"));
    EXPECT_TRUE(has("cohere", "attention and MLP side by side"));
}

}  // namespace
}  // namespace mha2mla::test
