#include "method.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>

#include "mha2mla/error.hpp"
#include "option_rules.hpp"
#include "recipe_settings.hpp"

namespace mha2mla::tool {
namespace {

bool evaluates(const ConvertFlags& flags) { return flags.evaluation.given(); }
bool calibrates(const ConvertFlags& flags) { return flags.statistics.text.given(); }

constexpr std::string_view kEvalText = "--eval-text or --eval-tokens";
constexpr std::string_view kCalibrationText = "--calibration-text or --calibration-tokens";
/// Options that belong to a text; those that belong to a stage or method are in setting_rules().
constexpr std::array<OptionRule<ConvertFlags>, 4> kTextRules = {{
    {"--samples",
     [](const ConvertFlags& flags) {
         return flags.statistics.samples.samples || flags.statistics.samples.until_settled;
     },
     calibrates, kCalibrationText},
    {"--seq-len", [](const ConvertFlags& flags) { return flags.statistics.samples.seq_len.has_value(); }, calibrates,
     kCalibrationText},
    {"--eval-context", [](const ConvertFlags& flags) { return flags.evaluation_windows.context.has_value(); },
     evaluates, kEvalText},
    {"--eval-max-windows", [](const ConvertFlags& flags) { return flags.evaluation_windows.max_windows.has_value(); },
     evaluates, kEvalText},
}};

/// A message with every setting of convert as an option: "kv-rank" -> "--kv-rank".
std::string with_options(std::string_view message) {
    constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789-";
    const auto settings = convert_settings();
    const auto is_setting = [&](std::string_view word) {
        return std::any_of(settings.begin(), settings.end(), [&](const auto& setting) { return setting.name == word; });
    };
    std::string text;
    while (!message.empty()) {
        const auto length = std::min(message.find_first_not_of(kLetters), message.size());
        const std::string_view word = message.substr(0, std::max<std::size_t>(1, length));
        text += (is_setting(word) ? "--" : "") + std::string(word);
        message.remove_prefix(word.size());
    }
    return text;
}

void require_text(const ConvertFlags& flags) {
    if (!flags.statistics.text.given()) {
        throw Error(
            ErrorCode::usage,
            "method " + std::string(flags.asked().method_row().name) +
                " works on text: give --calibration-text FILE or --calibration-tokens FILE; without any text there is "
                "--method mha2mla --rope uniform (or high, low)");
    }
    if (flags.statistics.samples.until_settled) {
        throw Error(ErrorCode::usage, "--samples auto watches the 2-norm selection and does not go with --method " +
                                          std::string(flags.asked().method_row().name) + "; give a number");
    }
}

}  // namespace

void with_option_names(const std::filesystem::path& file, const std::function<void()>& body) {
    try {
        body();
    } catch (const Error& error) {
        const std::string_view message = error.message();
        const std::string prefix = file.string() + ": ";
        const std::size_t kept = !file.empty() && message.starts_with(prefix) ? prefix.size() : 0;
        throw Error(error.code(), std::string(message.substr(0, kept)) + with_options(message.substr(kept)),
                    error.remedy());
    }
}

void check_method(const ConvertFlags& flags) {
    const ConversionRequest request = flags.asked();
    with_option_names({}, [&] { check_request(request); });
    check_rules(kTextRules, flags);
    if (request.aligned()) return require_text(flags);
    if (!request.method) {
        spdlog::info("--{} names a stage: nothing is refined, and what is not named is as in --method mha2mla",
                     named_stage(request)->name);
    }
}

ConversionPlan plan_of(const ConvertFlags& flags, const ModelConfig& config, std::optional<Dtype> source) {
    ConversionPlan plan;
    with_option_names({}, [&] { plan = decide(flags.asked(), config, source); });
    return plan;
}

std::string stage_options() {
    std::string text;
    for (const StageSetting& row : stage_settings()) text += (text.empty() ? "--" : ", --") + std::string(row.name);
    return text;
}

void document_conversion_rules(CLI::App& command) {
    for (const SettingRule& rule : setting_rules()) {
        document_need(command, "--" + std::string(rule.name), "--" + std::string(rule.needs));
    }
    document_rules(command, kTextRules);
}

}  // namespace mha2mla::tool
