// Files that the gguf package wrote, as llama.cpp's converter does, become the checkpoints that they were made of.
#include "mha2mla/gguf_import.hpp"
#include "engine.hpp"
#include "mha2mla/model.hpp"
#include "mha2mla/tokenizer.hpp"

namespace mha2mla::test {
namespace {

Matrix as_row(const std::vector<float>& values) {
    return Eigen::Map<const Matrix>(values.data(), 1, std::ssize(values));
}

class GgufImportEngine : public testing::TestWithParam<const char*> {};

TEST_P(GgufImportEngine, GivesBackEveryTensorAndRule) {
    MHA2MLA_NEEDS_ENGINES();
    MHA2MLA_NEEDS_SHARED(GetParam());
    const TemporaryDirectory directory;
    run_script("write_gguf.py", {shared(GetParam()), directory / "model.gguf", "F32"});
    Observer observer;
    (void)import_gguf(directory / "model.gguf", directory / "out", {}, observer);
    const Model original = Model::open(shared(GetParam())), imported = Model::open(directory / "out");
    for (const SafetensorsFile& file : original.checkpoint.files()) {
        for (const TensorView& tensor : file.tensors()) {
            const bool tied = original.config.tie_word_embeddings && tensor.name == "lm_head.weight";
            const TensorView* same = tied ? imported.embed_tokens : imported.checkpoint.find(tensor.name);
            ASSERT_NE(same, nullptr) << tensor.name;
            EXPECT_EQ(same->shape, tensor.shape);
            const Matrix expected = as_row(to_finite_floats(tensor)), values = as_row(to_finite_floats(*same));
            // The weights of Gemma's norms are stored with 1 added, in F32.
            EXPECT_LE((values - expected).cwiseAbs().maxCoeff(), original.rules(0).norm.weight_offset != 0 ? 1e-7F : 0)
                << tensor.name;
        }
    }
    EXPECT_EQ(imported.config.model_type, original.config.model_type);
    EXPECT_EQ(imported.config.rules.final_norm.eps, original.config.rules.final_norm.eps);
    for (std::int64_t layer = 0; layer < original.config.num_hidden_layers; ++layer) {
        const LayerRules &theirs = original.rules(layer), &ours = imported.rules(layer);
        const auto &expected = theirs.rotary.frequencies, &frequencies = ours.rotary.frequencies;
        ASSERT_EQ(frequencies.size(), expected.size());
        for (std::size_t k = 0; k < expected.size(); ++k) EXPECT_NEAR(frequencies[k], expected[k], 1e-7 * expected[k]);
        EXPECT_EQ(ours.attention.qkv_bias, theirs.attention.qkv_bias);
        EXPECT_EQ(ours.attention.window, theirs.attention.window);
        EXPECT_EQ(ours.attention.query_key_norm, theirs.attention.query_key_norm);
        EXPECT_NEAR(ours.attention.scale, theirs.attention.scale, 1e-6F);
        EXPECT_EQ(ours.mlp.activation, theirs.mlp.activation);
    }
    EXPECT_EQ(imported.config.rules.embedding_scale, original.config.rules.embedding_scale);
}
INSTANTIATE_TEST_SUITE_P(Models, GgufImportEngine,
                         testing::Values("golden/families/llama-gqa-untied-bf16", "golden/families/llama-mqa-bias-f32",
                                         "golden/families/llama3-rope-scaling", "golden/families5/llama-headdim",
                                         "golden/families/qwen2", "golden/families5/qwen3", "golden/families5/gemma3"),
                         [](const auto& info) {
                             std::string name = std::filesystem::path(info.param).filename().string();
                             std::erase_if(name, [](char c) { return c == '-' || c == '.'; });
                             return name;
                         });

class GgufBlocksEngine : public testing::TestWithParam<const char*> {};

TEST_P(GgufBlocksEngine, AreTheValuesOfTheGgufPackage) {
    MHA2MLA_NEEDS_ENGINES();
    const TemporaryDirectory directory;
    run_script("write_gguf.py", {example("kjv-1.8M"), directory / "model.gguf", GetParam()});
    run_script("read_gguf.py", {directory / "model.gguf", directory / "tensors.safetensors", directory / "keys.json"});
    Observer observer;
    GgufImportRequest request;
    request.dtype = Dtype::f32;
    (void)import_gguf(directory / "model.gguf", directory / "out", request, observer);
    const Model model = Model::open(directory / "out");
    const SafetensorsFile theirs(directory / "tensors.safetensors");
    EXPECT_EQ(to_finite_floats(*model.embed_tokens), read_floats(theirs, "token_embd.weight"));
    EXPECT_EQ(to_finite_floats(*model.layer(3).down.weight), read_floats(theirs, "blk.3.ffn_down.weight"));
    EXPECT_EQ(to_finite_floats(*model.layer(1).original_attention().v.weight),
              read_floats(theirs, "blk.1.attn_v.weight"));
}
INSTANTIATE_TEST_SUITE_P(Types, GgufBlocksEngine,
                         testing::Values("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"),
                         [](const auto& info) { return std::string(info.param); });

class GgufTokenizerEngine : public testing::TestWithParam<const char*> {};

TEST_P(GgufTokenizerEngine, SplitsTextsAsTheOriginal) {
    MHA2MLA_NEEDS_ENGINES();
    const std::string place = std::string("models/") + GetParam();
    MHA2MLA_NEEDS_SHARED(place);
    const TemporaryDirectory directory;
    run_script("write_gguf.py", {shared(place), directory / "model.gguf", "F16"});
    Observer observer;
    (void)import_gguf(directory / "model.gguf", directory / "out", {}, observer);
    const Tokenizer original = Tokenizer::load(shared(place) / "tokenizer.json");
    const Tokenizer imported = Tokenizer::load(directory / "out/tokenizer.json");
    std::string text = read_text(example("kjv-eval.txt")).substr(0, 20000);
    text += "\n\nOnce upon a time, there was a big dog; \"Tim\" said: it's 12 o'clock!";
    const std::vector<TokenId> ids = original.encode(text, true);
    EXPECT_EQ(imported.encode(text, true), ids);
    EXPECT_EQ(imported.decode(ids, true), original.decode(ids, true));
    EXPECT_EQ(read_text(directory / "out/chat_template.jinja"), "{{ messages[0]['content'] }}");
}
INSTANTIATE_TEST_SUITE_P(Models, GgufTokenizerEngine, testing::Values("kjv-1.8M", "TinyStories-656K"),
                         [](const auto& info) { return std::string(info.param).substr(0, 3); });

}  // namespace
}  // namespace mha2mla::test
