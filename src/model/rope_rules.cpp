#include "rope_rules.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

/// One object that describes a rotary embedding, and what its frequencies start from.
struct Scaling {
    const ConfigKeys& keys;
    const ConfigKeys& whole;  // of config.json
    const ModelConfig& config;
    double theta;
    std::string type;

    void require(std::initializer_list<const char*> needed) const {
        for (const char* key : needed) {
            if (keys.find(key) == nullptr) keys.fail(key, "is missing, but rope_type " + type + " needs it");
        }
    }
    /// Of the trained context, before it was stretched. Phi-3 has it beside the object, which comes first then.
    [[nodiscard]] std::int64_t original_positions() const {
        const char* key = "original_max_position_embeddings";
        return (whole.find(key) != nullptr ? whole : keys)
            .dimension(key, std::int64_t{1} << 31, config.max_position_embeddings);
    }
};

void scale_linearly(const Scaling& scaling, RotaryRule& rule) {
    scaling.require({"factor"});
    const double factor = scaling.keys.positive("factor", 1.0);
    for (double& theta : rule.frequencies) theta /= factor;
}

/// Long wavelengths are stretched by the whole factor, short ones not at all, those between in part.
void scale_as_llama3(const Scaling& scaling, RotaryRule& rule) {
    scaling.require({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"});
    const double factor = scaling.keys.positive("factor", 1.0);
    const double low = scaling.keys.positive("low_freq_factor", 1.0);
    const double high = scaling.keys.positive("high_freq_factor", 4.0);
    const double positions = scaling.keys.positive("original_max_position_embeddings", 8192);
    if (high <= low) scaling.keys.fail("high_freq_factor", "must be larger than low_freq_factor");
    for (double& theta : rule.frequencies) {
        const double turns = positions * theta / (2 * std::numbers::pi);
        const double smooth = std::clamp((turns - low) / (high - low), 0.0, 1.0);
        theta = (1 - smooth) * theta / factor + smooth * theta;
    }
}

/// YaRN's attention factor, eq. 22. @param weight mscale
double attention_factor(double factor, double weight) { return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1; }

/// `mscale` or `mscale_all_dim`; 0 counts as absent.
std::optional<double> weight_of(const ConfigKeys& keys, const char* key) {
    const auto* value = keys.find(key);
    if (value == nullptr || (value->is_number() && value->get<double>() == 0)) return std::nullopt;
    return keys.positive(key, 1);
}

/// YaRN (Peng et al. 2023): as llama3, with a ramp over the index of the pair, and cos and sin multiplied.
void scale_as_yarn(const Scaling& scaling, RotaryRule& rule) {
    const ConfigKeys& keys = scaling.keys;
    scaling.require({"factor"});
    const double factor = keys.positive("factor", 1.0);
    const auto positions = static_cast<double>(scaling.original_positions());
    const double beta_fast = keys.positive("beta_fast", 32), beta_slow = keys.positive("beta_slow", 1);
    const bool truncate = keys.flag("truncate", true);
    const auto dims = static_cast<double>(rule.rotated_dims());
    if (scaling.theta <= 1) keys.fail("rope_theta", "must be larger than 1 with rope_type yarn");
    const auto pair_with_turns = [&](double turns) {
        return dims * std::log(positions / (turns * 2 * std::numbers::pi)) / (2 * std::log(scaling.theta));
    };
    double low = pair_with_turns(beta_fast), high = pair_with_turns(beta_slow);
    if (truncate) low = std::floor(low), high = std::ceil(high);
    low = std::max(low, 0.0), high = std::min(high, dims - 1);
    if (low == high) high += 0.001;
    for (std::size_t k = 0; k < rule.frequencies.size(); ++k) {
        const double stretched = std::clamp((static_cast<double>(k) - low) / (high - low), 0.0, 1.0);
        rule.frequencies[k] *= stretched / factor + (1 - stretched);
    }
    double gain = attention_factor(factor, 1);
    const auto mscale = weight_of(keys, "mscale"), mscale_all_dim = weight_of(keys, "mscale_all_dim");
    if (mscale && mscale_all_dim) gain = attention_factor(factor, *mscale) / attention_factor(factor, *mscale_all_dim);
    rule.gain = static_cast<float>(keys.positive("attention_factor", gain));
}

/// LongRoPE (Ding et al. 2024): a divisor for each pair, and others beyond the trained context.
void scale_as_longrope(const Scaling& scaling, RotaryRule& rule) {
    const ConfigKeys& keys = scaling.keys;
    const std::size_t pairs = rule.frequencies.size();
    const auto short_factors = keys.positives("short_factor", pairs),
               long_factors = keys.positives("long_factor", pairs);
    rule.trained_length = scaling.original_positions();
    const auto trained = static_cast<double>(rule.trained_length);
    const double factor =
        keys.positive("factor", static_cast<double>(scaling.config.max_position_embeddings) / trained);
    const double gain = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(std::max(trained, 2.0)));
    rule.gain = static_cast<float>(keys.positive("attention_factor", gain));
    rule.long_frequencies = rule.frequencies;
    for (std::size_t k = 0; k < pairs; ++k) {
        rule.frequencies[k] /= short_factors[k];
        rule.long_frequencies[k] /= long_factors[k];
    }
    if (rule.long_frequencies == rule.frequencies) {  // one list of frequencies, said in the words of longrope
        rule.long_frequencies.clear();
        rule.trained_length = 0;
    }
}

void scale_dynamically(const Scaling& scaling, RotaryRule& rule) {
    scaling.require({"factor"});
    rule.dynamic_factor = scaling.keys.positive("factor", 1.0);
    rule.trained_length = scaling.config.max_position_embeddings;
}

/// One row per `rope_type`.
struct RopeType {
    const char* name;
    void (*scale)(const Scaling&, RotaryRule&);  // changes the frequencies of the unscaled embedding
};
constexpr std::array<RopeType, 6> kRopeTypes = {{
    {"default", [](const Scaling&, RotaryRule&) {}},
    {"linear", scale_linearly},
    {"dynamic", scale_dynamically},
    {"yarn", scale_as_yarn},
    {"longrope", scale_as_longrope},
    {"llama3", scale_as_llama3},
}};

/// The type that an object names. One that only says what the frequencies start from may leave it out.
std::string type_of(const ConfigKeys& keys) {
    for (const char* key : {"rope_type", "type"}) {
        if (keys.find(key) != nullptr) return keys.text(key, "");
    }
    for (const auto& [key, value] : keys.json().items()) {
        if (key != "rope_theta" && key != "partial_rotary_factor") {
            keys.fail("rope_type", "is missing, so what '" + key + "' scales is unknown");
        }
    }
    return "default";
}

const RopeType& find_type(const ConfigKeys& keys, const std::string& type) {
    std::string known;
    for (const auto& row : kRopeTypes) {
        if (type == row.name) return row;
        known += (known.empty() ? "" : ", ") + std::string(row.name);
    }
    keys.refuse("rope_type '" + type + "' is not supported; supported: " + known);
}

/// The object that describes a scaling, if there is one.
std::optional<ConfigKeys> scaling_of(const ConfigKeys& keys) {
    for (const char* key : {"rope_parameters", "rope_scaling"}) {
        if (keys.find(key) != nullptr) return keys.object(key);
    }
    return std::nullopt;
}

}  // namespace

double attention_scale_factor(const ConfigKeys& keys) {
    const std::optional<ConfigKeys> scaling = scaling_of(keys);
    if (!scaling || type_of(*scaling) == "default") return 1;
    const std::optional<double> weight = weight_of(*scaling, "mscale_all_dim");
    if (!weight) return 1;
    const double mscale = attention_factor(scaling->positive("factor", 1.0), *weight);
    return mscale * mscale;
}

RotaryRule read_rotary(const ConfigKeys& keys, const ModelConfig& config, const std::string& layer_type,
                       const RotaryDefaults& defaults) {
    double theta = keys.positive("rope_theta", defaults.theta);
    double part = keys.positive("partial_rotary_factor", defaults.partial_factor.value_or(1.0));
    std::optional<ConfigKeys> inner = scaling_of(keys);
    if (inner && inner->find(layer_type.c_str()) != nullptr) {
        const ConfigKeys whole = *inner;
        inner.emplace(whole.object(layer_type.c_str()));
    }
    if (inner) {
        theta = inner->positive("rope_theta", theta);
        part = inner->positive("partial_rotary_factor", part);
    }
    if (part > 1 || (!defaults.partial_factor && part != 1)) {
        keys.refuse("partial_rotary_factor " + nlohmann::json(part).dump() + " is not supported for model_type '" +
                    config.model_type + "'");
    }
    const auto dims = static_cast<std::int64_t>(static_cast<double>(config.head_dim) * part);
    if (dims < 2 || dims % 2 != 0) keys.fail("partial_rotary_factor", "must leave an even number of dims to rotate");
    RotaryRule rule;
    rule.frequencies = rope_frequencies(theta, dims);
    if (inner) {
        const std::string type = type_of(*inner);
        find_type(*inner, type).scale({*inner, keys, config, theta, type}, rule);
    }
    // Beyond this, angles would not be finite at the last positions, or all the same.
    constexpr double kFastest = 1e6;
    for (const auto* list : {&rule.frequencies, &rule.long_frequencies}) {
        const bool turns = std::all_of(list->begin(), list->end(), [](double f) { return f >= 0 && f <= kFastest; });
        if (!turns) keys.fail("rope_scaling", "makes frequencies that are not finite or too high; is a factor wrong?");
    }
    return rule;
}

std::vector<double> RotaryRule::frequencies_at(std::int64_t length) const {
    if (trained_length == 0 || length <= trained_length || frequencies.empty()) return frequencies;
    if (dynamic_factor == 0) return long_frequencies;
    // θ_k = β^(−2k/d), so a base that is larger by a factor multiplies it with that factor to the power −2k/d.
    const auto dims = static_cast<double>(rotated_dims());
    const double stretch = dynamic_factor * static_cast<double>(length) / static_cast<double>(trained_length);
    const double larger = std::pow(stretch - (dynamic_factor - 1), dims / (dims - 2));
    std::vector<double> result = frequencies;
    for (std::size_t k = 0; k < result.size(); ++k) result[k] *= std::pow(larger, -2 * static_cast<double>(k) / dims);
    return result;
}

std::vector<double> rope_frequencies(double theta, std::int64_t dims) {
    std::vector<double> frequencies(static_cast<std::size_t>(dims / 2));
    for (std::size_t k = 0; k < frequencies.size(); ++k) {
        frequencies[k] = std::pow(theta, -2.0 * static_cast<double>(k) / static_cast<double>(dims));
    }
    return frequencies;
}

}  // namespace mha2mla
