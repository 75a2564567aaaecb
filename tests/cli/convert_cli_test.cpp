// The files that convert writes.
#include <algorithm>

#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;
const std::string kModel = example("kjv-1.8M").string();

std::vector<std::string> convert_uniform(const fs::path& out) {
    return {"convert", kModel, out.string(), "--rope", "uniform"};
}

TEST(ConvertCli, BytesDependOnNeitherThreadsNorMemory) {
    const TemporaryDirectory directory;
    std::vector<std::string> files;
    for (const auto& [threads, memory] : {std::pair{"1", "1GB"}, {"2", "60MB"}, {"5", "1GB"}}) {
        const fs::path out = directory.path() / threads;
        auto arguments = convert_uniform(out);
        arguments.insert(arguments.end(), {"--threads", threads, "--max-memory", memory});
        ASSERT_EQ(run_program(arguments).exit_code, 0);
        files.push_back(read_text(out / "model.safetensors"));
    }
    EXPECT_EQ(files[0], files[1]);
    EXPECT_EQ(files[0], files[2]);
}

TEST(ConvertCli, ConfigKeepsEveryKeyAndAddsTheReferencesOwn) {
    const TemporaryDirectory directory;
    const fs::path out = directory.path() / "out";
    auto arguments = convert_uniform(out);
    arguments.insert(arguments.end(), {"--rope-dim", "8", "--kv-rank", "16", "--svd", "split"});
    auto for_reference = arguments;
    for_reference[2] = (directory.path() / "reference").string();
    for_reference.emplace_back("--reference-config");
    ASSERT_EQ(run_program(arguments).exit_code, 0);
    ASSERT_EQ(run_program(for_reference).exit_code, 0);
    auto before = read_json(fs::path(kModel) / "config.json");
    auto after = read_json(directory.path() / "reference" / "config.json");
    const auto mla = after.at("mha2mla");
    after.erase("mha2mla");
    EXPECT_EQ(before, after);
    after = read_json(out / "config.json");
    EXPECT_EQ(after.at("mha2mla"), mla);
    before.update({{"mha2mla", mla},
                   {"model_type", "mha2mla_llama"},
                   {"architectures", {"Mha2mlaLlamaForCausalLM"}},
                   {"auto_map", after.at("auto_map")}});
    EXPECT_EQ(before, after);
    EXPECT_EQ(mla.at("partial_rope_version"), "uniform");
    EXPECT_EQ(mla.at("rope_dim_for_mla"), 8);
    EXPECT_EQ(mla.at("svd_init_method"), "split");
    EXPECT_EQ(mla.at("low_rank"), 8);  // for keys and for values each, which builds d_kv = 16
    EXPECT_EQ(mla.at("kept_pairs").at(3).at(2), (nlohmann::json{0, 4, 8, 12}));
}

TEST(ConvertCli, BothFormsOfConfigHaveTheSameWeightsAndAreReadAlike) {
    const TemporaryDirectory directory;
    const fs::path own = directory.path() / "own", reference = directory.path() / "reference";
    auto arguments = convert_uniform(own);
    ASSERT_EQ(run_program(arguments).exit_code, 0);
    arguments[2] = reference.string();
    arguments.emplace_back("--reference-config");
    ASSERT_EQ(run_program(arguments).exit_code, 0);
    EXPECT_EQ(read_text(own / "model.safetensors"), read_text(reference / "model.safetensors"));
    for (const char* name : {"modeling_mha2mla.py", "configuration_mha2mla.py"}) {
        EXPECT_TRUE(fs::exists(own / name));
        EXPECT_FALSE(fs::exists(reference / name));
        EXPECT_TRUE(read_json(own / "mha2mla.json").at("files").contains(name));
    }
    const auto nll = [](const fs::path& model) {
        const auto result = run_program({"eval", model.string(), "--text", example("kjv-eval.txt").string(),
                                         "--max-windows", "2", "--context", "64", "--json"});
        return nlohmann::json::parse(result.out).at("nll");
    };
    EXPECT_EQ(nll(own), nll(reference));
    EXPECT_NE(read_text(own / "README.md").find("trust_remote_code=True"), std::string::npos);
    EXPECT_EQ(read_text(reference / "README.md").find("trust_remote_code"), std::string::npos);
    // The command in the card and the recipe ask for the same again.
    const auto record = read_json(reference / "mha2mla.json");
    EXPECT_EQ(record.at("recipe").at("jobs").at(0).at("reference-config"), true);
    EXPECT_NE(record.at("command").get<std::string>().find(" --reference-config"), std::string::npos);
    EXPECT_EQ(record.at("command").get<std::string>().find("--reference-config true"), std::string::npos);
    arguments.pop_back();
    arguments.emplace_back("--resume");
    const auto other = run_program(arguments);
    EXPECT_NE(other.exit_code, 0) << "another conversion";
    const auto refused = run_program({"convert", kModel, (directory.path() / "x").string(), "--layout", "deepseek",
                                      "--reference-config", "--calibration-text", example("kjv-eval.txt").string()});
    EXPECT_EQ(refused.exit_code, 2);
    EXPECT_NE(refused.err.find("--reference-config has no effect here: it needs --layout mha2mla"), std::string::npos)
        << refused.err;
}

TEST(ConvertCli, EachQueryHeadMayHaveKeysOfItsOwn) {
    const TemporaryDirectory directory;
    const std::vector<std::string> usual = {"convert", kModel, (directory / "mla").string(), "--gqa2mha"};
    const auto with = [&](std::initializer_list<std::string> more) {
        auto arguments = usual;
        arguments.insert(arguments.end(), more);
        return run_program(arguments);
    };
    const std::string text = example("kjv-eval.txt").string();
    EXPECT_NE(with({"--calibration-text", text}).err.find("--gqa2mha has no effect here: it needs --reference-config"),
              std::string::npos);
    EXPECT_NE(with({"--reference-config", "--rope", "high"}).err.find("it needs --rope 2-norm"), std::string::npos);
    EXPECT_NE(with({"--reference-config", "--svd", "whitened", "--calibration-text", text}).err.find("only-value"),
              std::string::npos);
    const auto run = with({"--reference-config", "--calibration-text", text, "--samples", "4", "--seq-len", "64"});
    ASSERT_EQ(run.exit_code, 0) << run.err;
    const auto config = read_json(directory / "mla" / "config.json");
    EXPECT_EQ(config.at("mha2mla").at("is_gqa2mha2mla"), true);
    EXPECT_EQ(config.at("mha2mla").at("kept_pairs").at(0).size(), config.at("num_attention_heads"));
    const auto eval = run_program(
        {"eval", (directory / "mla").string(), "--text", text, "--max-windows", "2", "--context", "64", "--json"});
    EXPECT_EQ(eval.exit_code, 0) << eval.err;
}

TEST(ConvertCli, TensorsAreTheReferences) {
    const TemporaryDirectory directory;
    const fs::path out = directory.path() / "out";
    ASSERT_EQ(run_program(convert_uniform(out)).exit_code, 0);
    const Checkpoint source = Checkpoint::open(kModel);
    const Checkpoint converted = Checkpoint::open(out);
    const auto shape = [&](const char* name) {
        const TensorView* view = converted.find(std::string("model.layers.2.self_attn.") + name);
        return view == nullptr ? Shape{-1} : view->shape;
    };
    EXPECT_EQ(shape("q_proj.weight"), (Shape{192, 192}));
    EXPECT_EQ(shape("k_r_proj.weight"), (Shape{3 * 4, 192}));
    EXPECT_EQ(shape("kv_proj.down_kv.weight"), (Shape{3 * 16, 192}));
    EXPECT_EQ(shape("kv_proj.up_k.weight"), (Shape{3 * 28, 48}));
    EXPECT_EQ(shape("kv_proj.up_v.weight"), (Shape{3 * 32, 48}));
    EXPECT_EQ(shape("k_proj.weight"), Shape{-1});
    EXPECT_EQ(shape("v_proj.weight"), Shape{-1});
    for (const auto& tensor : source.files()[0].tensors()) {  // everything else is the same bytes
        if (tensor.name.find("self_attn") != std::string::npos && tensor.name.find("o_proj") == std::string::npos)
            continue;
        EXPECT_TRUE(std::ranges::equal(tensor.data, converted.find(tensor.name)->data)) << tensor.name;
    }
    EXPECT_NE(read_text(out / "README.md").find("480"), std::string::npos) << "the card says what the cache became";
    EXPECT_EQ(read_text(out / "README.source.md"), read_text(fs::path(kModel) / "README.md"));
    EXPECT_TRUE(fs::exists(out / "tokenizer.json"));
    EXPECT_TRUE(fs::exists(out / "generation_config.json"));
}

TEST(ConvertCli, SelectionsThatTheReferenceCannotRepeatComeAsARankFile) {
    const TemporaryDirectory directory;
    auto arguments = convert_uniform(directory.path() / "out");
    arguments.insert(arguments.end(), {"--rope-dim", "6"});
    ASSERT_EQ(run_program(arguments).exit_code, 0);
    const auto mla = read_json(directory.path() / "out/config.json").at("mha2mla");
    EXPECT_EQ(mla.at("partial_rope_version"), "2-norm");
    EXPECT_EQ(mla.at("rope_selection"), "uniform");
    EXPECT_TRUE(fs::exists(directory.path() / "out" / mla.at("qk_tensor_path").get<std::string>()));
}

TEST(ConvertCli, DtypeAndShardsChangeTheFilesButNotTheModel) {
    const TemporaryDirectory directory;
    const auto nll = [&](const fs::path& model) {
        const auto result = run_program({"eval", model.string(), "--text", example("kjv-eval.txt").string(),
                                         "--context", "128", "--max-windows", "4", "--json"});
        return nlohmann::json::parse(result.out).at("nll").get<double>();
    };
    std::vector<double> values;
    for (const char* dtype : {"auto", "f32", "f16"}) {
        const fs::path out = directory.path() / dtype;
        auto arguments = convert_uniform(out);
        arguments.insert(arguments.end(), {"--dtype", dtype, "--max-shard-size", "1MB"});
        ASSERT_EQ(run_program(arguments).exit_code, 0);
        EXPECT_TRUE(fs::exists(out / "model.safetensors.index.json"));
        values.push_back(nll(out));
    }
    EXPECT_EQ(read_json(directory.path() / "f16/config.json").at("torch_dtype"), "float16");
    EXPECT_NEAR(values[1], values[2], 2e-3);
    EXPECT_NEAR(values[0], values[1], 2e-2);  // BF16 rounds the factors
}

TEST(ConvertCli, F16TakesTheNormThatItCanHold) {
    const TemporaryDirectory directory;
    const auto converted = [&](const char* name, std::vector<std::string> more) {
        const fs::path out = directory.path() / name;
        std::vector<std::string> arguments = {"convert",
                                              kModel,
                                              out.string(),
                                              "--quality",
                                              "none",
                                              "--rope-dim",
                                              "16",
                                              "--kv-rank",
                                              "44",
                                              "--samples",
                                              "32",
                                              "--seq-len",
                                              "128",
                                              "--calibration-text",
                                              example("kjv-calibration.txt").string()};
        arguments.insert(arguments.end(), more.begin(), more.end());
        const auto result = run_program(arguments);
        EXPECT_EQ(result.exit_code, 0) << result.err;
        return std::pair(out, result.err);
    };
    const auto [automatic, said] = converted("automatic", {"--dtype", "f16"});
    EXPECT_NE(said.find("--latent-norm trained"), std::string::npos) << said;
    const auto [asked, silent] = converted("asked", {"--dtype", "f16", "--latent-norm", "trained"});
    EXPECT_EQ(silent.find("--latent-norm trained"), std::string::npos) << silent;
    EXPECT_EQ(read_text(automatic / "model.safetensors"), read_text(asked / "model.safetensors"));
    EXPECT_EQ(read_json(automatic / "mha2mla.json").at("method").at("latent_norm"), "trained");
    const auto [wide, nothing] = converted("wide", {"--dtype", "bf16"});
    EXPECT_EQ(read_json(wide / "mha2mla.json").at("method").at("latent_norm"), "identity");
    const auto refused =
        run_program({"convert", kModel, (directory.path() / "no").string(), "--dtype", "f16", "--latent-norm",
                     "identity", "--dry-run", "--calibration-text", example("kjv-calibration.txt").string()});
    EXPECT_NE(refused.exit_code, 0);
    EXPECT_NE(refused.err.find("F16"), std::string::npos) << refused.err;
}

TEST(ConvertCli, DryRunWritesNothing) {
    const TemporaryDirectory directory;
    const fs::path out = directory.path() / "out";
    const auto result = run_program({"convert", kModel, out.string(), "--rope", "high", "--dry-run"});
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_NE(result.out.find("-68.75%"), std::string::npos);
    EXPECT_FALSE(fs::exists(out));
}

TEST(ConvertCli, AFullDiskLeavesNothing) {
    const TemporaryDirectory directory;
    const fs::path out = directory.path() / "out";
    // A file-size limit fails a write just as a full disk does: 1000 blocks of 512 or 1024 bytes.
    const auto result = run_program(convert_uniform(out), "ulimit -f 1000;");
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_NE(result.err.find("model.safetensors"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("free some space"), std::string::npos) << result.err;
    EXPECT_FALSE(fs::exists(out));
}

}  // namespace
}  // namespace mha2mla::test
