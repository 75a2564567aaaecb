#pragma once
/// One evaluation as `eval` and `batch` both run it.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "eval_longbench.hpp"
#include "kv_cache_options.hpp"
#include "mha2mla/text_source.hpp"
#include "options.hpp"

namespace mha2mla::tool {

struct EvalFlags {
    std::filesystem::path model;
    TextSource tokens;
    WindowFlags windows;
    KvCacheFlags cache;
    std::filesystem::path choices;
    std::vector<std::string> tasks;
    LongbenchFlags longbench;
    JsonOutput json;
};

/// Everything that decides what is evaluated, and where predictions are.
void add_evaluation_options(CLI::App& command, EvalFlags& flags);
/// @throws Error{usage} for options that do not belong together.
void check_evaluation_flags(const EvalFlags& flags);
/// Evaluates and prints the result, or puts it where `flags.json` says.
void run_evaluation(const EvalFlags& flags, Context& context);

}  // namespace mha2mla::tool
