// Checkpoint directories that are incomplete, contradictory or hold values that cannot be converted.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <future>
#include <iterator>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mha2mla/checkpoint.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/diagnosis.hpp"
#include "mha2mla/model.hpp"
#include "support/expect_error.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using namespace std::string_literals;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TinyTensor vector_of(const std::string& name) { return {name, "F32", {1}, {1.0F}}; }

/// A directory with an index file and shards, each a list of tensor names.
void write_shards(const fs::path& directory, const Json& index,
                  const std::map<std::string, std::vector<std::string>>& shards) {
    write_text(directory / "model.safetensors.index.json", index.dump());
    for (const auto& [shard, names] : shards) {
        std::vector<TinyTensor> tensors;
        for (const auto& name : names) tensors.push_back(vector_of(name));
        write_tensors(directory / shard, tensors);
    }
}

// files

TEST(BadCheckpoint, MissingDirectory) {
    const TemporaryDirectory root;
    expect_error(ErrorCode::io, {(root / "nowhere").string(), "no such directory", "config.json"},
                 [&] { (void)Checkpoint::open(root / "nowhere"); });
    // A mistyped path is the most common mistake, so reading a whole model gives the same message.
    expect_error(ErrorCode::io, {(root / "nowhere").string(), "no such directory"},
                 [&] { (void)Model::open(root / "nowhere"); });
}

TEST(BadCheckpoint, FileInsteadOfDirectory) {
    const TemporaryDirectory root;
    write_text(root / "model.safetensors", "");
    expect_error(ErrorCode::io, {"model.safetensors", "directory"},
                 [&] { (void)Checkpoint::open(root / "model.safetensors"); });
}

TEST(BadCheckpoint, NoWeights) {
    const TemporaryDirectory root;
    expect_error(ErrorCode::io, {root.path().string(), "model.safetensors", "model.safetensors.index.json"},
                 [&] { (void)Checkpoint::open(root.path()); });
}

TEST(BadCheckpoint, PickledWeightsNameTheRemedy) {
    for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
        const TemporaryDirectory root;
        write_text(root / name, "pickled");
        expect_error(ErrorCode::io, {"pytorch_model.bin", "safe_serialization"},
                     [&] { (void)Checkpoint::open(root.path()); });
    }
}

TEST(BadCheckpoint, NoConfig) {
    const TemporaryDirectory root;
    write_tensors(root / "model.safetensors", tiny_tensors());
    expect_error(ErrorCode::io, {(root / "config.json").string()}, [&] { (void)Model::open(root.path()); });
}

TEST(BadCheckpoint, WeightsAreADirectory) {
    const TemporaryDirectory root;
    fs::create_directory(root / "model.safetensors");
    expect_error(ErrorCode::io, {"model.safetensors", "not a regular file"},
                 [&] { (void)Checkpoint::open(root.path()); });
}

TEST(BadCheckpoint, PipeInsteadOfWeightsIsRefusedAtOnce) {
    const TemporaryDirectory root;
    const fs::path pipe = root / "model.safetensors";
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    auto opening = std::async(std::launch::async, [&] {
        expect_error(ErrorCode::io, {"model.safetensors", "not a regular file"},
                     [&] { (void)Checkpoint::open(root.path()); });
    });
    if (opening.wait_for(std::chrono::milliseconds(500)) != std::future_status::ready) {
        ADD_FAILURE() << "opening waits for somebody to write into the pipe";
        const int writer = ::open(pipe.c_str(), O_WRONLY | O_NONBLOCK);  // unblocks the reader
        opening.wait();
        ::close(writer);
    }
}

TEST(BadCheckpoint, BrokenShardNamesTheFile) {
    const TemporaryDirectory root;
    write_text(root / "model.safetensors", "short");
    expect_error(ErrorCode::format, {(root / "model.safetensors").string(), "5 bytes"},
                 [&] { (void)Checkpoint::open(root.path()); });
}

// index

TEST(BadIndex, ValidOneOpens) {
    const TemporaryDirectory root;
    write_shards(root.path(), {{"weight_map", {{"a", "1.safetensors"}, {"b", "2.safetensors"}}}},
                 {{"1.safetensors", {"a"}}, {"2.safetensors", {"b"}}});
    const auto checkpoint = Checkpoint::open(root.path());
    ASSERT_NE(checkpoint.find("b"), nullptr);
    EXPECT_EQ(checkpoint.find("b")->file, "2.safetensors");
    EXPECT_EQ(checkpoint.file_of(*checkpoint.find("b")).path(), root / "2.safetensors");
}

TEST(BadIndex, NotTheExpectedObject) {
    for (const char* text : {"[]", "3", "null", "{}", R"({"weight_map":null})", R"({"weight_map":[]})",
                             R"({"weight_map":{}})", R"({"weight_map":"model.safetensors"})"}) {
        SCOPED_TRACE(text);
        const TemporaryDirectory root;
        write_text(root / "model.safetensors.index.json", text);
        expect_error(ErrorCode::format, {(root / "model.safetensors.index.json").string(), "'weight_map'"},
                     [&] { (void)Checkpoint::open(root.path()); });
    }
}

TEST(BadIndex, NotJson) {
    for (const std::string& text : {""s, "{"s, "{\"weight_map\":{\"a\":\"\xff\"}}"s, "{}\0junk"s}) {
        const TemporaryDirectory root;
        write_text(root / "model.safetensors.index.json", text);
        expect_error(ErrorCode::format, {"model.safetensors.index.json", "JSON"},
                     [&] { (void)Checkpoint::open(root.path()); });
    }
}

TEST(BadIndex, ShardOutsideTheDirectory) {
    // A downloaded index must not make the program read files elsewhere, not even existing and valid ones.
    const TemporaryDirectory root;
    const fs::path directory = root / "model";
    fs::create_directories(directory / "sub");
    write_tensors(root / "x.safetensors", {vector_of("a")});
    write_tensors(directory / "sub" / "x.safetensors", {vector_of("a")});
    for (const std::string& shard : {"../x.safetensors"s, (root / "x.safetensors").string(), "sub/x.safetensors"s,
                                     "./x.safetensors"s, ".."s, "."s, ""s, "..\\x.safetensors"s, "x.safetensors\0"s}) {
        SCOPED_TRACE(shard);
        write_shards(directory, {{"weight_map", {{"a", shard}}}}, {});
        expect_error(ErrorCode::format, {"model.safetensors.index.json", "'a'", "plain file name"},
                     [&] { (void)Checkpoint::open(directory); });
    }
}

TEST(BadIndex, ShardNameIsNotAString) {
    for (const Json& shard : {Json(1), Json(nullptr), Json::array({"1.safetensors"}), Json::object()}) {
        const TemporaryDirectory root;
        write_shards(root.path(), {{"weight_map", {{"a", shard}}}}, {});
        expect_error(ErrorCode::format, {"model.safetensors.index.json", "'a'"},
                     [&] { (void)Checkpoint::open(root.path()); });
    }
}

TEST(BadIndex, LineBreaksInNamesStayOutOfMessages) {
    const TemporaryDirectory root;
    write_shards(root.path(), {{"weight_map", {{"a\nb", "../\n"}}}}, {});
    expect_error(ErrorCode::format, {"plain file name"}, [&] { (void)Checkpoint::open(root.path()); });
}

TEST(BadIndex, MissingShard) {
    const TemporaryDirectory root;
    write_shards(root.path(), {{"weight_map", {{"a", "1.safetensors"}, {"b", "2.safetensors"}}}},
                 {{"1.safetensors", {"a"}}});
    expect_error(ErrorCode::io, {(root / "2.safetensors").string(), "missing", "model.safetensors.index.json"},
                 [&] { (void)Checkpoint::open(root.path()); });
}

/// Left over, such as the head of tied embeddings; a model that needs it says that it is missing.
TEST(BadIndex, ATensorThatNoShardHoldsIsNotThere) {
    const TemporaryDirectory root;
    write_shards(root.path(), {{"weight_map", {{"a", "1.safetensors"}, {"b", "1.safetensors"}}}},
                 {{"1.safetensors", {"a"}}});
    const Checkpoint checkpoint = Checkpoint::open(root.path());
    EXPECT_NE(checkpoint.find("a"), nullptr);
    EXPECT_EQ(checkpoint.find("b"), nullptr);
}

/// What people have instead of a checkpoint, and a word of the next step.
TEST(BadDirectory, OtherFormsOfWeightsAreNamed) {
    const std::vector<std::pair<std::string, std::string>> forms = {
        {"adapter_model.safetensors", "merge"},
        {"consolidated.00.pth", "convert_llama_weights_to_hf"},
        {"model-00001-of-00003.safetensors", "index"},
        {"weights.safetensors", "rename"},
        {"model.gguf", "import"},
        {"pytorch_model.bin", "safe_serialization"}};
    for (const auto& [file, next_step] : forms) {
        const TemporaryDirectory root;
        write_text(root / file, "x");
        expect_error(ErrorCode::io, {file, next_step}, [&] { (void)Checkpoint::open(root.path()); });
    }
    for (const auto& [start, word] : {std::pair("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
                                      std::pair("<!DOCTYPE html><html>", "web page")}) {
        const TemporaryDirectory root;
        write_text(root / "model.safetensors", start);
        expect_error(ErrorCode::format, {"model.safetensors", word}, [&] { (void)Checkpoint::open(root.path()); });
    }
}

TEST(BadIndex, TensorIsInAnotherShard) {
    const TemporaryDirectory root;
    write_shards(root.path(), {{"weight_map", {{"a", "2.safetensors"}, {"b", "1.safetensors"}}}},
                 {{"1.safetensors", {"a"}}, {"2.safetensors", {"b"}}});
    expect_error(ErrorCode::format, {"model.safetensors.index.json", "'a'", "2.safetensors"},
                 [&] { (void)Checkpoint::open(root.path()); });
}

TEST(BadIndex, TensorIsInTwoShards) {
    const TemporaryDirectory root;
    write_shards(root.path(), {{"weight_map", {{"a", "1.safetensors"}, {"b", "2.safetensors"}}}},
                 {{"1.safetensors", {"a"}}, {"2.safetensors", {"b", "a"}}});
    expect_error(ErrorCode::format, {"'a'", "1.safetensors", "2.safetensors"},
                 [&] { (void)Checkpoint::open(root.path()); });
}

// tensors against config.json

void expect_model_error(ErrorCode code, const std::vector<std::string_view>& needles, const Json& config,
                        const std::vector<TinyTensor>& tensors, int line = __builtin_LINE()) {
    const TemporaryDirectory root;
    write_model(root.path(), config, tensors);
    expect_error(
        code, needles, [&] { (void)Model::open(root.path()); }, __FILE__, line);
}

TEST(TinyModelItself, OpensInEveryVariant) {
    for (const char* dtype : {"F32", "BF16", "F16"}) {
        for (const bool attention_bias : {false, true}) {
            for (const bool tied : {false, true}) {
                const TemporaryDirectory root;
                TinyModel tiny;
                tiny.dtype = dtype;
                tiny.attention_bias = attention_bias;
                tiny.tied = tied;
                write_tiny_model(root / "m", tiny);
                const Model model = Model::open(root / "m");
                const LinearView& q = model.layers.at(1).original_attention().q;
                EXPECT_EQ(dtype_name(q.weight->dtype), dtype);
                EXPECT_EQ(q.bias != nullptr, attention_bias);
                EXPECT_EQ(model.lm_head == model.embed_tokens, tied);
                const auto values = to_finite_floats(*q.weight);
                const auto written = tiny_tensors(tiny);
                const auto expected = std::find_if(written.begin(), written.end(),
                                                   [&](const auto& t) { return t.name == q.weight->name; });
                for (std::size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(values[i], expected->values[i], 2e-3);
            }
        }
    }
}

TEST(BadModel, EveryTensorOfAnotherShapeIsNamedWithBothShapes) {
    for (const auto& original : tiny_tensors()) {
        SCOPED_TRACE(original.name);
        auto tensors = tiny_tensors();
        TinyTensor& changed = find_tensor(tensors, original.name);
        changed.shape[0] += 1;
        changed.values.resize(changed.values.size() + (changed.shape.size() == 2
                                                           ? static_cast<std::size_t>(changed.shape[1])
                                                           : std::size_t{1}));
        expect_model_error(ErrorCode::format,
                           {"model.safetensors", "'" + original.name + "'", to_string(original.shape),
                            to_string(changed.shape), "config.json"},
                           tiny_config(), tensors);
    }
}

TEST(BadModel, EveryTensorOfAnotherRankIsRefused) {
    for (const auto& original : tiny_tensors()) {
        SCOPED_TRACE(original.name);
        auto tensors = tiny_tensors();
        TinyTensor& changed = find_tensor(tensors, original.name);
        changed.shape = {static_cast<std::int64_t>(changed.values.size()), 1, 1};
        expect_model_error(ErrorCode::format, {"'" + original.name + "'", to_string(changed.shape)}, tiny_config(),
                           tensors);
    }
}

TEST(BadModel, EveryMissingTensorIsNamed) {
    const auto all = tiny_tensors();
    for (std::size_t i = 0; i < all.size(); ++i) {
        auto tensors = all;
        tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(i));
        expect_model_error(ErrorCode::format, {"'" + all[i].name + "'", "missing"}, tiny_config(), tensors);
    }
}

TEST(BadModel, EveryMissingTensorOfExpertsIsNamed) {
    const TinyModel mixtral{.experts = 3};
    const auto all = tiny_tensors(mixtral);
    for (std::size_t i = 0; i < all.size(); ++i) {
        auto tensors = all;
        tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(i));
        expect_model_error(ErrorCode::format, {"'" + all[i].name + "'", "missing"}, tiny_config(mixtral), tensors);
    }
    auto config = tiny_config(mixtral);
    config["num_local_experts"] = 2;
    expect_model_error(ErrorCode::format, {"block_sparse_moe.gate.weight", "[3, 32]", "2 experts", "[2, 32]"}, config,
                       all);
    config["num_local_experts"] = 3;
    config["intermediate_size"] = 40;
    expect_model_error(ErrorCode::format, {"experts.0.w1.weight", "[48, 32]", "3 experts of 40", "[40, 32]"}, config,
                       all);
}

TEST(BadModel, ShapeMessagesSayWhichKeysTheyComeFrom) {
    const std::vector<std::pair<std::string, std::vector<std::string_view>>> words = {
        {"model.embed_tokens.weight", {"vocab_size 64", "hidden_size 32"}},
        {"model.layers.1.self_attn.q_proj.weight", {"4 heads of 8", "hidden_size 32"}},
        {"model.layers.1.self_attn.k_proj.weight", {"2 KV heads of 8", "hidden_size 32"}},
        {"model.layers.1.self_attn.v_proj.weight", {"2 KV heads of 8", "hidden_size 32"}},
        {"model.layers.0.mlp.down_proj.weight", {"intermediate_size 48", "hidden_size 32"}},
        {"model.layers.0.input_layernorm.weight", {"hidden_size 32"}},
        {"model.norm.weight", {"hidden_size 32"}},
    };
    for (const auto& [name, needles] : words) {
        auto tensors = tiny_tensors();
        TinyTensor& changed = find_tensor(tensors, name);
        changed.shape.push_back(1);
        for (const auto needle : needles) expect_model_error(ErrorCode::format, {name, needle}, tiny_config(), tensors);
    }
}

TEST(BadModel, ConfigOfAModelWithOtherHeads) {
    Json config = tiny_config();
    config["num_key_value_heads"] = 4;
    expect_model_error(ErrorCode::format, {"k_proj.weight", "[16, 32]", "4 KV heads of 8", "[32, 32]"}, config,
                       tiny_tensors());
}

TEST(BadModel, MoreLayersAnnouncedThanStored) {
    Json config = tiny_config();
    config["num_hidden_layers"] = 3;
    expect_model_error(ErrorCode::format, {"model.layers.2."}, config, tiny_tensors());
    config["num_hidden_layers"] = std::int64_t{1} << 12;
    expect_model_error(ErrorCode::format, {"model.layers.2."}, config, tiny_tensors());
}

TEST(BadModel, MissingHeadSaysThatItIsNotTied) {
    Json config = tiny_config();
    expect_model_error(ErrorCode::format, {"'lm_head.weight'", "tie_word_embeddings false"}, config,
                       tiny_tensors({.tied = true}));
    config.erase("tie_word_embeddings");  // false if absent
    expect_model_error(ErrorCode::format, {"'lm_head.weight'", "tie_word_embeddings"}, config,
                       tiny_tensors({.tied = true}));
}

TEST(BadModel, MissingTiedEmbeddingHasItsUsualName) {
    auto tensors = tiny_tensors({.tied = true});
    tensors.erase(tensors.begin());
    expect_model_error(ErrorCode::format, {"model.embed_tokens.weight", "missing"}, tiny_config({.tied = true}),
                       tensors);
}

TEST(BadModel, AnnouncedBiasIsMissing) {
    Json config = tiny_config();
    config["attention_bias"] = true;
    expect_model_error(ErrorCode::format, {"q_proj.bias'", "missing", "attention_bias"}, config, tiny_tensors());
    config = tiny_config();
    config["mlp_bias"] = true;
    expect_model_error(ErrorCode::format, {"gate_proj.bias'", "missing", "mlp_bias"}, config, tiny_tensors());
}

TEST(BadModel, BiasOfAnotherShape) {
    auto tensors = tiny_tensors();
    tensors.push_back({"model.layers.0.self_attn.k_proj.bias", "F32", {32}, std::vector<float>(32)});
    expect_model_error(ErrorCode::format, {"k_proj.bias'", "[32]", "[16]"}, tiny_config(), tensors);
}

TEST(BadModel, WeightsThatAreNotFloatingPoint) {
    for (const char* dtype : {"I32", "I8", "U8", "BOOL", "I64", "F8_E4M3", "F8_E5M2"}) {
        for (const char* name : {"model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight",
                                 "model.layers.1.mlp.gate_proj.weight", "lm_head.weight"}) {
            auto tensors = tiny_tensors();
            find_tensor(tensors, name).dtype = dtype;
            expect_model_error(ErrorCode::unsupported, {"model.safetensors", name, dtype, "dequantise"}, tiny_config(),
                               tensors);
        }
    }
}

// convert

ConversionPlan small_plan(std::optional<Dtype> dtype = {}) {
    StagedPlan stages;
    stages.rope = {"high", 2, 0};
    stages.kv_rank = 4;
    return {stages, dtype};
}

/// Converts a tiny model with one element changed, and expects an error that leaves no trace.
void expect_convert_error(const std::string& tensor, float value, const ConversionPlan& plan,
                          const std::vector<std::string_view>& needles, int line = __builtin_LINE()) {
    const TemporaryDirectory root;
    auto tensors = tiny_tensors({.attention_bias = true});
    find_tensor(tensors, tensor).values.at(5) = value;
    write_model(root / "source", tiny_config({.attention_bias = true}), tensors);
    const Model source = Model::open(root / "source");
    Observer observer;
    const auto run = [&](const char* destination, const RunLimits& limits) {
        expect_error(
            ErrorCode::numeric, needles, [&] { (void)convert(source, root / destination, plan, {}, observer, limits); },
            __FILE__, line);
    };
    run("new", {});
    EXPECT_FALSE(fs::exists(root / "new"));

    fs::create_directory(root / "empty");
    run("empty", {});
    EXPECT_TRUE(fs::is_empty(root / "empty"));

    // The checkpoint that --overwrite would have replaced is still complete.
    write_tiny_model(root / "old");
    const std::string config = read_text(root / "old" / "config.json");
    const std::string weights = read_text(root / "old" / "model.safetensors");
    run("old", {.overwrite = true});
    EXPECT_EQ(read_text(root / "old" / "config.json"), config);
    EXPECT_TRUE(read_text(root / "old" / "model.safetensors") == weights);  // too long to print
    EXPECT_EQ(std::distance(fs::directory_iterator(root / "old"), {}), 2);
}

TEST(BadWeights, NaNInAttentionIsNamed) {
    // In the last layer, after most of the output was written.
    for (const char* projection : {"q_proj", "k_proj", "v_proj"}) {
        for (const char* part : {".weight", ".bias"}) {
            const std::string name = "model.layers.1.self_attn." + std::string(projection) + part;
            SCOPED_TRACE(name);
            expect_convert_error(name, kNaN, small_plan(), {"model.safetensors", "'" + name + "'", "NaN"});
        }
    }
}

TEST(BadWeights, InfinityInAttentionIsNamed) {
    const std::string name = "model.layers.1.self_attn.v_proj.weight";
    expect_convert_error(name, kInfinity, small_plan(), {"'" + name + "'", "infinity", "element 5"});
    expect_convert_error(name, -kInfinity, small_plan(), {"'" + name + "'", "infinity", "element 5"});
}

TEST(BadWeights, NaNElsewhereIsNamedWhereTheDtypeChanges) {
    const ConversionPlan plan = small_plan(Dtype::bf16);
    const std::string name = "model.layers.1.mlp.up_proj.weight";
    expect_convert_error(name, kNaN, plan, {"'" + name + "'", "NaN", "element 5"});
}

TEST(BadWeights, ValuesThatDoNotFitHalfPrecision) {
    const ConversionPlan plan = small_plan(Dtype::f16);
    for (const char* name : {"model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight",
                             "model.layers.1.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.bias"}) {
        expect_convert_error(name, 70000.0F, plan, {name, "70000", "F16", "bf16"});
        expect_convert_error(name, -70000.0F, plan, {name, "-70000", "F16", "bf16"});
    }
}

TEST(BadWeights, LargestHalfPrecisionValueFits) {
    const TemporaryDirectory root;
    auto tensors = tiny_tensors();
    find_tensor(tensors, "model.norm.weight").values.at(5) = 65504.0F;
    write_model(root / "source", tiny_config(), tensors);
    const ConversionPlan plan = small_plan(Dtype::f16);
    Observer observer;
    (void)convert(Model::open(root / "source"), root / "out", plan, {}, observer);
    EXPECT_EQ(to_finite_floats(*Model::open(root / "out").norm.weight).at(5), 65504.0F);
}

TEST(BadDestination, IsNotTouched) {
    const TemporaryDirectory root;
    write_tiny_model(root / "source");
    fs::create_directory(root / "full");
    write_text(root / "full" / "thesis.tex", "irreplaceable");
    write_text(root / "file", "content");
    fs::create_directory_symlink(root / "source", root / "link");
    const Model source = Model::open(root / "source");
    const std::string weights = read_text(root / "source" / "model.safetensors");
    Observer observer;
    RunLimits limits;
    const auto run = [&](const char* name) { (void)convert(source, root / name, small_plan(), {}, observer, limits); };
    expect_error(ErrorCode::io, {(root / "full").string(), "overwriting"}, [&] { run("full"); });
    limits.overwrite = true;
    expect_error(ErrorCode::io, {(root / "file").string(), "not a directory"}, [&] { run("file"); });
    for (const char* name : {"source", "full/../source", "link"}) {
        expect_error(ErrorCode::usage, {"same directory"}, [&] { run(name); });
    }
    EXPECT_EQ(read_text(root / "full" / "thesis.tex"), "irreplaceable");
    EXPECT_EQ(read_text(root / "file"), "content");
    EXPECT_TRUE(read_text(root / "source" / "model.safetensors") == weights);
}

/// As long as it lives, permissions count also if the tests are run by root.
class WithoutPrivileges {
public:
    WithoutPrivileges() { change(::geteuid() == 0 ? kNobody : ::geteuid()); }
    ~WithoutPrivileges() { change(::getuid()); }
    WithoutPrivileges(const WithoutPrivileges&) = delete;
    WithoutPrivileges& operator=(const WithoutPrivileges&) = delete;

private:
    static constexpr ::uid_t kNobody = 65534;
    static void change(::uid_t user) { EXPECT_EQ(::seteuid(user), 0); }
};

TEST(BadCheckpoint, DirectoriesThatMayNotBeEnteredOrListedAreNamed) {
    const TemporaryDirectory root;
    fs::permissions(root.path(), fs::perms::all);
    write_tiny_model(root / "model");
    Observer observer;
    const auto found = [&](const std::string& topic) {
        for (const Finding& finding : diagnose(root / "model", {}, observer)) {
            if (finding.topic == topic && finding.verdict == Verdict::problem) return finding.text;
        }
        return std::string();
    };
    fs::permissions(root / "model", fs::perms::none);
    {
        const WithoutPrivileges now;
        expect_error(ErrorCode::io, {(root / "model").string(), "cannot look into it", "Permission denied"},
                     [&] { (void)Checkpoint::open(root / "model"); });
        EXPECT_NE(found("weights").find("Permission denied"), std::string::npos);
    }
    fs::permissions(root / "model", fs::perms::owner_exec | fs::perms::group_exec | fs::perms::others_exec);
    {
        const WithoutPrivileges now;
        const Model model = Model::open(root / "model");  // which may be evaluated
        expect_error(ErrorCode::io, {(root / "model").string(), "cannot list", "Permission denied"},
                     [&] { (void)convert(model, root / "out", small_plan(), {}, observer); });
        EXPECT_NE(found("files").find("Permission denied"), std::string::npos);
        EXPECT_FALSE(fs::exists(root / "out"));
    }
    fs::permissions(root / "model", fs::perms::owner_all);
}

}  // namespace
}  // namespace mha2mla::test
