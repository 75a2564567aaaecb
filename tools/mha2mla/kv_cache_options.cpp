#include "kv_cache_options.hpp"

#include <array>

#include "option_rules.hpp"
#include "options.hpp"

namespace mha2mla::tool {
namespace {

bool quantises(const KvCacheFlags& flags) { return flags.format && row_of(*flags.format).quantizer != Quantizer::none; }

constexpr std::string_view kQuantised = "a quantised --kv-cache such as int4-hqq";
constexpr std::array<OptionRule<KvCacheFlags>, 2> kRules = {{
    {"--kv-group", [](const KvCacheFlags& flags) { return flags.group_size.has_value(); }, quantises, kQuantised},
    {"--kv-window", [](const KvCacheFlags& flags) { return flags.window.has_value(); }, quantises, kQuantised},
}};

}  // namespace

KvCacheOptions KvCacheFlags::options(const Model& model) const {
    const KvCacheOptions usual;
    return {format.value_or(default_kv_cache_format(model)), group_size.value_or(usual.group_size),
            window.value_or(usual.window)};
}

void check_kv_cache_flags(const KvCacheFlags& flags) { check_rules(kRules, flags); }

void add_kv_cache_options(CLI::App& command, KvCacheFlags& flags, const std::string& otherwise) {
    add_choice(command, "--kv-cache", flags.format, kKvCacheFormats, &KvCacheFormatRow::format,
               "Format of the KV cache; default: " + otherwise);
    command.add_option("--kv-group", flags.group_size, "Neighbouring numbers of a token that are quantised together")
        ->check(in_range(1, 1 << 20))
        ->type_name("N")
        ->default_str(std::to_string(KvCacheOptions().group_size));
    command.add_option("--kv-window", flags.window, "Newest tokens that a quantised cache keeps in BF16")
        ->check(in_range(0, 1 << 24))
        ->type_name("N")
        ->default_str(std::to_string(KvCacheOptions().window));
    document_rules(command, kRules);
}

}  // namespace mha2mla::tool
