// Configurations that are not valid JSON objects, contradictory or not supported.

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
#include "mha2mla/model.hpp"
#include "mha2mla/plan.hpp"
#include "support/expect_error.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using namespace std::string_literals;

void expect_config_text_error(ErrorCode code, std::vector<std::string_view> needles, std::string_view text,
                              int line = __builtin_LINE()) {
    const TemporaryDirectory root;
    write_text(root / "config.json", text);
    const std::string path = (root / "config.json").string();
    needles.emplace_back(path);
    expect_error(
        code, needles, [&] { (void)read_config(path); }, __FILE__, line);
}

/// A valid config.json with one key replaced; "a.b" is key b of object a.
Json config_with(const std::string& key, const Json& value) {
    Json config = tiny_config();
    const auto dot = key.find('.');
    (dot == std::string::npos ? config[key] : config[key.substr(0, dot)][key.substr(dot + 1)]) = value;
    return config;
}

void expect_config_error(ErrorCode code, const std::string& key, const Json& value,
                         const std::vector<std::string_view>& needles, int line = __builtin_LINE()) {
    SCOPED_TRACE(key + ": " + value.dump());
    expect_config_text_error(code, needles, config_with(key, value).dump(), line);
}

TEST(BadConfig, NotAJsonObject) {
    for (const std::string& text :
         {""s, "{"s, "{\"model_type\": NaN}"s, "{\"model_type\": \"\xff\"}"s, "{} {}"s, "{'model_type': 'llama'}"s}) {
        expect_config_text_error(ErrorCode::format, {"not valid JSON"}, text);
    }
    for (const char* text : {"[]", "null", "\"llama\"", "1"}) {
        expect_config_text_error(ErrorCode::format, {"JSON object"}, text);
    }
    expect_config_text_error(ErrorCode::format, {"not valid JSON"}, tiny_config().dump() + "\0junk"s);
    expect_config_text_error(ErrorCode::format, {"not valid JSON"}, config_with("rope_theta", 1).dump() + "junk");
}

TEST(BadConfig, NestedTooDeeply) {
    expect_config_text_error(ErrorCode::format, {"nested too deeply"}, std::string(1'000'000, '['));
    std::string objects = "{\"model_type\":";
    for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
    expect_config_text_error(ErrorCode::format, {"nested too deeply"}, objects);
}

TEST(BadConfig, TooLargeToBeOne) {
    expect_config_text_error(ErrorCode::format, {"not a configuration file"}, std::string(8'000'001, ' '));
}

TEST(BadConfig, NumbersOfTheWrongKind) {
    for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                            "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"}) {
        const std::string named = "'" + std::string(key) + "'";
        for (const Json& value : {Json("8"), Json(8.0), Json(8.5), Json(true), Json::array({8}), Json::object()}) {
            expect_config_error(ErrorCode::format, key, value, {named, "whole number", value.dump()});
        }
        for (const std::int64_t value : {std::int64_t{0}, std::int64_t{-1}, INT64_MIN, (std::int64_t{1} << 31) + 1}) {
            expect_config_error(ErrorCode::format, key, value, {named, "out of range", std::to_string(value)});
        }
        // A number that does not fit 63 bits must appear unchanged in the message.
        expect_config_error(ErrorCode::format, key, UINT64_MAX, {named, "18446744073709551615"});
        std::string text = config_with(key, "HUGE").dump();
        text.replace(text.find("\"HUGE\""), 6, "99999999999999999999");
        expect_config_text_error(ErrorCode::format, {named, "whole number"}, text);
    }
}

TEST(BadConfig, TheLargestNumbersDoNotOverflowAPlan) {
    Json config = tiny_config();
    config["vocab_size"] = 1 << 26;
    config["hidden_size"] = config["intermediate_size"] = 1 << 22;
    config["num_hidden_layers"] = 1 << 12;
    config["num_attention_heads"] = config["num_key_value_heads"] = 1 << 13;
    config["head_dim"] = 512;
    const TemporaryDirectory root;
    write_text(root / "config.json", config.dump());
    const ModelConfig largest = read_config(root / "config.json");
    const Plan plan = plan_conversion(largest, {64, 256, Factorization::joint, 16});  // UBSan would report an overflow
    EXPECT_GT(plan.parameters_original, plan.parameters_converted);
    EXPECT_GT(plan.parameters_converted, 0);
    config["num_attention_heads"] = 1 << 14;
    expect_config_text_error(ErrorCode::format, {"'num_attention_heads'", "out of range"}, config.dump());
}

TEST(BadConfig, RequiredNumbersAreMissing) {
    for (const char* key :
         {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}) {
        const std::string named = "'" + std::string(key) + "'";
        expect_config_error(ErrorCode::format, key, nullptr, {named, "missing"});
        Json config = tiny_config();
        config.erase(key);
        expect_config_text_error(ErrorCode::format, {named, "missing"}, config.dump());
    }
}

TEST(BadConfig, OptionalKeysMayBeMissing) {
    const TemporaryDirectory root;
    Json config = tiny_config();
    for (const char* key : {"num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta",
                            "attention_bias", "tie_word_embeddings", "bos_token_id", "hidden_act", "torch_dtype"}) {
        config.erase(key);
    }
    write_text(root / "config.json", config.dump());
    const ModelConfig read = read_config(root / "config.json");
    EXPECT_EQ(read.num_key_value_heads, 4);  // as many as query heads
    EXPECT_EQ(read.head_dim, 8);             // hidden_size / num_attention_heads
    EXPECT_FALSE(read.bos_token_id.has_value());
}

TEST(BadConfig, HeadsThatDoNotFitTogether) {
    expect_config_error(ErrorCode::format, "num_key_value_heads", 3, {"'num_key_value_heads'", "3", "4", "divide"});
    expect_config_error(ErrorCode::format, "num_key_value_heads", 8, {"'num_key_value_heads'", "8", "4", "divide"});
    for (const int head_dim : {1, 7, 514}) {
        expect_config_error(ErrorCode::format, "head_dim", head_dim, {"'head_dim'", std::to_string(head_dim), "even"});
    }
    Json config = config_with("num_attention_heads", 6);
    config.erase("head_dim");
    expect_config_text_error(ErrorCode::format, {"'num_attention_heads'", "hidden_size", "head_dim"}, config.dump());
    config = config_with("num_attention_heads", 32);  // 32 / 32 is 1, which is odd
    config.erase("head_dim");
    expect_config_text_error(ErrorCode::format, {"'head_dim'", "even"}, config.dump());
}

TEST(BadConfig, ABosTokenOutsideTheVocabularyIsNone) {
    for (const Json& value : {Json(-1), Json(64)}) {
        const TemporaryDirectory directory;
        write_text(directory / "config.json", config_with("bos_token_id", value).dump());
        EXPECT_FALSE(read_config(directory / "config.json").bos_token_id) << value;
    }
    expect_config_error(ErrorCode::format, "bos_token_id", "<s>", {"'bos_token_id'", "whole number"});
}

TEST(BadConfig, RealNumbersAndFlags) {
    for (const char* key : {"rms_norm_eps", "rope_theta", "rope_parameters.rope_theta"}) {
        const std::string_view name = std::string_view(key).substr(std::string_view(key).rfind('.') + 1);
        for (const Json& value : {Json(0), Json(-1e-5), Json("1e-5"), Json(true), Json::array()}) {
            expect_config_error(ErrorCode::format, key, value, {name, "positive number", value.dump()});
        }
    }
    expect_config_text_error(ErrorCode::format, {}, R"({"model_type":"llama","rope_theta":1e999})");
    for (const char* key : {"attention_bias", "mlp_bias", "tie_word_embeddings"}) {
        for (const Json& value : {Json("true"), Json(1), Json::array()}) {
            expect_config_error(ErrorCode::format, key, value, {key, "true or false", value.dump()});
        }
    }
}

TEST(BadConfig, FamiliesAndFeaturesAreRefusedByName) {
    for (const char* family : {"gpt2", "qwen3_next", "deepseek_v32", "Llama", "llama4"}) {
        expect_config_error(ErrorCode::unsupported, "model_type", family,
                            {"model_type", "'" + std::string(family) + "'", "supported: llama"});
    }
    expect_config_error(ErrorCode::format, "model_type", nullptr, {"'model_type'", "missing"});
    expect_config_error(ErrorCode::format, "model_type", Json::array({"llama"}), {"'model_type'", "string"});
    expect_config_error(ErrorCode::unsupported, "model_type", "a\nb", {"model_type"});
    expect_config_error(ErrorCode::unsupported, "hidden_act", "tanh", {"hidden_act", "'tanh'", "silu"});
    expect_config_error(ErrorCode::format, "hidden_act", 1, {"'hidden_act'", "string"});
    expect_config_error(ErrorCode::unsupported, "quantization_config", {{"quant_method", "gptq"}},
                        {"quantization_config", "quantised", "BF16"});
    expect_config_error(ErrorCode::unsupported, "partial_rotary_factor", 0.5, {"partial_rotary_factor"});
    expect_config_error(ErrorCode::unsupported, "rope_parameters.partial_rotary_factor", 0.5,
                        {"partial_rotary_factor"});
}

TEST(BadConfig, MultiHeadLatentAttention) {
    Json config = tiny_config();
    config.update({{"model_type", "deepseek_v3"},
                   {"num_key_value_heads", 4},
                   {"kv_lora_rank", 6},
                   {"q_lora_rank", nullptr},
                   {"qk_rope_head_dim", 4},
                   {"qk_nope_head_dim", 8},
                   {"v_head_dim", 8},
                   {"first_k_dense_replace", 2}});
    const auto expect = [&](ErrorCode code, const char* key, const Json& value,
                            const std::vector<std::string_view>& needles) {
        SCOPED_TRACE(std::string(key) + ": " + value.dump());
        Json changed = config;
        changed[key] = value;
        expect_config_text_error(code, needles, changed.dump());
    };
    for (const char* key : {"qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"}) {
        expect(ErrorCode::format, key, nullptr, {key, "missing"});
        for (const Json& value : {Json(0), Json(-8), Json(1000000), Json("8"), Json(8.5)}) {
            expect(ErrorCode::format, key, value, {key});
        }
    }
    expect(ErrorCode::format, "qk_rope_head_dim", 5, {"qk_rope_head_dim"});
    for (const char* key : {"kv_lora_rank", "q_lora_rank"}) {
        for (const Json& value : {Json(0), Json(-1), Json(1'000'000'000'000), Json("6")}) {
            expect(ErrorCode::format, key, value, {key, "whole number"});
        }
    }
    expect(ErrorCode::format, "kv_lora_rank", nullptr, {"kv_lora_rank", "missing"});
    expect(ErrorCode::format, "rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}, {"mscale_all_dim", -1}},
           {"mscale_all_dim", "positive", "-1"});
    expect(ErrorCode::format, "rope_interleave", 1, {"rope_interleave", "true or false"});
    config["model_type"] = "mha2mla_deepseek";
    const Json list = {1.0, 0.1};
    for (const Json& value : {Json(nullptr), Json(1.0), Json::array({list}), Json::array({list, list, list}),
                              Json::array({list, 1}), Json::array({list, {1.0}}), Json::array({list, {1.0, 0.0}}),
                              Json::array({list, {1.0, "x"}}), Json::array({list, {1.0, 1e30}})}) {
        expect(ErrorCode::format, "rope_frequencies", value, {"rope_frequencies", "2 positive numbers", "2 layers"});
    }
}

TEST(BadConfig, Experts) {
    const std::vector<std::pair<const char*, Json>> families = {
        {"mixtral", {{"num_local_experts", 8}, {"num_experts_per_tok", 2}}},
        {"qwen2_moe", {{"num_experts", 8}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 16}}},
        {"deepseek_v3",
         {{"n_routed_experts", 8},
          {"num_experts_per_tok", 2},
          {"moe_intermediate_size", 16},
          {"n_group", 4},
          {"topk_group", 2},
          {"kv_lora_rank", 6},
          {"qk_rope_head_dim", 4},
          {"qk_nope_head_dim", 8},
          {"v_head_dim", 8},
          {"first_k_dense_replace", 1}}},
    };
    const auto expect = [&](std::size_t family, ErrorCode code, const char* key, const Json& value,
                            const std::vector<std::string_view>& needles) {
        SCOPED_TRACE(std::string(key) + ": " + value.dump());
        Json config = tiny_config();
        config["model_type"] = families[family].first;
        config.update(families[family].second);
        config[key] = value;
        expect_config_text_error(code, needles, config.dump());
    };
    const auto refuse = [&](std::size_t family, const char* key, const Json& value) {
        const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
        expect(family, ErrorCode::unsupported, key, value, {key, text, "not supported", "supported: "});
    };
    const char* const counts[] = {"num_local_experts", "num_experts", "n_routed_experts"};
    for (std::size_t family = 0; family < families.size(); ++family) {
        for (const Json& value : {Json(-1), Json(1 << 20), Json("8"), Json(8.5)}) {
            expect(family, ErrorCode::format, counts[family], value, {counts[family]});
            expect(family, ErrorCode::format, "num_experts_per_tok", value, {"num_experts_per_tok"});
        }
        expect(family, ErrorCode::format, "num_experts_per_tok", 9, {"num_experts_per_tok", "9", counts[family], "8"});
    }
    expect(0, ErrorCode::format, "num_experts", 9, {"'num_experts'", "'num_local_experts'", "differ"});
    expect(1, ErrorCode::format, "moe_intermediate_size", 1 << 24, {"moe_intermediate_size", "out of range"});
    expect(1, ErrorCode::format, "shared_expert_intermediate_size", -1, {"shared_expert_intermediate_size"});
    expect(1, ErrorCode::format, "decoder_sparse_step", 0, {"decoder_sparse_step"});
    for (const Json& value : {Json(1), Json("1"), Json::array({"1"}), Json::array({0, 0.5})}) {
        expect(1, ErrorCode::format, "mlp_only_layers", value, {"mlp_only_layers", "numbers of layers"});
    }
    expect(2, ErrorCode::format, "n_group", 3, {"n_group", "3", "8 experts"});
    expect(2, ErrorCode::format, "n_group", 8, {"n_group", "8", "2 experts for each group"});
    expect(2, ErrorCode::format, "topk_group", 5, {"topk_group", "5", "n_group", "4"});
    expect(2, ErrorCode::format, "num_experts_per_tok", 5, {"num_experts_per_tok", "5", "4 experts", "topk_group"});
    for (const Json& value : {Json(-1), Json(1 << 22), Json("1")}) {
        expect(2, ErrorCode::format, "n_shared_experts", value, {"n_shared_experts"});
    }
    refuse(2, "scoring_func", "softmax");
    refuse(2, "topk_method", "greedy");
    refuse(2, "moe_layer_freq", 2);
}

TEST(BadConfig, RopeScaling) {
    for (const char* outer : {"rope_scaling", "rope_parameters"}) {
        for (const Json& value : {Json("linear"), Json(2), Json::array(), Json(true)}) {
            expect_config_error(ErrorCode::format, outer, value, {outer, "object"});
        }
        for (const char* type : {"ntk", "su", ""}) {
            const std::string named = "'" + std::string(type) + "'";
            for (const char* key : {"rope_type", "type"}) {
                expect_config_error(ErrorCode::unsupported, outer, {{key, type}, {"factor", 2.0}},
                                    {outer, named, "linear", "llama3"});
            }
        }
        expect_config_error(ErrorCode::format, outer, {{"rope_type", 3}}, {outer, "'rope_type'", "string"});
        for (const Json& factor : {Json(0), Json(-2.0), Json("2")}) {
            expect_config_error(ErrorCode::format, outer, {{"rope_type", "linear"}, {"factor", factor}},
                                {outer, "'factor'", "positive"});
        }
        expect_config_error(ErrorCode::format, outer, {{"rope_type", "linear"}, {"factor", 1e-308}}, {"frequencies"});
        expect_config_error(ErrorCode::format, outer, {{"factor", 2.0}}, {outer, "'rope_type'", "missing", "'factor'"});
        // Ignoring the scaling would silently give another model.
        expect_config_error(ErrorCode::format, outer, {{"rope_type", "linear"}}, {outer, "'factor'", "missing"});
    }
}

TEST(BadConfig, Llama3RopeScaling) {
    const Json valid = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
    const TemporaryDirectory root;
    write_text(root / "config.json", config_with("rope_scaling", valid).dump());
    ASSERT_LT(read_config(root / "config.json").rules.layers[0].rotary.frequencies.back(),
              rope_frequencies(10000.0, 8).back());
    for (const char* key : {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
        const std::string named = "'" + std::string(key) + "'";
        Json scaling = valid;
        scaling.erase(key);
        expect_config_error(ErrorCode::format, "rope_scaling", scaling, {"rope_scaling", named, "missing"});
        scaling[key] = 0;
        expect_config_error(ErrorCode::format, "rope_scaling", scaling, {"rope_scaling", named, "positive"});
    }
    Json scaling = valid;
    scaling["low_freq_factor"] = 4.0;
    expect_config_error(ErrorCode::format, "rope_scaling", scaling,
                        {"rope_scaling", "'high_freq_factor'", "low_freq_factor"});
}

TEST(BadConfig, ConvertedCheckpoint) {
    const Json valid = {{"rope_dim_for_mla", 4},
                        {"kv_rank", 4},
                        {"rope_selection", "high"},
                        {"svd_init_method", "joint"},
                        {"kept_pairs", {{{0, 1}, {0, 1}}, {{0, 1}, {2, 3}}}}};
    const TemporaryDirectory root;
    write_text(root / "config.json", config_with("mha2mla", valid).dump());
    ASSERT_TRUE(read_config(root / "config.json").latent.has_value());

    for (const char* family : {"llama", "mistral", "ministral", "qwen2"}) {
        Json named = config_with("mha2mla", valid);
        named["model_type"] = "mha2mla_" + std::string(family);
        write_text(root / "config.json", named.dump());
        EXPECT_TRUE(read_config(root / "config.json").latent.has_value()) << family;
        for (const char* other : {"unrelated", "kv_lora_rank"}) {  // nothing, or another layout
            named.erase("mha2mla");
            named[other] = 4;
            named["qk_rope_head_dim"] = 4;
            named["qk_nope_head_dim"] = 8;
            expect_config_text_error(ErrorCode::format, {"'mha2mla'", "missing", "mha2mla_" + std::string(family)},
                                     named.dump());
        }
    }
    for (const char* family : {"mha2mla_gpt2", "mha2mla_mha2mla_llama", "mha2mla_", "mha2mla_deepseek_v3"}) {
        Json named = config_with("mha2mla", valid);
        named["model_type"] = family;
        expect_config_text_error(ErrorCode::unsupported, {"model_type", family}, named.dump());
    }

    expect_config_error(ErrorCode::format, "mha2mla", Json::array(), {"'mha2mla'", "object"});
    const auto expect_bad = [&](const char* key, const Json& value, std::string_view needle) {
        Json latent = valid;
        latent[key] = value;
        expect_config_error(ErrorCode::format, "mha2mla", latent, {"'mha2mla." + std::string(key) + "'", needle});
    };
    for (const auto& [key, unused] : valid.items()) expect_bad(key.c_str(), nullptr, "must");
    for (const Json& value : {Json(-2), Json(10), Json(UINT64_MAX)}) expect_bad("rope_dim_for_mla", value, "range");
    expect_bad("rope_dim_for_mla", 3, "even");
    expect_bad("rope_dim_for_mla", "4", "whole number");
    for (const Json& value : {Json(0), Json(-1), Json(65)}) expect_bad("kv_rank", value, "range");
    expect_bad("kv_rank", 4.0, "whole number");
    expect_bad("svd_init_method", "fisher", "'fisher'");
    expect_bad("svd_init_method", 1, "string");
    expect_bad("rope_selection", 1, "string");
    const std::vector<const char*> bad_pairs = {
        "{}",                                 // not a list
        "[[[0,1],[0,1]]]",                    // one layer of two
        "[[[0,1]],[[0,1]]]",                  // one KV head of two
        "[[[0,1],[0]],[[0,1],[0,1]]]",        // one pair of two
        "[[[0,1],[0,1,2]],[[0,1],[0,1]]]",    // three pairs
        "[[[0,1],[1,0]],[[0,1],[0,1]]]",      // descending
        "[[[0,1],[1,1]],[[0,1],[0,1]]]",      // twice
        "[[[0,1],[0,4]],[[0,1],[0,1]]]",      // there are pairs 0 to 3
        "[[[0,1],[-1,0]],[[0,1],[0,1]]]",     // negative
        "[[[0,1],[0,1.0]],[[0,1],[0,1]]]",    // not whole
        "[[[0,1],[0,\"1\"]],[[0,1],[0,1]]]",  // not a number
        "[[[0,1],null],[[0,1],[0,1]]]",       // not a list
        "[[[0,1],[0,18446744073709551615]],[[0,1],[0,1]]]",
    };
    for (const char* pairs : bad_pairs)
        expect_bad("kept_pairs", Json::parse(pairs), "2 layers and 2 KV heads, 2 ascending");
}

}  // namespace
}  // namespace mha2mla::test
