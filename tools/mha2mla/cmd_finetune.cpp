#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>

#include "commands.hpp"
#include "finetuning.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/memory.hpp"
#include "mha2mla/printable.hpp"
#include "mha2mla/threads.hpp"
#include "mha2mla/windows.hpp"
#include "option_rules.hpp"
#include "options.hpp"
#include "output.hpp"
#include "text_input.hpp"

namespace mha2mla::tool {
namespace {

struct MomentFormatRow {
    bool bf16;
    std::string_view name;
};
constexpr std::array<MomentFormatRow, 2> kMomentFormats = {{{false, "f32"}, {true, "bf16"}}};

bool has_teacher(const FinetuneFlags& flags) { return !flags.teacher.empty(); }
bool has_evaluation(const FinetuneFlags& flags) { return flags.evaluation.given() || flags.eval_fraction > 0; }
constexpr std::string_view kEvaluation = "--eval-text, --eval-tokens or --eval-fraction";

constexpr std::array<OptionRule<FinetuneFlags>, 4> kRules = {{
    {"--teacher-weight", [](const FinetuneFlags& flags) { return flags.teacher_weight.has_value(); }, has_teacher,
     "--teacher"},
    {"--hidden-weight", [](const FinetuneFlags& flags) { return flags.hidden_weight != 0; }, has_teacher, "--teacher"},
    {"--patience", [](const FinetuneFlags& flags) { return flags.run.patience != 0; }, has_evaluation, kEvaluation},
    {"--eval-every", [](const FinetuneFlags& flags) { return flags.run.eval_every != 0; }, has_evaluation, kEvaluation},
}};

std::vector<std::vector<TokenId>> documents_of(const FinetuneFlags& flags, const Model& model) {
    std::vector<std::vector<TokenId>> documents;
    const auto add = [&](const TextSource& source) {
        for (auto& document : load_documents(source, model)) documents.push_back(std::move(document));
    };
    for (const std::string& text : flags.texts) {
        add({.text = readable_text(text), .tokenizer = flags.tokenizer, .field = flags.text_field});
    }
    for (const std::string& tokens : flags.token_files) add({.tokens = tokens});
    return documents;
}

/// Takes the last sequences of the text for evaluation.
std::vector<TokenId> split_off(TrainingText& text, double share, std::int64_t seq_len) {
    const std::int64_t all = text.sequences(seq_len);
    const auto count = std::max<std::int64_t>(1, static_cast<std::int64_t>(share * static_cast<double>(all)));
    if (count >= all) {
        throw Error(ErrorCode::usage, "--eval-fraction leaves no sequence to train on; the text has " +
                                          std::to_string(all) + " of " + std::to_string(seq_len) + " tokens");
    }
    const auto first = static_cast<std::size_t>((all - count) * seq_len);
    std::vector<TokenId> evaluation(text.ids.begin() + static_cast<std::ptrdiff_t>(first), text.ids.end());
    text.ids.resize(first);
    text.starts.resize(first);
    return evaluation;
}

/// Warm-up and decay in the shares of the paper: a tenth of the steps, and the last sixth (appendix C: 1200 and 2000 of
/// 12,000); other schedules decay from the warm-up on.
RateSchedule schedule_of(const FinetuneFlags& flags, std::int64_t steps) {
    RateSchedule schedule = flags.options.schedule;
    schedule.warmup = flags.warmup.value_or(steps / 10);
    const bool late = schedule.decay == RateDecay::one_minus_sqrt;
    schedule.decay_start = flags.decay_start.value_or(flags.decay_steps ? steps - *flags.decay_steps
                                                      : late            ? steps - steps / 6
                                                                        : schedule.warmup);
    schedule.decay_steps = flags.decay_steps.value_or(std::max<std::int64_t>(0, steps - schedule.decay_start));
    schedule.floor = flags.minimum_rate / flags.options.rate;
    if (schedule.warmup > schedule.decay_start) {
        throw Error(ErrorCode::usage, "the learning rate would decay from step " +
                                          std::to_string(schedule.decay_start) + " on, before the warm-up of " +
                                          std::to_string(schedule.warmup) + " steps is over");
    }
    return schedule;
}

void check_memory(const FinetuneMemory& memory, Context& context, const FinetuneOptions& options) {
    const std::uint64_t limit = memory_budget(context.max_memory);
    spdlog::info("takes about {}: weights {}, gradients {}, moments {}, hidden states {}, activations {}, batch {}",
                 memory_text(memory.total()), memory_text(memory.weights), memory_text(memory.gradients),
                 memory_text(memory.moments), memory_text(memory.hidden_states), memory_text(memory.activations),
                 memory_text(memory.batch));
    if (memory.total() <= limit) return;
    throw Error(ErrorCode::usage, "training takes about " + memory_text(memory.total()) + " of memory, more than " +
                                      memory_text(limit) + "; raise --max-memory, or try --micro-batch " +
                                      std::to_string(std::max<std::int64_t>(1, options.micro_batch / 2)) +
                                      ", a shorter --seq-len, --moments bf16 or --train attention");
}

void print_result(const FinetuneFlags& flags, const FinetuneReport& report) {
    if (flags.json) {
        nlohmann::ordered_json json = {{"steps", report.steps}, {"tokens", report.tokens}};
        if (report.nll_before) json["nll_before"] = *report.nll_before;
        if (report.nll_after) json["nll_after"] = *report.nll_after;
        json["best_step"] = report.best_step;
        json["output"] = flags.output.string();
        json["already_finished"] = report.already_finished;
        return print_json(json);
    }
    std::vector<std::pair<std::string, std::string>> rows = {
        {"trained", std::to_string(report.steps) + " steps, " + std::to_string(report.tokens) + " tokens"}};
    if (report.nll_before) rows.emplace_back("NLL before", fixed(*report.nll_before) + " nats per token");
    if (report.nll_after) rows.emplace_back("NLL after", fixed(*report.nll_after) + " nats per token");
    if (report.best_step != report.steps) rows.emplace_back("weights of step", std::to_string(report.best_step));
    rows.emplace_back("output", flags.output.string() + (report.already_finished ? " (was finished already)" : ""));
    print_table(rows);
}

}  // namespace

void check_training_flags(const FinetuneFlags& flags) {
    check_rules(kRules, flags);
    if (flags.steps) (void)schedule_of(flags, *flags.steps);
    if (flags.texts.empty() && flags.token_files.empty()) {
        throw Error(ErrorCode::usage, "nothing to train on", Remedy::give_text);
    }
}

void check_training_places(const FinetuneFlags& flags) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    const auto refuse = [&](const fs::path& directory, const std::string& what) {
        if (!fs::equivalent(directory, flags.output, ignored)) return;
        throw Error(ErrorCode::usage, flags.output.string() + ": " + what + "; choose another output directory");
    };
    refuse(flags.model, "is the checkpoint to train");
    if (!flags.teacher.empty()) refuse(flags.teacher, "is the teacher");
    std::vector<fs::path> files(flags.texts.begin(), flags.texts.end());
    files.insert(files.end(), flags.token_files.begin(), flags.token_files.end());
    for (const auto& file : {flags.evaluation.text, flags.evaluation.tokens, flags.tokenizer}) files.push_back(file);
    for (const fs::path& file : files) {
        if (!file.empty()) refuse(fs::absolute(file).parent_path(), "holds " + file.string() + ", which is read");
    }
}

std::optional<FinetuneReport> run_training(FinetuneFlags& flags, Context& context) {
    check_training_flags(flags);
    check_training_places(flags);
    if (!flags.run.resume && !flags.run.overwrite) check_training_destination(flags.output);
    const ThreadScope threads(context.threads);
    const Model model = open_model(flags.model, context.ignore_unused, context);
    std::optional<Model> teacher;
    if (!flags.teacher.empty()) teacher.emplace(open_model(flags.teacher, context.ignore_unused, context));
    FinetuneOptions& options = flags.options;
    options.seq_len = flags.seq_len.value_or(std::min<std::int64_t>(2048, model.config.max_position_embeddings));
    if (options.seq_len > model.config.max_position_embeddings) {
        context.observer.warn("--seq-len " + std::to_string(options.seq_len) + " is longer than the model's " +
                              std::to_string(model.config.max_position_embeddings) + " positions");
    }
    const auto documents = documents_of(flags, model);
    TrainingText text = pack_documents(model.config, documents, options.seq_len);
    if (flags.evaluation.given()) {
        flags.run.evaluation = make_windows(model.config, load_tokens_saying_how(flags.evaluation, model, std::nullopt),
                                            {options.seq_len, {}});
    } else if (flags.eval_fraction > 0) {
        flags.run.evaluation = split_off(text, flags.eval_fraction, options.seq_len);
    }
    options.steps = flags.steps.value_or(
        (flags.epochs.value_or(1) * text.sequences(options.seq_len) + options.batch - 1) / options.batch);
    options.micro_batch =
        std::min(options.batch, flags.micro_batch.value_or(std::max<std::int64_t>(1, 2048 / options.seq_len)));
    options.schedule = schedule_of(flags, options.steps);
    const double by_teacher = teacher ? flags.teacher_weight.value_or(1) : 0;
    options.loss = {1 - by_teacher, by_teacher, flags.hidden_weight};
    options.shuffle = !flags.no_shuffle;
    if (flags.save_minutes) flags.run.save_seconds = 60 * *flags.save_minutes;
    flags.run.destination = flags.output;
    flags.run.data = nlohmann::ordered_json::array();
    for (const auto* paths : {&flags.texts, &flags.token_files}) {
        for (const auto& path : *paths)
            flags.run.data.push_back(printable(std::filesystem::path(path).filename().string()));
    }
    check_memory(finetune_memory(model, options), context, options);
    if (flags.dry_run) {
        print_table({{"would train", std::to_string(options.steps) + " steps of " +
                                         std::to_string(options.batch * options.seq_len) + " tokens"}});
        return std::nullopt;
    }
    const auto report = [&](const StepReport& step) {
        spdlog::debug("step {}: loss {:.4f}, gradient norm {:.3f}, learning rate {:.2e}, {:.0f} tokens/s", step.step,
                      step.loss, step.gradient_norm, step.rate, static_cast<double>(step.tokens) / step.seconds);
    };
    return finetune(model, teacher ? &*teacher : nullptr, text, options, flags.run, context.observer, report);
}

namespace {

void add_data_options(CLI::App& command, FinetuneFlags& flags) {
    command.option_defaults()->group(kText);
    command
        .add_option("--text", flags.texts, "Text to train on; several files are several documents; - is standard input")
        ->type_name("FILE");
    command
        .add_option("--text-field", flags.text_field,
                    "Of JSON Lines: the key of each line under which its text is, each a document; default: text")
        ->needs("--text")
        ->type_name("NAME");
    command
        .add_option("--tokens", flags.token_files,
                    "Token ids to train on: raw uint16 or uint32, .npy, or .jsonl with input_ids")
        ->type_name("FILE");
    command.add_option("--tokenizer", flags.tokenizer, "tokenizer.json; default: the checkpoint's")->type_name("FILE");
    command
        .add_option("--seq-len", flags.seq_len,
                    "Tokens of a sequence; default: 2048 or max_position_embeddings if less")
        ->check(in_range(2, 1 << 20))
        ->type_name("N");
    command.add_option("--seed", flags.options.seed, "Of the order of sequences")
        ->type_name("N")
        ->capture_default_str();
    command.add_flag("--separate-documents", flags.options.separate_documents,
                     "A token attends to its own document only, not to those before it in its sequence");
    command.add_flag("--no-shuffle", flags.no_shuffle, "Take sequences in the order of the text");
    add_token_options(command, flags.evaluation, "eval-");
    command
        .add_option("--eval-fraction", flags.eval_fraction,
                    "Share of the sequences, the last ones, to evaluate on instead of training on them")
        ->check(number_in(0.0, 0.9))
        ->excludes("--eval-text")
        ->excludes("--eval-tokens")
        ->type_name("SHARE");
    command
        .add_option("--eval-every", flags.run.eval_every,
                    "Steps between evaluations; default: before and after training")
        ->check(in_range(1, 1 << 30))
        ->type_name("N");
    command
        .add_option("--patience", flags.run.patience,
                    "End after N evaluations without a lower NLL, and keep the best weights")
        ->check(in_range(1, 1 << 20))
        ->type_name("N");
}

void add_training_options(CLI::App& command, FinetuneFlags& flags) {
    FinetuneOptions& options = flags.options;
    command.option_defaults()->group("Training");
    std::string help = "Which weights are trained:";
    for (const auto& row : kTrainedParts) help += "\n  " + std::string(row.name) + ": " + std::string(row.what);
    add_choice(command, "--train", options.part, kTrainedParts, &TrainedPartRow::part, help);
    command
        .add_option("--teacher", flags.teacher,
                    "Checkpoint, such as the original, whose next-token distributions are learnt")
        ->type_name("DIR");
    command
        .add_option("--teacher-weight", flags.teacher_weight,
                    "Share of the teacher's distributions in the loss; the rest is the text's next tokens; default: 1")
        ->check(number_in(0.0, 1.0))
        ->type_name("SHARE");
    command
        .add_option("--hidden-weight", flags.hidden_weight,
                    "Weight of the relative squared distance from the teacher's last hidden states")
        ->check(number_in(0))
        ->type_name("W");
    command.add_option("--steps", flags.steps, "Steps; default: one pass over the text")
        ->check(in_range(1, std::int64_t{1} << 40))
        ->type_name("N");
    command.add_option("--epochs", flags.epochs, "Passes over the text, instead of --steps")
        ->check(in_range(1, 1 << 20))
        ->excludes("--steps")
        ->type_name("N");
    command.add_option("--batch", options.batch, "Sequences of a step")
        ->check(in_range(1, 1 << 20))
        ->capture_default_str()
        ->type_name("N");
    command
        .add_option("--micro-batch", flags.micro_batch,
                    "Sequences whose activations are in memory at once; default: 2048 tokens. The result depends on it "
                    "only by rounding")
        ->check(in_range(1, 1 << 20))
        ->type_name("N");
    command.add_flag("--keep-activations", options.keep_activations,
                     "Keep the activations of all layers instead of computing each layer twice");
    command.add_option("--learning-rate", options.rate, "The highest one")
        ->check(number_in(0, std::numeric_limits<double>::max(), Least::excluded))
        ->capture_default_str()
        ->type_name("RATE");
    help = "How the learning rate falls behind the warm-up:";
    for (const auto& row : kRateDecays) help += "\n  " + std::string(row.name) + ": " + std::string(row.what);
    add_choice(command, "--lr-schedule", options.schedule.decay, kRateDecays, &RateDecayRow::decay, help);
    command.add_option("--warmup-steps", flags.warmup, "Steps in which the rate rises; default: a tenth")
        ->check(in_range(0, std::int64_t{1} << 40))
        ->type_name("N");
    command
        .add_option("--decay-start", flags.decay_start,
                    "Step at which the rate begins to fall; default: before the last sixth with 1-sqrt, else behind "
                    "the warm-up")
        ->check(in_range(0, std::int64_t{1} << 40))
        ->type_name("N");
    command.add_option("--decay-steps", flags.decay_steps, "Steps in which it falls; default: to the end")
        ->check(in_range(1, std::int64_t{1} << 40))
        ->type_name("N");
    command.add_option("--min-learning-rate", flags.minimum_rate, "Where it ends")
        ->check(number_in(0))
        ->capture_default_str()
        ->type_name("RATE");
    command.add_option("--weight-decay", options.weight_decay, "AdamW's, of matrices; norms and biases do not decay")
        ->check(number_in(0.0, 1.0))
        ->capture_default_str()
        ->type_name("DECAY");
    command.add_option("--beta1", options.beta1, "AdamW's")
        ->check(number_in(0.0, 0.999999))
        ->capture_default_str()
        ->type_name("BETA");
    command.add_option("--beta2", options.beta2, "AdamW's")
        ->check(number_in(0.0, 0.999999))
        ->capture_default_str()
        ->type_name("BETA");
    command.add_option("--epsilon", options.eps, "AdamW's")
        ->check(number_in(0, std::numeric_limits<double>::max(), Least::excluded))
        ->capture_default_str()
        ->type_name("EPS");
    command.add_option("--clip", options.clip, "Largest norm of all gradients together; 0: none")
        ->check(number_in(0))
        ->capture_default_str()
        ->type_name("NORM");
}

}  // namespace

void add_training_settings(CLI::App& command, FinetuneFlags& flags) {
    add_data_options(command, flags);
    add_training_options(command, flags);
    command.option_defaults()->group(kOutput);
    add_dtype_option(command, flags.run.dtype, "dtype of the output; auto keeps each tensor's");
    command.add_option("--save-every", flags.run.save_every, "Steps between checkpoints of the run; default: by time")
        ->check(in_range(1, 1 << 30))
        ->type_name("N");
    command.add_option("--save-minutes", flags.save_minutes, "Minutes between checkpoints of the run; default: 10")
        ->check(number_in(0))
        ->excludes("--save-every")
        ->type_name("T");
    command.option_defaults()->group(kRunning);
    add_choice(command, "--moments", flags.options.bf16_moments, kMomentFormats, &MomentFormatRow::bf16,
               "Format of AdamW's moments; bf16 halves their memory");
    document_rules(command, kRules);
}

void add_finetune(CLI::App& app, Context& context) {
    auto flags = std::make_shared<FinetuneFlags>();
    auto* command = app.add_subcommand(
        "finetune", "Train a checkpoint, original or converted, on text or towards the original's distributions");
    add_checkpoint_option(*command, flags->model);
    command->add_option("output", flags->output, "Directory for the trained checkpoint")->type_name("DIR")->required();
    add_ignore_unused_option(*command, context.ignore_unused);
    add_training_settings(*command, *flags);
    command->option_defaults()->group(kOutput);
    command->add_flag("--overwrite", flags->run.overwrite, "Replace what the output directory holds");
    command->add_flag("--resume", flags->run.resume,
                      "Go on with an unfinished run of the same settings, to the same bytes");
    command->option_defaults()->group(kRunning);
    command->add_flag("--dry-run", flags->dry_run, "Only say how many steps it would be, and what memory they take");
    add_threads_option(*command, context);
    add_max_memory_option(*command, context);
    add_json_option(*command, flags->json);
    set_footer(
        *command, "",
        {{"distillation from the original",
          "mha2mla finetune ./model-mla ./model-ft --teacher ./model --text corpus.txt --eval-fraction 0.02"},
         {"next tokens, attention only", "mha2mla finetune ./model-mla ./model-ft --text corpus.txt --train attention"},
         {"go on after an interruption",
          "mha2mla finetune ./model-mla ./model-ft --text corpus.txt --train attention --resume"}});
    command->callback([flags, &context] {
        if (const auto report = run_training(*flags, context)) print_result(*flags, *report);
    });
}

}  // namespace mha2mla::tool
