#include "kv_cache_options.hpp"

#include "options.hpp"

namespace mha2mla::tool {

KvCacheOptions KvCacheFlags::options(const Model& model) const {
    return {format.value_or(default_kv_cache_format(model)), group_size, window};
}

void add_kv_cache_options(CLI::App& command, KvCacheFlags& flags, const std::string& otherwise) {
    std::string names;
    for (const auto& row : kKvCacheFormats) names += (names.empty() ? "" : ",") + std::string(row.name);
    const auto parse = [&flags, names](const std::string& text) {
        for (const auto& row : kKvCacheFormats) {
            if (row.name == text) return void(flags.format = row.format);
        }
        throw CLI::ValidationError("--kv-cache", "'" + text + "' is not one of " + names);
    };
    command.add_option_function<std::string>("--kv-cache", parse, "Format of the KV cache; default: " + otherwise)
        ->type_name("{" + names + "}");
    command.add_option("--kv-group", flags.group_size, "Neighbouring numbers of a token that are quantised together")
        ->check(in_range(1, 1 << 20))
        ->type_name("N")
        ->capture_default_str();
    command.add_option("--kv-window", flags.window, "Newest tokens that a quantised cache keeps in BF16")
        ->check(in_range(0, 1 << 24))
        ->type_name("N")
        ->capture_default_str();
}

}  // namespace mha2mla::tool
