// Checkpoints that the MHA2MLA reference implementation wrote, and the logits that its code computes for them.
#include "mha2mla/convert.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/runtime.hpp"
#include "mha2mla/session.hpp"
#include "support/expect_error.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

class ReferenceCheckpoint : public testing::TestWithParam<const char*> {
protected:
    [[nodiscard]] fs::path directory() const { return shared(std::string("golden/reference/") + GetParam()); }
    [[nodiscard]] std::vector<TokenId> row(std::size_t row) const {
        return read_json(directory() / "expected.json").at("ids").at(row).get<std::vector<TokenId>>();
    }
    void expect_logits(const Model& model, const Matrix& hidden) const {
        const SafetensorsFile file(directory() / "expected.safetensors");
        const auto expected = read_floats(file, "logits");
        const Matrix result = logits(model, hidden);
        ASSERT_EQ(static_cast<std::size_t>(result.size()), expected.size());
        double largest = 0;
        for (std::size_t i = 0; i < expected.size(); ++i) {
            largest = std::max(largest, static_cast<double>(std::abs(result.data()[i] - expected[i])));
        }
        EXPECT_LT(largest, 1e-4);
    }
};

TEST_P(ReferenceCheckpoint, PrefillGivesTheLogitsOfItsCode) {
    const Model model = Model::open(directory());
    ASSERT_TRUE(model.config.latent);
    auto ids = row(0);
    const auto length = std::ssize(ids);
    const auto second = row(1);
    ids.insert(ids.end(), second.begin(), second.end());
    Observer observer;
    expect_logits(model, prefill(model, ids, length, observer));
}

TEST_P(ReferenceCheckpoint, DecodingGivesTheLogitsOfItsCode) {
    const Model model = Model::open(directory());
    const auto length = std::ssize(row(0));
    Matrix hidden(2 * length, model.config.hidden_size);
    Session session(model, {.cache = {}, .sequences = 2, .capacity = length});
    for (std::int64_t sequence = 0; sequence < 2; ++sequence) {
        const auto ids = row(static_cast<std::size_t>(sequence));
        for (std::int64_t t = 0; t < length; ++t) {
            const Piece piece{sequence, std::span(ids).subspan(static_cast<std::size_t>(t), 1)};
            hidden.row(sequence * length + t) = session.advance({&piece, 1});
        }
    }
    expect_logits(model, hidden);
}

INSTANTIATE_TEST_SUITE_P(Cases, ReferenceCheckpoint,
                         testing::Values("llama-2norm", "llama-low-split", "qwen2-uniform", "qwen2-none",
                                         "qwen3-uniform", "qwen3moe-high"),
                         family_test_name);

/// A copy of llama-2norm whose object `mha2mla` was changed.
void copy_changed(const fs::path& to, const std::function<void(nlohmann::json&)>& change) {
    fs::copy(shared("golden/reference/llama-2norm"), to);
    auto config = read_json(to / "config.json");
    change(config["mha2mla"]);
    write_text(to / "config.json", config.dump());
}

TEST(ReferenceCheckpoints, WithoutTheRankFileSayWhichToPutWhere) {
    const TemporaryDirectory root;
    copy_changed(root / "model", [](auto&) {});
    fs::remove(root / "model" / "tiny-2_norm_rank.pth");
    expect_error(ErrorCode::io, {"config.json", "2-norm", "put tiny-2_norm_rank.pth into", (root / "model").string()},
                 [&] { (void)Model::open(root / "model"); });
    // The reference's path holds too, from the directory of the checkpoint.
    fs::create_directory(root / "model" / "utils");
    fs::copy(shared("golden/reference/llama-2norm") / "tiny-2_norm_rank.pth",
             root / "model" / "utils" / "tiny-2_norm_rank.pth");
    EXPECT_NO_THROW((void)Model::open(root / "model"));
}

TEST(ReferenceCheckpoints, DamagedObjectsNameTheKey) {
    using Json = nlohmann::json;
    struct Case {
        const char* key;
        Json value;
        std::string named;
    };
    const std::vector<Case> cases = {
        {"partial_rope_version", "middle", "partial_rope_version"},
        {"partial_rope_version", 4, "partial_rope_version"},
        {"svd_init_method", "both", "svd_init_method"},
        {"rope_dim_for_mla", 3, "rope_dim_for_mla"},
        {"low_rank", -1, "low_rank"},
        {"is_baseline", 1, "is_baseline"},
        {"is_gqa2mha2mla", true, "qk_tensor_path"},  // its ranks are those of query heads
    };
    for (const Case& damaged : cases) {
        const TemporaryDirectory root;
        copy_changed(root / "model", [&](Json& object) { object[damaged.key] = damaged.value; });
        expect_error(ErrorCode::format, {"config.json", "mha2mla." + damaged.named},
                     [&] { (void)Model::open(root / "model"); });
    }
    const TemporaryDirectory root;
    copy_changed(root / "model", [](Json& object) {
        object["partial_rope_version"] = "uniform";
        object["uniform_start_point"] = 2;
    });
    expect_error(ErrorCode::format, {"rope_dim_for_mla", "uniform_start_point 2"},
                 [&] { (void)Model::open(root / "model"); });
}

ConversionPlan staged(const std::string& rope, std::int64_t rope_dim, bool reference) {
    StagedPlan stages;
    stages.rope = {rope, rope_dim, 0};
    stages.kv_rank = 6;
    return {stages, std::nullopt, reference};
}

TEST(ReferenceCheckpoints, WhatIsWrittenForItComputesTheSame) {
    for (const char* name : {"families5/llama-bias-llama3", "families5/qwen2", "families5/qwen3-moe"}) {
        const std::string folder = std::string("golden/") + name;
        MHA2MLA_NEEDS_SHARED(folder);
        const Model source = Model::open(shared(folder));
        const TemporaryDirectory root;
        Observer observer;
        (void)convert(source, root / "own", staged("uniform", source.config.head_dim / 2, false), {}, observer);
        (void)convert(source, root / "reference", staged("uniform", source.config.head_dim / 2, true), {}, observer);
        // Without what only this program reads.
        auto config = read_json(root / "reference" / "config.json");
        EXPECT_EQ(config.at("model_type"), source.config.model_type);
        for (const char* key :
             {"format_version", "rope_selection", "factorization", "kv_rank", "kept_pairs", "norms_by_part"}) {
            config["mha2mla"].erase(key);
        }
        write_text(root / "reference" / "config.json", config.dump());
        const std::vector<TokenId> ids = {1, 39, 460, 112, 14, 255, 240, 120, 164, 303, 255, 249};
        const auto logits_of = [&](const Model& model) {
            return logits(model, prefill(model, ids, std::ssize(ids), observer));
        };
        const Matrix own = logits_of(Model::open(root / "own"));
        const Matrix reference = logits_of(Model::open(root / "reference"));
        EXPECT_LT((own - reference).cwiseAbs().maxCoeff(), 1e-5) << name;
    }
}

Matrix matrix_of(const TensorView& tensor) {
    Matrix matrix(tensor.rows(), tensor.cols());
    to_float(tensor, 0, {matrix.data(), static_cast<std::size_t>(matrix.size())});
    return matrix;
}

/// Its is_gqa2mha2mla: its code converts so, but fails to compute what it converted.
TEST(ReferenceCheckpoints, KeysThatAreRepeatedForEachQueryHead) {
    const fs::path reference = shared("golden/reference/llama-gqa2mha");
    const Model source = Model::open(reference / "original");
    const PairRanks ranks = read_rank_file(reference / "tiny-2_norm_rank.pth");
    ConversionPlan plan = staged("2-norm", 4, true);
    std::get<StagedPlan>(plan.weights).query_head_keys = true;
    const TemporaryDirectory root;
    Observer observer;
    (void)convert(source, root / "mla", plan, {&ranks, nullptr, nullptr}, observer);
    const Model theirs = Model::open(reference), ours = Model::open(root / "mla");
    EXPECT_EQ(read_json(root / "mla" / "config.json").at("mha2mla").at("is_gqa2mha2mla"), true);
    const auto of = [](const Model& model, std::int64_t layer, const std::string& name) {
        return matrix_of(*model.checkpoint.find(layer_prefix(layer) + "self_attn." + name + ".weight"));
    };
    for (std::int64_t layer = 0; layer < source.config.num_hidden_layers; ++layer) {
        for (const char* name : {"q_proj", "k_r_proj"}) EXPECT_EQ(of(ours, layer, name), of(theirs, layer, name));
        for (const char* up : {"kv_proj.up_k", "kv_proj.up_v"}) {
            const auto product = [&](const Model& model) {
                return Matrix(of(model, layer, up) * of(model, layer, "kv_proj.down_kv"));
            };
            ASSERT_EQ(of(ours, layer, up).rows(), of(theirs, layer, up).rows());
            EXPECT_LT((product(ours) - product(theirs)).cwiseAbs().maxCoeff(), 2e-5);
        }
    }
    const std::vector<TokenId> ids = {1, 39, 6, 12, 14, 25, 20, 16, 33, 30, 25, 9};
    const auto logits_of = [&](const Model& model) {
        return logits(model, prefill(model, ids, std::ssize(ids), observer));
    };
    EXPECT_LT((logits_of(ours) - logits_of(theirs)).cwiseAbs().maxCoeff(), 1e-3);
    // What a cache holds: rotated keys of the query heads, and latents of the KV heads.
    EXPECT_EQ(cache_numbers_per_token(ours.config), 2 * (4 * 4 + 2 * 6));
    EXPECT_EQ(plan_conversion(source.config, plan.costed({4, 6})).converted_numbers_per_token, 2 * (4 * 4 + 2 * 6));
    // Decoding from it.
    Session session(ours, {.cache = {}, .sequences = 1, .capacity = std::ssize(ids)});
    Matrix hidden(std::ssize(ids), ours.config.hidden_size);
    for (std::size_t t = 0; t < ids.size(); ++t) {
        const Piece piece{0, std::span(ids).subspan(t, 1)};
        hidden.row(static_cast<Eigen::Index>(t)) = session.advance({&piece, 1});
    }
    EXPECT_LT((logits(ours, hidden) - logits_of(ours)).cwiseAbs().maxCoeff(), 1e-4);
    // Nothing factorised and all pairs kept: the original.
    auto& stages = std::get<StagedPlan>(plan.weights);
    stages.factorization = Factorization::none;
    stages.rope.rope_dim = source.config.head_dim;
    (void)convert(source, root / "same", plan, {&ranks, nullptr, nullptr}, observer);
    EXPECT_LT((logits_of(Model::open(root / "same")) - logits_of(source)).cwiseAbs().maxCoeff(), 1e-5);
}

TEST(ReferenceCheckpoints, ItsQwen3RotatesBeforeItNorms) {
    MHA2MLA_NEEDS_SHARED("golden/families5/qwen3");
    const Model source = Model::open(shared("golden/families5/qwen3"));
    const TemporaryDirectory root;
    Observer observer;
    (void)convert(source, root / "mla", staged("high", 4, true), {}, observer);
    EXPECT_TRUE(Model::open(root / "mla").rules(0).attention.rotates_before_norm);
}

TEST(ReferenceCheckpoints, WhatItsCodeCannotSayIsRefused) {
    MHA2MLA_NEEDS_SHARED("golden/families5/qwen3");
    MHA2MLA_NEEDS_SHARED("golden/families5/gemma2");
    const TemporaryDirectory root;
    const Model qwen3 = Model::open(shared("golden/families5/qwen3"));
    const Model gemma2 = Model::open(shared("golden/families5/gemma2"));
    Observer observer;
    expect_error(ErrorCode::unsupported, {"norm", "qwen3", "high, low or uniform"},
                 [&] { (void)convert(qwen3, root / "a", staged("2-norm", 4, true), {}, observer); });
    expect_error(ErrorCode::unsupported, {"gemma2", "llama, qwen2, qwen3 and qwen3_moe"},
                 [&] { (void)convert(gemma2, root / "b", staged("high", 4, true), {}, observer); });
}

}  // namespace
}  // namespace mha2mla::test
