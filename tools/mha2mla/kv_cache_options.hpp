#pragma once
#include <CLI/CLI.hpp>
#include <optional>

#include "mha2mla/kv_cache.hpp"

namespace mha2mla::tool {

/// --kv-cache, --kv-group and --kv-window.
struct KvCacheFlags {
    std::optional<KvCacheFormat> format;
    std::optional<std::int64_t> group_size, window;
    /// The format that was asked for, or the checkpoint's own.
    [[nodiscard]] KvCacheOptions options(const Model& model) const;
};
/// @throws Error{usage} if --kv-group or --kv-window is given without a quantised format.
void check_kv_cache_flags(const KvCacheFlags& flags);
/// @param otherwise what happens without --kv-cache, for its help.
void add_kv_cache_options(CLI::App& command, KvCacheFlags& flags, const std::string& otherwise);

}  // namespace mha2mla::tool
