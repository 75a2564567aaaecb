// transformers loads layout mha2mla by the code in the output, never without it, and computes what this library
// computes. Both layouts can be trained there.
#include <iterator>
#include <sstream>

#include "engine.hpp"
#include "mha2mla/model.hpp"
#include "mha2mla/runtime.hpp"
#include "support/program.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

constexpr std::int64_t kRows = 2, kLength = 24;
constexpr TokenId kIds = 64;  // every checkpoint here has so many

std::vector<TokenId> pseudo_text(std::int64_t tokens) {
    std::vector<TokenId> ids;
    for (std::int64_t i = 0; i < tokens; ++i) ids.push_back(static_cast<TokenId>((i * i * 7 + 3 * i) % kIds));
    return ids;
}

void write_tokens(const std::filesystem::path& file, std::int64_t tokens) {
    std::string bytes;
    for (const TokenId id : pseudo_text(tokens)) bytes += {static_cast<char>(id), '\0'};
    write_text(file, bytes);
}

void convert_by_program(const std::filesystem::path& source, const std::filesystem::path& out,
                        const std::vector<std::string>& options) {
    std::vector<std::string> arguments = {"convert", source, out};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const ProgramResult result = run_program(arguments);
    if (result.exit_code != 0) throw std::runtime_error(result.err);
}

nlohmann::json rows_of(const std::vector<TokenId>& ids) {
    nlohmann::json rows;
    for (std::int64_t row = 0; row < kRows; ++row) {
        rows.push_back(std::vector<TokenId>(ids.begin() + row * kLength, ids.begin() + (row + 1) * kLength));
    }
    return rows;
}

/// With the logits that transformers wrote beside each.
void expect_logits(const std::vector<std::filesystem::path>& checkpoints, const std::vector<TokenId>& ids) {
    Observer observer;
    for (const auto& checkpoint : checkpoints) {
        SCOPED_TRACE(checkpoint.filename());
        const Model model = Model::open(checkpoint);
        const Matrix expected = logits(model, prefill(model, ids, kLength, observer));
        const auto theirs = read_floats(SafetensorsFile(checkpoint / "logits.safetensors"), "logits");
        ASSERT_EQ(theirs.size(), static_cast<std::size_t>(expected.size()));
        const Eigen::Map<const Matrix> other(theirs.data(), expected.rows(), expected.cols());
        const float largest = expected.cwiseAbs().maxCoeff(), difference = (other - expected).cwiseAbs().maxCoeff();
        EXPECT_LT(difference, 1e-4F * largest);
    }
}

/// Loads each in transformers, see trust_remote_code.py, and compares logits.
void compare(const std::vector<std::filesystem::path>& checkpoints, const TemporaryDirectory& directory) {
    const std::vector<TokenId> ids = pseudo_text(kRows * kLength);
    write_text(directory / "ids.json", rows_of(ids).dump());
    std::vector<std::string> arguments = {directory / "ids.json"};
    arguments.insert(arguments.end(), checkpoints.begin(), checkpoints.end());
    run_script("trust_remote_code.py", arguments);
    expect_logits(checkpoints, ids);
}

TEST(Transformers, ExpertsAndLatentAttentionComputeTheSame) {
    MHA2MLA_NEEDS_ENGINES();
    const TemporaryDirectory directory;
    const std::vector<TokenId> ids = pseudo_text(kRows * kLength);
    write_text(directory / "ids.json", rows_of(ids).dump());
    run_script("experts.py", {directory / "ids.json", directory / "models"});
    std::vector<std::filesystem::path> checkpoints;
    for (const auto& entry : std::filesystem::directory_iterator(directory / "models")) {
        checkpoints.push_back(entry.path());
    }
    EXPECT_GE(checkpoints.size(), 10U);
    expect_logits(checkpoints, ids);
}

TEST(Transformers, FamiliesComputeTheSame) {
    struct Form {
        const char* checkpoint;
        const char* options;
        bool text = false;  // whether they need one
    };
    constexpr Form kForms[] = {
        {"families/llama-gqa-untied-bf16", "--layout mha2mla --quality fast", true},
        {"families/llama-gqa-untied-bf16", "--rope uniform --rope-dim 0"},
        {"families/llama-mha-tied-f16", "--rope 2-norm --svd whitened", true},
        {"families/llama-mqa-bias-f32", "--rope high --svd split"},
        {"families/llama-linear-rope", "--rope attention --svd weighted", true},
        {"families/llama3-rope-scaling", "--rope low --svd key"},
        {"families5/llama-linear-mqa", "--rope uniform --svd value"},
        {"families5/llama-headdim", "--rope 2-norm --svd joint --svd-method fast", true},
        {"families5/llama-bias-llama3", "--layout mha2mla --quality none", true},
        {"families5/llama-bias-llama3", "--rope uniform --svd none"},
        {"families/mistral", "--rope uniform --svd split"},
        {"families/qwen2", "--rope 2-norm --svd joint", true},
        {"families5/qwen2", "--layout mha2mla --quality none", true},
    };
    MHA2MLA_NEEDS_ENGINES();
    for (const Form& form : kForms) MHA2MLA_NEEDS_SHARED(std::string("golden/") + form.checkpoint);
    const TemporaryDirectory directory;
    write_tokens(directory / "text.u16", 2000);
    std::vector<std::filesystem::path> converted;
    for (const Form& form : kForms) {
        std::istringstream words(form.options);
        std::vector<std::string> options = {std::istream_iterator<std::string>(words), {}};
        options.insert(options.end(), {"--dtype", "f32"});
        if (form.text) {
            options.insert(options.end(),
                           {"--calibration-tokens", directory / "text.u16", "--samples", "16", "--seq-len", "40"});
        }
        converted.push_back(directory / std::to_string(converted.size()));
        convert_by_program(shared(std::string("golden/") + form.checkpoint), converted.back(), options);
    }
    compare(converted, directory);
}

/// From a tiny Mixtral: other names, and a shared expert that is a copy of the first one.
void become_qwen2_moe(const TinyModel& tiny, nlohmann::ordered_json& config, std::vector<TinyTensor>& tensors) {
    config["num_experts"] = tiny.experts;
    config.erase("num_local_experts");
    config["moe_intermediate_size"] = config["shared_expert_intermediate_size"] = tiny.intermediate;
    config["qkv_bias"] = false;
    const std::pair<std::string, std::string> names[] = {
        {"block_sparse_moe", "mlp"}, {".w1.", ".gate_proj."}, {".w2.", ".down_proj."}, {".w3.", ".up_proj."}};
    std::vector<TinyTensor> shared;
    for (TinyTensor& tensor : tensors) {
        for (const auto& [from, to] : names) {
            const std::size_t place = tensor.name.find(from);
            if (place != std::string::npos) tensor.name.replace(place, from.size(), to);
        }
        TinyTensor copy = tensor;
        if (const std::size_t place = copy.name.find("experts.0."); place != std::string::npos) {
            copy.name.replace(place, 10, "shared_expert.");
            shared.push_back(copy);
        }
        if (const std::size_t place = copy.name.find("mlp.gate."); place != std::string::npos) {
            copy.name.replace(place, 9, "mlp.shared_expert_gate.");
            copy.shape[0] = 1;
            copy.values.resize(static_cast<std::size_t>(tiny.hidden));
            shared.push_back(copy);
        }
    }
    tensors.insert(tensors.end(), shared.begin(), shared.end());
}

TEST(Transformers, FamiliesWithClassesLoad) {
    MHA2MLA_NEEDS_ENGINES();
    const TemporaryDirectory directory;
    std::vector<std::filesystem::path> converted;
    for (const std::string name : {"llama", "mistral", "ministral", "qwen2", "mixtral", "qwen2_moe"}) {
        TinyModel tiny;
        tiny.tied = converted.size() % 2 == 0;
        if (name == "mixtral" || name == "qwen2_moe") tiny.experts = 3;
        auto config = tiny_config(tiny);
        auto tensors = tiny_tensors(tiny);
        config["model_type"] = name;
        if (name == "qwen2_moe") become_qwen2_moe(tiny, config, tensors);
        if (name == "qwen2") {  // has biases without any key that says so
            tiny.attention_bias = true;
            tensors = tiny_tensors(tiny);
            std::erase_if(tensors, [](const TinyTensor& tensor) { return tensor.name.ends_with("o_proj.bias"); });
        }
        write_model(directory / name, config, tensors);
        converted.push_back(directory / (name + "-mla"));
        convert_by_program(directory / name, converted.back(), {"--rope", "uniform"});
        EXPECT_EQ(read_json(converted.back() / "config.json").at("model_type"), "mha2mla_" + name);
    }
    compare(converted, directory);
}

TEST(Transformers, RefusesFrequenciesThatItDoesNotKnow) {
    MHA2MLA_NEEDS_ENGINES();
    const TemporaryDirectory directory;
    write_tiny_model(directory / "tiny");
    write_tokens(directory / "text.u16", 1000);
    convert_by_program(directory / "tiny", directory / "free",
                       {"--layout", "deepseek", "--rope-frequencies", "free", "--calibration-tokens",
                        directory / "text.u16", "--quality", "none", "--seq-len", "40"});
    EXPECT_EQ(read_json(directory / "free" / "config.json").at("model_type"), "mha2mla_deepseek");
    run_script("refused.py", {directory / "free"});
}

TEST(Transformers, TrainsBothLayouts) {
    MHA2MLA_NEEDS_ENGINES();
    const TemporaryDirectory directory;
    std::vector<std::string> converted;
    const std::vector<std::vector<std::string>> kinds = {{"--layout", "mha2mla"},
                                                         {"--layout", "deepseek"},
                                                         {"--layout", "deepseek", "--latent-norm", "constant"},
                                                         {"--layout", "deepseek", "--latent-norm", "trained"}};
    for (auto options : kinds) {
        converted.push_back(directory / std::to_string(converted.size()));
        options.insert(options.end(), {"--calibration-text", example("kjv-calibration.txt"), "--quality", "none",
                                       "--samples", "16", "--seq-len", "128"});
        convert_by_program(example("kjv-1.8M"), converted.back(), options);
    }
    converted.insert(converted.begin(), example("kjv-eval.txt"));
    run_script("train.py", converted);
}

/// NLL of the example's evaluation text by the program.
double score(const std::filesystem::path& checkpoint) {
    const ProgramResult result = run_program(
        {"eval", checkpoint, "--text", example("kjv-eval.txt"), "--context", "128", "--max-windows", "16", "--json"});
    if (result.exit_code != 0) throw std::runtime_error(result.err);
    return nlohmann::json::parse(result.out).at("nll").get<double>();
}

TEST(Transformers, TheExampleOfTrainingLowersTheNll) {
    MHA2MLA_NEEDS_ENGINES();
    const TemporaryDirectory directory;
    const std::string text = example("kjv-calibration.txt"), model = example("kjv-1.8M");
    convert_by_program(model, directory / "mla",
                       {"--calibration-text", text, "--quality", "none", "--samples", "16", "--seq-len", "128"});
    const std::vector<std::string> steps = {"--text",        text, "--steps",   "12", "--batch",         "8",
                                            "--micro-batch", "4",  "--seq-len", "96", "--learning-rate", "5e-4"};
    const double before = score(directory / "mla");
    for (const std::vector<std::string>& kind : {std::vector<std::string>{"--teacher", model}, {"--attention-only"}}) {
        std::vector<std::string> arguments = {directory / "mla", "--out", directory / kind.front().substr(2)};
        arguments.insert(arguments.end(), kind.begin(), kind.end());
        arguments.insert(arguments.end(), steps.begin(), steps.end());
        run_script("../../examples/distill_transformers.py", arguments);
        EXPECT_LT(score(arguments[2]), before - 0.02);
    }
}

}  // namespace
}  // namespace mha2mla::test
