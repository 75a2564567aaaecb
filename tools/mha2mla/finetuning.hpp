#pragma once
/// One training run as `finetune` and `batch` both do it.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "mha2mla/finetune.hpp"
#include "options.hpp"

namespace mha2mla::tool {

struct FinetuneFlags {
    std::filesystem::path model, output, teacher;
    std::vector<std::string> texts, token_files;
    std::filesystem::path tokenizer;
    std::string text_field;
    TextSource evaluation;
    double eval_fraction = 0;
    std::optional<std::int64_t> seq_len, epochs, warmup, decay_start, decay_steps, steps, micro_batch;
    std::optional<double> teacher_weight;
    double hidden_weight = 0, minimum_rate = 0;
    FinetuneOptions options;
    FinetuneRun run;
    std::optional<double> save_minutes;
    bool no_shuffle = false, dry_run = false, json = false;
};

/// Everything that decides what is trained and what comes of it, and how often that is saved.
void add_training_settings(CLI::App& command, FinetuneFlags& flags);
/// @throws Error{usage} for options that do not belong together.
void check_training_flags(const FinetuneFlags& flags);
/// Before anything is read: @throws Error{usage} if the output would replace what the run reads.
void check_training_places(const FinetuneFlags& flags);
/// @return nothing after a dry run, which only prints what would be done
std::optional<FinetuneReport> run_training(FinetuneFlags& flags, Context& context);

}  // namespace mha2mla::tool
