// llama.cpp loads what `export` writes, and computes what this library computes.
#include <cmath>

#include "engine.hpp"
#include "mha2mla/align.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/gguf_export.hpp"
#include "mha2mla/runtime.hpp"
#include "mha2mla/tokenizer.hpp"
#include "support/expect_error.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

/// Converts without gradient descent, to half the cache or less.
Model converted(const Model& source, const std::vector<TokenId>& text, std::int64_t rope_dim, std::int64_t rank,
                const std::filesystem::path& directory, RopeFrequencies frequencies = RopeFrequencies::engine) {
    constexpr std::int64_t kLength = 40;
    const AlignRequest request{
        {0, rope_dim, rank, {"", 3, 4 * kLength, ""}, &deepseek_layout(), frequencies}, 8, kLength};
    Observer observer;
    Aligner aligner(source, text, kLength, request.options, observer);
    (void)convert(source, directory, {request, Dtype::f32}, {nullptr, nullptr, &aligner}, observer);
    return Model::open(directory);
}

std::vector<TokenId> pseudo_text(const Model& model, std::int64_t tokens) {
    std::vector<TokenId> ids;
    for (std::int64_t i = 0; i < tokens; ++i) {
        ids.push_back(static_cast<TokenId>((i * i * 7 + 3 * i) % model.config.vocab_size));
    }
    return ids;
}

/// llama.cpp's server needs a vocabulary whose tokens are text; any does, because questions consist of ids.
void write_vocabulary(const Model& model, const std::filesystem::path& directory) {
    nlohmann::json vocabulary;
    for (std::int64_t id = 0; id < model.config.vocab_size; ++id) vocabulary["x" + std::to_string(id)] = id;
    const nlohmann::json step = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    const nlohmann::json tokenizer = {
        {"pre_tokenizer", step},
        {"decoder", step},
        {"added_tokens", nlohmann::json::array()},
        {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", nlohmann::json::array()}}}};
    write_text(directory / "tokenizer.json", tokenizer.dump());
}

Matrix log_softmax(Matrix logits) {
    for (std::int64_t row = 0; row < logits.rows(); ++row) {
        const double top = logits.row(row).maxCoeff();
        const double sum = (logits.row(row).cast<double>().array() - top).exp().sum();
        logits.row(row).array() -= static_cast<float>(top + std::log(sum));
    }
    return logits;
}

/// Log-probabilities behind each prefix of at least `from` tokens.
Matrix ours(const Model& model, const std::vector<TokenId>& ids, std::int64_t from) {
    Observer observer;
    const auto length = static_cast<std::int64_t>(ids.size());
    return log_softmax(logits(model, prefill(model, ids, length, observer))).bottomRows(length - from + 1);
}

double nll(const Matrix& logprobs, const std::vector<TokenId>& ids, std::int64_t from) {
    double sum = 0;
    for (std::int64_t row = 0; row + 1 < logprobs.rows(); ++row) {
        sum -= logprobs(row, ids[static_cast<std::size_t>(from + row)]);
    }
    return sum / static_cast<double>(logprobs.rows() - 1);
}

struct Case {
    const char* folder;
    GgufForm form;
    RopeFrequencies frequencies = RopeFrequencies::engine;
};

class LlamaCppEngine : public testing::TestWithParam<Case> {};

TEST_P(LlamaCppEngine, ComputesTheSameLogProbabilities) {
    MHA2MLA_NEEDS_ENGINES();
    const auto [folder, form, frequencies] = GetParam();
    const std::string place = std::string("golden/") + folder;
    MHA2MLA_NEEDS_SHARED(place);
    const TemporaryDirectory directory;
    const Model source = Model::open(shared(place));
    const std::int64_t keys = source.config.num_key_value_heads * source.config.head_dim;
    const Model model =
        converted(source, pseudo_text(source, 320), keys / 4 * 2, keys / 2, directory / "out", frequencies);
    write_vocabulary(model, directory / "out");
    Observer observer;
    const auto report = export_gguf(model, directory / "out.gguf", {BlockType::f32, form}, observer);

    const std::vector<TokenId> ids = pseudo_text(source, 24);
    const Matrix expected = ours(model, ids, 4);
    const Answer theirs = ask(directory / "out.gguf", {ids, 4, 1, source.config.vocab_size}, directory);
    ASSERT_EQ(theirs.logprobs.rows(), expected.rows());
    EXPECT_LT((theirs.logprobs - expected).cwiseAbs().maxCoeff(), 1e-4F);
    EXPECT_NEAR(theirs.cache_bytes, 4.0 * static_cast<double>(report.cached_numbers), 0.05 * theirs.cache_bytes);
}

constexpr Case kCases[] = {
    {"families/llama-gqa-untied-bf16", GgufForm::mla},
    {"families/llama-gqa-untied-bf16", GgufForm::mqa},
    {"families5/llama-headdim", GgufForm::mla},
    {"families5/llama-headdim", GgufForm::mqa},
    {"families/llama-mqa-bias-f32", GgufForm::mqa},  // queries, keys, values and outputs with biases
    {"families/llama3-rope-scaling", GgufForm::mqa},
    {"families5/llama-headdim", GgufForm::mqa, RopeFrequencies::shared},
};
INSTANTIATE_TEST_SUITE_P(Forms, LlamaCppEngine, testing::ValuesIn(kCases), [](const auto& info) {
    return family_test_name({info.param.folder, info.index}) + "_" + std::string(row_of(info.param.form).name) +
           (info.param.frequencies == RopeFrequencies::engine ? "" : "_" + std::to_string(info.index));
});

TEST(LlamaCppEngine, ContinuesATextAsWeDo) {
    MHA2MLA_NEEDS_ENGINES();
    const TemporaryDirectory directory;
    const Model source = Model::open(example("kjv-1.8M"));
    const Tokenizer tokenizer = Tokenizer::load(example("kjv-1.8M") / "tokenizer.json");
    const std::string text = read_text(example("kjv-calibration.txt"));
    std::vector<TokenId> calibration = tokenizer.encode(text.substr(0, 20000), false);
    calibration.resize(calibration.size() / 40 * 40);
    const Model model = converted(source, calibration, 24, 36, directory / "out");
    std::vector<TokenId> ids = tokenizer.encode(read_text(example("kjv-eval.txt")).substr(0, 400), false);
    ids.resize(64);

    std::vector<TokenId> greedy = ids;
    for (int i = 0; i < 64; ++i) {
        Eigen::Index best = 0;
        Matrix next = ours(model, greedy, static_cast<std::int64_t>(greedy.size()));
        next(0, *source.config.bos_token_id) = -INFINITY;  // which also ends a text
        next.row(0).maxCoeff(&best);
        greedy.push_back(static_cast<TokenId>(best));
    }
    greedy.erase(greedy.begin(), greedy.begin() + 64);

    const Matrix expected = ours(model, ids, 2);
    const double exact = nll(expected, ids, 2);
    for (const auto& [form, type, tolerance] : {std::tuple{GgufForm::mla, BlockType::f32, 1e-4},
                                                {GgufForm::mqa, BlockType::f32, 1e-4},
                                                {GgufForm::mla, BlockType::f16, 3e-3},
                                                {GgufForm::mla, BlockType::bf16, 3e-2},
                                                {GgufForm::mla, BlockType::q8_0, 3e-2},
                                                {GgufForm::mqa, BlockType::q8_0, 3e-2},
                                                {GgufForm::mla, BlockType::q4_0, 0.5},
                                                {GgufForm::mla, BlockType::q4_k, 0.3}}) {
        const std::string name = std::string(row_of(form).name) + "-" + std::string(format_of(type).name);
        Observer observer;
        const auto file = directory / (name + ".gguf");
        const auto report = export_gguf(model, file, {type, form}, observer);
        const Answer theirs = ask(file, {ids, 2, 64, source.config.vocab_size}, directory);
        EXPECT_NEAR(nll(theirs.logprobs, ids, 2), exact, tolerance) << name;
        RecordProperty("nll_difference_" + name, std::to_string(nll(theirs.logprobs, ids, 2) - exact));
        RecordProperty("bytes_" + name, std::to_string(report.bytes));
        if (type != BlockType::f32) continue;
        EXPECT_LT((theirs.logprobs - expected).cwiseAbs().maxCoeff(), 2e-3F) << name;
        EXPECT_EQ(theirs.greedy, greedy) << name;
    }
}

TEST(GgufEngine, TheGgufPackageReadsWhatTheCheckpointHolds) {
    MHA2MLA_NEEDS_ENGINES();
    const TemporaryDirectory directory;
    const Model source = Model::open(example("kjv-1.8M"));
    const Model model = converted(source, pseudo_text(source, 320), 24, 36, directory / "out");
    Observer observer;
    (void)export_gguf(model, directory / "out.gguf", {BlockType::f32, GgufForm::mla}, observer);
    run_script("read_gguf.py", {directory / "out.gguf", directory / "tensors.safetensors", directory / "keys.json"});
    const SafetensorsFile tensors(directory / "tensors.safetensors");
    const auto keys = read_json(directory / "keys.json");
    EXPECT_EQ(keys.at("general.architecture"), "deepseek2");
    EXPECT_EQ(keys.at("deepseek2.attention.kv_lora_rank"), 36);
    EXPECT_EQ(keys.at("deepseek2.rope.dimension_count"), 24);
    EXPECT_EQ(keys.at("deepseek2.attention.key_length_mla"), 56);
    EXPECT_EQ(keys.at("tokenizer.ggml.pre"), "gpt-2");
    EXPECT_EQ(keys.at("tokenizer.ggml.tokens").size(), 1024);
    EXPECT_EQ(keys.at("tokenizer.ggml.bos_token_id"), 0);
    EXPECT_EQ(keys.at("tokenizer.ggml.merges").at(0), "t h");

    const LatentAttentionView& view = model.layer(2).latent_attention();
    const auto same = [&](const std::string& name, const TensorView& tensor) {
        EXPECT_EQ(read_floats(tensors, name), to_finite_floats(tensor)) << name;
    };
    same("token_embd.weight", *model.embed_tokens);
    same("blk.2.attn_q.weight", *view.q.weight);
    same("blk.2.attn_output.weight", *view.o.weight);
    same("blk.2.ffn_down.weight", *model.layer(2).down.weight);
    same("blk.2.attn_norm.weight", *model.layer(2).attention_norm.weight);
    const auto k_b = read_floats(tensors, "blk.2.attn_k_b.weight"), v_b = read_floats(tensors, "blk.2.attn_v_b.weight");
    const auto kv_b = to_finite_floats(*view.up_k.weight);
    for (std::size_t head = 0; head < 6; ++head) {
        for (std::size_t i = 0; i < 32; ++i) {
            for (std::size_t r = 0; r < 36; ++r) {
                ASSERT_EQ(k_b[(head * 36 + r) * 32 + i], kv_b[(head * 64 + i) * 36 + r]);
                ASSERT_EQ(v_b[(head * 32 + i) * 36 + r], kv_b[(head * 64 + 32 + i) * 36 + r]);
            }
        }
    }
}

TEST(GgufEngine, WhatAnArchitectureHasNoPlaceForIsRefusedBeforeAnythingIsWritten) {
    const TemporaryDirectory directory;
    Observer observer;
    const auto refused = [&](const char* folder, const std::vector<std::string_view>& needles) {
        const Model source = Model::open(shared(folder));
        const std::int64_t keys = source.config.num_key_value_heads * source.config.head_dim;
        const Model model =
            converted(source, pseudo_text(source, 320), keys / 4 * 2, keys / 2, directory / source.config.model_type);
        expect_error(ErrorCode::unsupported, needles,
                     [&] { (void)export_gguf(model, directory / "out.gguf", {}, observer); });
        EXPECT_FALSE(std::filesystem::exists(directory / "out.gguf"));
        std::filesystem::remove_all(directory / source.config.model_type);
    };
    refused("golden/families/llama-mqa-bias-f32", {"bias", "deepseek2", "form mqa"});
    refused("golden/families/llama3-rope-scaling", {"rope_type", "deepseek2", "form mqa"});
    const Model original = Model::open(example("kjv-1.8M"));
    expect_error(ErrorCode::unsupported, {"not converted", "layout deepseek first"},
                 [&] { (void)export_gguf(original, directory / "out.gguf", {}, observer); });
    {
        const TemporaryDirectory other;
        const Model free =
            converted(original, pseudo_text(original, 320), 24, 36, other / "free", RopeFrequencies::free);
        for (const GgufForm form : {GgufForm::mla, GgufForm::mqa}) {
            expect_error(ErrorCode::unsupported, {"layer 1", "other frequencies", "engine or shared"}, [&] {
                (void)export_gguf(free, directory / "out.gguf", {BlockType::f32, form}, observer);
            });
        }
    }
    EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

}  // namespace
}  // namespace mha2mla::test
