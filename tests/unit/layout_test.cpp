#include "mha2mla/layout.hpp"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "mha2mla/model.hpp"

namespace mha2mla::test {
namespace {

constexpr AttentionShape kAttention{4, 2, 8, 24};

LatentShape shape_of(Factorization factorization) { return {kAttention, 4, 3, factorization}; }

TEST(LatentShape, WidthsAreThoseOfTheDefinition) {
    struct Expected {
        std::int64_t key, value, cached;
    };
    // Two KV heads: a rank of 6, 8 NoPE key rows and 16 value rows.
    const std::map<Factorization, Expected> expected = {
        {Factorization::joint, {6, 6, 6}},     {Factorization::whitened, {6, 6, 6}},
        {Factorization::weighted, {6, 6, 6}},  {Factorization::split, {3, 3, 6}},
        {Factorization::key, {6, 0, 6 + 16}},  {Factorization::value, {0, 6, 8 + 6}},
        {Factorization::none, {0, 0, 8 + 16}},
    };
    for (const auto& [factorization, widths] : expected) {
        const LatentWidths found = shape_of(factorization).widths();
        const auto name = row_of(factorization).name;
        EXPECT_EQ(found.key, widths.key) << name;
        EXPECT_EQ(found.value, widths.value) << name;
        EXPECT_EQ(found.cached, widths.cached) << name;
        EXPECT_EQ(shape_of(factorization).cached_numbers(), 2 * 4 + widths.cached) << name;
        EXPECT_EQ(row_of(factorization).leaves_part_whole(), widths.cached != 6) << name;
    }
}

TEST(LatentShape, TheLargestRankIsThatOfTheMatrices) {
    // hidden 24 over two KV heads: joint [24, 24], keys [8, 24], values [16, 24].
    EXPECT_EQ(shape_of(Factorization::joint).largest_kv_rank(), 12);
    EXPECT_EQ(shape_of(Factorization::split).largest_kv_rank(), 8);
    EXPECT_EQ(shape_of(Factorization::key).largest_kv_rank(), 4);
    EXPECT_EQ(shape_of(Factorization::value).largest_kv_rank(), 8);
    EXPECT_EQ(shape_of(Factorization::none).largest_kv_rank(), std::nullopt);
}

TEST(Layouts, EveryLayoutProjectsAllHeadsAndSaysWhatItsConfigSays) {
    for (const LatentLayout& layout : latent_layouts()) {
        for (const FactorizationRow& row : kFactorizations) {
            if (layout.shared_rope_key && row.factorization != Factorization::joint) continue;  // its only one
            LatentShape shape = shape_of(row.factorization);
            shape.layout = &layout;
            std::map<std::string_view, int> names;
            for (const LatentTensor& tensor : layout.tensors(shape)) {
                EXPECT_EQ(++names[tensor.name], 1) << layout.name << ' ' << row.name << ' ' << tensor.name;
                EXPECT_GT(tensor.rows, 0) << tensor.name;
                const bool vector = tensor.role == LatentRole::latent_norm || tensor.role == LatentRole::query_norm;
                EXPECT_EQ(tensor.columns > 0, !vector) << tensor.name;
            }
            const RopeSelection per_head{"attention", 4, {{{0, 1}, {1, 3}}}}, shared{"shared key", 4, {}};
            const LatentConfig latent{layout.shared_rope_key ? shared : per_head, row.factorization, 3, 0, &layout};
            const nlohmann::ordered_json original = {{"model_type", "llama"},
                                                     {"hidden_size", 24},
                                                     {"num_hidden_layers", 1},
                                                     {"num_attention_heads", kAttention.num_heads},
                                                     {"head_dim", kAttention.head_dim}};
            const auto json =
                nlohmann::ordered_json::parse(layout.config_text(original, latent, {"ranks.pth", 0, true}));
            const auto read = read_latent_config(json, kAttention, 1, "config.json");
            ASSERT_TRUE(read.has_value());
            EXPECT_EQ(read->layout, &layout);
            const LayoutNotes for_reference{"ranks.pth", 0, true, false, true};
            const auto plain = nlohmann::ordered_json::parse(layout.config_text(original, latent, for_reference));
            EXPECT_EQ(plain.contains("auto_map"), false);
            EXPECT_EQ(json.contains("auto_map"), layout.loader_files != nullptr);
            EXPECT_EQ(read->factorization, row.factorization);
            EXPECT_EQ(read->kv_rank, latent.kv_rank);
            EXPECT_EQ(read->rope.pairs, latent.rope.pairs);
            EXPECT_EQ(read->rope.strategy, latent.rope.strategy);
        }
    }
    EXPECT_FALSE(read_latent_config({{"model_type", "llama"}}, kAttention, 1, "config.json").has_value());
}

TEST(Layouts, LoadersOfDeepseekDoNotScaleTheAttentionOfYarn) {
    const nlohmann::ordered_json yarn = {
        {"rope_type", "yarn"}, {"rope_theta", 1e4}, {"factor", 8.0}, {"mscale", 0.7}, {"mscale_all_dim", 0.7}};
    const nlohmann::ordered_json original = {{"model_type", "llama"},
                                             {"hidden_size", 24},
                                             {"num_hidden_layers", 1},
                                             {"num_attention_heads", 4},
                                             {"rope_parameters", yarn}};
    const LatentConfig latent{{"shared key", 4, {}}, Factorization::joint, 3, 0, &deepseek_layout()};
    const auto json = nlohmann::ordered_json::parse(deepseek_layout().config_text(original, latent, {}));
    const auto& rope = json.at("rope_parameters");
    EXPECT_EQ(rope.at("factor"), 8.0);
    EXPECT_FALSE(rope.contains("mscale") || rope.contains("mscale_all_dim"));
    EXPECT_EQ(rope.at("attention_factor"), 1.0);  // as what the original says comes to
}

TEST(Layouts, LoaderFilesHaveTheClassesThatConfigNames) {
    int families = 0;
    for (const ModelFamily& family : model_families()) {
        const nlohmann::ordered_json original = {{"model_type", family.model_type}};
        if (!family.converts || !reference_layout().has_classes(original)) continue;
        ++families;
        const LatentConfig latent{{"uniform", 4, {{{0, 1}, {1, 3}}}}, Factorization::joint, 3};
        const auto json = nlohmann::ordered_json::parse(reference_layout().config_text(original, latent, {}));
        for (const auto& [loader, place] : json.at("auto_map").items()) {
            const auto text = place.get<std::string>();
            const auto dot = text.find('.');
            for (const LoaderFile& file : reference_layout().loader_files()) {
                if (file.name != text.substr(0, dot) + ".py") continue;
                EXPECT_NE(file.text.find("\nclass " + text.substr(dot + 1) + "("), std::string::npos) << text;
            }
        }
    }
    EXPECT_EQ(families, 6);
}

}  // namespace
}  // namespace mha2mla::test
