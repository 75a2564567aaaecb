#include <map>
#include <memory>

#include "commands.hpp"
#include "mha2mla/printable.hpp"
#include "options.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

constexpr std::size_t kLongestName = 200;

struct InspectFlags {
    std::filesystem::path model;
    bool json = false;
};

struct Totals {
    std::int64_t tensors = 0;
    std::uint64_t elements = 0, bytes = 0;
};

std::string describe(const ModelConfig& config) {
    std::string text = std::to_string(config.num_hidden_layers) + " layers, hidden " +
                       std::to_string(config.hidden_size) + ", " + std::to_string(config.num_attention_heads) +
                       " query and " + std::to_string(config.num_key_value_heads) + " KV heads of " +
                       std::to_string(config.head_dim) + ", vocabulary " + std::to_string(config.vocab_size);
    return text + (config.tie_word_embeddings ? ", tied embeddings" : "");
}

std::string attention_kind(const ModelConfig& config) {
    if (config.latent && config.latent->layout->shared_rope_key) {
        return "MLA (one rotated key of " + std::to_string(config.latent->rope.rope_dim) + " and one latent of " +
               std::to_string(config.latent->kv_rank) + " numbers for all heads)";
    }
    if (config.latent) {
        return "MLA (" + config.latent->rope.strategy + " selection, rope-dim " +
               std::to_string(config.latent->rope.rope_dim) + ", " +
               std::string(row_of(config.latent->factorization).name) + " SVD, kv-rank " +
               std::to_string(config.latent->kv_rank) + ")";
    }
    if (config.num_key_value_heads == config.num_attention_heads) return "MHA";
    return config.num_key_value_heads == 1 ? "MQA" : "GQA";
}

/// The layers that have experts, which are of the same kind in all of them.
struct ExpertLayers {
    std::int64_t count = 0;
    MixtureRule rule;
};
ExpertLayers expert_layers(const ModelConfig& config) {
    ExpertLayers layers;
    for (const LayerRules& rules : config.rules.layers) {
        if (rules.mlp.mixture.experts == 0) continue;
        ++layers.count;
        layers.rule = rules.mlp.mixture;
    }
    return layers;
}

std::string describe(const ExpertLayers& layers, std::int64_t of_layers) {
    const MixtureRule& rule = layers.rule;
    std::string text = std::to_string(rule.experts) + " of width " + std::to_string(rule.width) + " in " +
                       std::to_string(layers.count) + " of " + std::to_string(of_layers) + " layers, " +
                       std::to_string(rule.per_token) + " for each token";
    if (rule.groups > 1) {
        text += " from " + std::to_string(rule.groups_per_token) + " of " + std::to_string(rule.groups) + " groups";
    }
    if (rule.shared_width > 0) text += ", and a shared one of width " + std::to_string(rule.shared_width);
    return text;
}

void run(const InspectFlags& flags, Context& context) {
    const Model model = open_model(flags.model, context.ignore_unused, context);
    const double cache_bytes = 2.0 * static_cast<double>(cache_numbers_per_token(model.config));
    const ExpertLayers experts = expert_layers(model.config);
    Totals total;
    std::map<std::string, Totals> by_dtype;
    auto json_tensors = nlohmann::ordered_json::array();
    for (const auto& file : model.checkpoint.files()) {
        for (const auto& tensor : file.tensors()) {
            for (Totals* sum : {&total, &by_dtype[std::string(dtype_name(tensor.dtype))]}) {
                ++sum->tensors;
                sum->elements += element_count(tensor.shape);
                sum->bytes += tensor.data.size();
            }
            if (flags.json) {
                json_tensors.push_back({{"name", tensor.name},
                                        {"dtype", dtype_name(tensor.dtype)},
                                        {"shape", tensor.shape},
                                        {"bytes", tensor.data.size()},
                                        {"file", tensor.file}});
            } else {
                const std::string name = printable(shortened(tensor.name, kLongestName));
                std::printf("%-56s %-5s %-16s %s\n", name.c_str(), std::string(dtype_name(tensor.dtype)).c_str(),
                            to_string(tensor.shape).c_str(), printable(tensor.file).c_str());
            }
        }
    }
    if (flags.json) {
        nlohmann::ordered_json json;
        json["model_type"] = model.config.model_type;
        json["attention"] = attention_kind(model.config);
        json["converted"] = model.config.latent.has_value();
        json["num_hidden_layers"] = model.config.num_hidden_layers;
        json["hidden_size"] = model.config.hidden_size;
        json["num_attention_heads"] = model.config.num_attention_heads;
        json["num_key_value_heads"] = model.config.num_key_value_heads;
        json["head_dim"] = model.config.head_dim;
        json["vocab_size"] = model.config.vocab_size;
        if (experts.count > 0) {
            json["num_experts"] = experts.rule.experts;
            json["num_experts_per_tok"] = experts.rule.per_token;
            json["layers_with_experts"] = experts.count;
        }
        json["elements"] = total.elements;
        json["bytes"] = total.bytes;
        json["files"] = model.checkpoint.files().size();
        json["kv_cache_bytes_per_token"] = number(cache_bytes);
        json["tensors"] = std::move(json_tensors);
        print_json(json);
        return;
    }
    std::vector<std::pair<std::string, std::string>> rows = {
        {"model", model.config.model_type + ", " + describe(model.config)},
        {"attention", attention_kind(model.config)},
        {"KV cache per token", human_bytes(cache_bytes) + " bytes at 16 bit"},
        {"tensors", std::to_string(total.tensors) + " in " + std::to_string(model.checkpoint.files().size()) +
                        " file(s), " + human_count(static_cast<std::int64_t>(total.elements)) + " elements, " +
                        human_bytes(static_cast<double>(total.bytes)) + " bytes"},
    };
    if (experts.count > 0)
        rows.insert(rows.begin() + 2, {"experts", describe(experts, model.config.num_hidden_layers)});
    for (const auto& [dtype, sum] : by_dtype) {
        rows.emplace_back("  " + dtype, std::to_string(sum.tensors) + " tensors, " +
                                            human_bytes(static_cast<double>(sum.bytes)) + " bytes");
    }
    std::printf("\n");
    print_table(rows);
}

}  // namespace

void add_inspect(CLI::App& app, Context& context) {
    auto flags = std::make_shared<InspectFlags>();
    auto* command = app.add_subcommand("inspect", "Configuration, tensors and sizes of a checkpoint");
    add_checkpoint_option(*command, flags->model);
    add_ignore_unused_option(*command, context.ignore_unused);
    add_json_option(*command, flags->json);
    set_footer(*command, "",
               {{"", "mha2mla inspect ./model"},
                {"the dtypes of its tensors", "mha2mla inspect ./model --json | jq '.tensors[] | .name, .dtype'"}});
    command->callback([flags, &context] { run(*flags, context); });
}

}  // namespace mha2mla::tool
