#pragma once
/// LongBench in `eval`: --longbench and --longbench-score.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "context.hpp"
#include "kv_cache_options.hpp"
#include "mha2mla/longbench.hpp"
#include "output.hpp"

namespace mha2mla::tool {

struct LongbenchFlags {
    std::filesystem::path data, score, predictions;
    std::optional<LongbenchProtocol> protocol;
    std::optional<std::string> chat;
    std::optional<std::int64_t> max_items;
    bool overwrite = false;

    [[nodiscard]] bool runs() const { return !data.empty(); }
    [[nodiscard]] bool given() const { return runs() || !score.empty(); }
};
/// What eval's other options say to LongBench.
struct LongbenchSettings {
    std::vector<std::string> tasks;
    std::filesystem::path tokenizer;
    std::optional<std::int64_t> context;
    JsonOutput json;
};

void add_longbench_options(CLI::App& command, LongbenchFlags& flags);
/// @throws Error{usage} for options of LongBench that have no effect.
void check_longbench_flags(const LongbenchFlags& flags);
/// Runs a model and prints the scores.
void eval_longbench(const LongbenchFlags& flags, const LongbenchSettings& settings, const KvCacheFlags& cache,
                    const Model& model, Context& context);
/// Prints the scores of predictions that there are.
void eval_predictions(const LongbenchFlags& flags, const LongbenchSettings& settings, Context& context);

}  // namespace mha2mla::tool
