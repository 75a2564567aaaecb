// llama.cpp splits texts by the vocabulary that `export` writes into the tokens of tokenizer.json.
#include "engine.hpp"
#include "mha2mla/gguf_export.hpp"
#include "mha2mla/runtime.hpp"
#include "mha2mla/safetensors_writer.hpp"
#include "mha2mla/tokenizer.hpp"

namespace mha2mla::test {
namespace {

/// Writes a checkpoint of layout deepseek with one small layer.
void write_tiny_model(const std::filesystem::path& directory, std::int64_t vocab) {
    constexpr std::int64_t kHidden = 32, kHeads = 2, kHeadDim = 8, kRank = 8, kRope = 4;
    const nlohmann::json config = {
        {"model_type", "deepseek_v3"},   {"vocab_size", vocab},    {"hidden_size", kHidden},
        {"intermediate_size", kHidden},  {"num_hidden_layers", 1}, {"first_k_dense_replace", 1},
        {"num_attention_heads", kHeads}, {"kv_lora_rank", kRank},  {"qk_rope_head_dim", kRope},
        {"qk_nope_head_dim", kHeadDim},  {"v_head_dim", kHeadDim}, {"tie_word_embeddings", true}};
    write_text(directory / "config.json", config.dump());
    const std::string layer = "model.layers.0.", attention = layer + "self_attn.";
    const std::vector<TensorSpec> specs = {
        {"model.embed_tokens.weight", Dtype::f32, {vocab, kHidden}},
        {"model.norm.weight", Dtype::f32, {kHidden}},
        {layer + "input_layernorm.weight", Dtype::f32, {kHidden}},
        {layer + "post_attention_layernorm.weight", Dtype::f32, {kHidden}},
        {attention + "q_proj.weight", Dtype::f32, {kHeads * (kHeadDim + kRope), kHidden}},
        {attention + "kv_a_proj_with_mqa.weight", Dtype::f32, {kRank + kRope, kHidden}},
        {attention + "kv_a_layernorm.weight", Dtype::f32, {kRank}},
        {attention + "kv_b_proj.weight", Dtype::f32, {kHeads * 2 * kHeadDim, kRank}},
        {attention + "o_proj.weight", Dtype::f32, {kHidden, kHeads * kHeadDim}},
        {layer + "mlp.gate_proj.weight", Dtype::f32, {kHidden, kHidden}},
        {layer + "mlp.up_proj.weight", Dtype::f32, {kHidden, kHidden}},
        {layer + "mlp.down_proj.weight", Dtype::f32, {kHidden, kHidden}},
    };
    std::vector<float> values;
    const auto data = [&](std::size_t i) {
        values.assign(element_count(specs[i].shape), 1.0F);
        if (specs[i].shape.size() == 2) {
            for (std::size_t k = 0; k < values.size(); ++k) values[k] = 0.1F * static_cast<float>(k % 7) - 0.3F;
        }
        return std::as_bytes(std::span(values));
    };
    write_safetensors(directory / "model.safetensors", specs, data, {});
}

struct Vocabulary {
    const char* folder;
    std::int64_t size;
    const char* pre;
};

class VocabularyEngine : public testing::TestWithParam<Vocabulary> {};

TEST_P(VocabularyEngine, SplitsTextsAsTokenizerJson) {
    MHA2MLA_NEEDS_ENGINES();
    const auto [folder, size, pre] = GetParam();
    const std::string name = folder;
    const bool ours = name.rfind("models/", 0) == 0;
    if (ours) MHA2MLA_NEEDS_SHARED(name);
    if (!ours) MHA2MLA_NEEDS_DOWNLOAD(name);
    const std::filesystem::path place = ours ? shared(name) : downloaded(name);
    const TemporaryDirectory directory;
    for (const char* file : {"tokenizer.json", "tokenizer_config.json"}) {
        if (std::filesystem::exists(place / file)) std::filesystem::copy(place / file, directory / file);
    }
    write_tiny_model(directory.path(), size);
    Observer observer;
    const Model model = Model::open(directory.path());
    const auto report = export_gguf(model, directory / "model.gguf", {}, observer);
    EXPECT_NE(report.vocabulary.find(pre), std::string::npos) << report.vocabulary;

    std::vector<std::string> texts = {"Once upon a time there was a little girl.", "  two spaces,\n\na line\n",
                                      "x  y   z", "And he said, Let there be light: and there was light."};
    // One vocabulary has no tokens of bytes, at which llama.cpp fails; `export` warns of it.
    if (name.find("TinyStories") == std::string::npos) {
        texts.insert(texts.end(),
                     {"It's 1984; they'll pay $3.50!\t 12345678901", "caf\u00e9 \u65e5\u672c\u8a9e \U0001F600.",
                      "def f(x):\n    return x**2  # comment\r\n", "\u041f\u0440\u0438\u0432\u0435\u0442, \u05e9",
                      read_text(example("kjv-eval.txt")).substr(0, 20000)});
    }
    const Tokenizer tokenizer = Tokenizer::load(place / "tokenizer.json");
    const Answer theirs = ask(directory / "model.gguf", {{65, 66}, 2, 1, size, texts}, directory);
    for (std::size_t i = 0; i < texts.size(); ++i) {
        EXPECT_EQ(theirs.texts[i], tokenizer.encode(texts[i], true)) << texts[i].substr(0, 80);
    }
    // Its latent is as large as another program's, with a norm that counts.
    const Matrix expected = logits(model, prefill(model, std::vector<TokenId>{65, 66}, 2, observer)).bottomRows(1);
    const Matrix difference = theirs.logprobs - expected;
    EXPECT_LT(difference.maxCoeff() - difference.minCoeff(), 1e-2F * (expected.maxCoeff() - expected.minCoeff()));
}
constexpr Vocabulary kVocabularies[] = {
    {"models/kjv-1.8M", 1024, "gpt-2"},
    {"models/TinyStories-656K", 2048, "byte fallback"},
    {"tokenizers/smollm2-135m", 49152, "gpt-2"},
    {"tokenizers/qwen25-coder-0.5b", 151936, "qwen2"},
    {"tokenizers/gemma3-270m", 262144, "byte fallback"},
};
INSTANTIATE_TEST_SUITE_P(Models, VocabularyEngine, testing::ValuesIn(kVocabularies), [](const auto& info) {
    std::string name = std::filesystem::path(info.param.folder).filename().string();
    std::erase_if(name, [](char c) { return c == '-' || c == '.'; });
    return name;
});

}  // namespace
}  // namespace mha2mla::test
