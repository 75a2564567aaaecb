#include "experts.hpp"

#include <set>

namespace mha2mla::family {
namespace {

// Larger is a damaged file. With the limits on widths and layers, no count of parameters overflows 64 bits.
constexpr std::int64_t kMaxExperts = std::int64_t{1} << 12;
constexpr std::int64_t kMaxExpertRows = std::int64_t{1} << 26;  // of all experts of a layer

std::optional<std::int64_t> given(std::int64_t fallback) {
    return fallback > 0 ? std::optional(fallback) : std::nullopt;
}

/// The name that is there, or the first.
const char* name_of_count(const ConfigKeys& keys, const std::vector<const char*>& names) {
    const char* found = nullptr;
    for (const char* name : names) {
        if (keys.find(name) == nullptr) continue;
        if (found != nullptr && keys.integer(name) != keys.integer(found)) {
            keys.fail(name, "and '" + std::string(found) + "' differ");
        }
        if (found == nullptr) found = name;
    }
    return found != nullptr ? found : names.front();
}

}  // namespace

MixtureRule read_experts(const ConfigKeys& keys, const ExpertKeys& from) {
    const char* count = name_of_count(keys, from.experts);
    MixtureRule mixture;
    mixture.experts = keys.dimension(count, kMaxExperts, given(from.default_experts));
    mixture.per_token = keys.dimension("num_experts_per_tok", kMaxExperts, given(from.default_per_token));
    mixture.width = keys.dimension(from.width, kMaxExpertRows, given(from.default_width));
    if (mixture.per_token > mixture.experts) {
        keys.fail("num_experts_per_tok", "(" + std::to_string(mixture.per_token) + ") must be at most " + count + " (" +
                                             std::to_string(mixture.experts) + ")");
    }
    if (mixture.experts * mixture.width > kMaxExpertRows) {
        keys.fail(from.width, "times " + std::string(count) +
                                  " is out of range: " + std::to_string(mixture.experts * mixture.width));
    }
    return mixture;
}

void read_groups(const ConfigKeys& keys, std::int64_t default_groups, std::int64_t default_per_token,
                 MixtureRule& mixture) {
    mixture.groups = keys.dimension("n_group", kMaxExperts, default_groups);
    mixture.groups_per_token = keys.dimension("topk_group", kMaxExperts, default_per_token);
    const std::string groups = "(" + std::to_string(mixture.groups) + ")";
    if (mixture.experts % mixture.groups != 0) {
        keys.fail("n_group", groups + " must divide the " + std::to_string(mixture.experts) + " experts");
    }
    const std::string chosen = "(" + std::to_string(mixture.groups_per_token) + ")";
    if (mixture.groups_per_token > mixture.groups) {
        keys.fail("topk_group", chosen + " must be at most n_group " + groups);
    }
    const std::int64_t size = mixture.experts / mixture.groups;
    if (mixture.groups > 1 && mixture.group_best > size) {
        keys.fail("n_group", groups + " must leave " + std::to_string(mixture.group_best) + " experts for each group");
    }
    if (mixture.per_token > mixture.groups_per_token * size) {
        keys.fail("num_experts_per_tok", "(" + std::to_string(mixture.per_token) + ") must be at most the " +
                                             std::to_string(mixture.groups_per_token * size) +
                                             " experts of topk_group " + chosen + " groups");
    }
}

HasExperts sparse_as_qwen(const ConfigKeys& keys) {
    const std::int64_t step = keys.dimension("decoder_sparse_step", kMaxExperts, 1);
    std::set<std::int64_t> dense;
    if (const auto* list = keys.find("mlp_only_layers")) {
        if (!list->is_array()) keys.fail("mlp_only_layers", "must list numbers of layers, not " + list->dump());
        for (const auto& layer : *list) {
            if (!layer.is_number_integer()) {
                keys.fail("mlp_only_layers", "must list numbers of layers, not " + layer.dump());
            }
            dense.insert(layer.get<std::int64_t>());
        }
    }
    return [=](std::int64_t layer) { return (layer + 1) % step == 0 && !dense.contains(layer); };
}

void place_experts(ModelConfig& config, const MixtureRule& mixture, const HasExperts& has_experts) {
    for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
        if (has_experts(layer)) config.rules.layers[static_cast<std::size_t>(layer)].mlp.mixture = mixture;
    }
}

}  // namespace mha2mla::family
