// `mha2mla export` and `mha2mla import` as a user sees them; tests/engines tests what is in the files.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "mha2mla/gguf.hpp"
#include "support/program.hpp"
#include "support/sanitized.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

/// A checkpoint of layout deepseek, made once.
const std::filesystem::path& checkpoint() {
    static const TemporaryDirectory directory;
    static const std::filesystem::path made = [] {
        const auto out = directory / "mla";
        const auto result = run_program({"convert", example("kjv-1.8M"), out, "--layout", "deepseek", "--quality",
                                         "none", "--rope-dim", "24", "--samples", "2", "--seq-len", "64",
                                         "--calibration-text", example("kjv-calibration.txt"), "-qq"});
        EXPECT_EQ(result.exit_code, 0) << result.err;
        return out;
    }();
    return made;
}

TEST(ExportCli, SaysWhatWasWrittenAndWhichTensorsHaveAnotherType) {
    const TemporaryDirectory directory;
    const auto file = directory / "model.gguf";
    const auto result = run_program({"export", checkpoint(), file, "--type", "q4_k", "--json", "-q"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const auto json = nlohmann::json::parse(result.out);
    EXPECT_EQ(json.at("architecture"), "deepseek2");
    EXPECT_EQ(json.at("output_bytes"), std::filesystem::file_size(file));
    EXPECT_EQ(json.at("kv_cache_bytes_per_token"), 480);
    EXPECT_EQ(json.at("types").at("q4_k").at("tensors"), 4);  // of the down projections alone, rows are 512 wide
    EXPECT_EQ(json.at("other_types").at(0).at("tensor"), "token_embd.weight");
    EXPECT_EQ(json.at("other_types").at(0).at("type"), "q8_0");
    const auto text = run_program({"export", checkpoint(), file, "--overwrite", "--form", "mqa", "-q"});
    ASSERT_EQ(text.exit_code, 0) << text.err;
    EXPECT_NE(text.out.find("960 bytes at 16 bit"), std::string::npos) << text.out;
}

TEST(ExportCli, KeepsAFileThatExistsAndLeavesNothingHalfWritten) {
    const TemporaryDirectory directory;
    const auto file = directory / "model.gguf";
    write_text(file, "mine");
    const auto refused = run_program({"export", checkpoint(), file});
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_NE(refused.err.find("--overwrite"), std::string::npos) << refused.err;
    EXPECT_EQ(read_text(file), "mine");
    if (kThreadSanitizer) GTEST_SKIP() << "ThreadSanitizer maps a larger file than the limit allows";
    const auto full = run_program({"export", checkpoint(), directory / "other.gguf"}, "ulimit -f 100;");
    EXPECT_EQ(full.exit_code, 1) << full.err;
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}), 1);
}

TEST(ExportCli, AnOriginalIsRefusedWithTheNextStep) {
    const TemporaryDirectory directory;
    const auto result = run_program({"export", example("kjv-1.8M"), directory / "model.gguf"});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_NE(result.err.find("convert it with --layout deepseek first"), std::string::npos) << result.err;
}

TEST(ExportCli, AGgufFileConvertsAsItsCheckpointDoes) {
    const TemporaryDirectory directory;
    const std::filesystem::path file = MHA2MLA_SOURCE_DIR "/tests/fuzz/seeds/gguf/llama.gguf";
    const std::vector<std::string> options = {"--rope", "uniform", "--rope-dim", "2", "--dtype", "f32", "-q"};
    ASSERT_EQ(run_program({"import", file, directory / "imported", "--dtype", "f32"}).exit_code, 0);
    const auto convert = [&](const std::filesystem::path& from, const std::string& to) {
        std::vector<std::string> arguments = {"convert", from, directory / to};
        arguments.insert(arguments.end(), options.begin(), options.end());
        const auto result = run_program(arguments);
        EXPECT_EQ(result.exit_code, 0) << result.err;
    };
    convert(file, "a");
    convert(directory / "imported", "b");
    EXPECT_EQ(read_text(directory / "a/model.safetensors"), read_text(directory / "b/model.safetensors"));
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}), 3);  // nothing is left beside
    const auto again = run_program({"convert", file, directory / "a", "--rope", "uniform"});
    EXPECT_EQ(again.exit_code, 1);
    EXPECT_NE(again.err.find("--overwrite"), std::string::npos) << again.err;
}

TEST(ExportCli, WithoutATokenizerTheFileHasNoVocabulary) {
    const TemporaryDirectory directory;
    std::filesystem::copy(checkpoint(), directory / "mla");
    std::filesystem::remove(directory / "mla/tokenizer.json");
    const auto result = run_program({"export", directory / "mla", directory / "model.gguf"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NE(result.err.find("no vocabulary"), std::string::npos) << result.err;
}

TEST(ExportCli, ATokenizerThatGgufCannotSayIsRefusedByName) {
    const TemporaryDirectory directory;
    std::filesystem::copy(checkpoint(), directory / "mla");
    const auto path = directory / "mla/tokenizer.json";
    const auto original = read_json(path);
    const auto expect_refused = [&](const nlohmann::json& changes, const std::string& what) {
        auto changed = original;
        changed.merge_patch(changes);
        write_text(path, changed.dump());
        const auto result = run_program({"export", directory / "mla", directory / "model.gguf"});
        EXPECT_EQ(result.exit_code, 1) << what;
        EXPECT_NE(result.err.find(what + ", which GGUF cannot say"), std::string::npos) << result.err;
    };
    auto changed = original;
    changed["model"] = {{"type", "Unigram"}, {"unk_id", 0}};
    changed["added_tokens"] = nullptr;
    changed["model"]["vocab"] = nlohmann::json::array({nlohmann::json::array({"<unk>", 0})});
    write_text(path, changed.dump());
    const auto unigram = run_program({"export", directory / "mla", directory / "model.gguf"});
    EXPECT_NE(unigram.err.find("model.type is 'Unigram', which GGUF cannot say"), std::string::npos) << unigram.err;
    expect_refused({{"normalizer", {{"type", "Lowercase"}}}}, "normalizer has a step 'Lowercase'");
    expect_refused({{"normalizer", {{"type", "Prepend"}, {"prepend", "x"}}}}, "normalizer has a step 'Prepend'");
    expect_refused({{"pre_tokenizer", {{"type", "Whitespace"}}}},
                   "the model has neither byte_fallback nor a pre_tokenizer of type ByteLevel");
}

TEST(ExportCli, NamedChatTemplatesKeepTheirNames) {
    const TemporaryDirectory directory;
    const auto mla = directory / "mla";
    std::filesystem::copy(checkpoint(), mla);
    const auto config = read_json(mla / "tokenizer_config.json");
    const auto expect_templates = [&](const std::vector<std::pair<std::string, std::string>>& wanted) {
        const auto result = run_program({"export", mla, directory / "model.gguf", "--overwrite", "-q"});
        ASSERT_EQ(result.exit_code, 0) << result.err;
        const GgufFile file(directory / "model.gguf");
        EXPECT_EQ(file.texts("tokenizer.chat_templates"), (std::vector<std::string_view>{"rag", "tool_use"}));
        for (const auto& [key, text] : wanted) EXPECT_EQ(file.text("tokenizer.chat_template" + key), text);
    };
    auto listed = config;
    for (const char* const name : {"default", "tool_use", "rag"}) {
        listed["chat_template"].push_back({{"name", name}, {"template", std::string("of ") + name}});
    }
    write_text(mla / "tokenizer_config.json", listed.dump());
    expect_templates({{"", "of default"}, {".tool_use", "of tool_use"}, {".rag", "of rag"}});

    // Files beside it count instead.
    write_text(mla / "chat_template.jinja", "file");
    std::filesystem::create_directory(mla / "additional_chat_templates");
    write_text(mla / "additional_chat_templates/tool_use.jinja", "file 2");
    write_text(mla / "additional_chat_templates/rag.jinja", "file 3");
    expect_templates({{"", "file"}, {".tool_use", "file 2"}, {".rag", "file 3"}});
    std::filesystem::remove(mla / "chat_template.jinja");
    std::filesystem::remove_all(mla / "additional_chat_templates");
    write_text(mla / "chat_template.json", R"({"chat_template": {"default": "a", "tool_use": "b", "rag": "c"}})");
    expect_templates({{"", "a"}, {".tool_use", "b"}, {".rag", "c"}});
}

TEST(ImportCli, WritesACheckpointThatOtherCommandsTake) {
    const TemporaryDirectory directory;
    const std::string seeds = MHA2MLA_SOURCE_DIR "/tests/fuzz/seeds/gguf/";
    for (const std::string name : {"llama", "qwen2"}) {
        const auto out = directory / name;
        const auto result = run_program({"import", seeds + name + ".gguf", out, "--json", "--dtype", "f32"});
        ASSERT_EQ(result.exit_code, 0) << result.err;
        const auto json = nlohmann::json::parse(result.out);
        EXPECT_EQ(json.at("architecture"), name);
        EXPECT_EQ(json.at("dtype"), "F32");
        write_text(directory / "text", "ab a ab");
        const auto eval = run_program({"eval", out, "--text", directory / "text", "--context", "4", "--json"});
        ASSERT_EQ(eval.exit_code, 0) << eval.err;
        const auto again = run_program({"import", seeds + name + ".gguf", out});
        EXPECT_EQ(again.exit_code, 1);
        EXPECT_NE(again.err.find("--overwrite"), std::string::npos) << again.err;
    }
    const auto other = run_program({"import", example("kjv-1.8M") / "model.safetensors", directory / "other"});
    EXPECT_EQ(other.exit_code, 1);
    EXPECT_NE(other.err.find("is not a GGUF file"), std::string::npos) << other.err;
    EXPECT_FALSE(std::filesystem::exists(directory / "other"));
}

}  // namespace
}  // namespace mha2mla::test
