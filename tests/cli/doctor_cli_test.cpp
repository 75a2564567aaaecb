// doctor reports all problems at once, and agrees with convert.
#include <cstring>

#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

const std::string kModel = example("kjv-1.8M").string();

nlohmann::json diagnose(const std::filesystem::path& directory, int exit_code, std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"doctor", directory.string(), "--json"});
    const auto result = run_program(more);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    return nlohmann::json::parse(result.out);
}

std::string texts(const nlohmann::json& diagnosis, const std::string& verdict) {
    std::string all;
    for (const auto& finding : diagnosis.at("findings")) {
        if (finding.at("verdict") == verdict) all += finding.at("text").get<std::string>() + "\n";
    }
    return all;
}

void expect_contains(const std::string& text, const std::vector<std::string>& needles) {
    for (const auto& needle : needles) EXPECT_NE(text.find(needle), std::string::npos) << needle << " in: " << text;
}

void copy_model(const std::filesystem::path& to) {
    std::filesystem::copy(kModel, to, std::filesystem::copy_options::recursive);
}

TEST(DoctorCli, AGoodCheckpointWouldConvert) {
    const auto diagnosis = diagnose(kModel, 0, {"--deep"});
    EXPECT_EQ(diagnosis.at("converts"), true);
    EXPECT_EQ(texts(diagnosis, "problem") + texts(diagnosis, "warning"), "");
    expect_contains(texts(diagnosis, "ok"), {"finite", "tokens", "1536 bytes to 480 bytes"});
}

TEST(DoctorCli, AllWrongTensorsAreNamedAtOnce) {
    const TemporaryDirectory directory;
    copy_model(directory / "model");
    auto config = read_json(directory / "model" / "config.json");
    config["num_key_value_heads"] = 2;
    config["num_hidden_layers"] = 5;
    write_text(directory / "model" / "config.json", config.dump());
    const auto problems = texts(diagnose(directory / "model", 1), "problem");
    expect_contains(problems,
                    {"layers.0.self_attn.k_proj", "layers.3.self_attn.v_proj", "layers.4.mlp.gate_proj", "is missing"});
}

TEST(DoctorCli, ConfigurationWeightsAndTokenizerAreLookedAtApart) {
    const TemporaryDirectory directory;
    copy_model(directory / "model");
    auto config = read_json(directory / "model" / "config.json");
    config["model_type"] = "mamba";
    write_text(directory / "model" / "config.json", config.dump());
    std::filesystem::resize_file(directory / "model" / "model.safetensors", 100000);
    const auto problems = texts(diagnose(directory / "model", 1), "problem");
    expect_contains(problems, {"'mamba'", "truncated"});
}

TEST(DoctorCli, EveryMissingShardIsNamed) {
    const TemporaryDirectory directory;
    write_text(directory / "config.json", read_text(kModel + "/config.json"));
    write_text(directory / "model.safetensors.index.json",
               R"({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})");
    expect_contains(texts(diagnose(directory.path(), 1), "problem"), {"model-1.safetensors", "model-2.safetensors"});
}

TEST(DoctorCli, AnImpossiblePlanIsAProblemAndAMissingTokenizerIsNot) {
    const TemporaryDirectory directory;
    copy_model(directory / "model");
    std::filesystem::remove(directory / "model" / "tokenizer.json");
    const auto diagnosis = diagnose(directory / "model", 1, {"--kv-rank", "100"});
    expect_contains(texts(diagnosis, "problem"), {"kv-rank 100"});
    expect_contains(texts(diagnosis, "warning"), {"tokenizer.json"});
    diagnose(directory / "model", 0);
}

TEST(DoctorCli, AConvertedCheckpointWouldNot) {
    const TemporaryDirectory directory;
    const std::string out = (directory / "mla").string();
    ASSERT_EQ(run_program({"convert", kModel, out, "--rope", "high"}).exit_code, 0);
    expect_contains(texts(diagnose(out, 1), "problem"), {"already converted"});
}

TEST(DoctorCli, AModelThatConvertRefusesIsAProblem) {
    const TemporaryDirectory directory;
    copy_model(directory / "model");
    auto config = read_json(directory / "model" / "config.json");
    config["model_type"] = "nemotron";  // rotates half of a head
    config["hidden_act"] = "relu2";
    config["rope_scaling"] = {{"rope_type", "dynamic"}, {"factor", 2.0}};
    write_text(directory / "model" / "config.json", config.dump());
    const auto refused = run_program({"convert", (directory / "model").string(), (directory / "mla").string(), "--rope",
                                      "high", "--ignore-unused"});  // it has no gate_proj
    EXPECT_EQ(refused.exit_code, 1);
    const auto diagnosis = diagnose(directory / "model", 1, {"--deep", "--ignore-unused"});
    EXPECT_EQ(diagnosis.at("converts"), false);
    for (const auto& text : {texts(diagnosis, "problem"), refused.err}) {
        expect_contains(text, {"'nemotron' cannot be converted", "partial rotation that depends on the length"});
    }
    expect_contains(texts(diagnosis, "ok"), {"finite"});
}

TEST(DoctorCli, DeepFindsWhatIsNotFinite) {
    const TemporaryDirectory directory;
    copy_model(directory / "model");
    const auto weights = directory / "model" / "model.safetensors";
    std::string bytes = read_text(weights);
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    const auto header = nlohmann::json::parse(bytes.substr(8, length));
    for (const char* name : {"model.layers.1.self_attn.k_proj.weight", "model.layers.2.self_attn.v_proj.weight"}) {
        const auto at = header.at(name).at("data_offsets").at(0).get<std::size_t>() + 8 + length;
        bytes[at] = '\xC0';
        bytes[at + 1] = '\x7F';  // a BF16 NaN
    }
    write_text(weights, bytes);
    expect_contains(texts(diagnose(directory / "model", 1, {"--deep"}), "problem"),
                    {"layers.1.self_attn.k_proj", "layers.2.self_attn.v_proj"});
}

}  // namespace
}  // namespace mha2mla::test
