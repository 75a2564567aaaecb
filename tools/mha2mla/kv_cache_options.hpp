#pragma once
#include <CLI/CLI.hpp>
#include <optional>

#include "mha2mla/kv_cache.hpp"

namespace mha2mla::tool {

/// --kv-cache, --kv-group and --kv-window.
struct KvCacheFlags {
    std::optional<KvCacheFormat> format;
    std::int64_t group_size = KvCacheOptions().group_size;
    std::int64_t window = KvCacheOptions().window;
    /// The format that was asked for, or the checkpoint's own.
    [[nodiscard]] KvCacheOptions options(const Model& model) const;
};
/// @param otherwise what happens without --kv-cache, for its help.
void add_kv_cache_options(CLI::App& command, KvCacheFlags& flags, const std::string& otherwise);

}  // namespace mha2mla::tool
